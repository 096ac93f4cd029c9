//! What the tunnel's device counted for one member.

use std::{net::IpAddr, sync::Arc};

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
}

impl TunnelCounters {
    pub fn new(tunnel: Arc<dyn Tunnel>, progress: watch::Sender<TunnelProgress>) -> Self {
        Self { tunnel, progress }
    }

    /// Of a member's packets; `None` where there is no tunnel to it.
    pub async fn of(&self, member: &Member) -> Option<PeerState> {
        let key = self.key_of(member)?;
        let state = self.tunnel.observe().await.ok()?;
        state.peers.get(&key).cloned()
    }

    fn key_of(&self, member: &Member) -> Option<TunnelKey> {
        let progress = self.progress.borrow();
        let address = IpNet::from(IpAddr::V4(member.ipv4));
        let mut peers = progress.plan.peers.iter();
        let (key, _) = peers.find(|(_, peer)| peer.allowed_ips.contains(&address))?;
        Some(*key)
    }
}
