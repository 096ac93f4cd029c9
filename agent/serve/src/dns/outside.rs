//! What other name servers say of a name, also of one that is the mesh's: nothing that
//! is known here takes part.

use hickory_server::proto::{
    op::Query,
    rr::{Name, RData, Record},
    serialize::binary::BinEncodable,
};
use innermesh_proto::zone::{DomainName, Rdata, RecordType};

use super::{
    convert,
    name_server::NameServer,
    service::Dns,
    upstream::{Question, UpstreamError},
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

impl Dns {
    /// Asks `servers`, and compares what they say with what is `expected`.
    ///
    /// # Errors
    /// Why none of them has an answer.
    pub async fn outside(
        &self,
        servers: &[NameServer],
        name: &DomainName,
        rtype: RecordType,
        expected: &[Rdata],
    ) -> Result<OutsideAnswer, OutsideError> {
        let record = convert::record(&innermesh_proto::zone::Record {
            name: name.clone(),
            ttl_s: 0,
            data: Rdata::Hinfo,
        });
        let question = Question {
            query: Query::query(record.name, rtype.0.into()),
            dnssec_ok: false,
            checking_disabled: false,
        };
        let upstream = self.forwarder().upstream(servers.to_vec());
        let heard = upstream.ask(self.clock(), &question).await;
        let message = heard.map_err(OutsideError)?;
        let answers = message.answers.into_iter();
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
}

/// As bytes, since the same data may have been read in several ways.
fn sorted(all: impl Iterator<Item = RData>) -> Vec<Vec<u8>> {
    let bytes = |data| Record::from_rdata(Name::root(), 0, data).to_bytes();
    let mut all: Vec<Vec<u8>> = all.filter_map(|data| bytes(data).ok()).collect();
    all.sort();
    all
}
