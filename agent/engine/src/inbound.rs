//! What comes from the network: messages of the protocol, and packets in them.

use std::{collections::VecDeque, net::SocketAddr, time::Instant};

use sanstun::{
    Committed, CookieReply, Error, HandshakeInitiation, HandshakeResponse, Received,
    ReceivedMessage, TransportData, TunnelId,
};

use crate::{
    coalesce::Inside,
    engine::Engine,
    limits,
    outgoing::Wire,
    packet::Packet,
    peer::Said,
    routes::Place,
    ways::{Happened, Probe},
};

/// First messages of handshakes that were taken of late. A peer sends one by several ways at
/// once, and to know a copy by its key exchange costs as much as the first.
#[derive(Default)]
pub(crate) struct Initiations(VecDeque<[u8; INITIATION]>);

impl Initiations {
    fn has(&self, datagram: &[u8]) -> bool {
        let Some(Ok(first)) = datagram.get(..INITIATION).map(<[u8; INITIATION]>::try_from) else {
            return false;
        };
        first.starts_with(&IS_INITIATION) && self.0.contains(&first)
    }

    fn push(&mut self, datagram: &[u8]) {
        if let Some(Ok(first)) = datagram.get(..INITIATION).map(TryInto::try_into) {
            if self.0.len() >= limits::INITIATIONS {
                self.0.pop_front();
            }
            self.0.push_back(first);
        }
    }
}

/// Bytes of one before its MACs, of which the second differs where a cookie was asked for
/// (whitepaper, section 5.4.2).
const INITIATION: usize = 116;
const IS_INITIATION: [u8; 4] = [1, 0, 0, 0];

/// What was in a data message.
enum Inner {
    Keepalive,
    Probe(Probe),
    /// `None` where it is no whole packet.
    Packet(Option<Packet>),
}

impl Inner {
    fn parse(bytes: &[u8]) -> Self {
        let probe = Probe::decode(bytes);
        probe.map_or_else(|| Self::Packet(Packet::parse(bytes)), Self::Probe)
    }
}

impl Engine {
    /// Takes datagrams of `segment` bytes each from one sender; the last may be shorter.
    pub fn take_datagrams(
        &mut self,
        from: SocketAddr,
        bytes: &[u8],
        segment: usize,
        now: Instant,
        wire: &mut impl Wire,
        inside: &mut impl Inside,
    ) {
        for datagram in bytes.chunks(segment.max(1)) {
            if self.initiations.has(datagram) {
                self.counters.replayed += 1;
                continue;
            }
            match self.interface.receive(from, datagram, now) {
                Ok(Received::Message(message)) => {
                    let taken = self.take(from, datagram, message, now, wire, inside);
                    if let Err(error) = taken {
                        self.count(&error);
                    }
                }
                Ok(Received::SendCookieReply(reply)) => {
                    self.counters.cookies += 1;
                    self.outgoing.send(from, &reply, wire);
                }
                Err(error) => self.count(&error),
            }
        }
    }

    fn take(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        message: ReceivedMessage,
        now: Instant,
        wire: &mut impl Wire,
        inside: &mut impl Inside,
    ) -> Result<(), Error> {
        let length = datagram.len();
        match message {
            ReceivedMessage::TransportData(data) => {
                return self.take_data(from, datagram, data, now, wire, inside);
            }
            ReceivedMessage::HandshakeInitiation(initiation) => {
                self.take_initiation(from, length, initiation, now, wire)?;
                self.initiations.push(datagram);
            }
            ReceivedMessage::HandshakeResponse(response) => {
                self.take_response(from, length, response, now, wire)?;
            }
            ReceivedMessage::CookieReply(reply) => self.take_cookie(reply, now)?,
        }
        Ok(())
    }

    fn take_initiation(
        &mut self,
        from: SocketAddr,
        length: usize,
        initiation: HandshakeInitiation,
        now: Instant,
        wire: &mut impl Wire,
    ) -> Result<(), Error> {
        let place = self.place(&initiation.peer_static_public());
        let place = place.ok_or(Error::WrongKey)?;
        let peer = self.peers.get_mut(place).and_then(Option::as_mut);
        let peer = peer.ok_or(Error::WrongKey)?;
        let tunnel = peer.handshakes().ok_or(Error::WrongKey)?;
        let response = tunnel.handle_handshake_initiation(initiation, now)?;
        let is_other = peer.heard(from, length, Said::Asks, now);
        peer.answered(now);
        peer.tx_bytes += response.len() as u64;
        self.outgoing.send(from, &response, wire);
        if is_other {
            self.tell_heard(place, Happened::Heard(from));
        }
        self.drain(place, now, wire);
        self.touch(place);
        Ok(())
    }

    fn take_response(
        &mut self,
        from: SocketAddr,
        length: usize,
        response: HandshakeResponse,
        now: Instant,
        wire: &mut impl Wire,
    ) -> Result<(), Error> {
        let id = response.tunnel_id();
        let place = self.place_of(id)?;
        let peer = self.peers.get_mut(place).and_then(Option::as_mut);
        let peer = peer.ok_or(Error::WrongIndex)?;
        let tunnel = peer.tunnel(id).ok_or(Error::WrongIndex)?;
        let keepalive = tunnel.handle_handshake_response(response, now)?;
        let is_other = peer.heard(from, length, Said::Answers, now);
        peer.shook_hands(now);
        peer.tx_bytes += keepalive.len() as u64;
        self.outgoing.send(from, &keepalive, wire);
        if is_other {
            self.tell_heard(place, Happened::Heard(from));
        }
        self.drain(place, now, wire);
        self.touch(place);
        Ok(())
    }

    fn take_cookie(&mut self, reply: CookieReply, now: Instant) -> Result<(), Error> {
        let id = reply.tunnel_id();
        let place = self.place_of(id)?;
        let peer = self.peers.get_mut(place).and_then(Option::as_mut);
        let tunnel = peer.and_then(|peer| peer.tunnel(id));
        tunnel
            .ok_or(Error::WrongIndex)?
            .handle_cookie_reply(reply, now)?;
        self.touch(place);
        Ok(())
    }

    fn take_data(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        data: TransportData,
        now: Instant,
        wire: &mut impl Wire,
        inside: &mut impl Inside,
    ) -> Result<(), Error> {
        let id = data.tunnel_id();
        let place = self.place_of(id)?;
        let peer = self.peers.get_mut(place).and_then(Option::as_mut);
        let peer = peer.ok_or(Error::WrongIndex)?;
        let tunnel = peer.tunnel(id).ok_or(Error::WrongIndex)?;
        let pending = tunnel.begin_decapsulate(data, now)?;
        let room = self.coalescer.room(datagram.len(), inside);
        let decrypted = pending.decrypt(datagram, room);
        let inner = match tunnel.commit_decapsulate(decrypted, now)? {
            Committed::Keepalive => Inner::Keepalive,
            Committed::Data { buffer, len } => Inner::parse(buffer.get(..len).unwrap_or_default()),
        };
        let said = match inner {
            Inner::Probe(Probe::Ask(_)) => Said::Asks,
            _ => Said::Speaks,
        };
        let is_other = peer.heard(from, datagram.len(), said, now);
        peer.confirm(now);
        if matches!(inner, Inner::Packet(_)) {
            peer.brought_packet();
        }
        match inner {
            Inner::Probe(Probe::Ask(number)) => {
                self.tell_heard(place, Happened::Probed(from, number));
            }
            Inner::Probe(Probe::Reply(number)) => {
                self.tell_heard(place, Happened::Replied(from, number));
            }
            _ if is_other => self.tell_heard(place, Happened::Heard(from)),
            _ => {}
        }
        match inner {
            Inner::Keepalive | Inner::Probe(_) => {}
            Inner::Packet(Some(packet)) if self.routes.of(packet.source) == Some(place) => {
                self.coalescer.push(&packet, inside);
            }
            Inner::Packet(_) => self.counters.spoofed += 1,
        }
        self.drain(place, now, wire);
        self.touch(place);
        Ok(())
    }

    fn place_of(&self, id: TunnelId) -> Result<Place, Error> {
        self.tunnels.get(&id).copied().ok_or(Error::WrongIndex)
    }

    fn count(&mut self, error: &Error) {
        let counters = &mut self.counters;
        let counter = match error {
            Error::WrongIndex | Error::WrongKey | Error::NoCurrentSession => &mut counters.unknown,
            Error::ReplayedHandshakeInitiation
            | Error::InvalidCounter
            | Error::DuplicateCounter => &mut counters.replayed,
            Error::InvalidAeadTag => &mut counters.forged,
            Error::RateLimited => &mut counters.limited,
            _ => &mut counters.malformed,
        };
        *counter += 1;
    }
}
