//! Follows the host's own addresses and name servers.

use std::{net::IpAddr, sync::Arc, time::Duration};

use innermesh_proto::view::MeshView;
use tokio::sync::watch;

use crate::{
    dns::{Dns, NameServer},
    gossip::Gossip,
    host::Host,
    ledger::{Builds, Ledger},
    node::{
        config::AgentConfig,
        shared::{
            addresses::Addresses,
            announce::{Announcer, endpoints},
            handles::Handles,
            zone::ZonePublisher,
        },
    },
    quic::Transport,
};

/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Looks at the host, and passes on what is new.
pub(crate) struct HostFollower {
    config: Arc<AgentConfig>,
    host: Host,
    ledger: Ledger,
    transport: Transport,
    gossip: Gossip,
    view: watch::Sender<Arc<MeshView>>,
    dns: Arc<Dns>,
    addresses: Addresses,
    announcer: Announcer,
    zone: ZonePublisher,
}

impl HostFollower {
    pub fn new(node: &Handles, announcer: Announcer, zone: ZonePublisher) -> Self {
        Self {
            config: node.config.clone(),
            host: node.host.clone(),
            ledger: node.ledger.clone(),
            transport: node.transport.clone(),
            gossip: node.gossip.clone(),
            view: node.view.clone(),
            dns: zone.dns.clone(),
            addresses: zone.addresses.clone(),
            announcer,
            zone,
        }
    }

    /// Looks again and again, for as long as the agent runs.
    pub async fn run(self) {
        let mut last = None;
        loop {
            let mapped = self.announcer.port_maps.borrow().clone();
            let endpoints = endpoints(&self.config, &self.host, &self.transport, &mapped).await;
            self.announcer.announce_at(endpoints);
            let upstream = if self.config.dns_upstream.is_empty() {
                let own = self.host.net.upstream_resolvers().await;
                own.into_iter().map(NameServer::from).collect()
            } else {
                self.config.dns_upstream.clone()
            };
            self.addresses.look().await;
            let own: Vec<IpAddr> = self.addresses.own().into_iter().collect();
            if last.as_ref() != Some(&(upstream.clone(), own.clone())) {
                self.dns.set_upstreams(&upstream, &own);
                self.zone.publish();
                last = Some((upstream, own));
            }
            self.ledger.set_peer_clocks(self.gossip.peer_clocks());
            self.ledger.set_builds(Builds::of(&self.view.borrow()));
            self.host.clock.sleep(LOOK).await;
        }
    }
}
