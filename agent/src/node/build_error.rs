//! Why an agent can't start.

#![allow(missing_docs, reason = "the names say it")]

use super::config::ForwardError;
use crate::{
    enroll::refetch::Unfetched, host::key_files::KeyFileError, ledger::LedgerError,
    quic::TransportError, services::ServiceError, tls::TlsError, tunnel::TunnelError,
};

/// Why an agent can't start. The state folder is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Another agent holds the folder.
    #[error("another agent runs on {0}; stop it first, or use another --dir")]
    Locked(String),
    #[error("{0} can't be used: {1}")]
    Io(String, std::io::Error),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The ledger had to be fetched again.
    #[error("the ledger can't be fetched again: {0}")]
    Refetch(#[from] Unfetched),
    #[error("{said}; to have it in a mesh again, make room for `agent join`: {room}")]
    Left {
        /// What its folder says.
        said: String,
        /// How room is made in it.
        room: String,
    },
    /// This machine isn't a member by its own ledger.
    #[error(
        "this machine is not a member of the mesh any more; to have it in one again, make room for \
         `agent join` with a new invite: {0}"
    )]
    NotMember(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// No address for the QUIC endpoint.
    #[error("no address to listen on; set `listen` in the configuration")]
    NoListen,
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// A service of the configuration.
    #[error(transparent)]
    Service(#[from] ServiceError),
}
