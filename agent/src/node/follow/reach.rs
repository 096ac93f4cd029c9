//! What comes through from the other nodes, and what doesn't: packets that go into
//! a tunnel and bring nothing back, and ports that aren't reached.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use innermesh_proto::{id::NodeId, tunnel::TunnelKey, view::MeshView};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::{
    control::finding::{Finding, Severity, code},
    host::Mono,
    node::{
        follow::blocked::{self, KEEPALIVES, Lost, Silent},
        shared::{
            echo::{SMALL, echo},
            handles::Handles,
            tunnel_counters::TunnelCounters,
            tunnel_progress::TunnelProgress,
        },
    },
    tunnel::Tunnel,
};

/// How often the counters are read.
const LOOK: Duration = Duration::from_secs(5);
/// How long packets may go out with nothing coming back: longer than WireGuard
/// takes for a second handshake (whitepaper §6.1: 5 s).
const SILENT: Duration = Duration::from_secs(10);
/// How long a live node may be without a connection that is needed: more than one pause of
/// the dialer.
const UNCONNECTED: Duration = Duration::from_secs(60);
/// Most nodes that are pinged in one look.
const PINGED: usize = 8;
/// Most nodes that one finding names.
const NAMED: usize = 5;

/// Watches what comes through.
pub(crate) struct Reach {
    node: Handles,
    tunnel: Arc<dyn Tunnel>,
    progress: watch::Sender<TunnelProgress>,
    counters: TunnelCounters,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    traffic: BTreeMap<TunnelKey, Traffic>,
    /// Live nodes with which a connection doesn't come about, and since when.
    unconnected: BTreeMap<NodeId, Mono>,
    /// Since when this node is connected with none of the others.
    alone: Option<Mono>,
    /// Of those that nothing comes from: which way is lost.
    silent: Silent,
    /// How many were pinged so far.
    pinged: usize,
    /// Addresses whose handshakes with this node were never finished.
    half_open: BTreeSet<IpAddr>,
}

/// A handshake's first message, in bytes (WireGuard whitepaper §5.4.2). Packets of
/// data have multiples of 16 (§5.4.6).
const BEGINNING: u64 = 148;
/// Most of them between two looks, which take up to ten seconds: one every five
/// seconds (§6.4).
const BEGINNINGS: u64 = 3;
/// What a peer sends at most between two looks that hears nothing, in bytes: beginnings
/// of handshakes, and pings to find out.
const UNHEARING: u64 = 2048;

/// One peer's counters, and since when more went out than before while no answer
/// came in: a peer that hears nothing begins handshakes again and again.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    rx_bytes: u64,
    tx_bytes: u64,
    unanswered: Option<Mono>,
    /// Whether the last ping went unanswered, or the other end asked what was sent as
    /// it hears nothing.
    is_unheard: bool,
    /// Whether the other end asked: it has heard nothing for [`SILENT`].
    was_asked: bool,
}

impl Traffic {
    fn take(&mut self, now: Mono, rx_bytes: u64, tx_bytes: u64) {
        let begun = (0..=BEGINNINGS).map(|count| count * BEGINNING);
        let mut unanswering = begun.map(|bytes| self.rx_bytes.saturating_add(bytes));
        let came = rx_bytes.checked_sub(self.rx_bytes);
        let is_unhearing = self.is_unheard && came.is_some_and(|bytes| bytes <= UNHEARING);
        if !is_unhearing && !unanswering.any(|bytes| bytes == rx_bytes) {
            self.answered();
        } else if tx_bytes > self.tx_bytes.saturating_add(KEEPALIVES) {
            // Pinged at once, as that is in question.
            let before = if self.was_asked { LOOK } else { Duration::ZERO };
            self.unanswered.get_or_insert(now.saturating_sub(before));
        }
        (self.rx_bytes, self.tx_bytes) = (rx_bytes, tx_bytes);
    }

    fn answered(&mut self) {
        (self.unanswered, self.is_unheard, self.was_asked) = (None, false, false);
    }

    /// A ping went unanswered. With the other end's word that is as much as silence is
    /// here.
    fn missed(&mut self, now: Mono) {
        self.is_unheard = true;
        if self.was_asked {
            let long = now.saturating_sub(SILENT);
            self.unanswered = self.unanswered.map(|since| since.min(long));
        }
    }

    /// For how long nothing came back, from `least` on.
    fn silent_for(&self, now: Mono, least: Duration) -> Option<Duration> {
        let since = now.saturating_sub(self.unanswered?);
        (since >= least).then_some(since)
    }
}

impl Reach {
    pub fn new(
        node: &Handles,
        tunnel: Arc<dyn Tunnel>,
        progress: watch::Sender<TunnelProgress>,
        counters: TunnelCounters,
    ) -> Arc<Self> {
        Arc::new(Self {
            node: node.clone(),
            tunnel,
            progress,
            counters,
            seen: Mutex::default(),
        })
    }

    pub async fn run(self: Arc<Self>) {
        loop {
            self.look().await;
            self.node.host.clock.sleep(LOOK).await;
        }
    }

    async fn look(&self) {
        self.count().await;
        self.ping().await;
        let silent = self.unanswering();
        let answers = blocked::ask(&self.node.transport, silent).await;
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        seen.silent.take(&answers);
    }

    /// Pings those from which nothing seems to come, before that is told. An answer is
    /// seen here: handshakes alone look alike whether they come about or not, and not
    /// every node's device counts the keepalives that end them.
    async fn ping(&self) {
        let suspected: Vec<(TunnelKey, IpAddr)> = {
            let view = self.node.view.borrow().clone();
            let now = self.node.host.clock.now();
            let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
            let all = self.silent_peers(&seen, &view, now, LOOK);
            // In turns, as some of them may be silent for long.
            let count = all.len().min(PINGED);
            let turn = seen.pinged;
            seen.pinged = turn.wrapping_add(count);
            let all = all.iter().map(|peer| (peer.key, peer.address));
            let all: Vec<_> = all.collect();
            let first = turn.checked_rem(all.len()).unwrap_or_default();
            all.iter()
                .cycle()
                .skip(first)
                .take(count)
                .copied()
                .collect()
        };
        let pings = suspected.into_iter().map(async |(key, address)| {
            let answer = echo(&self.node.host, address, SMALL).await;
            (key, answer.ok().flatten().is_some())
        });
        let answered = join_all(pings).await;
        let now = self.node.host.clock.now();
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        for (key, is_answered) in answered {
            match seen.traffic.get_mut(&key) {
                Some(traffic) if is_answered => traffic.answered(),
                Some(traffic) => traffic.missed(now),
                None => {}
            }
        }
    }

    /// Those that are silent, with what was sent to each.
    fn unanswering(&self) -> Vec<(TunnelKey, NodeId, u64)> {
        let view = self.node.view.borrow().clone();
        let now = self.node.host.clock.now();
        let seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        self.silent_peers(&seen, &view, now, SILENT)
            .into_iter()
            .map(|peer| (peer.key, peer.node, peer.sent))
            .collect()
    }

    /// Reads the counters.
    async fn count(&self) {
        let state = self.tunnel.observe().await.ok();
        let now = self.node.host.clock.now();
        let view = self.node.view.borrow().clone();
        let connected: BTreeSet<NodeId> = self.node.transport.peers().into_iter().collect();
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(state) = state {
            seen.traffic.retain(|key, _| state.peers.contains_key(key));
            // Its own pings, by which it found that out, are no answers.
            for key in self.counters.take_asked() {
                if let Some(traffic) = seen.traffic.get_mut(&key) {
                    (traffic.is_unheard, traffic.was_asked) = (true, true);
                }
            }
            for (key, peer) in &state.peers {
                let traffic = seen.traffic.entry(*key).or_default();
                traffic.take(now, peer.rx_bytes, peer.tx_bytes);
            }
        }
        let others = view.ledger.members.len() > 1;
        seen.alone = (others && connected.is_empty()).then(|| seen.alone.unwrap_or(now));
        let before = std::mem::take(&mut seen.unconnected);
        let failing = self.node.transport.failing();
        let lacking = view.nodes.iter().filter(|(node, of)| {
            of.live && failing.contains_key(node) && !connected.contains(node)
        });
        seen.unconnected = lacking
            .map(|(node, _)| (*node, before.get(node).copied().unwrap_or(now)))
            .collect();
        seen.half_open = self.node.transport.half_open().into_iter().collect();
    }

    /// Live nodes to which packets go, and nothing comes back.
    fn silent_peers(
        &self,
        seen: &Seen,
        view: &MeshView,
        now: Mono,
        least: Duration,
    ) -> Vec<SilentPeer> {
        let plan = self.progress.borrow().plan.clone();
        let silent = seen
            .traffic
            .iter()
            .filter_map(|(key, traffic)| Some((key, traffic, traffic.silent_for(now, least)?)));
        silent
            .filter_map(|(key, traffic, since)| {
                let nets = &plan.peers.get(key)?.allowed_ips;
                let mut members = view.ledger.members.iter();
                let (node, member) = members
                    .find(|(_, member)| nets.contains(&IpNet::from(IpAddr::V4(member.ipv4))))?;
                let of = view.nodes.get(node).filter(|of| of.live)?;
                Some(SilentPeer {
                    key: *key,
                    node: *node,
                    name: member.name.to_string(),
                    address: member.ipv4.into(),
                    port: of.announcement.wireguard.as_ref()?.port,
                    since,
                    sent: traffic.tx_bytes,
                })
            })
            .collect()
    }

    /// What doesn't come through, each with the nodes that it is so with.
    pub fn findings(&self, view: &MeshView) -> Vec<Finding> {
        let now = self.node.host.clock.now();
        let silent = self.silent(view, now);
        let unreached = self.unreached(view, now);
        let gone = self.gone(view, now);
        let alone = self.alone(now);
        silent
            .into_iter()
            .chain(unreached)
            .chain(gone)
            .chain(alone)
            .collect()
    }

    fn alone(&self, now: Mono) -> Option<Finding> {
        let seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        let since = now.saturating_sub(seen.alone?);
        (since >= SILENT).then(|| {
            Finding::new(
                code::ALONE,
                Severity::Warning,
                format!("no other node has answered for {} s", since.as_secs()),
                "If one of them runs, `agent seed add ADDRESS` tells this node where",
            )
        })
    }

    fn silent(&self, view: &MeshView, now: Mono) -> Vec<Finding> {
        let seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        let silent = self.silent_peers(&seen, view, now, SILENT);
        let own = self.node.config.tunnel_port;
        let all: Vec<String> = silent
            .iter()
            .map(|peer| {
                let since_s = peer.since.as_secs();
                format!("{} (UDP port {}, for {since_s} s)", peer.name, peer.port)
            })
            .collect();
        let told = list(&all).map(|list| {
            Finding::error(
                code::TUNNEL_SILENT,
                format!("packets go into the tunnel and nothing comes back from {list}"),
                format!(
                    "Let UDP through the firewalls on the way, to that port and to {own} here; `agent \
                     ping` shows what passes"
                ),
            )
        });
        let ways = [Lost::Outbound, Lost::Inbound].into_iter();
        let ways = ways.filter_map(|way| {
            let those = silent.iter();
            let those = those.filter(|peer| seen.silent.lost(&peer.key) == Some(way));
            Some(match way {
                Lost::Outbound => {
                    let those: Vec<String> = those
                        .map(|peer| format!("{} (UDP port {})", peer.name, peer.port))
                        .collect();
                    Finding::error(
                        code::WIREGUARD_BLOCKED,
                        format!(
                            "WireGuard's packets from here don't arrive at {}: it has seen none of \
                             those that were sent",
                            list(&those)?
                        ),
                        "Let UDP to that port through: there, here on the way out, or in between",
                    )
                }
                Lost::Inbound => {
                    let those: Vec<String> = those.map(|peer| peer.name.clone()).collect();
                    Finding::error(
                        code::WIREGUARD_BLOCKED,
                        format!(
                            "WireGuard's packets from {} don't arrive here at UDP port {own}: it hears \
                             this node, and what it answers isn't seen",
                            list(&those)?
                        ),
                        format!(
                            "Let UDP to port {own} of this node through: here, there on the way out, or \
                             in between"
                        ),
                    )
                }
            })
        });
        told.into_iter().chain(ways).collect()
    }

    fn unreached(&self, view: &MeshView, now: Mono) -> Vec<Finding> {
        let seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        let long = seen
            .unconnected
            .iter()
            .filter(|(_, since)| now.saturating_sub(**since) >= UNCONNECTED);
        let long: Vec<NodeId> = long
            .map(|(node, _)| *node)
            .filter(|node| view.nodes.get(node).is_some_and(|of| of.live))
            .collect();
        let name = |node: &NodeId| view.ledger.name_of(*node);
        let all: Vec<String> = long.iter().map(name).collect();
        let told = list(&all).map(|list| {
            Finding::warning(
                code::PEER_UNREACHED,
                format!("there is no connection to {list}, of which other nodes hear"),
                "Let UDP through the firewalls on the way, to the agents' port (51819 unless the \
                 configuration says otherwise), from here to there or from there to here",
            )
        });
        let begun = long.iter().filter(|node| seen.has_begun(view, node));
        let begun: Vec<String> = begun
            .map(|node| match quic_port(view, node) {
                Some(port) => format!("{} (UDP port {port})", name(node)),
                None => name(node),
            })
            .collect();
        let outbound = list(&begun).map(|list| {
            Finding::warning(
                code::QUIC_BLOCKED,
                format!(
                    "what the agent answers doesn't arrive at {list}: connections from its address \
                     begin here, and none comes about"
                ),
                "Let UDP from here to that port through: there, here on the way out, or in between",
            )
        });
        told.into_iter().chain(outbound).collect()
    }

    /// Nodes that fell silent without a goodbye since this agent started.
    fn gone(&self, view: &MeshView, now: Mono) -> Option<Finding> {
        let gossip = &self.node.gossip;
        let gone: BTreeMap<NodeId, Duration> = gossip.read(|table| {
            let said_nothing = table.iter().filter(|(_, known)| known.head.lease_ms > 0);
            said_nothing
                .filter_map(|(node, _)| Some((*node, now.saturating_sub(gossip.gone_since(node)?))))
                .collect()
        });
        let gone: Vec<String> = gone
            .iter()
            .filter(|(node, _)| view.nodes.get(node).is_some_and(|of| !of.live))
            .map(|(node, since)| {
                format!("{} (for {} s)", view.ledger.name_of(*node), since.as_secs())
            })
            .collect();
        let text = format!("nothing is heard any more of {}", list(&gone)?);
        Some(Finding::new(
            code::PEER_SILENT,
            Severity::Warning,
            text,
            "It is off, its agent has ended, or it is cut off from the others: start it, or look at \
             `systemctl status innermesh` there",
        ))
    }
}

impl Seen {
    /// Whether handshakes began that come from an address of this node, and never
    /// ended.
    fn has_begun(&self, view: &MeshView, node: &NodeId) -> bool {
        let Some(of) = view.nodes.get(node) else {
            return false;
        };
        let mut endpoints = of.announcement.quic.iter();
        endpoints.any(|at| self.half_open.contains(&at.ip().to_canonical()))
    }
}

/// Where a node's agent listens, where it says one port only.
fn quic_port(view: &MeshView, node: &NodeId) -> Option<u16> {
    let endpoints = &view.nodes.get(node)?.announcement.quic;
    let first = endpoints.first()?.port();
    endpoints
        .iter()
        .all(|at| at.port() == first)
        .then_some(first)
}

/// A live node to which packets go, and nothing comes back.
struct SilentPeer {
    key: TunnelKey,
    node: NodeId,
    name: String,
    /// Its overlay address.
    address: IpAddr,
    /// Where its WireGuard listens.
    port: u16,
    since: Duration,
    /// Bytes that were sent to it.
    sent: u64,
}

/// The first of them in words; `None` where there are none.
fn list(all: &[String]) -> Option<String> {
    let named = all.iter().take(NAMED).cloned().collect::<Vec<_>>();
    let more = all.len().saturating_sub(NAMED);
    (!named.is_empty()).then(|| match more {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Mono {
        Duration::from_secs(seconds)
    }

    fn silent_for(traffic: &Traffic, now: Mono) -> Option<Duration> {
        traffic.silent_for(now, SILENT)
    }

    #[test]
    fn only_packets_that_go_out_and_bring_nothing_back_for_long_are_unanswered() {
        let mut traffic = Traffic::default();
        traffic.take(s(0), 0, 0);
        assert_eq!(silent_for(&traffic, s(100)), None, "nothing was sent");
        traffic.take(s(50), 0, 32);
        traffic.take(s(55), 0, 96);
        assert_eq!(
            silent_for(&traffic, s(100)),
            None,
            "keepalives ask for nothing"
        );
        traffic.take(s(100), 0, 244);
        assert_eq!(silent_for(&traffic, s(109)), None, "not for long enough");
        traffic.take(s(105), 0, 392);
        assert_eq!(silent_for(&traffic, s(110)), Some(s(10)));
        traffic.take(s(110), 92, 392);
        assert_eq!(silent_for(&traffic, s(200)), None, "something came");
        // What the other begins is no answer, and ends with one.
        traffic.take(s(200), 92, 484);
        traffic.take(s(205), 92 + 148, 576);
        traffic.take(s(210), 92 + 148 + 2 * 148, 576 + 92);
        assert_eq!(
            silent_for(&traffic, s(210)),
            Some(s(10)),
            "handshakes begin"
        );
        traffic.take(s(215), 92 + 4 * 148 + 32, 576 + 2 * 92);
        assert_eq!(silent_for(&traffic, s(300)), None, "one came about");
        traffic.take(s(300), 92 + 4 * 148 + 32, 1000);
        // Its own pings arrive, and the answers don't: what comes is no answer.
        traffic.is_unheard = true;
        traffic.take(s(310), 92 + 5 * 148 + 32 + 6 * 128, 2000);
        assert_eq!(silent_for(&traffic, s(310)), Some(s(10)));
        traffic.take(s(315), 92 + 5 * 148 + 32 + 6 * 128 + 4000, 2000);
        assert_eq!(silent_for(&traffic, s(400)), None, "more than that came");
        // The device was made anew: its counters begin again.
        traffic.take(s(320), 0, 148);
        assert_eq!(silent_for(&traffic, s(400)), None);
    }

    #[test]
    fn who_is_asked_needs_one_ping_that_is_missed() {
        let mut traffic = Traffic::default();
        traffic.take(s(100), 1000, 1000);
        (traffic.is_unheard, traffic.was_asked) = (true, true);
        traffic.take(s(105), 1128, 1200);
        assert_eq!(traffic.silent_for(s(105), LOOK), Some(LOOK), "it is pinged");
        assert_eq!(silent_for(&traffic, s(105)), None, "it isn't told before");
        traffic.missed(s(106));
        assert_eq!(silent_for(&traffic, s(106)), Some(SILENT));
        // Without the other's word a ping that is missed tells nothing by itself.
        traffic.answered();
        traffic.take(s(110), 1128, 1400);
        traffic.missed(s(111));
        assert_eq!(silent_for(&traffic, s(111)), None);
    }

    #[test]
    fn a_list_names_a_few_and_counts_the_rest() {
        let names = |count: usize| (0..count).map(|n| format!("n{n}")).collect::<Vec<_>>();
        assert_eq!(list(&names(0)), None);
        assert_eq!(list(&names(2)).unwrap(), "n0, n1");
        assert_eq!(list(&names(7)).unwrap(), "n0, n1, n2, n3, n4 and 2 more");
    }
}
