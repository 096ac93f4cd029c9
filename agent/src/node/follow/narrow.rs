//! Ways over IPv6 on which the tunnel's full packets are lost without a word: what
//! is sent there is cut at this host from then on. Over IPv4 routers cut it, as
//! outer packets may be.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use innermesh_proto::{limits, tunnel::TunnelKey};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::{
    host::{Host, Mono},
    node::shared::{
        echo::{SMALL, echo},
        handles::Handles,
        tunnel_progress::TunnelProgress,
    },
    tunnel::Tunnel,
};

/// How often is looked where peers are, and by which ways the host reaches them.
const LOOK: Duration = Duration::from_secs(5);
/// How long what was found of a way stands at least.
const STANDS: Duration = Duration::from_secs(20);
/// What must have been sent there since, in full packets: a way without traffic
/// isn't tried again.
const DEMAND: u64 = 4;
/// A session's end at the latest: with an older handshake there is none.
const SESSION: Duration = Duration::from_secs(180);
/// Headers around a packet of the tunnel over IPv6: IPv6 (40 bytes), UDP (8) and
/// WireGuard (32).
const OUTER: u32 = 80;
/// What every link of IPv6 takes, in bytes (RFC 8200 §5).
const LEAST_MTU: u32 = 1280;

/// Finds such ways.
pub(crate) struct NarrowWays {
    host: Host,
    tunnel: Arc<dyn Tunnel>,
    progress: watch::Sender<TunnelProgress>,
    /// Largest packet through the tunnel, in bytes.
    mtu: u32,
}

/// What was found of the way to an address, and when.
struct Found {
    at: Mono,
    /// What had been sent by then, in bytes.
    sent: u64,
    is_narrow: bool,
}

impl NarrowWays {
    pub fn new(
        node: &Handles,
        tunnel: Arc<dyn Tunnel>,
        progress: watch::Sender<TunnelProgress>,
    ) -> Self {
        Self {
            host: node.host.clone(),
            tunnel,
            progress,
            mtu: node.config.mtu,
        }
    }

    /// Runs for as long as the agent does.
    pub async fn run(self) {
        if self.mtu + OUTER <= LEAST_MTU {
            return;
        }
        // What an agent that was killed left behind.
        if self.host.net.keep_narrow(&BTreeSet::new()).await.is_err() {
            return;
        }
        let mut found: BTreeMap<Ipv6Addr, Found> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        loop {
            self.host.clock.sleep(LOOK).await;
            self.look(&mut found).await;
            let narrow = found.iter().filter(|(_, found)| found.is_narrow);
            let narrow = narrow.map(|(address, _)| *address);
            let narrow: BTreeSet<Ipv6Addr> = narrow.take(limits::NARROW_WAYS).collect();
            // Also by another way than before, where the host's routes changed.
            if (!narrow.is_empty() || narrow != kept) && self.keep(&narrow).await.is_ok() {
                kept = narrow;
            }
        }
    }

    async fn keep(&self, narrow: &BTreeSet<Ipv6Addr>) -> std::io::Result<()> {
        let kept = self.host.net.keep_narrow(narrow).await;
        if let Err(error) = &kept {
            tracing::warn!(%error, "packets over IPv6 can't be cut by a route");
        }
        kept
    }

    /// Tries ways that weren't tried of late: a small packet comes back, a full one
    /// doesn't. A way that is narrow stays so while a peer is there, as what passes
    /// then says nothing of what would pass whole.
    async fn look(&self, found: &mut BTreeMap<Ipv6Addr, Found>) {
        let peers = self.peers().await;
        found.retain(|address, _| peers.contains_key(address));
        for (address, (inside, sent)) in peers {
            let now = self.host.clock.now();
            let stands = found.get(&address).is_some_and(|found| {
                let demand = sent.saturating_sub(found.sent);
                found.is_narrow
                    || now.saturating_sub(found.at) < STANDS
                    || demand < DEMAND * u64::from(self.mtu)
            });
            if stands {
                continue;
            }
            // Of a host that answers no pings nothing is found.
            let is_narrow = self.is_narrow(inside).await == Some(true);
            if is_narrow {
                tracing::warn!(
                    %address,
                    bytes = self.mtu,
                    "full packets are lost on the way there over IPv6; they are cut from now on"
                );
            }
            let at = now;
            let seen = Found {
                at,
                sent,
                is_narrow,
            };
            found.insert(address, seen);
        }
    }

    /// Where peers with a session are over IPv6, their overlay addresses, and how
    /// many bytes were sent to each.
    async fn peers(&self) -> BTreeMap<Ipv6Addr, (IpAddr, u64)> {
        let plan = self.progress.borrow().plan.clone();
        let Ok(state) = self.tunnel.observe().await else {
            return BTreeMap::new();
        };
        let place = |key: &TunnelKey| {
            let seen = state.peers.get(key)?;
            seen.last_handshake.filter(|age| *age < SESSION)?;
            match seen.endpoint?.ip().to_canonical() {
                IpAddr::V6(address) if !address.is_unicast_link_local() => {
                    Some((address, seen.tx_bytes))
                }
                _ => None,
            }
        };
        let peers = plan.peers.iter().filter_map(|(key, peer)| {
            // Its own address, and none of a network that it brings.
            let hosts = peer.allowed_ips.iter();
            let hosts = hosts.filter(|net| net.prefix_len() == net.max_prefix_len());
            let mut inside = hosts.map(IpNet::addr);
            let (address, sent) = place(key)?;
            Some((address, (inside.find(IpAddr::is_ipv4)?, sent)))
        });
        peers.collect()
    }

    /// `None` where that can't be told.
    async fn is_narrow(&self, inside: IpAddr) -> Option<bool> {
        echo(&self.host, inside, SMALL).await.ok()??;
        let full = echo(&self.host, inside, self.mtu).await.ok()?;
        if full.is_some() {
            return Some(false);
        }
        // Nothing passes any more: that is something else.
        echo(&self.host, inside, SMALL).await.ok()??;
        Some(true)
    }
}
