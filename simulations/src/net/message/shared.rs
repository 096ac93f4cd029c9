//! The one state of a world's messages, as its agents' transports reach it.

use std::sync::{PoisonError, Weak};

use innermesh_proto::rpc::close;

use crate::net::wire::State;

pub(super) type Shared = std::sync::Mutex<State>;

/// A close code in words, as the agent has them of QUIC's.
pub(super) fn words(code: u32, reason: &str) -> String {
    let meaning = match code {
        close::REVOKED => "it has this node's membership as revoked",
        close::STRANGER => "it has no room or time for nodes that are not members",
        close::SHUTDOWN => "it is stopping",
        close::PARTED => "it parted from this node",
        _ => "it closed the connection",
    };
    match reason {
        "" => meaning.to_owned(),
        reason => format!("{meaning} ({reason})"),
    }
}

pub(super) fn locked<T>(wire: &Weak<Shared>, work: impl FnOnce(&mut State) -> T) -> Option<T> {
    let wire = wire.upgrade()?;
    let mut state = wire.lock().unwrap_or_else(PoisonError::into_inner);
    Some(work(&mut state))
}
