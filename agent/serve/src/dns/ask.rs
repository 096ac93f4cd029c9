//! One question to one name server, and all that it says: what a delegation looks like
//! from outside.

#![allow(missing_docs, reason = "the names say it")]

use std::{net::SocketAddr, time::Duration};

use hickory_server::{
    net::{
        DnsHandle, NetError,
        tcp::TcpClientStream,
        udp::UdpClientStream,
        xfer::{DnsRequestSender, FirstAnswer},
    },
    proto::{
        op::{DnsRequest, DnsRequestOptions, Message, Query, ResponseCode},
        rr::{RData, Record},
    },
};
use innermesh_proto::{
    limits,
    zone::{DomainName, RecordType},
};

use super::{convert, provider::Provider, service::Dns};

/// How long one server has.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a server wasn't heard.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AskError {
    /// It wasn't reached, or didn't answer.
    #[error(transparent)]
    Net(#[from] NetError),
    /// It refuses, or failed itself.
    #[error("it answered {0}")]
    Code(ResponseCode),
}

/// What a server said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Whether it is an authority for the name (AA).
    pub authoritative: bool,
    /// Owner, type and data, as text, of each record.
    pub answers: Vec<HeardRecord>,
    pub authorities: Vec<HeardRecord>,
    pub additionals: Vec<HeardRecord>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardRecord {
    pub name: DomainName,
    pub rtype: RecordType,
    pub data: String,
    /// A name in it, such as a name server's.
    pub target: Option<DomainName>,
}

impl Heard {
    /// Data of one name and type among `records`, in order.
    pub fn data(records: &[HeardRecord], name: &DomainName, rtype: RecordType) -> Vec<String> {
        let of_it = records
            .iter()
            .filter(|record| record.name == *name && record.rtype == rtype);
        let mut data: Vec<String> = of_it.map(|record| record.data.clone()).collect();
        data.sort();
        data
    }
}

impl Dns {
    /// What one server says itself, by UDP, and over TCP where that is cut.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask_one(
        &self,
        server: SocketAddr,
        (name, rtype): (&DomainName, RecordType),
    ) -> Result<Heard, AskError> {
        let query = Query::query(convert::hickory_name(name), rtype.0.into());
        let mut options = DnsRequestOptions::default();
        options.use_edns = true;
        options.edns_payload_len = limits::DNS_UDP_BYTES;
        options.recursion_desired = false;
        let request = || DnsRequest::from_query(query.clone(), options);
        let provider = Provider::default();
        let mut udp = UdpClientStream::builder(server, provider.clone())
            .with_timeout(Some(PATIENCE))
            .build();
        let mut response = udp.send_message(request()).first_answer().await?;
        if response.truncation {
            let tcp = TcpClientStream::exchange(server, None, PATIENCE, None, provider).await?;
            response = tcp.send(request()).first_answer().await?;
        }
        let message = response.into_message();
        match message.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(heard(&message)),
            code => Err(AskError::Code(code)),
        }
    }
}

pub(super) fn heard(message: &Message) -> Heard {
    let records = |section: &[Record]| section.iter().filter_map(record).collect();
    Heard {
        authoritative: message.authoritative,
        answers: records(&message.answers),
        authorities: records(&message.authorities),
        additionals: records(&message.additionals),
    }
}

fn record(record: &Record) -> Option<HeardRecord> {
    let target = match &record.data {
        RData::NS(name) => convert::domain_name(&name.0),
        RData::CNAME(name) => convert::domain_name(&name.0),
        _ => None,
    };
    let data = match &record.data {
        // Strings as they are: a challenge has no quotes.
        RData::TXT(text) => text
            .txt_data
            .iter()
            .map(|part| String::from_utf8_lossy(part).into_owned())
            .collect(),
        other => other.to_string(),
    };
    Some(HeardRecord {
        name: convert::domain_name(&record.name)?,
        rtype: RecordType(record.record_type().into()),
        data,
        target,
    })
}
