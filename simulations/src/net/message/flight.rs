//! A handshake on its way.

#![allow(missing_docs, reason = "the names say it")]

use std::{net::SocketAddr, sync::Arc};

use innermesh_agent::{quic::DialError, tls::ClientTls};
use innermesh_proto::{crypto::PublicKey, id::NodeId};

use super::ids::{ConnectionId, DeskId};

/// A connection that was dialed.
pub(super) struct Dialed {
    pub(super) node: NodeId,
    pub(super) key: PublicKey,
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) remote: SocketAddr,
    pub(super) connection: ConnectionId,
}

/// A handshake under way.
pub(super) struct Flight {
    /// The dial that it is of.
    pub(super) number: u64,
    pub(super) by: DeskId,
    pub(super) to: SocketAddr,
    pub(super) expect: Option<NodeId>,
    pub(super) client: Arc<ClientTls>,
    pub(super) introduces: bool,
    pub(super) step: Step,
    /// Whether it is on its way, or still to be sent.
    pub(super) sent: bool,
    /// How often this step was lost.
    pub(super) tries: u32,
    /// The agent that is reached, and the dialer's address as that sees it.
    pub(super) reached: Option<(DeskId, SocketAddr)>,
    /// What the agent that is reached shows, and its key once that is proved.
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) key: Option<PublicKey>,
}

#[derive(Clone)]
pub(super) enum Step {
    /// The dialer's first words.
    Begin,
    Server,
    /// Who dials.
    Client,
    /// What the one who was dialed makes of that.
    Verdict(Result<ConnectionId, DialError>),
}
