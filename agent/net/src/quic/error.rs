//! Why opening, dialing or calling did not work, and what to do about it.

#![allow(missing_docs, reason = "the names say it")]

use std::{io, net::SocketAddr};

use innermesh_proto::{
    codec::CodecError,
    id::NodeId,
    rpc::{Failure, close, stop},
};
use quinn::{ConnectionError, ReadError, WriteError};

use crate::tls;

/// Why the transport could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Another program, or another agent, holds the UDP port.
    #[error("UDP port {port} is taken{}; stop that program or set `listen` in the config", by(.holder))]
    AddressInUse {
        port: u16,
        /// Who holds it, where that could be found.
        holder: Option<crate::host::holder::Holder>,
    },
    /// The operating system would not give the socket.
    #[error("cannot listen on UDP {address}: {error}; check `listen` in the config")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

fn by(holder: &Option<crate::host::holder::Holder>) -> String {
    holder
        .as_ref()
        .map_or_else(String::new, |h| format!(" by {h}"))
}

/// Why a dial gave no connection. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// No answer in time.
    #[error("no answer; check that an agent runs there and that UDP to this port is not filtered")]
    Timeout,
    /// The address can't be dialed.
    #[error("cannot dial: {0}")]
    Address(String),
    /// One side did not accept the other's certificate.
    #[error("the certificates were not accepted: {0}")]
    Tls(String),
    /// This node's certificate has ended by the peer's ledger.
    #[error("this node's certificate has ended; it has to be renewed first")]
    Expired,
    /// The peer has this node's own membership as revoked.
    #[error("the peer has this node's membership as revoked")]
    Evicted,
    /// The other end closed the connection at once.
    #[error("the peer turned the connection away: {0}")]
    Refused(String),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Failed(String),
    /// Another node answered.
    #[error("{0} answered instead of the node that was meant; its address has changed hands")]
    WrongNode(NodeId),
    /// It was this node itself, or another that holds a copy of its key.
    #[error("the address leads to this node itself")]
    Myself,
    /// The peer's membership was revoked.
    #[error("{0} was evicted from this mesh")]
    Revoked(NodeId),
    /// The peer's certificate holds no Ed25519 key, so it is nobody.
    #[error("the peer showed no node certificate")]
    Nameless,
    /// The transport was closed.
    #[error("this agent is stopping")]
    Closed,
}

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection with the node. Nothing was sent.
    #[error("no connection with {0}")]
    NotConnected(NodeId),
    /// The request is longer than the peer takes. Nothing was changed.
    #[error("the request of {0} bytes is longer than the peer takes")]
    TooLong(usize),
    /// No answer in time; whether it was carried out isn't known.
    #[error("no answer in time")]
    Deadline,
    /// The connection ended before the answer; whether it was carried out
    /// isn't known.
    #[error("the connection was lost before the answer: {0}")]
    Lost(String),
    /// The answer couldn't be read; whether it was carried out isn't known.
    #[error("the answer could not be read: {0}")]
    Garbled(#[from] CodecError),
    /// The peer answered that it didn't do it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl From<ConnectionError> for DialError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ref expired if tls::refused_as_expired(expired) => Self::Expired,
            ConnectionError::TimedOut => Self::Timeout,
            ConnectionError::LocallyClosed => Self::Closed,
            ConnectionError::ApplicationClosed(ref closed)
                if closed.error_code == close::REVOKED.into() =>
            {
                Self::Evicted
            }
            ConnectionError::ApplicationClosed(ref closed) => Self::Refused(words(closed)),
            // RFC 9001 §4.8: a TLS alert is the transport error 0x100 plus the alert.
            ConnectionError::TransportError(ref e)
                if (0x100..0x200).contains(&u64::from(e.code)) =>
            {
                Self::Tls(e.reason.clone())
            }
            ConnectionError::ConnectionClosed(ref e)
                if (0x100..0x200).contains(&u64::from(e.error_code)) =>
            {
                Self::Tls(String::from_utf8_lossy(&e.reason).into_owned())
            }
            other => Self::Failed(other.to_string()),
        }
    }
}

/// What became of one request on one connection.
#[derive(Debug)]
pub(super) enum Exchange {
    /// The peer closed this connection for another one and looked at nothing
    /// that is unanswered: try on the other one.
    Moved,
    /// For good.
    Failed(CallError),
}

impl Exchange {
    pub(super) fn of(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(c) if c.error_code == close::DUPLICATE.into() => {
                Self::Moved
            }
            ConnectionError::ApplicationClosed(c) => Self::Failed(CallError::Lost(words(c))),
            other => Self::Failed(CallError::Lost(other.to_string())),
        }
    }

    pub(super) fn of_write(error: &WriteError, length: usize) -> Self {
        match error {
            WriteError::ConnectionLost(e) => Self::of(e),
            WriteError::Stopped(code) => Self::of_code(*code, length),
            other => Self::Failed(CallError::Lost(other.to_string())),
        }
    }

    pub(super) fn of_read(error: &ReadError, length: usize) -> Self {
        match error {
            ReadError::ConnectionLost(e) => Self::of(e),
            ReadError::Reset(code) => Self::of_code(*code, length),
            other => Self::Failed(CallError::Lost(other.to_string())),
        }
    }

    fn of_code(code: quinn::VarInt, length: usize) -> Self {
        Self::Failed(if code == stop::TOO_LONG.into() {
            CallError::TooLong(length)
        } else {
            CallError::Lost(format!("the peer stopped the request with code {code}"))
        })
    }
}

impl From<CodecError> for Exchange {
    fn from(error: CodecError) -> Self {
        Self::Failed(error.into())
    }
}

/// A close code in words, with the peer's reason without control characters.
fn words(closed: &quinn::ApplicationClose) -> String {
    let reason: String = String::from_utf8_lossy(&closed.reason)
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect();
    let meaning = match u32::try_from(u64::from(closed.error_code)) {
        Ok(close::NORMAL) => "it closed the connection",
        Ok(close::DUPLICATE) => "another connection with it stays",
        Ok(close::REPLACED) => "it holds the connection for one of this node's former self",
        Ok(close::REVOKED) => "it has this node's membership as revoked",
        Ok(close::STRANGER) => "it has no room or time for nodes that are not members",
        Ok(close::SHUTDOWN) => "it is stopping",
        Ok(close::WRONG_NODE) => "it is, or expected, another node",
        Ok(close::PARTED) => "it parted from this node",
        _ => "it closed the connection with a code of a later version",
    };
    if reason.is_empty() {
        meaning.to_string()
    } else {
        format!("{meaning} ({reason})")
    }
}
