//! Connections between agents: one endpoint, one connection per pair of
//! members, requests and one-way messages on it. [`TransportBackend`] is what the agent
//! asks of it; here that is QUIC by quinn.
//!
//! Owns sockets' bytes, connections, streams, deadlines and bounds. Must not
//! know what a method means, nor decide who is a member: the ledger does,
//! through [`MembershipCheck`], anew at every request.

mod core;
mod counters;
mod demand;
mod endpoint;
mod error;
mod frame;
mod half_open;
mod lane;
mod link;
mod open;
mod over_quinn;
mod pace;
mod pair;
mod registry;
mod serve;
#[cfg(test)]
mod tests;
mod transport;

pub use self::{
    counters::Counters,
    demand::Demand,
    error::{CallError, DialError, TransportError},
    lane::{LaneDialError, LaneServer, Lanes, OpenLane},
    registry::{PeerEvent, PeerInfo},
    transport::{
        Caller, Channel, EnrolConnection, Handler, Held, Membership, MembershipCheck, Messages,
        OpenMessages, Settings, Transport, TransportBackend,
    },
};
