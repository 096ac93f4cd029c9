//! How the other members are reached, and probes of one.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use innermesh_proto::{id::NodeId, ledger::Member, name::Label, rpc::method, view::MeshView};

use crate::{
    control::{
        ControlError,
        node::{LiveBy, Path, Peer, PingReply, TunnelWay},
    },
    gossip,
    node::{
        commands::tunnel::{SeenTunnel, TunnelProber},
        shared::{
            handles::Handles, pair_secrets::PairSecrets, refusals::no_node,
            tunnel_counters::SESSION,
        },
    },
    quic::PeerInfo,
};

/// How long one probe may take.
const PROBE: Duration = Duration::from_secs(3);
/// Between two probes.
const PROBE_PAUSE: Duration = Duration::from_millis(200);
/// Most probes of one `ping`.
const PROBES: u32 = 100;

/// The other members, and how each is reached.
pub async fn peers(node: &Handles, prober: &TunnelProber, pairs: &PairSecrets) -> Vec<Peer> {
    let view = node.view.borrow().clone();
    let mut reach = Reach::look(node, prober).await;
    let now = node.host.clock.now();
    let heard: BTreeMap<NodeId, (Duration, Option<LiveBy>)> = node.gossip.read(|table| {
        let heads = table.iter();
        heads
            .filter_map(|(other, known)| {
                let live_by = node.gossip.live_by(other, known);
                let heard = node.gossip.heard_at(other, known)?;
                Some((*other, (heard, live_by.map(why))))
            })
            .collect()
    });
    let others = view
        .ledger
        .members
        .iter()
        .filter(|(other, _)| **other != view.me);
    let nodes = others.map(|(other, member)| {
        let way = reach.way(&view, other, member);
        let info = reach.paths.get(other);
        let tunnel = reach.tunnels.remove(&IpAddr::V4(member.ipv4));
        let heard = heard.get(other);
        let seen = heard.map(|(heard, _)| now.saturating_sub(*heard));
        Peer {
            name: member.name.to_string(),
            path: way.path,
            linked: way.linked,
            through: way.through,
            endpoint: info.map(|info| info.remote),
            tcp: way.tcp,
            rtt_ms: info.map(|info| info.rtt.as_secs_f64() * 1000.0),
            psk: tunnel.as_ref().is_some_and(|seen| seen.psk),
            pair_key: tunnel
                .as_ref()
                .map(|seen| pairs.state(other, seen.handshake)),
            seen_s: seen.map(|age| age.as_secs()),
            live_by: heard.and_then(|(_, live_by)| *live_by),
            tunnel: tunnel.map(|seen| seen.tunnel),
            device: false,
            addresses: MeshView::addresses(member),
        }
    });
    let mut peers: Vec<Peer> = nodes.collect();
    peers.extend(devices(&view, &mut reach.tunnels));
    peers
}

/// What is seen here of how members are reached.
pub struct Reach<'a> {
    node: &'a Handles,
    paths: BTreeMap<NodeId, PeerInfo>,
    tunnels: BTreeMap<IpAddr, SeenTunnel>,
}

/// How one is.
pub struct Way {
    pub path: Path,
    pub linked: bool,
    /// Names of those by which its agent is reached, where it isn't straight.
    pub through: Vec<String>,
    /// Name of the relay by which its tunnel goes.
    pub relay: Option<String>,
    /// Whether it, or that relay, is reached over TCP.
    pub tcp: bool,
}

impl<'a> Reach<'a> {
    pub async fn look(node: &'a Handles, prober: &TunnelProber) -> Self {
        let view = node.view.borrow().clone();
        Self {
            node,
            paths: paths(node),
            tunnels: prober.peers(&view).await,
        }
    }

    pub fn way(&self, view: &MeshView, node: &NodeId, member: &Member) -> Way {
        let is_live = |node: &NodeId| {
            let is_held = view.held.contains_key(node);
            view.nodes.get(node).is_some_and(|seen| seen.live) && !is_held
        };
        let tunnel = self.tunnels.get(&IpAddr::V4(member.ipv4));
        // The two have seen each other's packets; of one that is gone that says nothing.
        let has_session = is_live(node)
            && tunnel
                .and_then(|seen| seen.handshake)
                .is_some_and(|age| age < SESSION);
        let is_connected = *node == view.me || self.paths.contains_key(node);
        let way = tunnel.and_then(|seen| seen.tunnel.way.as_ref());
        let path = match way.map(|way| way.path) {
            Some(Path::Relay) if has_session && !is_connected => Path::Relay,
            _ => path(is_connected || has_session),
        };
        let mut through = Vec::new();
        if path == Path::None && is_live(node) {
            let by = self.node.gossip.neighbours_of(node).into_iter();
            let by = by.filter(|by| *by != view.me && is_live(by));
            let names = by.filter_map(|by| Some(view.ledger.members.get(&by)?.name.to_string()));
            through.extend(names);
            through.sort();
        }
        let relay = way.filter(|_| path == Path::Relay);
        let relay = relay.and_then(|way| way.relay.clone());
        Way {
            tcp: by_tcp(view, &self.paths, node, relay.as_deref()),
            relay,
            path,
            linked: self.node.gossip.is_linked(node),
            through,
        }
    }
}

/// Whether a node is reached over TCP, or the relay by which it is.
fn by_tcp(
    view: &MeshView,
    paths: &BTreeMap<NodeId, PeerInfo>,
    node: &NodeId,
    relay: Option<&str>,
) -> bool {
    let relay = relay.and_then(|name| view.ledger.member_by_name(&name.parse().ok()?));
    let hop = relay.map_or(*node, |(relay, _)| relay);
    paths.get(&hop).is_some_and(|info| info.by_tcp)
}

fn why(live_by: gossip::LiveBy) -> LiveBy {
    match live_by {
        gossip::LiveBy::Link => LiveBy::Link,
        gossip::LiveBy::Neighbours => LiveBy::Neighbours,
        gossip::LiveBy::Lease => LiveBy::Lease,
    }
}

/// The devices that come in by this node and are here.
fn devices(view: &MeshView, tunnels: &mut BTreeMap<IpAddr, SeenTunnel>) -> Vec<Peer> {
    let devices = view.ledger.devices();
    let here = devices.filter(|(id, _)| {
        let seen = view.device_seen(id);
        seen.is_some_and(|(gateway, _)| gateway == view.me)
    });
    here.map(|(_, device)| {
        let tunnel = tunnels.remove(&IpAddr::V4(device.ipv4));
        Peer {
            name: device.name.to_string(),
            path: path(tunnel.is_some()),
            linked: false,
            through: Vec::new(),
            endpoint: tunnel.as_ref().and_then(|seen| seen.tunnel.endpoint),
            tcp: false,
            rtt_ms: None,
            psk: tunnel.as_ref().is_some_and(|seen| seen.psk),
            pair_key: None,
            seen_s: tunnel.as_ref().and_then(|seen| seen.tunnel.handshake_s),
            live_by: None,
            tunnel: tunnel.map(|seen| seen.tunnel),
            device: true,
            addresses: device.addresses().to_vec(),
        }
    })
    .collect()
}

/// Sends probes to a member over QUIC, and asks for a tunnel handshake where
/// there is a tunnel.
///
/// # Errors
/// When no member has that name.
pub async fn ping(
    node: &Handles,
    prober: &TunnelProber,
    whom: Label,
    count: u32,
) -> Result<PingReply, ControlError> {
    let view = node.view.borrow().clone();
    let (id, _) = view
        .ledger
        .member_by_name(&whom)
        .ok_or_else(|| no_node(&whom))?;
    let clock = &node.host.clock;
    let sent = count.clamp(1, PROBES);
    let mut rtt_ms = Vec::new();
    for probe in 0..sent {
        if probe > 0 {
            clock.sleep(PROBE_PAUSE).await;
        }
        let start = clock.now();
        let answered = if id == view.me {
            true
        } else {
            let call = node
                .transport
                .call(id, method::PING, probe.to_le_bytes().to_vec(), PROBE);
            call.await.is_ok()
        };
        if answered {
            rtt_ms.push(clock.now().saturating_sub(start).as_secs_f64() * 1000.0);
        }
    }
    let mut paths = paths(node);
    let tunnel = prober.ping(&view, id).await;
    let way = way_to(&view, prober, id).await;
    let relay = way.as_ref().filter(|way| way.path == Path::Relay);
    let relay = relay.and_then(|way| way.relay.as_deref());
    let tcp = by_tcp(&view, &paths, &id, relay);
    let info = paths.remove(&id);
    let is_there = info.is_some() || id == view.me;
    let by_tunnel = way.as_ref().filter(|_| !is_there).map(|way| way.path);
    Ok(PingReply {
        node: whom.to_string(),
        path: by_tunnel.unwrap_or(path(is_there)),
        endpoint: info.map(|info| info.remote),
        tcp,
        sent,
        rtt_ms,
        tunnel,
        way,
    })
}

async fn way_to(view: &MeshView, prober: &TunnelProber, node: NodeId) -> Option<TunnelWay> {
    let member = view.ledger.members.get(&node)?;
    let seen = prober.peers(view).await.remove(&IpAddr::V4(member.ipv4))?;
    seen.tunnel.way
}

fn paths(node: &Handles) -> BTreeMap<NodeId, PeerInfo> {
    let connected = node.transport.connected();
    connected
        .into_iter()
        .map(|peer| (peer.node, peer))
        .collect()
}

fn path(connected: bool) -> Path {
    if connected { Path::Direct } else { Path::None }
}
