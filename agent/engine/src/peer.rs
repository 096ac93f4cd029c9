//! One peer: where it is, its sessions, and the packets that wait for the first.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use sanstun::{
    Datagram, Event, Interface, PendingEncapsulate, PresharedKey, PublicKey, Tunnel, TunnelConfig,
    TunnelId,
};
use zeroize::Zeroizing;

use crate::{
    limits,
    outgoing::{Outgoing, Wire},
    routes::Place,
    ways::{Chosen, FRESH, SESSION},
};

/// What a peer is told to be.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PeerSettings {
    /// What it may send from and is sent.
    pub allowed_ips: BTreeSet<IpNet>,
    /// Where it is; changed by what comes from it.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives.
    pub keepalive_s: Option<u16>,
    /// Mixed into its handshakes.
    pub preshared_key: Option<Zeroizing<[u8; 32]>>,
}

pub(crate) type Tunnels = HashMap<TunnelId, Place>;

pub(crate) struct Peer {
    pub(crate) key: PublicKey,
    pub(crate) settings: PeerSettings,
    /// By the settings as they are. `None` for a key that no handshake can be made with.
    tunnel: Option<Tunnel>,
    /// By earlier settings: it carries until the other has a session, so that a change
    /// loses nothing. Handshakes are the other's.
    old: Option<Tunnel>,
    staged: Staged,
    last_handshake: Option<Instant>,
    /// Whether packets went either way since then.
    is_used: bool,
    /// When a handshake of its own was answered that nothing has confirmed yet.
    answered_at: Option<Instant>,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    /// When its timers are looked at next.
    pub(crate) wake: Option<Instant>,
    /// When a handshake is begun where the newer tunnel has no session.
    handshake_at: Option<Instant>,
    /// Whether its timers may have changed in this batch.
    pub(crate) is_touched: bool,
    /// Where its way isn't what it was heard from last.
    pub(crate) chosen: Option<Chosen>,
}

/// What an authentic message says of the way that it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It asks for an answer, so that nothing is known of the way back.
    Asks,
    /// It answers one of this end's: the way is good in both directions.
    Answers,
    /// Neither.
    Speaks,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sealed {
    Sent,
    /// There is no session.
    Waits,
    Dropped,
}

/// Packets that wait for a session.
#[derive(Default)]
struct Staged {
    packets: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl Peer {
    pub(crate) fn new(key: PublicKey, settings: PeerSettings, now: Instant) -> Self {
        Self {
            key,
            handshake_at: settings.keepalive_s.map(|_| now),
            settings,
            tunnel: None,
            old: None,
            staged: Staged::default(),
            last_handshake: None,
            is_used: false,
            answered_at: None,
            rx_bytes: 0,
            tx_bytes: 0,
            wake: None,
            is_touched: false,
            chosen: None,
        }
    }

    /// Makes a tunnel by the settings as they are. One that has a session carries until
    /// the new one has.
    pub(crate) fn renew(
        &mut self,
        place: Place,
        interface: &mut Interface,
        tunnels: &mut Tunnels,
        now: Instant,
    ) {
        let mut config = TunnelConfig::default();
        if let Some(secret) = &self.settings.preshared_key {
            config = config.with_preshared_key(PresharedKey::from(secret.clone()));
        }
        if let Some(seconds) = self.settings.keepalive_s {
            config = config.with_persistent_keepalive(Duration::from_secs(seconds.into()));
        }
        let new = interface.new_tunnel(self.key, config, now).ok();
        if let Some(new) = &new {
            tunnels.insert(new.id(), place);
        }
        let before = std::mem::replace(&mut self.tunnel, new);
        let unused = match before {
            Some(before) if has_session(&before, now) => self.old.replace(before),
            before => before,
        };
        if let Some(unused) = unused {
            tunnels.remove(&unused.id());
        }
    }

    /// Forgets all sessions.
    pub(crate) fn end(&mut self, tunnels: &mut Tunnels) {
        for tunnel in [self.tunnel.take(), self.old.take()].into_iter().flatten() {
            tunnels.remove(&tunnel.id());
        }
        self.answered_at = None;
    }

    /// The tunnel of that index.
    pub(crate) fn tunnel(&mut self, id: TunnelId) -> Option<&mut Tunnel> {
        let both = [self.tunnel.as_mut(), self.old.as_mut()];
        both.into_iter().flatten().find(|tunnel| tunnel.id() == id)
    }

    /// The one that answers and begins handshakes.
    pub(crate) fn handshakes(&mut self) -> Option<&mut Tunnel> {
        self.tunnel.as_mut()
    }

    /// An authentic message came from `from`. Returns whether its way is chosen and
    /// another one is in use.
    pub(crate) fn heard(
        &mut self,
        from: SocketAddr,
        length: usize,
        said: Said,
        now: Instant,
    ) -> bool {
        self.rx_bytes += length as u64;
        let Some(chosen) = &mut self.chosen else {
            self.settings.endpoint = Some(from);
            return false;
        };
        let is_other = self.settings.endpoint != Some(from);
        let fresh = match said {
            Said::Answers => FRESH,
            Said::Asks | Said::Speaks => SESSION,
        };
        // Who asks may be asking because nothing comes.
        let is_news = said != Said::Asks || self.settings.endpoint.is_none();
        if !is_other && is_news || is_other && !chosen.is_heard(fresh, now) {
            // What waits for a session goes where it came from.
            self.settings.endpoint = Some(from);
            (chosen.heard, chosen.unanswered) = (Some(now), None);
        }
        is_other
    }

    /// A handshake of the other was answered.
    pub(crate) fn answered(&mut self, now: Instant) {
        self.answered_at = Some(now);
    }

    /// Data came: they confirm the handshake that they are the first of.
    pub(crate) fn confirm(&mut self, now: Instant) {
        let Some(answered_at) = self.answered_at else {
            return;
        };
        let all = [self.tunnel.as_ref(), self.old.as_ref()];
        let ages = all.into_iter().flatten();
        let newest = ages.filter_map(|t| t.time_since_last_handshake(now)).min();
        if newest.is_some_and(|age| age <= now.duration_since(answered_at)) {
            self.shook_hands(now);
            self.answered_at = None;
        }
    }

    /// A handshake has come about.
    pub(crate) fn shook_hands(&mut self, now: Instant) {
        self.last_handshake = Some(now);
        self.is_used = false;
    }

    /// When the last one did.
    pub(crate) fn last_handshake(&self) -> Option<Instant> {
        self.last_handshake
    }

    /// A packet came from it.
    pub(crate) fn brought_packet(&mut self) {
        self.is_used = true;
        if let Some(chosen) = &mut self.chosen {
            chosen.has_passed = true;
        }
    }

    /// Encrypts a packet and sends it, or keeps it until there is a session. Returns
    /// whether it wasn't lost.
    pub(crate) fn carry(
        &mut self,
        packet: &[u8],
        now: Instant,
        outgoing: &mut Outgoing,
        wire: &mut impl Wire,
    ) -> bool {
        match self.seal(packet, now, outgoing, wire) {
            Sealed::Sent => true,
            Sealed::Dropped => false,
            Sealed::Waits => {
                let is_first = self.staged.bytes == 0;
                let is_kept = self.staged.push(packet);
                self.initiate(now, outgoing, wire);
                if is_first && let Some(chosen) = &mut self.chosen {
                    // One that nobody waited for may have gone where nobody was.
                    chosen.is_begun |= !chosen.initiation.is_empty();
                }
                is_kept
            }
        }
    }

    fn seal(
        &mut self,
        packet: &[u8],
        now: Instant,
        outgoing: &mut Outgoing,
        wire: &mut impl Wire,
    ) -> Sealed {
        if self.tunnel.is_none() || self.settings.endpoint.is_none() && self.chosen.is_none() {
            return Sealed::Dropped;
        }
        let Some(to) = self.settings.endpoint else {
            return Sealed::Waits;
        };
        let sealed = self.seal_to(to, packet, now, outgoing, wire);
        if sealed == Sealed::Sent {
            self.is_used = true;
            if let Some(chosen) = &mut self.chosen {
                chosen.unanswered.get_or_insert(now);
                chosen.has_passed = true;
            }
        }
        sealed
    }

    /// Encrypts a packet and sends it there.
    fn seal_to(
        &mut self,
        to: SocketAddr,
        packet: &[u8],
        now: Instant,
        outgoing: &mut Outgoing,
        wire: &mut impl Wire,
    ) -> Sealed {
        let Some(pending) = self.begin(now) else {
            return Sealed::Waits;
        };
        let room = outgoing.room(packet.len() + limits::OVERHEAD, wire);
        match pending.encrypt(packet, room) {
            Ok(message) => {
                let length = message.len();
                self.tx_bytes += length as u64;
                outgoing.push(to, length, wire);
                Sealed::Sent
            }
            Err(_) => Sealed::Dropped,
        }
    }

    /// Sends a packet of the driver's own within the session; `false` where there is
    /// none.
    pub(crate) fn send_within(
        &mut self,
        to: SocketAddr,
        packet: &[u8],
        now: Instant,
        outgoing: &mut Outgoing,
        wire: &mut impl Wire,
    ) -> bool {
        self.seal_to(to, packet, now, outgoing, wire) == Sealed::Sent
    }

    fn begin(&mut self, now: Instant) -> Option<PendingEncapsulate> {
        let both = [self.tunnel.as_mut(), self.old.as_mut()];
        both.into_iter()
            .flatten()
            .find_map(|tunnel| tunnel.begin_encapsulate(now).ok())
    }

    /// Begins a handshake, where none is under way.
    pub(crate) fn initiate(&mut self, now: Instant, outgoing: &mut Outgoing, wire: &mut impl Wire) {
        let begun = self.tunnel.as_mut().and_then(|t| t.initiate_handshake(now));
        if let Some(initiation) = begun {
            self.send_begun(&initiation, outgoing, wire);
        }
    }

    /// Sends the first message of a handshake, or keeps it for whoever chooses where it
    /// goes.
    fn send_begun(&mut self, initiation: &Datagram, outgoing: &mut Outgoing, wire: &mut impl Wire) {
        match &mut self.chosen {
            Some(chosen) => {
                chosen.initiation.clear();
                chosen.initiation.extend_from_slice(initiation);
                chosen.is_begun = true;
            }
            None => self.send(initiation, outgoing, wire),
        }
    }

    /// Sends a message of the protocol itself.
    pub(crate) fn send(
        &mut self,
        message: &Datagram,
        outgoing: &mut Outgoing,
        wire: &mut impl Wire,
    ) {
        if let Some(to) = self.settings.endpoint {
            self.tx_bytes += message.len() as u64;
            outgoing.send(to, message, wire);
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        outgoing: &mut Outgoing,
        wire: &mut impl Wire,
    ) {
        for tunnel in [self.tunnel.as_mut(), self.old.as_mut()]
            .into_iter()
            .flatten()
        {
            tunnel.handle_timeout(now);
        }
        if self.handshake_at.is_some_and(|at| now >= at) {
            let keepalive = self.settings.keepalive_s;
            self.handshake_at = keepalive.map(|s| now + Duration::from_secs(s.max(1).into()));
            let is_up = self.tunnel.as_ref().is_some_and(|t| has_session(t, now));
            let has_place = self.settings.endpoint.is_some() || self.chosen.is_some();
            if !is_up && has_place {
                self.initiate(now, outgoing, wire);
            }
        }
    }

    /// Does what its tunnels ask for. Returns whether the newer one has ended and is to
    /// be made anew.
    pub(crate) fn drain(
        &mut self,
        now: Instant,
        tunnels: &mut Tunnels,
        outgoing: &mut Outgoing,
        wire: &mut impl Wire,
    ) -> bool {
        let mut has_ended = false;
        while let Some(event) = self.tunnel.as_mut().and_then(Tunnel::poll_event) {
            match event {
                Event::SendHandshakeInitiation(message) if self.is_wanted() => {
                    self.send_begun(&message, outgoing, wire);
                }
                Event::SendKeepalive(message) => self.send(&message, outgoing, wire),
                Event::Established { .. } => {}
                // Whoever began a session goes on with the next for ever, where nobody
                // ends that: an idle peer is silent (whitepaper §6.1).
                Event::SendHandshakeInitiation(_) | Event::ConnectionExpired => has_ended = true,
            }
        }
        while let Some(event) = self.old.as_mut().and_then(Tunnel::poll_event) {
            match event {
                Event::SendHandshakeInitiation(_) => {
                    let is_up = self.tunnel.as_ref().is_some_and(|t| has_session(t, now));
                    if !is_up && self.is_wanted() {
                        self.initiate(now, outgoing, wire);
                    }
                }
                Event::SendKeepalive(message) => self.send(&message, outgoing, wire),
                Event::Established { .. } | Event::ConnectionExpired => {}
            }
        }
        if let Some(old) = self.old.take_if(|old| !has_session(old, now)) {
            tunnels.remove(&old.id());
        }
        if has_ended {
            self.staged = Staged::default();
        }
        self.send_staged(now, outgoing, wire);
        has_ended
    }

    /// Whether anything asks for a session.
    fn is_wanted(&self) -> bool {
        self.is_used || self.settings.keepalive_s.is_some() || self.staged.bytes > 0
    }

    fn send_staged(&mut self, now: Instant, outgoing: &mut Outgoing, wire: &mut impl Wire) {
        while let Some(packet) = self.staged.pop() {
            if self.seal(&packet, now, outgoing, wire) == Sealed::Waits {
                self.staged.put_back(packet);
                return;
            }
        }
    }

    /// When its timers are to be looked at next.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let tunnels = [self.tunnel.as_ref(), self.old.as_ref()];
        tunnels
            .into_iter()
            .flatten()
            .filter_map(Tunnel::poll_timeout)
            .chain(self.handshake_at)
            .min()
    }

    /// Has a handshake begin where there is a session, once the other end has had time to
    /// change as this one did.
    pub(crate) fn shake_hands_soon(&mut self, now: Instant) {
        if self.tunnel.as_ref().is_some_and(|t| has_session(t, now)) {
            self.handshake_at = Some(now + limits::SOON);
        }
    }

    /// Sets the keepalive, which a new tunnel begins with: where there is a session to
    /// keep or to let rest, it is made at once.
    pub(crate) fn set_keepalive(&mut self, seconds: Option<u16>, now: Instant) {
        self.settings.keepalive_s = seconds;
        let is_up = self.tunnel.as_ref().is_some_and(|t| has_session(t, now));
        self.handshake_at = (seconds.is_some() || is_up).then_some(now);
    }
}

fn has_session(tunnel: &Tunnel, now: Instant) -> bool {
    tunnel.time_since_last_handshake(now).is_some()
}

impl Staged {
    /// Keeps a packet; the oldest go where there are too many. Returns whether none did.
    fn push(&mut self, packet: &[u8]) -> bool {
        self.bytes += packet.len();
        self.packets.push_back(packet.into());
        let mut is_kept = true;
        while self.packets.len() > limits::STAGED || self.bytes > limits::STAGED_BYTES {
            is_kept = false;
            if self.pop().is_none() {
                break;
            }
        }
        is_kept
    }

    fn pop(&mut self) -> Option<Box<[u8]>> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }

    fn put_back(&mut self, packet: Box<[u8]>) {
        self.bytes += packet.len();
        self.packets.push_front(packet);
    }
}
