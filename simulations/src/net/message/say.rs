//! What is said passes the links: at once, late, or again until it does. And
//! who hears nothing for long gives the connection up.

use std::{net::SocketAddr, time::Duration};

use innermesh_agent::quic::{CallError, Membership, PeerInfo};
use innermesh_proto::{id::NodeId, limits, rpc::close};
use tokio::time::Instant;

use super::{
    ids::{ConnectionId, DeskId, Side},
    talk::{Effort, End, Event, Frame, Peer, Phase},
};
use crate::{
    clock,
    net::{
        link::Fate,
        place::HostId,
        wire::{Passing, State},
    },
};

/// As in the agent's configuration of QUIC: a connection on which nothing was
/// heard for so long is lost.
const IDLE_TIMEOUT: Duration = Duration::from_millis(15_000);
/// How often it is looked who still hears whom, while not all may: half of the
/// time after which an idle dialer asks for a sign of life.
const LOOK: Duration = Duration::from_millis(2500);
/// What a retransmission waits for beyond a round trip: the most that the
/// peer may delay its acknowledgement (RFC 9000, section 18.2), and a little.
const PATIENCE: Duration = Duration::from_millis(30);
/// Bytes around a message: UDP payload without the message itself.
const ENVELOPE: usize = 60;
/// The UDP payload of an acknowledgement, in bytes, and for how long it may wait for
/// something to go with (RFC 9000, section 18.2).
const ACKNOWLEDGEMENT: usize = 36;
const ACK_DELAY: Duration = Duration::from_millis(25);
/// Largest datagram, in bytes.
pub(super) const DATAGRAM: usize = 1200;
/// One-way messages under way to one peer: those that wait for a stream and
/// those that have one.
const NOTICES: u32 = limits::NOTICE_QUEUE as u32 + limits::STREAMS_PER_PEER;

impl State {
    /// Queues a one-way message, or doesn't.
    pub(super) fn notify(&mut self, desk: DeskId, to: &NodeId, method: u16, body: Vec<u8>) -> bool {
        let there = self.talk.peer(desk, to);
        let queued = there.is_some_and(|(connection, side)| {
            let length = body.len();
            let Some(end) = self.talk.end(connection, side) else {
                return false;
            };
            let bytes = end.under_way_bytes + length;
            if length > limits::RPC_BODY_BYTES
                || bytes > limits::NOTICE_QUEUE_BYTES
                || end.under_way >= NOTICES
            {
                return false;
            }
            end.under_way += 1;
            end.under_way_bytes = bytes;
            if let Some(desk) = self.talk.desk(desk) {
                desk.under_way += 1;
            }
            self.send(connection, side, Frame::Notice { method, body })
        });
        if let Some(desk) = self.talk.desk(desk) {
            if queued {
                desk.counters.notices_queued += 1
            } else {
                desk.counters.notices_dropped += 1
            }
        }
        queued
    }

    /// Says something; `false` when the connection is over at that side.
    pub(super) fn send(&mut self, connection: ConnectionId, side: Side, frame: Frame) -> bool {
        let effort = Effort {
            length: frame.length() + ENVELOPE,
            tries: 0,
        };
        self.say(connection, side, frame, effort)
    }

    /// An end's transport acknowledges a datagram.
    pub(super) fn acknowledge(&mut self, connection: ConnectionId, side: Side) {
        let passed = self.pass(connection, side, ACKNOWLEDGEMENT);
        if let Some(end) = self.talk.end(connection, side) {
            end.sent += ACKNOWLEDGEMENT as u64;
        }
        if let Ok(due) = passed {
            let event = Event::Arrives(connection, side.other(), Frame::Acknowledgement);
            self.talk.at(due + ACK_DELAY, event);
        }
    }

    pub(super) fn say(
        &mut self,
        connection: ConnectionId,
        side: Side,
        frame: Frame,
        effort: Effort,
    ) -> bool {
        let Some(end) = self.talk.end(connection, side) else {
            return false;
        };
        if end.phase == Phase::Over {
            return false;
        }
        end.sent += effort.length as u64;
        match self.pass(connection, side, effort.length) {
            Ok(due) => self
                .talk
                .at(due, Event::Arrives(connection, side.other(), frame)),
            Err(_) if matches!(frame, Frame::Datagram(_)) => {}
            Err(lost) => {
                // Where something was acknowledged, the probe timeout isn't
                // doubled (RFC 9002, section 6.2.1).
                let tries = if lost < effort.length {
                    0
                } else {
                    effort.tries
                };
                let wait = self.round_trip(connection, side) + PATIENCE;
                let again = clock::now() + wait * 2u32.saturating_pow(tries.min(10));
                let effort = Effort {
                    length: lost,
                    tries: tries + 1,
                };
                self.talk
                    .at(again, Event::Again(connection, side, frame, effort));
            }
        }
        true
    }

    /// A message that was under way has arrived.
    pub(super) fn delivered(&mut self, connection: ConnectionId, from: Side, length: usize) {
        let Some(end) = self.talk.end(connection, from) else {
            return;
        };
        end.under_way = end.under_way.saturating_sub(1);
        end.under_way_bytes = end.under_way_bytes.saturating_sub(length);
        let desk = end.desk;
        if let Some(desk) = self.talk.desk(desk) {
            desk.delivered(1);
        }
    }

    /// Has `length` bytes pass from one end to the other; gives when they
    /// arrive, or how many are lost.
    fn pass(
        &mut self,
        connection: ConnectionId,
        side: Side,
        length: usize,
    ) -> Result<Instant, usize> {
        let (from, receiver) = self.way(connection, side).ok_or(length)?;
        let (desk, to) = {
            let end = self.talk.end(connection, side).ok_or(length)?;
            (end.desk, end.remote)
        };
        let place = self.talk.desk(desk).ok_or(length)?.place;
        self.carry(place, from, to, receiver, length)
    }

    /// Has `length` bytes pass from a host to another, as so many packets as
    /// they need; tells the observer. Gives when the last one arrives, or how
    /// many bytes are lost.
    pub(super) fn carry(
        &mut self,
        place: HostId,
        from: SocketAddr,
        to: SocketAddr,
        receiver: Result<HostId, Fate>,
        length: usize,
    ) -> Result<Instant, usize> {
        let now = clock::now();
        let (fate, due) = match receiver {
            Err(fate) => (fate, Err(length)),
            Ok(receiver) => {
                let begin = self.ready(place, now);
                let (fate, time) = self.links.pass_all(place, receiver, length);
                (fate, time.map(|time| self.ready(receiver, begin + time)))
            }
        };
        if let Some(observer) = &mut self.observer {
            observer(&Passing {
                from,
                to,
                length,
                fate,
            });
        }
        due
    }

    /// Where what one end says seems to come from, and which host gets it;
    /// nothing when the end has no agent any more.
    fn way(
        &mut self,
        connection: ConnectionId,
        side: Side,
    ) -> Option<(SocketAddr, Result<HostId, Fate>)> {
        let ends = &self.talk.connections.get(&connection)?.ends;
        let way = self.way_between(ends_of(ends), side)?;
        if way.moved {
            self.talk.moved(connection, way.from);
        }
        Some((way.from, way.receiver))
    }

    fn way_between(&mut self, ends: [(DeskId, SocketAddr); 2], side: Side) -> Option<Way> {
        let (desk, to) = ends[side as usize];
        let (other, known) = ends[side.other() as usize];
        let (sender, port) = self.talk.desk(desk).map(|desk| (desk.place, desk.port))?;
        let (from, receiver) = self.route(sender, port, to);
        let receiver = receiver.and_then(|(host, inside)| {
            let there = self.talk.at_door(host, inside.port()) == Some(other);
            there.then_some(host).ok_or(Fate::Nowhere)
        });
        let moved = receiver.is_ok() && from != known;
        Some(Way {
            sender,
            from,
            // Packets of a server that moved are discarded; who dialed is
            // followed (RFC 9000, section 9).
            receiver: if moved && side == Side::Dialed {
                Err(Fate::Nowhere)
            } else {
                receiver
            },
            moved: moved && side == Side::Dialer,
        })
    }

    fn round_trip(&mut self, connection: ConnectionId, side: Side) -> Duration {
        let Some((here, there)) = self.hosts(connection, side) else {
            return Duration::ZERO;
        };
        self.links.latency(here, there) + self.links.latency(there, here)
    }

    fn hosts(&mut self, connection: ConnectionId, side: Side) -> Option<(HostId, HostId)> {
        let [here, there] = [side, side.other()].map(|side| {
            let desk = self.talk.end(connection, side)?.desk;
            Some(self.talk.desk(desk)?.place)
        });
        here.zip(there)
    }

    /// An end closes the connection and says why.
    pub(super) fn close(&mut self, connection: ConnectionId, side: Side, code: u32, why: &str) {
        let up = |end: &mut End| end.phase == Phase::Up;
        if !self.talk.end(connection, side).is_some_and(up) {
            return;
        }
        if let Ok(due) = self.pass(connection, side, ENVELOPE) {
            let event = Event::Closed(connection, side.other(), code, why.into());
            self.talk.at(due, event);
        } else {
            self.trouble();
        }
        let why = CallError::Lost("this node closed the connection".into());
        self.talk.over(connection, side, &why);
    }

    pub(super) fn trial(&mut self, connection: ConnectionId, side: Side) {
        let is_up = |end: &mut End| end.phase == Phase::Up && !end.registered;
        if !self.talk.end(connection, side).is_some_and(is_up) || self.talk.settle(connection, side)
        {
            return;
        }
        let desk = self.talk.end(connection, side).map(|end| end.desk);
        if let Some(desk) = desk.and_then(|desk| self.talk.desk(desk)) {
            desk.counters.strangers_expired += 1;
        }
        self.close(connection, side, close::STRANGER, "time is up");
    }

    /// As [`TransportBackend::review`](innermesh_agent::quic::TransportBackend::review).
    pub(super) fn review(&mut self, desk: DeskId) {
        for (connection, side) in self.talk.all(desk) {
            match self.talk.membership(connection, side) {
                Membership::Member => {
                    self.talk.settle(connection, side);
                }
                Membership::Revoked => self.revoke(connection, side),
                Membership::Unknown => {
                    let end = self.talk.end(connection, side);
                    if end.is_some_and(|end| end.registered) {
                        self.close(connection, side, close::PARTED, "no longer a member");
                    }
                }
            }
        }
    }

    pub(super) fn revoke(&mut self, connection: ConnectionId, side: Side) {
        let desk = self.talk.end(connection, side).map(|end| end.desk);
        if let Some(desk) = desk.and_then(|desk| self.talk.desk(desk)) {
            desk.counters.revoked += 1;
        }
        self.close(connection, side, close::REVOKED, "");
    }

    pub(super) fn connected(&mut self, desk: DeskId) -> Vec<PeerInfo> {
        let peers = self.talk.desk(desk).map(|desk| desk.peers.clone());
        let peers = peers.into_iter().flatten();
        let info = |(node, peer): (NodeId, Peer)| {
            let (connection, side) = (peer.connection, peer.side);
            let rtt = self.round_trip(connection, side);
            let other = self.talk.end(connection, side.other())?;
            let (received, instance) = (other.sent, other.desk as u64);
            let end = self.talk.end(connection, side)?;
            Some(PeerInfo {
                node,
                remote: end.remote,
                by_tcp: false,
                rtt,
                since: end.since,
                dialed_by_us: side == Side::Dialer,
                bytes_sent: end.sent,
                bytes_received: received,
                instance,
                garbage: 0,
            })
        };
        peers.filter_map(info).collect()
    }

    /// Some may not hear each other from now on.
    pub(in crate::net) fn trouble(&mut self) {
        if self.talk.troubled.is_none() {
            let now = clock::now();
            self.talk.troubled = Some(now);
            self.talk.at(now + LOOK, Event::Look);
        }
    }

    /// Looks who hears whom: stands for the signs of life that idle
    /// connections give, which nobody needs while all links are up.
    pub(super) fn look(&mut self) {
        let Some(since) = self.talk.troubled.take() else {
            return;
        };
        let now = clock::now();
        let mut well = self.links.are_up()
            && self.hosts.iter().all(|host| {
                host.nat.is_none() && host.still_until.is_none_or(|until| until <= now)
            });
        let mut connections = std::mem::take(&mut self.talk.connections);
        let (mut lost, mut moved) = (Vec::new(), Vec::new());
        for (number, connection) in &mut connections {
            for side in Side::BOTH {
                let other = &connection.ends[side.other() as usize];
                let way = match other.phase {
                    Phase::Up => self.way_between(ends_of(&connection.ends), side.other()),
                    Phase::Pending | Phase::Over => None,
                };
                let hears = way.as_ref().is_some_and(|way| self.is_open(way));
                well &= hears;
                let end = &mut connection.ends[side as usize];
                if hears {
                    end.heard = now;
                } else if end.phase == Phase::Up && end.heard.max(since) + IDLE_TIMEOUT <= now {
                    lost.push((*number, side));
                }
                moved.extend(way.filter(|way| way.moved).map(|way| (*number, way.from)));
            }
        }
        self.talk.connections = connections;
        for (connection, to) in moved {
            self.talk.moved(connection, to);
        }
        let why = CallError::Lost("timed out".into());
        for (connection, side) in lost {
            self.talk.over(connection, side, &why);
        }
        if !well {
            self.talk.troubled = Some(since);
            self.talk.at(now + LOOK, Event::Look);
        }
    }

    /// Whether a sign of life would pass it at this moment.
    fn is_open(&self, way: &Way) -> bool {
        let now = clock::now();
        way.receiver.is_ok_and(|receiver| {
            self.links.is_up(way.sender, receiver)
                && self.ready(way.sender, now) <= now
                && self.ready(receiver, now) <= now
        })
    }
}

/// The way from one end of a connection to the other.
struct Way {
    sender: HostId,
    /// Where it seems to come from.
    from: SocketAddr,
    receiver: Result<HostId, Fate>,
    /// Whether the other end knows another address of this one's.
    moved: bool,
}

/// Where each end is, and where it believes the other to be.
fn ends_of(ends: &[End; 2]) -> [(DeskId, SocketAddr); 2] {
    [0, 1].map(|end: usize| (ends[end].desk, ends[end].remote))
}
