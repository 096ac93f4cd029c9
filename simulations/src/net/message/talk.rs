//! Who is connected with whom, and what is under way between them: the state
//! that one world's messages have. How they pass the links is in [`super::say`].

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use innermesh_agent::{
    host::{Clock, Host, Mono, tasks::Tasks},
    quic::{
        CallError, Counters, DialError, Handler, Membership, MembershipCheck, PeerEvent, Settings,
    },
    tls::{ClientTls, ServerTls, Unaccepted},
};
use innermesh_proto::{
    crypto::{Hash, PublicKey},
    id::{MeshId, NodeId},
    limits,
    rpc::Failure,
};
use tokio::{
    sync::{Notify, Semaphore, broadcast, oneshot},
    time::Instant,
};

use super::{
    flight::{Dialed, Flight},
    ids::{ConnectionId, DeskId, Side},
};
use crate::{
    clock,
    net::place::{EPHEMERAL, HostId},
    random::split_mix,
};

/// News that a slow reader may fall behind by.
const EVENTS: usize = 1024;
/// Judgements of certificates that are remembered.
const JUDGED: usize = 1 << 16;

type Answer = oneshot::Sender<Result<Vec<u8>, CallError>>;
/// A certificate, what it was judged by, and whether a client showed it.
type Judged = (Hash, (MeshId, u64), bool);

/// What is said in one world.
#[derive(Default)]
pub(in crate::net) struct Talk {
    seed: u64,
    desks: Vec<Option<Box<Desk>>>,
    doors: BTreeMap<(HostId, u16), DeskId>,
    pub(super) connections: BTreeMap<ConnectionId, Box<Connection>>,
    last: ConnectionId,
    numbers: u64,
    pub(super) answers: BTreeMap<(ConnectionId, Side, u64), Answer>,
    pub(super) dials: BTreeMap<u64, oneshot::Sender<Result<Dialed, DialError>>>,
    queue: BTreeMap<(Instant, u64), Event>,
    queued: u64,
    /// What the task that delivers waits for.
    pub(super) armed: Option<Instant>,
    pub(super) wake: Arc<Notify>,
    pub(super) delivering: bool,
    /// Until when all heard each other, if they don't any more.
    pub(super) troubled: Option<Instant>,
    judged: BTreeMap<Judged, Result<PublicKey, Unaccepted>>,
}

/// One agent.
pub(in crate::net) struct Desk {
    pub(super) me: NodeId,
    pub(super) place: HostId,
    pub(super) port: u16,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: Tasks,
    pub(super) membership: Arc<dyn MembershipCheck>,
    pub(super) open: BTreeSet<u16>,
    pub(super) server: Option<Arc<ServerTls>>,
    pub(super) client: Arc<ClientTls>,
    pub(super) handler: Option<Arc<dyn Handler>>,
    pub(super) events: broadcast::Sender<PeerEvent>,
    pub(super) counters: Counters,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// Those whom this agent dials, once they have it as connected.
    pub(super) pending: BTreeMap<NodeId, ConnectionId>,
    pub(super) all: BTreeSet<(ConnectionId, Side)>,
    strangers: BTreeMap<IpAddr, usize>,
    /// One-way messages that haven't arrived.
    pub(super) under_way: u32,
    pub(super) flushed: Arc<Notify>,
}

/// A registered connection of an agent's, and where it leads: asked for far
/// more often than it changes.
#[derive(Clone, Copy)]
pub(in crate::net) struct Peer {
    pub(super) connection: ConnectionId,
    pub(super) side: Side,
    pub(super) remote: SocketAddr,
}

/// One connection, with both of its ends.
pub(super) struct Connection {
    /// Whether the dialer introduced itself, so that it may be registered.
    introduced: bool,
    pub(super) ends: [End; 2],
}

/// One end, as it believes the connection to be.
pub(super) struct End {
    pub(super) desk: DeskId,
    pub(super) phase: Phase,
    pub(super) registered: bool,
    /// Whether it takes up a stranger's room.
    pub(super) stranger: bool,
    /// What the other end showed.
    pub(super) peer: Option<(PublicKey, NodeId)>,
    pub(super) remote: SocketAddr,
    pub(super) since: Mono,
    pub(super) heard: Instant,
    /// One-way messages of this end that haven't arrived, and their bytes.
    pub(super) under_way: u32,
    pub(super) under_way_bytes: usize,
    pub(super) sent: u64,
    /// How often the other end acknowledged a datagram.
    pub(super) acks: u64,
    /// Room for what its peer has it work on, once something took time.
    pub(super) turns: Option<Box<Turns>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The handshake hasn't ended here.
    Pending,
    Up,
    Over,
}

pub(super) struct Turns {
    pub(super) calls: Arc<Semaphore>,
    pub(super) notices: Arc<Semaphore>,
}

/// What is said on a connection.
pub(super) enum Frame {
    Notice {
        method: u16,
        body: Vec<u8>,
    },
    Request {
        number: u64,
        method: u16,
        deadline_ms: u32,
        body: Vec<u8>,
    },
    Answer {
        number: u64,
        result: Result<Vec<u8>, Failure>,
    },
    Datagram(Bytes),
    /// The transport's own, of a datagram.
    Acknowledgement,
}

impl Frame {
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Notice { body, .. } | Self::Request { body, .. } => body.len(),
            Self::Answer { result, .. } => result.as_ref().map_or(16, Vec::len),
            Self::Datagram(bytes) => bytes.len(),
            Self::Acknowledgement => 0,
        }
    }
}

/// What of a message is still to be carried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// In bytes.
    pub(super) length: usize,
    /// How often nothing of it arrived.
    pub(super) tries: u32,
}

/// What happens at a moment to come.
pub(super) enum Event {
    /// What was said arrives at that side.
    Arrives(ConnectionId, Side, Frame),
    /// That side says again what was lost, for the so manieth time.
    Again(ConnectionId, Side, Frame, Effort),
    /// The other end's close arrives at that side.
    Closed(ConnectionId, Side, u32, String),
    /// The time of a connection that isn't registered is up.
    Trial(ConnectionId, Side),
    /// A step of a handshake arrives, or is sent again.
    Flight(Box<Flight>),
    /// It is looked who hears whom.
    Look,
}

impl Talk {
    pub(in crate::net) fn new(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    pub(super) fn free_port(&self, place: HostId, wanted: u16) -> io::Result<u16> {
        let is_free = |port: &u16| !self.doors.contains_key(&(place, *port));
        let port = match wanted {
            0 => (EPHEMERAL..u16::MAX).find(is_free),
            port => Some(port).filter(is_free),
        };
        port.ok_or(io::ErrorKind::AddrInUse.into())
    }

    /// A place for one agent.
    pub(super) fn seat(
        &mut self,
        place: HostId,
        port: u16,
        host: &Host,
        settings: Settings,
    ) -> DeskId {
        let desk = self.desks.len();
        self.desks.push(Some(Box::new(Desk {
            me: settings.me,
            place,
            port,
            clock: host.clock.clone(),
            tasks: host.tasks.clone(),
            membership: settings.membership,
            open: settings.open_to_strangers,
            server: settings.server,
            client: settings.client,
            handler: None,
            events: broadcast::Sender::new(EVENTS),
            counters: Counters::default(),
            peers: BTreeMap::new(),
            pending: BTreeMap::new(),
            all: BTreeSet::new(),
            strangers: BTreeMap::new(),
            under_way: 0,
            flushed: Arc::default(),
        })));
        self.doors.insert((place, port), desk);
        desk
    }

    pub(super) fn desk(&mut self, desk: DeskId) -> Option<&mut Desk> {
        self.desks.get_mut(desk)?.as_deref_mut()
    }

    pub(super) fn at_door(&self, place: HostId, port: u16) -> Option<DeskId> {
        self.doors.get(&(place, port)).copied()
    }

    pub(super) fn end(&mut self, connection: ConnectionId, side: Side) -> Option<&mut End> {
        let connection = self.connections.get_mut(&connection)?;
        Some(&mut connection.ends[side as usize])
    }

    /// The registered connection with `node`.
    pub(super) fn peer(&mut self, desk: DeskId, node: &NodeId) -> Option<(ConnectionId, Side)> {
        let peer = self.desk(desk)?.peers.get(node)?;
        Some((peer.connection, peer.side))
    }

    pub(super) fn all(&mut self, desk: DeskId) -> Vec<(ConnectionId, Side)> {
        let desk = self.desk(desk);
        desk.map_or_else(Vec::new, |desk| desk.all.iter().copied().collect())
    }

    /// All connections with `node`.
    pub(super) fn with(&mut self, desk: DeskId, node: &NodeId) -> Vec<(ConnectionId, Side)> {
        let mut all = self.all(desk);
        all.retain(|(connection, side)| {
            let peer = self.end(*connection, *side).and_then(|end| end.peer);
            peer.is_some_and(|(_, peer)| peer == *node)
        });
        all
    }

    pub(super) fn paths(&self, desk: DeskId) -> BTreeMap<NodeId, SocketAddr> {
        let Some(Some(desk)) = self.desks.get(desk) else {
            return BTreeMap::new();
        };
        let peers = desk.peers.iter();
        peers.map(|(node, peer)| (*node, peer.remote)).collect()
    }

    /// The same at both ends, and at no other connection.
    pub(super) fn exporter(&self, connection: ConnectionId) -> [u8; 32] {
        let mut state = self.seed ^ connection.rotate_left(32);
        let mut exporter = [0; 32];
        for part in exporter.chunks_mut(8) {
            part.copy_from_slice(&split_mix(&mut state).to_le_bytes());
        }
        exporter
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn expect_answer(
        &mut self,
        connection: ConnectionId,
        side: Side,
    ) -> (u64, oneshot::Receiver<Result<Vec<u8>, CallError>>) {
        let (sender, receiver) = oneshot::channel();
        let number = self.number();
        self.answers.insert((connection, side, number), sender);
        (number, receiver)
    }

    pub(super) fn at(&mut self, due: Instant, event: Event) {
        self.queued += 1;
        self.queue.insert((due, self.queued), event);
        if self.armed.is_none_or(|armed| due < armed) {
            self.wake.notify_one();
        }
    }

    /// The next event that is due; else the moment of the next one.
    pub(super) fn next(&mut self) -> Result<Event, Option<Instant>> {
        self.armed = self.queue.first_key_value().map(|((due, _), _)| *due);
        match self.armed {
            Some(due) if due <= clock::now() => {
                let (_, event) = self.queue.pop_first().expect("it was there");
                Ok(event)
            }
            later => Err(later),
        }
    }

    /// What was judged before by the same rules is the same again.
    pub(super) fn judge(
        &mut self,
        chain: &[Vec<u8>],
        basis: (MeshId, u64),
        of_client: bool,
        judge: impl FnOnce() -> Result<PublicKey, Unaccepted>,
    ) -> Result<PublicKey, Unaccepted> {
        if self.judged.len() >= JUDGED {
            self.judged.clear();
        }
        let shown = Hash::of(&chain.concat());
        let judged = self.judged.entry((shown, basis, of_client));
        judged.or_insert_with(judge).clone()
    }

    pub(super) fn leave(&mut self, desk: DeskId) -> Option<Desk> {
        let left = self.desks.get_mut(desk)?.take()?;
        self.doors.retain(|_, at| *at != desk);
        Some(*left)
    }

    /// The agents on a host, which end without a word.
    #[must_use = "what they hold may lock the state when it is dropped"]
    pub(in crate::net) fn unplug(&mut self, place: HostId) -> Vec<Desk> {
        let doors = (place, 0)..=(place, u16::MAX);
        let here: Vec<DeskId> = self.doors.range(doors).map(|(_, desk)| *desk).collect();
        let mut gone = Vec::new();
        for number in here {
            for (connection, side) in self.all(number) {
                self.over(connection, side, &CallError::Lost("it crashed".into()));
            }
            gone.extend(self.leave(number));
        }
        gone
    }

    /// A new connection, which isn't up at either end yet.
    pub(super) fn connect(
        &mut self,
        introduced: bool,
        (dialer, to, key): (DeskId, SocketAddr, PublicKey),
        (dialed, from, shown): (DeskId, SocketAddr, Option<(PublicKey, NodeId)>),
    ) -> ConnectionId {
        self.last += 1;
        let (number, now) = (self.last, clock::now());
        let end = |desk, remote, peer| End {
            desk,
            phase: Phase::Pending,
            registered: false,
            stranger: false,
            peer,
            remote,
            since: Mono::ZERO,
            heard: now,
            under_way: 0,
            under_way_bytes: 0,
            sent: 0,
            acks: 0,
            turns: None,
        };
        let node = key.node_id();
        let ends = [end(dialer, to, Some((key, node))), end(dialed, from, shown)];
        let connection = Box::new(Connection { introduced, ends });
        self.connections.insert(number, connection);
        if introduced && let Some(desk) = self.desk(dialer) {
            desk.pending.insert(node, number);
        }
        number
    }

    /// At which end of a connection an agent is.
    pub(super) fn side_of(&mut self, connection: ConnectionId, desk: DeskId) -> Option<Side> {
        let at = |side: &Side| {
            self.end(connection, *side)
                .is_some_and(|end| end.desk == desk)
        };
        Side::BOTH.into_iter().find(at)
    }

    pub(super) fn phase(&mut self, connection: ConnectionId, side: Side) -> Option<Phase> {
        self.end(connection, side).map(|end| end.phase)
    }

    /// An end's handshake is over.
    pub(super) fn up(&mut self, connection: ConnectionId, side: Side) {
        let Some(end) = self.end(connection, side) else {
            return;
        };
        end.phase = Phase::Up;
        end.heard = clock::now();
        let (desk, peer) = (end.desk, end.peer);
        let Some(desk) = self.desk(desk) else { return };
        desk.all.insert((connection, side));
        if let (Side::Dialer, Some((_, node))) = (side, peer)
            && desk.pending.get(&node) == Some(&connection)
        {
            desk.pending.remove(&node);
        }
        let now = desk.clock.now();
        if let Some(end) = self.end(connection, side) {
            end.since = now;
        }
        let trial = clock::now() + Duration::from_millis(limits::STRANGER_MS);
        if !self.settle(connection, side) {
            self.at(trial, Event::Trial(connection, side));
        }
    }

    pub(super) fn membership(&mut self, connection: ConnectionId, side: Side) -> Membership {
        let Some(end) = self.end(connection, side) else {
            return Membership::Unknown;
        };
        let (desk, peer) = (end.desk, end.peer);
        match (self.desk(desk), peer) {
            (Some(desk), Some((key, _))) => desk.membership.check(&key),
            _ => Membership::Unknown,
        }
    }

    /// Registers an end whose peer is a member and has introduced itself;
    /// whether it is registered now.
    pub(super) fn settle(&mut self, connection: ConnectionId, side: Side) -> bool {
        let Some(held) = self.connections.get(&connection) else {
            return false;
        };
        let end = &held.ends[side as usize];
        if end.registered || !held.introduced || end.phase != Phase::Up {
            return end.registered;
        }
        let (desk, peer) = (end.desk, end.peer);
        let Some((_, node)) = peer else { return false };
        if self.membership(connection, side) != Membership::Member {
            return false;
        }
        self.leave_strangers(connection, side);
        if let Some(end) = self.end(connection, side) {
            end.registered = true;
        }
        let remote = self.end(connection, side).map(|end| end.remote);
        let (Some(desk), Some(remote)) = (self.desk(desk), remote) else {
            return false;
        };
        let peer = Peer {
            connection,
            side,
            remote,
        };
        if desk.peers.insert(node, peer).is_none() {
            // Nobody has to listen.
            let _ = desk.events.send(PeerEvent::Up(node));
        }
        true
    }

    /// Who dialed has another address from now on.
    pub(super) fn moved(&mut self, connection: ConnectionId, to: SocketAddr) {
        self.leave_strangers(connection, Side::Dialed);
        let Some(end) = self.end(connection, Side::Dialed) else {
            return;
        };
        end.remote = to;
        let (desk, peer) = (end.desk, end.peer);
        if let (Some(desk), Some((_, node))) = (self.desk(desk), peer)
            && let Some(peer) = desk.peers.get_mut(&node)
            && peer.connection == connection
        {
            peer.remote = to;
        }
    }

    /// Takes a stranger's room; `false` when there is none.
    pub(super) fn room_for_stranger(&mut self, desk: DeskId, from: IpAddr) -> bool {
        let Some(desk) = self.desk(desk) else {
            return false;
        };
        let everywhere: usize = desk.strangers.values().sum();
        let here = desk.strangers.entry(from).or_default();
        if everywhere >= limits::STRANGERS || *here >= limits::STRANGERS_PER_ADDRESS {
            desk.counters.strangers_refused += 1;
            return false;
        }
        *here += 1;
        true
    }

    pub(super) fn leave_strangers(&mut self, connection: ConnectionId, side: Side) {
        let Some(end) = self.end(connection, side) else {
            return;
        };
        if !std::mem::take(&mut end.stranger) {
            return;
        }
        let (desk, ip) = (end.desk, end.remote.ip());
        if let Some(desk) = self.desk(desk)
            && let Some(here) = desk.strangers.get_mut(&ip)
        {
            *here = here.saturating_sub(1);
            if *here == 0 {
                desk.strangers.remove(&ip);
            }
        }
    }

    pub(super) fn is_stranger(&mut self, connection: ConnectionId) {
        if let Some(end) = self.end(connection, Side::Dialed) {
            end.stranger = true;
        }
    }

    /// An end is over: its requests fail, and its agent hears that the peer is
    /// gone if that was so.
    pub(super) fn over(&mut self, connection: ConnectionId, side: Side, why: &CallError) {
        self.leave_strangers(connection, side);
        let Some(end) = self.end(connection, side) else {
            return;
        };
        if end.phase == Phase::Over {
            return;
        }
        end.phase = Phase::Over;
        let (desk, peer, under_way) = (end.desk, end.peer, end.under_way);
        end.under_way = 0;
        if let Some(desk) = self.desk(desk) {
            desk.all.remove(&(connection, side));
            desk.delivered(under_way);
            desk.counters.notices_dropped += u64::from(under_way);
            if let Some((_, node)) = peer {
                if desk.pending.get(&node) == Some(&connection) {
                    desk.pending.remove(&node);
                }
                let registered = desk.peers.get(&node);
                if registered.is_some_and(|peer| peer.connection == connection) {
                    desk.peers.remove(&node);
                    let _ = desk.events.send(PeerEvent::Down(node));
                }
            }
        }
        let range = (connection, side, 0)..=(connection, side, u64::MAX);
        let waiting: Vec<_> = self.answers.range(range).map(|(place, _)| *place).collect();
        for place in waiting {
            if let Some(answer) = self.answers.remove(&place) {
                // Who asked may have given up.
                let _ = answer.send(Err(why.clone()));
            }
        }
        let ends = self.connections.get(&connection).map(|held| &held.ends);
        if ends.is_some_and(|ends| ends.iter().all(|end| end.phase == Phase::Over)) {
            self.connections.remove(&connection);
        }
    }

    /// Whether both ends are up, or about to be.
    pub(super) fn stands(&self, connection: ConnectionId) -> bool {
        let held = self.connections.get(&connection);
        held.is_some_and(|held| {
            held.ends.iter().all(|end| {
                let there = self.desks.get(end.desk).is_some_and(Option::is_some);
                there && end.phase != Phase::Over
            })
        })
    }

    /// A connection that is dead at its other end makes room for a new one.
    /// Between the same two agents nobody notices.
    pub(super) fn replace(&mut self, old: ConnectionId, side: Side, by: DeskId) {
        let Some(end) = self.end(old, side) else {
            return;
        };
        let (desk, peer) = (end.desk, end.peer);
        let other = self.end(old, side.other()).map(|end| end.desk);
        if other == Some(by)
            && let Some((_, node)) = peer
            && let Some(desk) = self.desk(desk)
        {
            desk.peers.remove(&node);
        }
        let why = CallError::Lost("the peer dialed anew".into());
        self.over(old, side, &why);
    }
}

impl Desk {
    pub(super) fn delivered(&mut self, notices: u32) {
        self.under_way = self.under_way.saturating_sub(notices);
        if self.under_way == 0 {
            self.flushed.notify_waiters();
            self.flushed.notify_one();
        }
    }
}
