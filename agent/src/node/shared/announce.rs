//! What this node says of itself in gossip.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use innermesh_proto::{
    endpoint::is_public,
    filter::Interface,
    head::{Announcement, ExitWays, WireGuard},
    id::NodeId,
    limits,
    path::Places,
    tunnel::{HostPort, TunnelKey},
};

use tokio::sync::watch;

use crate::{
    gossip::Gossip,
    host::{Host, port_map::Mappings},
    node::{
        config::AgentConfig,
        shared::{
            device_holds::DeviceHolds, devices_seen::DevicesSeen, hold_set::HoldSet,
            own_key::OwnKey,
        },
    },
    quic::Transport,
    services::Registry,
    tunnel::BackendChoice,
};

/// Announces what changes. Clones are the same.
#[derive(Clone)]
pub(crate) struct Announcer {
    pub config: Arc<AgentConfig>,
    pub gossip: Gossip,
    pub services: Registry,
    pub holds: Arc<HoldSet>,
    pub tunnel_key: Arc<OwnKey>,
    pub devices: Arc<DevicesSeen>,
    pub device_holds: Arc<DeviceHolds>,
    /// Where this node leads as an exit.
    pub exit_ways: watch::Sender<Option<ExitWays>>,
    /// The latest serial that secondaries were given here.
    pub zone_serial: watch::Sender<Option<u32>>,
    /// Public addresses at which it answers strangers' DNS.
    pub name_server: watch::Sender<BTreeSet<IpAddr>>,
    /// Where its tunnel may be found.
    pub places: watch::Sender<Places>,
    /// What its router maps.
    pub port_maps: watch::Sender<Mappings>,
}

impl Announcer {
    /// Announces this node's services, holds and key as they are now.
    pub fn announce(&self) {
        let endpoints = self.gossip.own().quic.clone();
        self.announce_at(endpoints);
    }

    /// As [`Announcer::announce`], with where this node can be dialed.
    pub fn announce_at(&self, endpoints: Vec<SocketAddr>) {
        let own = self.gossip.own();
        let lane = self.config.lane.announced(&endpoints);
        let mut next = Announcement {
            version: own.version.clone(),
            quic: endpoints,
            wireguard: wireguard(&self.config, self.tunnel_key.get()),
            services: self.services.instances(),
            holds: self.holds.own(),
            rules: self.config.known_rules,
            // Gossip's own to say.
            cloned: own.cloned,
            unchecked: self.services.unchecked(),
            endpoint: endpoint(&self.config),
            devices: own.devices.clone(),
            device_holds: self.device_holds.own(),
            exit: *self.exit_ways.borrow(),
            zone_serial: *self.zone_serial.borrow(),
            name_server: self.name_server.borrow().clone(),
            types: self.services.types(),
            links: own.links.clone(),
            places: self.places.borrow().clone(),
            lane,
        };
        let has_news = next != *own;
        let now = self.gossip.now();
        next.devices = self.devices.to_announce(&own.devices, now, has_news);
        self.gossip.announce(next);
    }
}

/// What the head says of the tunnel; nothing where there is none.
pub(crate) fn wireguard(config: &AgentConfig, key: TunnelKey) -> Option<WireGuard> {
    (config.backend != BackendChoice::None).then_some(WireGuard {
        key,
        port: config.tunnel_port,
    })
}

/// Where devices find this node, as its configuration says.
pub(crate) fn endpoint(config: &AgentConfig) -> Option<HostPort> {
    let endpoint = config.tunnel_endpoint.as_ref()?;
    endpoint.with_port(config.tunnel_port)
}

/// Whether an interface is the tunnel's, or that of a link to a public node.
fn is_tunnel(config: &AgentConfig, interface: String) -> bool {
    let tunnel = Interface::try_from(config.interface.clone());
    interface == config.interface
        || Interface::try_from(interface)
            .is_ok_and(|it| tunnel.is_ok_and(|tunnel| it.is_link_of(&tunnel)))
}

/// Where a mapped place stands among those that are announced: first, or last. One that
/// isn't public lies behind another NAT, and helps those between the two alone.
fn first_or_last(mapped: Option<SocketAddr>) -> [Option<SocketAddr>; 2] {
    let is_first = mapped.is_some_and(|mapped| is_public(mapped.ip()));
    [mapped.filter(|_| is_first), mapped.filter(|_| !is_first)]
}

/// Where this node can be dialed: what the configuration says, what its router has `mapped`,
/// then the addresses of the host's other interfaces.
pub(crate) async fn endpoints(
    config: &AgentConfig,
    host: &Host,
    transport: &Transport,
    mapped: &Mappings,
) -> Vec<SocketAddr> {
    let bound = transport.local_addr().ok();
    let port = bound.map_or(0, |address| address.port());
    let bound = bound.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
    let local = host.net.local_addresses().await;
    let mut endpoints = config.advertise.clone();
    let [first, last] = first_or_last(mapped.external(port).map(SocketAddr::V4));
    endpoints.extend(first);
    for (interface, ip) in local {
        let reachable = bound.is_unspecified() || bound == ip;
        if !is_tunnel(config, interface) && reachable {
            endpoints.push(SocketAddr::new(ip, port));
        }
    }
    if !bound.is_unspecified() && !endpoints.iter().any(|endpoint| endpoint.ip() == bound) {
        endpoints.push(SocketAddr::new(bound, port));
    }
    endpoints.extend(last);
    endpoints.truncate(limits::ENDPOINTS);
    endpoints
}

/// What is said of the place of this node's tunnel, where its router has `mapped` it and
/// others have `seen` it, and it is connected with `relay`.
pub(crate) async fn places(
    config: &AgentConfig,
    host: &Host,
    (mapped, seen): (&Mappings, &[SocketAddr]),
    relay: Option<NodeId>,
) -> Places {
    let mut candidates = tunnel_addresses(config, host, mapped, seen).await;
    candidates.truncate(limits::CANDIDATES);
    Places { candidates, relay }.bounded()
}

/// Where this node's tunnel may be found, the likeliest first: as the configuration says,
/// as its router has `mapped` it, as others have `seen` it, and at the addresses of the
/// host's other interfaces.
async fn tunnel_addresses(
    config: &AgentConfig,
    host: &Host,
    mapped: &Mappings,
    seen: &[SocketAddr],
) -> Vec<SocketAddr> {
    let configured = endpoint(config).and_then(|endpoint| endpoint.address());
    let advertised = config.advertise.iter().map(|address| address.ip());
    let local = host.net.local_addresses().await.into_iter();
    let local = local
        .filter(|(interface, _)| !is_tunnel(config, interface.clone()) && !is_inner(interface))
        .map(|(_, ip)| ip);
    let local: Vec<SocketAddr> = advertised
        .chain(local)
        .map(|ip| SocketAddr::new(ip, config.tunnel_port))
        .collect();
    let mapped = mapped.external(config.tunnel_port);
    let [first, last] = first_or_last(mapped.map(SocketAddr::V4));
    let mut all: Vec<SocketAddr> = Vec::new();
    for at in configured
        .into_iter()
        .chain(first)
        .chain(seen.iter().copied())
        .chain(local)
        .chain(last)
    {
        let at = SocketAddr::new(at.ip().to_canonical(), at.port());
        if !all.contains(&at) {
            all.push(at);
        }
    }
    all
}

/// Whether an interface leads to containers or virtual machines of this host, by the
/// names that those who make them give: what is behind it nobody else reaches.
fn is_inner(interface: &str) -> bool {
    let bridges = [
        "docker", "br-", "veth", "cni", "podman", "virbr", "lxcbr", "lxdbr", "flannel",
    ];
    bridges.iter().any(|bridge| interface.starts_with(bridge))
}
