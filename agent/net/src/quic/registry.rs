//! The connections that are up: which one is in force for each peer, and the
//! news of peers that come and go. Owns no socket and decides no membership.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use innermesh_proto::{
    id::NodeId,
    limits,
    rpc::{Hello, close},
};
use tokio::sync::{broadcast, watch};

use super::{
    link::{InFlight, Link},
    pair::{Claim, Pair},
};
use crate::host::Mono;

/// Events that a slow reader may fall behind by; it then reads
/// [`TransportBackend::connected`](super::TransportBackend::connected) anew.
const EVENTS: usize = 1024;

/// News of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEvent {
    /// A connection with a member is up where none was. After a restart of the
    /// peer this follows a [`PeerEvent::Down`].
    Up(NodeId),
    /// No connection with the member is left.
    Down(NodeId),
    /// Another agent runs with this node's own key, seen at this address.
    Twin(SocketAddr),
}

/// A member that is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    pub node: NodeId,
    /// Its address, as its packets arrive; over a lane, that of its TCP connection.
    pub remote: SocketAddr,
    /// Whether it is connected over a lane.
    pub by_tcp: bool,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// When the connection came up, by the monotonic clock.
    pub since: Mono,
    /// Whether this node dialed it.
    pub dialed_by_us: bool,
    /// UDP payload bytes sent on it.
    pub bytes_sent: u64,
    /// UDP payload bytes received on it.
    pub bytes_received: u64,
    /// The peer's run of the agent: another number after each start.
    pub instance: u64,
    /// Frames by the peer on it that couldn't be read.
    pub garbage: u64,
}

pub(super) struct Registry {
    me: NodeId,
    state: Mutex<State>,
    events: broadcast::Sender<PeerEvent>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    pairs: BTreeMap<NodeId, Pair<Arc<Link>>>,
    /// Every connection that is served, registered or not, by its ordinal.
    all: BTreeMap<u64, Arc<Link>>,
}

impl Registry {
    pub(super) fn new(me: NodeId) -> Self {
        Self {
            me,
            state: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
            version: watch::Sender::new(0),
        }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<PeerEvent> {
        self.events.subscribe()
    }

    /// Changes whenever a connection comes, goes, or comes into force.
    pub(super) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(super) fn tell(&self, event: PeerEvent) {
        // No receiver is fine: nobody has to listen.
        let _ = self.events.send(event);
    }

    /// Keeps `link` among all those served.
    pub(super) fn track(&self, link: &Arc<Link>) {
        self.lock().all.insert(link.ordinal, link.clone());
    }

    /// Every connection that is served.
    pub(super) fn all(&self) -> Vec<Arc<Link>> {
        self.lock().all.values().cloned().collect()
    }

    /// Takes a member's connection in, once its hello is known.
    pub(super) fn register(&self, node: NodeId, link: &Arc<Link>, hello: Hello) {
        let claim = Claim {
            by_smaller: link.dialed == (self.me < node),
            serial: if link.dialed {
                link.serial
            } else {
                hello.serial
            },
            instance: hello.instance,
            ordinal: link.ordinal,
            since: link.since,
        };
        let mut state = self.lock();
        if !state.all.contains_key(&link.ordinal) {
            // It ended while its hello was being read.
            return;
        }
        link.set_registered();
        let pair = state.pairs.entry(node).or_default();
        let was_up = pair.active().is_some();
        let arrival = pair.arrive(claim, link.clone());
        let stays = pair.links().any(|l| l.ordinal == link.ordinal);
        let restarted = stays && !arrival.former.is_empty();
        mark(pair);
        drop(state);
        if was_up && restarted {
            self.tell(PeerEvent::Down(node));
        }
        if !was_up || restarted {
            self.tell(PeerEvent::Up(node));
        }
        self.version.send_modify(|v| *v = v.wrapping_add(1));
        for former in arrival.former {
            former.close(close::REPLACED, "");
        }
        for excess in arrival.excess {
            excess.close(close::PARTED, "too many connections");
        }
    }

    /// The connection in force with `node`, counted as in use from this moment.
    pub(super) fn active(&self, node: &NodeId) -> Option<InFlight> {
        let state = self.lock();
        state.pairs.get(node)?.active().map(InFlight::on)
    }

    /// Takes out a connection that ran dry and is not in force; `false` when
    /// it came into force, or into use, in between.
    pub(super) fn retire(&self, node: &NodeId, link: &Link) -> bool {
        let mut state = self.lock();
        let Some(pair) = state.pairs.get_mut(node) else {
            return false;
        };
        let in_force = pair.active().is_some_and(|l| l.ordinal == link.ordinal);
        if in_force || !link.is_idle() {
            return false;
        }
        pair.remove(|l| l.ordinal == link.ordinal);
        true
    }

    /// Forgets a connection that ended.
    pub(super) fn remove(&self, link: &Link) {
        let mut state = self.lock();
        state.all.remove(&link.ordinal);
        let Some(node) = link.node else { return };
        let Some(pair) = state.pairs.get_mut(&node) else {
            return;
        };
        let was_up = pair.active().is_some();
        pair.remove(|l| l.ordinal == link.ordinal);
        mark(pair);
        let down = was_up && pair.active().is_none();
        if pair.active().is_none() {
            state.pairs.remove(&node);
        }
        drop(state);
        if down {
            self.tell(PeerEvent::Down(node));
        }
        self.version.send_modify(|v| *v = v.wrapping_add(1));
    }

    /// All connections with `node`, registered or not.
    pub(super) fn of(&self, node: &NodeId) -> Vec<Arc<Link>> {
        let state = self.lock();
        state
            .all
            .values()
            .filter(|l| l.node == Some(*node))
            .cloned()
            .collect()
    }

    /// The members connected, by their id.
    pub(super) fn connected(&self) -> Vec<PeerInfo> {
        let links: Vec<_> = {
            let state = self.lock();
            let active = |(node, pair): (&NodeId, &Pair<_>)| Some((*node, pair.active().cloned()?));
            state.pairs.iter().filter_map(active).collect()
        };
        links
            .into_iter()
            .map(|(node, link): (_, Arc<Link>)| link.info(node))
            .collect()
    }

    /// Where each connected member is.
    pub(super) fn paths(&self) -> BTreeMap<NodeId, SocketAddr> {
        let state = self.lock();
        let active =
            |(node, pair): (&NodeId, &Pair<Arc<Link>>)| Some((*node, pair.active()?.remote()));
        state.pairs.iter().filter_map(active).collect()
    }

    /// The connected members, in the order of their ids.
    pub(super) fn peers(&self) -> Vec<NodeId> {
        let state = self.lock();
        let active = state
            .pairs
            .iter()
            .filter(|(_, pair)| pair.active().is_some());
        active.map(|(node, _)| *node).collect()
    }

    /// Whether a member may have one more connection, registered or not.
    pub(super) fn has_room_for(&self, node: &NodeId) -> bool {
        self.of(node).len() < limits::LINKS_PER_MEMBER
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells each connection whether it is the one in force.
fn mark(pair: &Pair<Arc<Link>>) {
    for (place, link) in pair.links().enumerate() {
        link.set_in_force(place == 0);
    }
}
