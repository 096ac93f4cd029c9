//! What other name servers say of a name, also of one that is the mesh's: nothing that
//! is known here takes part.

use hickory_server::proto::{
    op::{Message, Query},
    rr::{Name, RData, Record},
    serialize::binary::BinEncodable,
};
use innermesh_proto::zone::{DomainName, Rdata, RecordType};

use super::{
    ask::{Heard, heard},
    convert,
    name_server::NameServer,
    service::Dns,
    upstream::{Question, Upstream, UpstreamError},
};

/// Why nothing was heard.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct OutsideError(UpstreamError);

/// What was heard of one name and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideAnswer {
    /// Each record's data, as text.
    pub data: Vec<String>,
    /// Whether that is what was expected, in whatever order.
    pub is_expected: bool,
}

/// Servers that find out what others say. Connections to them are kept as long as this is.
pub struct Outside<'d> {
    dns: &'d Dns,
    upstream: Upstream,
}

impl Dns {
    /// To ask these servers, each by its transport.
    pub fn outside(&self, servers: &[NameServer]) -> Outside<'_> {
        Outside {
            dns: self,
            upstream: self.forwarder().upstream(servers.to_vec()),
        }
    }
}

impl Outside<'_> {
    /// What they say of a name and type.
    ///
    /// # Errors
    /// Why none of them has an answer.
    pub async fn ask(&self, name: &DomainName, rtype: RecordType) -> Result<Heard, OutsideError> {
        Ok(heard(&self.message(name, rtype).await?))
    }

    /// The same, compared with what is `expected`.
    ///
    /// # Errors
    /// Why none of them has an answer.
    pub async fn compare(
        &self,
        name: &DomainName,
        rtype: RecordType,
        expected: &[Rdata],
    ) -> Result<OutsideAnswer, OutsideError> {
        let answers = self.message(name, rtype).await?.answers.into_iter();
        let found: Vec<RData> = answers
            .filter(|record| u16::from(record.record_type()) == rtype.0)
            .map(|record| record.data)
            .collect();
        let wanted = expected.iter().map(convert::rdata);
        Ok(OutsideAnswer {
            data: found.iter().map(ToString::to_string).collect(),
            is_expected: sorted(found.iter().cloned()) == sorted(wanted),
        })
    }

    async fn message(&self, name: &DomainName, rtype: RecordType) -> Result<Message, OutsideError> {
        let question = Question {
            query: Query::query(convert::hickory_name(name), rtype.0.into()),
            dnssec_ok: false,
            checking_disabled: false,
        };
        let heard = self.upstream.ask(self.dns.clock(), &question).await;
        heard.map_err(OutsideError)
    }
}

/// As bytes, since the same data may have been read in several ways.
fn sorted(all: impl Iterator<Item = RData>) -> Vec<Vec<u8>> {
    let bytes = |data| Record::from_rdata(Name::root(), 0, data).to_bytes();
    let mut all: Vec<Vec<u8>> = all.filter_map(|data| bytes(data).ok()).collect();
    all.sort();
    all
}
