//! Connections between agents: one endpoint, one connection per pair of
//! members, requests and one-way messages on it. [`Carry`] is what the agent
//! asks of it; here that is QUIC by quinn.
//!
//! Owns sockets' bytes, connections, streams, deadlines and bounds. Must not
//! know what a method means, nor decide who is a member: the ledger does,
//! through [`Admission`], anew at every request.

mod core;
mod counters;
mod endpoint;
mod error;
mod frame;
mod link;
mod over_quinn;
mod pace;
mod pair;
mod registry;
mod serve;
#[cfg(test)]
mod tests;
mod transport;

use std::{future::Future, time::Duration};

pub use self::{
    counters::Counters,
    error::{CallError, DialError, TransportError},
    registry::{PeerEvent, PeerInfo},
    transport::{
        Admission, Caller, Carry, Channel, Handler, Held, Line, Settings, Standing, Transport,
    },
};
use crate::host::Clock;

/// What `work` gives, or `None` when it takes longer than `limit` by the
/// host's clock; it is then dropped.
pub(crate) async fn within<T>(
    clock: &dyn Clock,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = clock.sleep(limit) => None,
    }
}
