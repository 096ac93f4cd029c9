//! What the tunnel's device counted for one member.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use innermesh_proto::{ledger::Member, tunnel::TunnelKey};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::{
    node::shared::tunnel_progress::TunnelProgress,
    tunnel::{PeerState, Tunnel},
};

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
