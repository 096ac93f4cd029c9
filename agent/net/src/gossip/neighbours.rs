//! What carries out what [`super::links`] decides: packets as datagrams, heads that name
//! other links, and news of connections.
//!
//! Whom links need is told to the dialer.

use std::{sync::Arc, time::Duration};

use innermesh_proto::{
    head::Head,
    id::NodeId,
    ledger::Position,
    links::{Effect, Place, packet::is_packet},
};
use tokio::sync::broadcast::error::RecvError;

use super::state::Inner;
use crate::quic::PeerEvent;

/// Between two looks at what is due.
const SHORTEST: Duration = Duration::from_millis(1);

impl Inner {
    /// Keeps the links for as long as the agent runs.
    pub(super) async fn keep_links(self: Arc<Self>) {
        let mut events = self.transport.events();
        self.note_peers();
        loop {
            let now = self.host.clock.now();
            let due = self.carry_out_due(now);
            let wait = due.saturating_sub(now).max(SHORTEST);
            tokio::select! {
                biased;
                event = events.recv() => {
                    let now = self.host.clock.now();
                    match event {
                        Ok(PeerEvent::Up(node)) => self.links.connected(node, now),
                        Ok(PeerEvent::Down(node)) => self.links.disconnected(&node, now),
                        Ok(PeerEvent::Twin(_)) => {}
                        Err(RecvError::Lagged(_)) => self.note_peers(),
                        Err(RecvError::Closed) => return,
                    }
                }
                () = self.links.wake.notified() => {}
                () = self.host.clock.sleep(wait) => {}
            }
        }
    }

    /// Has heads name other links.
    pub(super) async fn publish_links(self: Arc<Self>) {
        loop {
            self.links.publish.notified().await;
            self.say_own().await;
        }
    }

    /// Takes a datagram of a member's.
    pub(super) fn take_datagram(&self, from: NodeId, datagram: &[u8]) {
        // Others are for newer builds, and no fault of the peer's.
        if !is_packet(datagram) {
            return;
        }
        let now = self.host.clock.now();
        let is_reached = |place: &Place| self.compare_place(from, place);
        match self.links.take_packet(from, datagram, is_reached, now) {
            Some(is_news) => {
                if is_news {
                    self.changed();
                }
            }
            None => self.count(|counters| counters.packets += 1),
        }
    }

    /// A new head came from `from`.
    pub(super) fn note_speaker(&self, from: NodeId, head: &Head) {
        if head.node == from && self.links.heard_itself(from) {
            self.changed();
        }
    }

    /// Says goodbye to neighbours.
    pub(super) fn leave_links(self: &Arc<Self>) {
        let now = self.host.clock.now();
        for effect in self.links.leave(now) {
            self.carry_out(effect);
        }
    }

    /// Does what is due; says when there is more.
    fn carry_out_due(self: &Arc<Self>, now: Duration) -> Duration {
        for (peer, before) in self.links.asked() {
            if self.transport.acknowledgements(peer) > before {
                self.links.acknowledged(&peer, now);
            }
        }
        let position = Place::from(&self.ledger.durable());
        let clock_ms = self.host.clock.wall_ms();
        let turn = self.links.turn(position, clock_ms, now);
        for effect in turn.effects {
            self.carry_out(effect);
        }
        if turn.is_news {
            self.changed();
        }
        turn.due
    }

    fn carry_out(self: &Arc<Self>, effect: Effect) {
        match effect {
            Effect::Send(peer, beat) => {
                let acks = self.transport.acknowledgements(peer);
                let now = self.host.clock.now();
                if let Some(packet) = self.links.packet(peer, &beat, acks, now) {
                    // Where it doesn't go, the silence says as much.
                    let _ = self.transport.send_datagram(peer, packet.into());
                }
            }
            // What is named by then is what counts.
            Effect::Publish(_) => self.links.publish.notify_one(),
            Effect::Repair(peer) => {
                let mut repairing = self.repairing.lock().unwrap_or_else(|e| e.into_inner());
                if repairing.insert(peer) {
                    self.host.tasks.spawn(self.clone().repair(peer));
                }
            }
            Effect::Dial(peer) => {
                let mut dials = self.dials.lock().unwrap_or_else(|e| e.into_inner());
                dials.insert(peer);
                drop(dials);
                self.dial_wanted.notify_one();
            }
            // Whoever keeps connections sees that none serves a link any more.
            Effect::Release(_) => {}
        }
    }

    /// After news of connections was missed.
    fn note_peers(&self) {
        let now = self.host.clock.now();
        let connected = self.transport.peers();
        for node in self.ledger.state().members.keys() {
            if connected.binary_search(node).is_ok() {
                self.links.connected(*node, now);
            } else {
                self.links.disconnected(node, now);
            }
        }
    }

    /// Whether the ledger held here has the batch that a packet names; it is told where
    /// it hasn't.
    fn compare_place(&self, from: NodeId, place: &Place) -> bool {
        let index = place.index;
        let held = self.ledger.hash_at(index);
        let held = held.map(|hash| Place::from(&Position { index, hash }));
        match held {
            Some(held) if held != *place => self.ledger.differs(from),
            None if index > self.ledger.state().position.index => self.ledger.ahead(from, index),
            _ => {}
        }
        held == Some(*place)
    }
}
