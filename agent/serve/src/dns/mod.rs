//! DNS on every node: the mesh's own names from the zone, all others from the
//! host's name servers, each client by its true source. The zone itself is
//! made elsewhere ([`innermesh_proto::zone`]); nothing here knows how.

mod alias;
mod ask;
mod cache;
mod careful;
mod compare;
mod convert;
mod cookies;
mod encrypted;
mod exchange;
mod fall_through;
mod forward;
mod handshakes;
mod https;
mod logged;
mod lru;
mod name_server;
mod other_server;
mod outside;
mod padding;
mod places;
mod private;
mod prompt;
mod provider;
mod public;
mod query;
mod query_log;
mod received;
mod relevant;
mod reply;
mod report;
mod responder;
mod scope;
mod server;
mod service;
mod source;
mod special;
mod tcp;
mod transfer;
mod udp;
mod upstream;
mod view;
mod wire;
mod zone_answer;

pub use self::{
    ask::{AskError, Heard},
    compare::BothWays,
    encrypted::{EncryptedDns, EncryptedServer, Encryption, TLS_PORT, TlsChoice},
    fall_through::{FallThrough, FallThroughError, FallThroughRule},
    https::{DnsRequest, RequestError},
    name_server::{Identity, NameServer, NameServerError, Transport},
    other_server::{FORWARDED_PORT, OtherServer, PORT},
    outside::{Outside, OutsideAnswer, OutsideError},
    public::{PublicDns, PublicServer, PublicSurroundings},
    query::Asked,
    query_log::QueryLogger,
    received::formerr,
    relevant::relevant,
    scope::AnswerScope,
    server::{DnsServer, Surroundings},
    service::Dns,
    source::{MemberSources, Source, SourcePolicy, SourceTable},
    transfer::{
        Algorithm, Fetched, FileError, KeyError, NoticeState, Secondary, SharedKey, Transfers,
        UnknownAlgorithm, ZoneContent, ZoneReport, is_later, next_serial, read_transfer_message,
    },
    upstream::UpstreamTrust,
    view::Served,
};
