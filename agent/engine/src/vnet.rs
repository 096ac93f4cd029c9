//! The header before each frame of a TUN interface with offloads (`struct
//! virtio_net_hdr` of the kernel, virtio 1.2 §5.1.6), in this machine's byte order.

/// Its length in bytes.
pub const VNET_HEADER: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const UDP: u8 = 5;
/// Set beside a kind where the segments carry ECN's bits.
const ECN: u8 = 0x80;

/// What the kernel says of a frame, or is told of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    flags: u8,
    kind: u8,
    /// Length of the headers. The kernel's isn't to be relied on: forwarded frames have
    /// that of their first packet.
    pub(crate) headers: u16,
    /// Bytes of payload in each segment.
    pub(crate) segment: u16,
    /// Where the sum begins.
    pub(crate) sum_from: u16,
    /// Where it is stored, from there.
    pub(crate) sum_at: u16,
}

/// What a frame consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One packet.
    Single,
    Tcp4,
    Tcp6,
    Udp,
}

impl VnetHeader {
    /// A packet as it is.
    pub(crate) const NONE: Self = Self {
        flags: 0,
        kind: 0,
        headers: 0,
        segment: 0,
        sum_from: 0,
        sum_at: 0,
    };

    /// Of a frame that the kernel is to cut.
    pub(crate) fn joined(
        kind: Kind,
        headers: u16,
        segment: u16,
        sum_from: u16,
        sum_at: u16,
    ) -> Self {
        let kind = match kind {
            Kind::Single => 0,
            Kind::Tcp4 => TCP4,
            Kind::Tcp6 => TCP6,
            Kind::Udp => UDP,
        };
        Self {
            flags: NEEDS_CHECKSUM,
            kind,
            headers,
            segment,
            sum_from,
            sum_at,
        }
    }

    /// Reads what stands before a frame; `None` for a kind that wasn't asked for.
    pub fn decode(bytes: &[u8; VNET_HEADER]) -> Self {
        let word = |low: u8, high: u8| u16::from_ne_bytes([low, high]);
        let [flags, kind, a, b, c, d, e, f, g, h] = *bytes;
        Self {
            flags,
            kind: kind & !ECN,
            headers: word(a, b),
            segment: word(c, d),
            sum_from: word(e, f),
            sum_at: word(g, h),
        }
    }

    /// As it stands before a frame.
    pub fn encode(self) -> [u8; VNET_HEADER] {
        let [a, b] = self.headers.to_ne_bytes();
        let [c, d] = self.segment.to_ne_bytes();
        let [e, f] = self.sum_from.to_ne_bytes();
        let [g, h] = self.sum_at.to_ne_bytes();
        [self.flags, self.kind, a, b, c, d, e, f, g, h]
    }

    pub(crate) fn needs_checksum(self) -> bool {
        self.flags & NEEDS_CHECKSUM != 0
    }

    /// `None` for a kind that no offload of ours asks for.
    pub(crate) fn kind(self) -> Option<Kind> {
        match self.kind {
            0 => Some(Kind::Single),
            TCP4 => Some(Kind::Tcp4),
            TCP6 => Some(Kind::Tcp6),
            UDP => Some(Kind::Udp),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_ecn_is_no_kind_of_its_own() {
        let header = VnetHeader::joined(Kind::Tcp6, 72, 1228, 40, 16);
        assert_eq!(VnetHeader::decode(&header.encode()), header);
        let mut with_ecn = header.encode();
        with_ecn[1] |= ECN;
        assert_eq!(VnetHeader::decode(&with_ecn).kind(), Some(Kind::Tcp6));
        with_ecn[1] = 3;
        assert_eq!(VnetHeader::decode(&with_ecn).kind(), None);
    }
}
