//! Zone transfer to secondaries: AXFR (RFC 5936), IXFR (RFC 1995), NOTIFY (RFC 1996),
//! all of it signed (RFC 8945). Owns who may copy the zones, what they copy, and the
//! journal. Must not know how a zone comes about, sockets, and files.

#![allow(missing_docs, reason = "the names say it")]

mod answer;
mod journal;
mod message;
mod notify;
mod records;
mod report;
mod secondary;
mod serial;
mod served;
mod tsig;

pub(super) use self::answer::Answer;
pub use self::{
    journal::ZoneContent,
    message::read_any as read_transfer_message,
    notify::NoticeState,
    report::{Fetched, ZoneReport},
    secondary::{FileError, KeyError, Secondary, SharedKey},
    serial::{is_later, next_serial},
    served::Transfers,
    tsig::{Algorithm, UnknownAlgorithm},
};

#[cfg(test)]
mod tests;
