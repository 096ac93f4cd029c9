//! What the tunnel's device counted for one member.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use innermesh_proto::{ledger::Member, tunnel::TunnelKey};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::{
    node::shared::tunnel_progress::TunnelProgress,
    tunnel::{PeerState, Tunnel, relayed::is_relay_place},
};

/// A WireGuard session this old takes no packets any more (whitepaper §6.1).
pub(crate) const SESSION: Duration = Duration::from_secs(180);

/// Reads the device's counters. Clones are the same.
#[derive(Clone)]
pub(crate) struct TunnelCounters {
    tunnel: Arc<dyn Tunnel>,
    progress: watch::Sender<TunnelProgress>,
    /// The tunnels that were asked about since they were last taken.
    asked: Arc<Mutex<BTreeSet<TunnelKey>>>,
}

impl TunnelCounters {
    pub fn new(tunnel: Arc<dyn Tunnel>, progress: watch::Sender<TunnelProgress>) -> Self {
        Self {
            tunnel,
            progress,
            asked: Arc::default(),
        }
    }

    /// Of a member's packets, which asks because it hears nothing; `None` where there
    /// is no tunnel to it.
    pub async fn of(&self, member: &Member) -> Option<PeerState> {
        let key = self.key_of(member)?;
        self.asked().insert(key);
        let state = self.tunnel.observe().await.ok()?;
        state.peers.get(&key).cloned()
    }

    /// Where a member's packets come from, by a session that is open; `None` where that
    /// is a relay, or nothing comes.
    pub async fn place_of(&self, member: &Member) -> Option<SocketAddr> {
        let key = self.key_of(member)?;
        let state = self.tunnel.observe().await.ok()?;
        let peer = state.peers.get(&key)?;
        let is_open = peer.last_handshake.is_some_and(|age| age < SESSION);
        let place = peer.endpoint.filter(|_| is_open);
        place.filter(|place| !is_relay_place(place))
    }

    /// The tunnels at whose other end nothing was heard of this node, since the last
    /// call.
    pub fn take_asked(&self) -> BTreeSet<TunnelKey> {
        std::mem::take(&mut *self.asked())
    }

    fn asked(&self) -> MutexGuard<'_, BTreeSet<TunnelKey>> {
        self.asked.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn key_of(&self, member: &Member) -> Option<TunnelKey> {
        let progress = self.progress.borrow();
        let address = IpNet::from(IpAddr::V4(member.ipv4));
        let mut peers = progress.plan.peers.iter();
        let (key, _) = peers.find(|(_, peer)| peer.allowed_ips.contains(&address))?;
        Some(*key)
    }
}
