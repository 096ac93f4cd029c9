//! What is seen of the tunnel to a node: whether it answers, and whether it is cut
//! off.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use innermesh_proto::{
    codec,
    id::NodeId,
    limits,
    message::{CutOff, CutOffQuery},
    path::{Report, Via, WhyNot},
    rpc::method,
    tunnel::{TunnelKey, TunnelPlan},
    view::MeshView,
};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::{
    control::{
        members::{CutOffAt, CutOffSeen},
        node::{Path, PeerTunnel, TunnelPacket, TunnelPing, TunnelWay},
    },
    host::Host,
    node::shared::{
        cut_off::CutOffWatch,
        echo::{PROBE, SMALL, echo},
        handles::Handles,
        tunnel_counters::SESSION,
        tunnel_progress::TunnelProgress,
    },
    tunnel::{PeerState, Tunnel, relayed::is_relay_place},
};

/// Between two looks at what changes without a word.
const LOOK: Duration = Duration::from_millis(50);
/// How long a peer may take to say whether it has cut a node off.
const ANSWER: Duration = Duration::from_millis(2500);

/// Sends probes through the tunnel.
pub(crate) struct TunnelProber {
    pub host: Host,
    pub tunnel: Arc<dyn Tunnel>,
    pub progress: watch::Sender<TunnelProgress>,
    /// Where probes go; whether anything listens there doesn't matter.
    pub port: u16,
    /// Largest packet through the tunnel, in bytes.
    pub mtu: u32,
}

impl TunnelProber {
    /// Sends pings to a member's overlay address, and tells what came back through
    /// the tunnel from it; `None` where there is none to it.
    pub async fn ping(&self, view: &MeshView, node: NodeId) -> Option<TunnelPing> {
        let member = view.ledger.members.get(&node)?;
        let plan = self.progress.borrow().plan.clone();
        let address = IpAddr::V4(member.ipv4);
        let key = key_of(&plan, address)?;
        let before = self.peer(&key).await?.rx_bytes;
        let mut packets = Vec::new();
        for bytes in [SMALL, self.mtu] {
            let Some(packet) = self.echo(address, bytes).await else {
                break;
            };
            let passed = packet.rtt_ms.is_some();
            packets.push(packet);
            if !passed {
                break;
            }
        }
        // A host may answer no pings: a refused connection comes back too.
        let works = match packets.first() {
            Some(small) if small.rtt_ms.is_some() => true,
            _ => self.hears(&key, address, before).await,
        };
        let seen = self.peer(&key).await?;
        Some(TunnelPing {
            works,
            packets,
            forbidden: !view.may_ping(&node),
            handshake: seen.last_handshake.is_some_and(|age| age < SESSION),
            age_s: seen.last_handshake.map(|age| age.as_secs()),
        })
    }

    /// `None` where this host lets the agent send none.
    async fn echo(&self, address: IpAddr, bytes: u32) -> Option<TunnelPacket> {
        match echo(&self.host, address, bytes).await {
            Ok(took) => Some(TunnelPacket {
                bytes,
                rtt_ms: took.map(|took| took.as_secs_f64() * 1000.0),
            }),
            Err(error) => {
                tracing::debug!(%address, %error, "no ping can be sent");
                None
            }
        }
    }

    /// Whether anything comes through the tunnel from a peer that is asked for a
    /// connection.
    async fn hears(&self, key: &TunnelKey, address: IpAddr, before: u64) -> bool {
        // Whether anything listens there doesn't matter.
        let target = SocketAddr::new(address, self.port);
        let mut probe = pin!(self.host.net.probe_tcp(target));
        let mut sent = false;
        let clock = &self.host.clock;
        let end = clock.now() + PROBE;
        loop {
            let seen = self.peer(key).await;
            let heard = seen.is_some_and(|seen| seen.rx_bytes > before);
            if heard || clock.now() >= end {
                return heard;
            }
            tokio::select! {
                _ = &mut probe, if !sent => sent = true,
                () = clock.sleep(LOOK) => {}
            }
        }
    }

    /// What the device says of the peers, by what is routed to them.
    pub async fn peers(&self, view: &MeshView) -> BTreeMap<IpAddr, SeenTunnel> {
        let plan = self.progress.borrow().plan.clone();
        let Ok(mut state) = self.tunnel.observe().await else {
            return BTreeMap::new();
        };
        let mut peers = BTreeMap::new();
        for (key, planned) in &plan.peers {
            let Some(seen) = state.peers.remove(key) else {
                continue;
            };
            let relay = plan.ways.get(key).and_then(|way| way.relay);
            let relay = relay.map(|relay| view.ledger.name_of(relay));
            let way = seen.way.map(|report| way(report, relay));
            let endpoint = seen.endpoint.filter(|at| !is_relay_place(at));
            let tunnel = PeerTunnel {
                endpoint,
                way,
                handshake_s: seen.last_handshake.map(|age| age.as_secs()),
                rx_bytes: seen.rx_bytes,
                tx_bytes: seen.tx_bytes,
            };
            let addresses = planned.allowed_ips.iter().map(IpNet::addr);
            let seen = SeenTunnel {
                tunnel,
                psk: planned.preshared_key.is_some(),
                handshake: seen.last_handshake,
            };
            peers.extend(addresses.map(|address| (address, seen.clone())));
        }
        peers
    }

    async fn peer(&self, key: &TunnelKey) -> Option<PeerState> {
        let mut state = self.tunnel.observe().await.ok()?;
        state.peers.remove(key)
    }
}

/// A tunnel as the device has it.
#[derive(Clone)]
pub struct SeenTunnel {
    pub tunnel: PeerTunnel,
    /// Whether it is planned with a pre-shared key.
    pub psk: bool,
    /// How long ago its last handshake was.
    pub handshake: Option<Duration>,
}

/// As a person is told of it.
fn way(report: Report, relay: Option<String>) -> TunnelWay {
    let path = match report.via {
        Some(Via::Direct(_)) => Path::Direct,
        Some(Via::Relay) => Path::Relay,
        None => Path::None,
    };
    let at = match report.via {
        Some(Via::Direct(at)) => Some(at),
        _ => None,
    };
    TunnelWay {
        path,
        at,
        relay,
        announced: report.is_announced,
        rtt_us: report.rtt.map(|rtt| rtt.as_micros() as u64),
        why: report.why_not.map(why_not),
    }
}

fn why_not(why: WhyNot) -> String {
    match why {
        WhyNot::NoPlace => "no address of it is known".into(),
        WhyNot::Looking => "a straight way is being looked for".into(),
        WhyNot::NoAnswer {
            places,
            times,
            again,
        } => {
            let places = counted(places, "address", "addresses");
            let times = counted(times.max(1), "try", "tries");
            let again = again.as_secs();
            match again {
                0 => format!("nothing came back from {places} in {times}"),
                s => format!(
                    "nothing came back from {places} in {times}; again in {s} s at the soonest"
                ),
            }
        }
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Whose packets reach the address: what is announced doesn't matter.
fn key_of(plan: &TunnelPlan, address: IpAddr) -> Option<TunnelKey> {
    let net = IpNet::from(address);
    let mut peers = plan.peers.iter();
    let (key, _) = peers.find(|(_, peer)| peer.allowed_ips.contains(&net))?;
    Some(*key)
}

/// What this node has seen of a node's being cut off, itself first, then what
/// each live node says of itself.
pub async fn cut_off(node: &Handles, watch: &CutOffWatch, whom: NodeId) -> CutOffSeen {
    let state = node.ledger.state();
    let view = node.view.borrow().clone();
    let live = view.nodes.iter().filter(|(_, of)| of.live);
    let peers: Vec<NodeId> = live
        .map(|(peer, _)| *peer)
        .filter(|peer| ![whom, node.me].contains(peer) && state.members.contains_key(peer))
        .take(limits::CUT_OFF_ASKED)
        .collect();
    let names = &state;
    let asked = stream::iter(peers.clone()).map(|peer| async move {
        CutOffAt {
            node: names.name_of(peer),
            cut_off: ask(node, peer, whom).await,
        }
    });
    let answers = asked.buffered(limits::CUT_OFF_ASKED).collect::<Vec<_>>();
    let (here, peers_say) = tokio::join!(watch.is_cut_off(whom), answers);
    let others = state.members.iter().map(|(other, _)| *other);
    let unreached =
        others.filter(|other| *other != node.me && *other != whom && !peers.contains(other));
    CutOffSeen {
        here,
        peers: peers_say,
        unreached: unreached.map(|other| state.name_of(other)).collect(),
    }
}

/// `None` where no answer came, as from an older agent.
async fn ask(node: &Handles, peer: NodeId, whom: NodeId) -> Option<bool> {
    let query = codec::encode(&CutOffQuery { node: whom });
    let call = node.transport.call(peer, method::CUT_OFF, query, ANSWER);
    let answer = call.await.ok()?;
    let said: CutOff = codec::decode(&answer, limits::RPC_BYTES).ok()?;
    Some(said.cut_off)
}

#[cfg(test)]
mod tests {
    use innermesh_proto::tunnel::TunnelPeer;

    use super::*;

    #[test]
    fn a_peers_key_is_that_of_the_plan() {
        let peer = TunnelPeer {
            allowed_ips: ["10.7.0.2/32".parse().unwrap()].into(),
            ..TunnelPeer::default()
        };
        let plan = TunnelPlan {
            peers: [(TunnelKey([2; 32]), peer)].into(),
            ..TunnelPlan::default()
        };
        let key = |address: &str| key_of(&plan, address.parse().unwrap());
        assert_eq!(key("10.7.0.2"), Some(TunnelKey([2; 32])));
        assert_eq!(key("10.7.0.3"), None);
    }
}
