//! How two agents come to be connected: four flights, two round trips, as of
//! QUIC with TLS 1.3 and the introduction after it. A flight that is lost is
//! sent again until who dialed gives up.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use innermesh_agent::{
    quic::{CallError, DialError, Membership, PeerEvent},
    tls::{ClientTls, Unaccepted},
};
use innermesh_proto::{crypto::PublicKey, id::NodeId, rpc::close};
use tokio::sync::oneshot;

use super::{
    flight::{Dialed, Flight, Step},
    ids::{ConnectionId, DeskId, Side},
    shared::words,
    talk::{Event, Phase},
};
use crate::{
    clock,
    net::{link::Fate, place::HostId, wire::State},
};

/// Bytes of each flight.
const LENGTHS: [usize; 4] = [1200, 3600, 2400, 160];
/// How long a first packet that is lost costs: three times the first guess of
/// the round trip (RFC 9002, section 6.2.2), which is 50 ms.
const AGAIN: Duration = Duration::from_millis(150);

impl State {
    /// Begins to dial; nothing when the agent has stopped.
    pub(super) fn dial(
        &mut self,
        by: DeskId,
        to: SocketAddr,
        expect: Option<NodeId>,
        client: Option<Arc<ClientTls>>,
        introduces: bool,
    ) -> Option<(u64, oneshot::Receiver<Result<Dialed, DialError>>)> {
        let client = client.unwrap_or(self.talk.desk(by)?.client.clone());
        let (sender, receiver) = oneshot::channel();
        let number = self.talk.number();
        self.talk.dials.insert(number, sender);
        self.fly(Box::new(Flight {
            number,
            by,
            to: SocketAddr::new(to.ip().to_canonical(), to.port()),
            expect,
            client,
            introduces,
            step: Step::Begin,
            sent: false,
            tries: 0,
            reached: None,
            chain: Vec::new(),
            key: None,
        }));
        Some((number, receiver))
    }

    /// Sends a flight, or takes it in where it has arrived.
    pub(super) fn flight(&mut self, mut flight: Box<Flight>) {
        if !self.talk.dials.contains_key(&flight.number) {
            // Who dialed has given up.
            if let Step::Verdict(Ok(connection)) = flight.step {
                self.abandon(connection);
            }
        } else if std::mem::take(&mut flight.sent) {
            flight.tries = 0;
            self.land(flight);
        } else {
            self.fly(flight);
        }
    }

    fn fly(&mut self, mut flight: Box<Flight>) {
        let (by, to, length) = match (&flight.step, flight.reached) {
            (Step::Begin, _) => (flight.by, flight.to, LENGTHS[0]),
            (Step::Client, _) => (flight.by, flight.to, LENGTHS[2]),
            (Step::Server, Some((desk, from))) => (desk, from, LENGTHS[1]),
            (Step::Verdict(_), Some((desk, from))) => (desk, from, LENGTHS[3]),
            (Step::Server | Step::Verdict(_), None) => return,
        };
        // One that ended meanwhile says nothing more, and the dialer waits
        // until its time is up.
        let Some(desk) = self.talk.desk(by) else {
            return;
        };
        let (host, port) = (desk.place, desk.port);
        let (from, inside) = self.route(host, port, to);
        let receiver = inside.and_then(|(host, inside)| {
            let desk = self.answerer(&flight, host, inside.port())?;
            if let Step::Begin = flight.step {
                flight.reached = Some((desk, from));
            }
            Ok(host)
        });
        if let Ok(due) = self.carry(host, from, to, receiver, length) {
            flight.sent = true;
            self.talk.at(due, Event::Flight(flight));
        } else {
            let wait = AGAIN * 2u32.saturating_pow(flight.tries.min(10));
            flight.tries += 1;
            self.talk.at(clock::now() + wait, Event::Flight(flight));
        }
    }

    /// The agent at a place, if the flight is for it.
    fn answerer(&mut self, flight: &Flight, host: HostId, port: u16) -> Result<DeskId, Fate> {
        let there = self.talk.at_door(host, port).ok_or(Fate::Nowhere)?;
        let is_meant = match &flight.step {
            // Whoever answers peers.
            Step::Begin => {
                let desk = self.talk.desk(there);
                desk.is_some_and(|desk| desk.server.is_some() && desk.handler.is_some())
            }
            Step::Client => flight.reached.is_some_and(|(desk, _)| desk == there),
            Step::Server | Step::Verdict(_) => flight.by == there,
        };
        is_meant.then_some(there).ok_or(Fate::Nowhere)
    }

    fn land(&mut self, mut flight: Box<Flight>) {
        let next = match flight.step.clone() {
            Step::Begin => {
                let desk = flight.reached.and_then(|(desk, _)| self.talk.desk(desk));
                let Some(server) = desk.and_then(|desk| desk.server.clone()) else {
                    return;
                };
                flight.chain = server.shown();
                Ok(Step::Server)
            }
            Step::Server => self.meet_server(&flight).map(|key| {
                flight.key = Some(key);
                Step::Client
            }),
            Step::Client => Ok(Step::Verdict(self.meet_client(&flight))),
            Step::Verdict(verdict) => {
                let done = verdict.and_then(|connection| self.end_dial(&mut flight, connection));
                return self.dialed(&flight, done);
            }
        };
        match next {
            Ok(step) => {
                flight.step = step;
                self.fly(flight);
            }
            Err(error) => self.dialed(&flight, Err(error)),
        }
    }

    fn dialed(&mut self, flight: &Flight, done: Result<Dialed, DialError>) {
        if let Some(dial) = self.talk.dials.remove(&flight.number) {
            // Who dialed may give up at this very moment.
            let _ = dial.send(done);
        }
    }

    /// The dialer judges who answers.
    fn meet_server(&mut self, flight: &Flight) -> Result<PublicKey, DialError> {
        let client = &flight.client;
        let key = self
            .talk
            .judge(&flight.chain, client.basis(), false, || {
                client.accept(&flight.chain)
            })
            .map_err(|why| DialError::Tls(why.to_string()))?;
        let node = key.node_id();
        if flight.expect.is_some_and(|expected| expected != node) {
            return Err(DialError::WrongNode(node));
        }
        let Some(desk) = self.talk.desk(flight.by) else {
            return Err(DialError::Closed);
        };
        if desk.membership.check(&key) == Membership::Revoked {
            return Err(DialError::Revoked(node));
        }
        if node != desk.me || !flight.introduces {
            return Ok(key);
        }
        // Another agent with this node's key hears of it as well.
        if let Some((there, from)) = flight.reached.filter(|(there, _)| *there != flight.by)
            && let Some(desk) = self.talk.desk(there)
        {
            let _ = desk.events.send(PeerEvent::Twin(from));
            let twin = PeerEvent::Twin(flight.to);
            if let Some(desk) = self.talk.desk(flight.by) {
                let _ = desk.events.send(twin);
            }
        }
        Err(DialError::Myself)
    }

    /// The one who was dialed judges who dials.
    fn meet_client(&mut self, flight: &Flight) -> Result<ConnectionId, DialError> {
        let (Some((there, from)), Some(key)) = (flight.reached, flight.key) else {
            return Err(DialError::Closed);
        };
        let shown = flight.client.shown();
        let Some(desk) = self.talk.desk(there) else {
            return Err(DialError::Closed);
        };
        let Some(server) = desk.server.clone() else {
            return Err(DialError::Closed);
        };
        let peer = if shown.is_empty() {
            None
        } else {
            let judged = self
                .talk
                .judge(&shown, server.basis(), true, || server.accept(&shown));
            let key = judged.map_err(|why| match why {
                Unaccepted::Expired => DialError::Expired,
                Unaccepted::Refused(why) => DialError::Tls(why),
            })?;
            Some((key, key.node_id()))
        };
        let Some(desk) = self.talk.desk(there) else {
            return Err(DialError::Closed);
        };
        desk.counters.handshakes_accepted += 1;
        let membership = peer.map_or(Membership::Unknown, |(key, _)| desk.membership.check(&key));
        match membership {
            Membership::Revoked => {
                desk.counters.revoked += 1;
                return Err(DialError::Evicted);
            }
            Membership::Unknown if !self.talk.room_for_stranger(there, from.ip()) => {
                return Err(DialError::Refused(words(close::STRANGER, "no room")));
            }
            Membership::Unknown | Membership::Member => {}
        }
        if let (true, Some((_, node))) = (flight.introduces, peer)
            && let Some(held) = self.held(there, &node, flight.by)
        {
            return Ok(held);
        }
        let dialer = (flight.by, flight.to, key);
        let connection = self
            .talk
            .connect(flight.introduces, dialer, (there, from, peer));
        if membership == Membership::Unknown {
            self.talk.is_stranger(connection);
        }
        self.talk.up(connection, Side::Dialed);
        Ok(connection)
    }

    /// The connection that `desk` has with `node` already, if it leads to the
    /// agent `by` and stands at both ends. One that doesn't is over: its peer
    /// has started anew, or lost it.
    fn held(&mut self, desk: DeskId, node: &NodeId, by: DeskId) -> Option<ConnectionId> {
        let here = self.talk.desk(desk)?;
        if let Some(pending) = here.pending.get(node).copied()
            && self.talk.stands(pending)
        {
            return Some(pending);
        }
        let (connection, side) = self.talk.peer(desk, node)?;
        let other = self.talk.end(connection, side.other()).map(|end| end.desk);
        if other == Some(by) && self.talk.stands(connection) {
            return Some(connection);
        }
        self.talk.replace(connection, side, by);
        None
    }

    /// The dialer's end is up as well.
    fn end_dial(
        &mut self,
        flight: &mut Flight,
        connection: ConnectionId,
    ) -> Result<Dialed, DialError> {
        let key = flight.key.ok_or(DialError::Closed)?;
        let lost = || DialError::Failed("the connection was lost".into());
        // Of two dials at once there is one connection, which the other began.
        let side = self.talk.side_of(connection, flight.by).ok_or_else(lost)?;
        let node = key.node_id();
        if side == Side::Dialer && self.talk.phase(connection, side) == Some(Phase::Pending) {
            if flight.introduces
                && let Some((old, side)) = self.talk.peer(flight.by, &node)
                && let Some((there, _)) = flight.reached
            {
                self.talk.replace(old, side, there);
            }
            self.talk.up(connection, side);
        }
        if self.talk.phase(connection, side) != Some(Phase::Up) {
            return Err(lost());
        }
        Ok(Dialed {
            node,
            key,
            chain: std::mem::take(&mut flight.chain),
            remote: flight.to,
            connection,
        })
    }

    /// The dialer gave up before it heard that it is connected.
    fn abandon(&mut self, connection: ConnectionId) {
        if self.talk.phase(connection, Side::Dialer) == Some(Phase::Pending) {
            let why = CallError::Lost("the dial was given up".into());
            self.talk.over(connection, Side::Dialer, &why);
            // The other end finds out as it does of any silence.
            self.trouble();
        }
    }
}
