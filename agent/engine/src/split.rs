//! A frame from the interface, cut into the packets that the kernel left for the device
//! to cut (TSO and USO), each with its checksums.
//!
//! In place: a segment's headers are written before its payload, over the end of the
//! segment before it, which has been taken by then.

use crate::{
    checksum, limits,
    packet::{self, Packet, TCP, UDP},
    vnet::{Kind, VNET_HEADER, VnetHeader},
};

/// Why a frame isn't cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// It ends before its headers do.
    #[error("the frame is cut off")]
    Short,
    /// It holds no IPv4 or IPv6 packet whose lengths fit.
    #[error("the frame is no IP packet")]
    NoPacket,
    /// Its header asks for what was never offered, or for what doesn't fit the packet.
    #[error("the frame's offload doesn't fit its packet")]
    Offload,
}

const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// The packets of one frame, one after the other.
pub struct Segments<'f> {
    bytes: &'f mut [u8],
    packet: Packet,
    cut: Option<Cut>,
    is_done: bool,
}

/// How a frame is cut.
struct Cut {
    kind: Kind,
    /// All headers of the first segment, as they came.
    headers: [u8; limits::HEADER_BYTES],
    length: usize,
    /// Of the IP header with what belongs to it.
    ip: usize,
    segment: usize,
    /// Where the next payload begins.
    at: usize,
    count: u16,
}

impl<'f> Segments<'f> {
    /// Of a frame with the kernel's header before it.
    ///
    /// # Errors
    /// What is wrong with it; nothing was changed.
    pub fn of_frame(frame: &'f mut [u8]) -> Result<Self, BadFrame> {
        let (header, bytes) = frame
            .split_first_chunk_mut::<VNET_HEADER>()
            .ok_or(BadFrame::Short)?;
        let header = VnetHeader::decode(header);
        let kind = header.kind().ok_or(BadFrame::Offload)?;
        if kind == Kind::Single {
            if header.needs_checksum() {
                complete(bytes, header)?;
            }
            return Self::of_packet(bytes);
        }
        let packet = Packet::parse(bytes).ok_or(BadFrame::NoPacket)?;
        let cut = Cut::new(kind, header, bytes, &packet)?;
        Ok(Self {
            bytes,
            packet,
            cut: Some(cut),
            is_done: false,
        })
    }

    /// Of a packet as it is.
    ///
    /// # Errors
    /// It is none.
    pub fn of_packet(bytes: &'f mut [u8]) -> Result<Self, BadFrame> {
        let packet = Packet::parse(bytes).ok_or(BadFrame::NoPacket)?;
        Ok(Self {
            bytes,
            packet,
            cut: None,
            is_done: false,
        })
    }

    /// What all of them share.
    pub(crate) fn packet(&self) -> &Packet {
        &self.packet
    }

    /// The next packet.
    pub fn next_packet(&mut self) -> Option<&[u8]> {
        if self.is_done {
            return None;
        }
        let Some(cut) = &mut self.cut else {
            self.is_done = true;
            return self.bytes.get(..self.packet.length);
        };
        let end = (cut.at + cut.segment).min(self.packet.length);
        let is_last = end == self.packet.length;
        let segment = self.bytes.get_mut(cut.at - cut.length..end)?;
        cut.write_headers(segment, &self.packet, is_last);
        cut.at = end;
        self.is_done = is_last;
        Some(segment)
    }
}

impl Cut {
    fn new(
        kind: Kind,
        header: VnetHeader,
        bytes: &[u8],
        packet: &Packet,
    ) -> Result<Self, BadFrame> {
        let (is_ipv6, protocol) = match kind {
            Kind::Tcp4 => (false, TCP),
            Kind::Tcp6 => (true, TCP),
            Kind::Udp => (packet.is_ipv6(), UDP),
            Kind::Single => return Err(BadFrame::Offload),
        };
        let ip = usize::from(header.sum_from);
        // Extension headers of IPv6 stand before the place where the sum begins.
        let fits = packet.is_ipv6() == is_ipv6
            && !packet.is_piece
            && ip >= packet.header
            && (is_ipv6 || (ip == packet.header && packet.protocol == protocol));
        let transport = match protocol {
            TCP => {
                let offset = bytes.get(ip + 12).ok_or(BadFrame::Short)? >> 4;
                usize::from(offset) * 4
            }
            _ => 8,
        };
        let least = if protocol == TCP { 20 } else { 8 };
        let length = ip + transport;
        if !fits || header.segment == 0 || transport < least || length >= packet.length {
            return Err(BadFrame::Offload);
        }
        let mut headers = [0; limits::HEADER_BYTES];
        let place = headers.get_mut(..length).ok_or(BadFrame::Offload)?;
        place.copy_from_slice(bytes.get(..length).ok_or(BadFrame::Short)?);
        Ok(Self {
            kind,
            headers,
            length,
            ip,
            segment: usize::from(header.segment),
            at: length,
            count: 0,
        })
    }

    /// Writes the headers of the segment that `bytes` ends with.
    fn write_headers(&mut self, bytes: &mut [u8], packet: &Packet, is_last: bool) {
        let total = bytes.len();
        let headers = self.headers.get(..self.length).unwrap_or_default();
        packet::put(bytes, 0, headers);
        if packet.is_ipv6() {
            packet::put(bytes, 4, &short(total - packet.header));
        } else {
            let id = packet::word(headers, 4).unwrap_or(0);
            packet::put(bytes, 2, &short(total));
            packet::put(bytes, 4, &id.wrapping_add(self.count).to_be_bytes());
            packet::put(bytes, 10, &[0, 0]);
            let sum = checksum::add(0, bytes.get(..packet.header).unwrap_or_default());
            packet::put(bytes, 10, &checksum::finish(sum));
        }
        let (ip, segment) = bytes.split_at_mut(self.ip.min(total));
        let length = segment.len();
        let (protocol, field) = if self.kind == Kind::Udp {
            packet::put(segment, 4, &short(length));
            (UDP, 6)
        } else {
            let first = packet::long(headers, self.ip + 4).unwrap_or(0);
            let before = self.at - self.length;
            let sequence = first.wrapping_add(u32::try_from(before).unwrap_or(0));
            packet::put(segment, 4, &sequence.to_be_bytes());
            if let Some(flags) = segment.get_mut(13) {
                if !is_last {
                    *flags &= !FIN_PSH;
                }
                if self.count > 0 {
                    *flags &= !CWR;
                }
            }
            (TCP, 16)
        };
        packet::put(segment, field, &[0, 0]);
        let addresses = packet::addresses(ip, packet.is_ipv6());
        let sum = checksum::add_pseudo(0, addresses, protocol, length);
        let mut sum = checksum::finish(checksum::add(sum, segment));
        if self.kind == Kind::Udp && sum == [0, 0] {
            // Zero says that there is none (RFC 768).
            sum = [0xff, 0xff];
        }
        packet::put(segment, field, &sum);
        self.count = self.count.wrapping_add(1);
    }
}

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// Makes the checksum of a packet that the kernel left open: the field holds what the
/// addresses give.
fn complete(bytes: &mut [u8], header: VnetHeader) -> Result<(), BadFrame> {
    let from = usize::from(header.sum_from);
    let field = usize::from(header.sum_at);
    let summed = bytes.get_mut(from..).ok_or(BadFrame::Offload)?;
    if field + 2 > summed.len() {
        return Err(BadFrame::Offload);
    }
    let mut sum = checksum::finish(checksum::add(0, summed));
    // Of UDP, whose field is at 6: zero says that there is none.
    if sum == [0, 0] && field == 6 {
        sum = [0xff, 0xff];
    }
    packet::put(summed, field, &sum);
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A packet of TCP or UDP between two addresses, with right checksums.
    pub(crate) fn packet_of(is_ipv6: bool, protocol: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        packet_at(is_ipv6, protocol, flags, 1000, payload)
    }

    pub(crate) fn packet_at(
        is_ipv6: bool,
        protocol: u8,
        flags: u8,
        sequence: u32,
        payload: &[u8],
    ) -> Vec<u8> {
        let transport = if protocol == TCP { 32 } else { 8 };
        let mut bytes = if is_ipv6 {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            header.extend([0xfd; 15]);
            header.push(1);
            header.extend([0xfd; 15]);
            header.push(2);
            let length = u16::try_from(transport + payload.len()).unwrap();
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header
        } else {
            let mut header = vec![0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, protocol, 0, 0];
            header.extend([10, 0, 0, 1, 10, 0, 0, 2]);
            let length = u16::try_from(20 + transport + payload.len()).unwrap();
            header[2..4].copy_from_slice(&length.to_be_bytes());
            let sum = checksum::finish(checksum::add(0, &header));
            header[10..12].copy_from_slice(&sum);
            header
        };
        let ip = bytes.len();
        bytes.extend([0x12, 0x34, 0x56, 0x78]);
        if protocol == TCP {
            bytes.extend(sequence.to_be_bytes());
            bytes.extend(77u32.to_be_bytes());
            bytes.extend([0x80, flags, 1, 2, 0, 0, 0, 0]);
            bytes.extend([1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8]);
        } else {
            let length = u16::try_from(8 + payload.len()).unwrap();
            bytes.extend(length.to_be_bytes());
            bytes.extend([0, 0]);
        }
        bytes.extend(payload);
        let field = ip + if protocol == TCP { 16 } else { 6 };
        let (head, segment) = bytes.split_at(ip);
        let addresses = packet::addresses(head, is_ipv6);
        let sum = checksum::add_pseudo(0, addresses, protocol, segment.len());
        let sum = checksum::finish(checksum::add(sum, segment));
        bytes[field..field + 2].copy_from_slice(&sum);
        bytes
    }

    /// Whether all checksums are right.
    pub(crate) fn is_whole(bytes: &[u8]) -> bool {
        let packet = Packet::parse(bytes).unwrap();
        let (ip, segment) = bytes.split_at(packet.header);
        let addresses = packet::addresses(ip, packet.is_ipv6());
        let sum = checksum::add_pseudo(0, addresses, packet.protocol, segment.len());
        let header = packet.is_ipv6() || checksum::is_whole(checksum::add(0, ip));
        header && checksum::is_whole(checksum::add(sum, segment))
    }

    /// A frame as the kernel hands it over: cut it at `segment` bytes of payload.
    pub(crate) fn frame_of(packet: &[u8], segment: u16) -> Vec<u8> {
        let parsed = Packet::parse(packet).unwrap();
        let kind = match (parsed.protocol, parsed.is_ipv6()) {
            (UDP, _) => Kind::Udp,
            (_, false) => Kind::Tcp4,
            (_, true) => Kind::Tcp6,
        };
        let field = if parsed.protocol == TCP { 16 } else { 6 };
        let from = u16::try_from(parsed.header).unwrap();
        let header = VnetHeader::joined(kind, 0, segment, from, field);
        let mut frame = header.encode().to_vec();
        frame.extend(packet);
        frame
    }

    pub(crate) fn cut(frame: &mut [u8]) -> Result<Vec<Vec<u8>>, BadFrame> {
        let mut segments = Segments::of_frame(frame)?;
        let mut all = Vec::new();
        while let Some(packet) = segments.next_packet() {
            all.push(packet.to_vec());
        }
        Ok(all)
    }

    #[test]
    fn a_frame_of_tcp_is_cut_into_whole_packets_that_follow_each_other() {
        for is_ipv6 in [false, true] {
            let payload: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
            // CWR, PSH, ACK.
            let packet = packet_of(is_ipv6, TCP, 0x98, &payload);
            let all = cut(&mut frame_of(&packet, 1228)).unwrap();
            let ip = if is_ipv6 { 40 } else { 20 };
            let payloads: Vec<u8> = all.iter().flat_map(|p| p[ip + 32..].to_vec()).collect();
            assert_eq!(payloads, payload);
            let flags: Vec<u8> = all.iter().map(|p| p[ip + 13]).collect();
            assert_eq!(flags, [0x90, 0x10, 0x18]);
            let sequences: Vec<u32> = all.iter().filter_map(|p| packet::long(p, ip + 4)).collect();
            assert_eq!(sequences, [1000, 2228, 3456]);
            assert!(all.iter().all(|packet| is_whole(packet)));
            if !is_ipv6 {
                let ids: Vec<u8> = all.iter().map(|p| p[5]).collect();
                assert_eq!(ids, [7, 8, 9]);
            }
        }
    }

    #[test]
    fn a_frame_of_udp_is_cut_into_datagrams_of_their_own_length() {
        for is_ipv6 in [false, true] {
            let packet = packet_of(is_ipv6, UDP, 0, &[5; 2500]);
            let all = cut(&mut frame_of(&packet, 1000)).unwrap();
            let ip = if is_ipv6 { 40 } else { 20 };
            let lengths: Vec<u16> = all.iter().filter_map(|p| packet::word(p, ip + 4)).collect();
            assert_eq!(lengths, [1008, 1008, 508]);
            assert!(all.iter().all(|packet| is_whole(packet)));
        }
    }

    #[test]
    fn a_checksum_that_the_kernel_left_open_is_made() {
        let whole = packet_of(false, TCP, 0x10, b"payload");
        let mut open = whole.clone();
        let sum = checksum::add_pseudo(0, &whole[12..20], TCP, whole.len() - 20);
        open[36..38].copy_from_slice(&checksum::partial(sum));
        let mut frame = VnetHeader::joined(Kind::Single, 0, 0, 20, 16)
            .encode()
            .to_vec();
        frame.extend(&open);
        assert_eq!(cut(&mut frame).unwrap(), [whole]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let packet = packet_of(false, TCP, 0x10, &[1; 100]);
        let with = |change: &dyn Fn(&mut VnetHeader)| {
            let mut header = VnetHeader::joined(Kind::Tcp4, 0, 50, 20, 16);
            change(&mut header);
            let mut frame = header.encode().to_vec();
            frame.extend(&packet);
            cut(&mut frame)
        };
        assert_eq!(with(&|_| {}).unwrap().len(), 2);
        for change in [
            (|h| h.segment = 0) as fn(&mut VnetHeader),
            |h| h.sum_from = 8,
            |h| h.sum_from = 60_000,
            |h| *h = VnetHeader::joined(Kind::Tcp6, 0, 50, 40, 16),
            |h| *h = VnetHeader::joined(Kind::Udp, 0, 50, 20, 6),
        ] {
            assert!(with(&|header| change(header)).is_err());
        }
        assert_eq!(cut(&mut [0; 9]), Err(BadFrame::Short));
        assert_eq!(cut(&mut [0; 10]), Err(BadFrame::NoPacket));
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_panic(mut frame in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = cut(&mut frame);
        }

        #[test]
        fn no_header_before_a_packet_makes_it_panic(
            header in any::<[u8; VNET_HEADER]>(),
            is_ipv6 in any::<bool>(),
            is_tcp in any::<bool>(),
            payload in proptest::collection::vec(any::<u8>(), 0..3000),
        ) {
            let protocol = if is_tcp { TCP } else { UDP };
            let mut frame = header.to_vec();
            frame.extend(packet_of(is_ipv6, protocol, 0x18, &payload));
            let _ = cut(&mut frame);
        }

        #[test]
        fn payload_comes_out_as_it_went_in(
            is_ipv6 in any::<bool>(),
            is_tcp in any::<bool>(),
            segment in 1u16..2000,
            payload in proptest::collection::vec(any::<u8>(), 1..4000),
        ) {
            let protocol = if is_tcp { TCP } else { UDP };
            let packet = packet_of(is_ipv6, protocol, 0x10, &payload);
            let all = cut(&mut frame_of(&packet, segment)).unwrap();
            let headers = if is_ipv6 { 40 } else { 20 } + if is_tcp { 32 } else { 8 };
            let out: Vec<u8> = all.iter().flat_map(|p| p[headers..].to_vec()).collect();
            prop_assert_eq!(out, payload);
            prop_assert!(all.iter().all(|packet| is_whole(packet)));
        }
    }
}
