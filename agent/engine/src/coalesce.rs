//! Decrypted packets on their way in, joined by reference: segments of one flow that
//! follow each other go to the interface as one frame that the kernel cuts again where
//! it must. Only what is whole by its own checksum is joined, as the kernel makes a new
//! one.

use std::io::IoSlice;

use crate::{
    checksum, limits,
    packet::{self, Packet, TCP, UDP},
    vnet::{Kind, VnetHeader},
};

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// Takes packets to the interface.
pub trait Inside {
    /// One frame: the kernel's header before it, and the parts of what it heads, which
    /// is a packet or several joined.
    fn deliver(&mut self, parts: &[IoSlice<'_>]);

    /// Whether it takes joined segments of TCP.
    fn joins_tcp(&self) -> bool {
        true
    }

    /// Whether it takes joined datagrams of UDP.
    fn joins_udp(&self) -> bool {
        true
    }
}

/// The packets of a batch.
pub(crate) struct Coalescer {
    arena: Box<[u8]>,
    used: usize,
    groups: Vec<Group>,
    parts: Vec<Part>,
}

/// A frame that is being put together.
#[derive(Clone, Copy)]
struct Group {
    kind: Kind,
    /// Where its first packet stands.
    start: usize,
    /// Headers of that: all, and the IP header alone.
    headers: usize,
    ip: usize,
    /// Its length with what was joined.
    length: usize,
    /// Payload of a segment.
    segment: usize,
    next_sequence: u32,
    count: usize,
    is_open: bool,
    first: Option<usize>,
    last: Option<usize>,
}

/// Payload that is joined to a packet.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    length: usize,
    next: Option<usize>,
}

/// What decides whether a packet continues another.
#[derive(Clone, Copy)]
struct Segment {
    kind: Kind,
    headers: usize,
    ip: usize,
    length: usize,
    sequence: u32,
    is_pushed: bool,
}

impl Coalescer {
    pub(crate) fn new() -> Self {
        Self {
            arena: vec![0; limits::DECRYPTED_BYTES].into_boxed_slice(),
            used: 0,
            groups: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Room for a packet of `length` bytes.
    pub(crate) fn room(&mut self, length: usize, inside: &mut impl Inside) -> &mut [u8] {
        if self.used + length > self.arena.len() {
            self.flush(inside);
        }
        self.arena.get_mut(self.used..).unwrap_or_default()
    }

    /// Takes the packet that was written into the room.
    pub(crate) fn push(&mut self, packet: &Packet, inside: &impl Inside) {
        let start = self.used;
        self.used += packet.length;
        let bytes = self.arena.get(start..self.used).unwrap_or_default();
        let segment = segment_of(bytes, packet).filter(|segment| match segment.kind {
            Kind::Udp => inside.joins_udp(),
            _ => inside.joins_tcp(),
        });
        let Some(segment) = segment else {
            self.groups.push(Group::alone(start, packet.length));
            return;
        };
        let flows = self.groups.iter_mut().rev().take(limits::FLOWS);
        for group in flows {
            let of = |at: usize, length: usize| self.arena.get(at..at + length).unwrap_or_default();
            let first = of(group.start, group.headers);
            if !is_same_flow(first, group, bytes, &segment) {
                continue;
            }
            if !group.is_open || !group.continues(first, bytes, &segment) {
                // What comes after it isn't to overtake it.
                group.is_open = false;
                break;
            }
            let part = self.parts.len();
            self.parts.push(Part {
                start: start + segment.headers,
                length: packet.length - segment.headers,
                next: None,
            });
            match group.last.and_then(|last| self.parts.get_mut(last)) {
                Some(last) => last.next = Some(part),
                None => group.first = Some(part),
            }
            group.last = Some(part);
            group.take(&segment);
            if segment.is_pushed
                && let Some(flags) = self.arena.get_mut(group.start + group.ip + 13)
            {
                *flags |= PSH;
            }
            return;
        }
        self.groups.push(Group::of(start, &segment));
    }

    /// Hands over what waits.
    pub(crate) fn flush(&mut self, inside: &mut impl Inside) {
        for group in &self.groups {
            let header = group.finish(&mut self.arena).encode();
            let mut slices = [IoSlice::new(&[]); limits::JOINED + 2];
            let of = |at: usize, length: usize| {
                IoSlice::new(self.arena.get(at..at + length).unwrap_or_default())
            };
            let first = group.headers + group.segment;
            let head = [IoSlice::new(&header), of(group.start, first)];
            let mut next = group.first;
            let rest = std::iter::from_fn(|| {
                let part = self.parts.get(next?)?;
                next = part.next;
                Some(of(part.start, part.length))
            });
            let mut count = 0;
            for (place, slice) in slices.iter_mut().zip(head.into_iter().chain(rest)) {
                *place = slice;
                count += 1;
            }
            inside.deliver(slices.get(..count).unwrap_or_default());
        }
        self.groups.clear();
        self.parts.clear();
        self.used = 0;
    }
}

impl Group {
    fn alone(start: usize, length: usize) -> Self {
        Self {
            kind: Kind::Single,
            start,
            headers: 0,
            ip: 0,
            length,
            segment: length,
            next_sequence: 0,
            count: 1,
            is_open: false,
            first: None,
            last: None,
        }
    }

    fn of(start: usize, segment: &Segment) -> Self {
        let payload = segment.length - segment.headers;
        Self {
            kind: segment.kind,
            start,
            headers: segment.headers,
            ip: segment.ip,
            length: segment.length,
            segment: payload,
            next_sequence: segment.next_sequence(),
            count: 1,
            is_open: !segment.is_pushed,
            first: None,
            last: None,
        }
    }

    fn continues(&self, first: &[u8], bytes: &[u8], segment: &Segment) -> bool {
        let payload = segment.length - segment.headers;
        self.headers == segment.headers
            && payload <= self.segment
            && self.length + payload <= usize::from(u16::MAX)
            && self.count < limits::JOINED
            && (self.kind == Kind::Udp || self.next_sequence == segment.sequence)
            && is_same_header(first, bytes, segment)
    }

    fn take(&mut self, segment: &Segment) {
        let payload = segment.length - segment.headers;
        self.length += payload;
        self.count += 1;
        self.next_sequence = segment.next_sequence();
        self.is_open = payload == self.segment && !segment.is_pushed;
    }

    /// Writes into the first packet's headers what holds for all of it.
    fn finish(&self, arena: &mut [u8]) -> VnetHeader {
        if self.count < 2 {
            return VnetHeader::NONE;
        }
        let Some(bytes) = arena.get_mut(self.start..self.start + self.headers) else {
            return VnetHeader::NONE;
        };
        let is_ipv6 = bytes.first().is_some_and(|first| first >> 4 == 6);
        let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        if is_ipv6 {
            packet::put(bytes, 4, &short(self.length - self.ip).to_be_bytes());
        } else {
            packet::put(bytes, 2, &short(self.length).to_be_bytes());
            packet::put(bytes, 10, &[0, 0]);
            let sum = checksum::add(0, bytes.get(..self.ip).unwrap_or_default());
            packet::put(bytes, 10, &checksum::finish(sum));
        }
        let (protocol, field) = match self.kind {
            Kind::Udp => (UDP, 6),
            _ => (TCP, 16),
        };
        let length = self.length - self.ip;
        if self.kind == Kind::Udp {
            packet::put(bytes, self.ip + 4, &short(length).to_be_bytes());
        }
        let addresses = packet::addresses(bytes, is_ipv6);
        let sum = checksum::add_pseudo(0, addresses, protocol, length);
        packet::put(bytes, self.ip + field, &checksum::partial(sum));
        VnetHeader::joined(
            self.kind,
            short(self.headers),
            short(self.segment),
            short(self.ip),
            short(field),
        )
    }
}

impl Segment {
    fn next_sequence(&self) -> u32 {
        let payload = u32::try_from(self.length - self.headers).unwrap_or(0);
        self.sequence.wrapping_add(payload)
    }
}

/// `None` for what is never joined: pieces, options of IP, anything but plain data.
fn segment_of(bytes: &[u8], packet: &Packet) -> Option<Segment> {
    let ip = packet.header;
    let is_plain = !packet.is_piece && (packet.is_ipv6() || ip == 20);
    let body = bytes.get(ip..).filter(|_| is_plain)?;
    let mut segment = Segment {
        kind: Kind::Udp,
        headers: ip + 8,
        ip,
        length: packet.length,
        sequence: 0,
        is_pushed: false,
    };
    match packet.protocol {
        TCP => {
            let flags = *body.get(13)?;
            segment.headers = ip + usize::from(body.get(12)? >> 4) * 4;
            segment.sequence = packet::long(body, 4)?;
            segment.is_pushed = flags & PSH != 0;
            segment.kind = if packet.is_ipv6() {
                Kind::Tcp6
            } else {
                Kind::Tcp4
            };
            if flags & !PSH != ACK || segment.headers < ip + 20 {
                return None;
            }
        }
        UDP => {
            let is_summed = packet::word(body, 6)? != 0;
            if !is_summed || usize::from(packet::word(body, 4)?) != body.len() {
                return None;
            }
        }
        _ => return None,
    }
    if segment.headers >= segment.length {
        return None;
    }
    let addresses = packet::addresses(bytes, packet.is_ipv6());
    let sum = checksum::add_pseudo(0, addresses, packet.protocol, body.len());
    let is_whole = checksum::is_whole(checksum::add(sum, body))
        && (packet.is_ipv6() || checksum::is_whole(checksum::add(0, bytes.get(..ip)?)));
    is_whole.then_some(segment)
}

/// Whether both are between the same ports.
fn is_same_flow(first: &[u8], group: &Group, bytes: &[u8], segment: &Segment) -> bool {
    let is_ipv6 = bytes.first().is_some_and(|byte| byte >> 4 == 6);
    let addresses = if is_ipv6 { 8..40 } else { 12..20 };
    let ports = segment.ip..segment.ip + 4;
    group.kind == segment.kind
        && group.ip == segment.ip
        && first.get(addresses.clone()) == bytes.get(addresses)
        && first.get(ports.clone()) == bytes.get(ports)
}

/// Whether the headers differ in nothing but lengths, checksums, what the sequence says,
/// and whether data are to be pushed.
fn is_same_header(first: &[u8], bytes: &[u8], segment: &Segment) -> bool {
    let same = |range: std::ops::Range<usize>| first.get(range.clone()) == bytes.get(range);
    let ip = segment.ip;
    let is_ip_same = match segment.kind {
        _ if ip == 40 => same(0..4) && same(6..8),
        // Type of service; flags; time to live.
        _ => same(1..2) && same(6..9),
    };
    let is_tcp_same = segment.kind == Kind::Udp
        // Acknowledgement and offset; window; urgent pointer and options.
        || (same(ip + 8..ip + 13) && same(ip + 14..ip + 16) && same(ip + 18..segment.headers));
    is_ip_same && is_tcp_same
}

#[cfg(test)]
mod tests;
