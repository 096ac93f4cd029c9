//! The tunnel as the agent drives it: a whole plan, applied idempotently.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use innermesh_proto::{
    filter::Interface,
    path::Report,
    tunnel::{Step, TunnelKey, TunnelPlan},
};

use super::{TunnelError, TunnelSettings};

/// Makes the tunnel interface.
#[async_trait]
pub trait Tunnels: Send + Sync {
    /// Brings the interface up, clearing what an earlier crash left.
    ///
    /// # Errors
    /// What to change on the host.
    async fn open(&self, settings: TunnelSettings) -> Result<Arc<dyn Tunnel>, TunnelError>;

    /// Takes links of public nodes away that an earlier run left in the kernel, but
    /// for those of `keep`.
    ///
    /// # Errors
    /// Some may still be there; calling again is fine.
    async fn remove_links(
        &self,
        tunnel: &Interface,
        keep: &BTreeSet<Interface>,
    ) -> Result<(), TunnelError> {
        let _ = (tunnel, keep);
        Ok(())
    }
}

/// The effect: makes the world equal to a plan, whole and idempotently.
#[async_trait]
pub trait Tunnel: Send + Sync {
    /// Makes the interface equal to `plan`. A second time changes nothing. An
    /// interface that was taken down, or deleted by somebody, comes back.
    ///
    /// # Errors
    /// What was done before the error stands and is never unsafe: addresses
    /// are taken before they are given. Applying again goes on from there.
    async fn apply(&self, plan: &TunnelPlan) -> Result<Applied, TunnelError>;

    /// What the interface knows of its peers.
    ///
    /// # Errors
    /// Where it can't be read, such as after [`Tunnel::down`].
    async fn observe(&self) -> Result<TunnelState, TunnelError>;

    /// Gives the interface another private key; peers, addresses and routes
    /// stay. With the same one nothing changes.
    ///
    /// # Errors
    /// It has the old one still; calling again is fine.
    async fn set_private_key(&self, private_key: [u8; 32]) -> Result<(), TunnelError>;

    /// A peer looks for this node: what is sent to it now may meet what it sends.
    ///
    /// # Errors
    /// Nothing is sent.
    async fn punch(&self, key: TunnelKey) -> Result<(), TunnelError> {
        let _ = key;
        Ok(())
    }

    /// Takes the interface away, with its routes.
    ///
    /// # Errors
    /// The interface may still be there; calling again is fine.
    async fn down(&self) -> Result<(), TunnelError>;
}

/// How much an apply changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Peers that weren't there.
    pub peers_added: usize,
    /// Peers that are gone.
    pub peers_removed: usize,
    /// Peers that stayed, with other settings.
    pub peers_changed: usize,
    /// Addresses of the interface added or removed.
    pub addresses: usize,
    /// Routes through the interface added or removed.
    pub routes: usize,
    /// Whether the interface had to be made, brought up or given its MTU.
    pub interface: bool,
}

impl Applied {
    /// Whether anything changed.
    pub fn changed(&self) -> bool {
        *self != Self::default()
    }

    /// Counts peers, each once: one that gives and takes has changed once.
    pub fn of(steps: &[Step]) -> Self {
        let mut applied = Self::default();
        let mut changed = BTreeSet::new();
        for step in steps {
            match step {
                Step::Remove(_) => applied.peers_removed += 1,
                Step::Add(..) => applied.peers_added += 1,
                Step::Narrow(key, _) | Step::Change(key, _) => {
                    changed.insert(*key);
                }
            }
        }
        applied.peers_changed = changed.len();
        applied
    }
}

/// What the interface knows of its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelState {
    /// "kernel", "embedded" or "none".
    pub backend: &'static str,
    /// UDP port that it listens on.
    pub listen_port: u16,
    /// Peers by key.
    pub peers: BTreeMap<TunnelKey, PeerState>,
}

/// What the interface knows of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerState {
    /// Where its packets go: set by the plan, or learned from its last
    /// authentic packet.
    pub endpoint: Option<SocketAddr>,
    /// Time since its last handshake by the host's wall clock, which may jump.
    pub last_handshake: Option<Duration>,
    /// Bytes received from it since it was added.
    pub rx_bytes: u64,
    /// Bytes sent to it since it was added.
    pub tx_bytes: u64,
    /// How its way stands, where it is chosen among several.
    pub way: Option<Report>,
}

/// The host's wall clock, in milliseconds since 1970: handshakes are told by it.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;
