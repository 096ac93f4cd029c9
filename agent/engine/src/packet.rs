//! IP headers, as far as routing, cutting and joining look at them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// A packet whose header fits its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Of the IP header, without extension headers of IPv6.
    pub(crate) header: usize,
    /// Of all of it: what stands behind is padding.
    pub(crate) length: usize,
    /// What follows the header.
    pub(crate) protocol: u8,
    /// Whether it is a piece of one, which shows no ports.
    pub(crate) is_piece: bool,
}

impl Packet {
    /// `None` where `bytes` don't begin with a whole packet.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<20>()?;
        let header = usize::from(fixed[0] & 0x0f) * 4;
        let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let piece = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff;
        let source = [fixed[12], fixed[13], fixed[14], fixed[15]];
        let destination = [fixed[16], fixed[17], fixed[18], fixed[19]];
        (header >= 20 && header <= length && length <= bytes.len()).then_some(Self {
            source: Ipv4Addr::from(source).into(),
            destination: Ipv4Addr::from(destination).into(),
            header,
            length,
            protocol: fixed[9],
            is_piece: piece != 0,
        })
    }

    fn parse_v6(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<40>()?;
        let length = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let (_, addresses) = fixed.split_at(8);
        let source: [u8; 16] = *addresses.first_chunk()?;
        let destination: [u8; 16] = *addresses.last_chunk()?;
        (length <= bytes.len()).then_some(Self {
            source: Ipv6Addr::from(source).into(),
            destination: Ipv6Addr::from(destination).into(),
            header: 40,
            length,
            protocol: fixed[6],
            is_piece: false,
        })
    }

    pub(crate) fn is_ipv6(&self) -> bool {
        self.source.is_ipv6()
    }
}

/// Both addresses, as they stand in the header.
pub(crate) fn addresses(bytes: &[u8], is_ipv6: bool) -> &[u8] {
    let range = if is_ipv6 { 8..40 } else { 12..20 };
    bytes.get(range).unwrap_or_default()
}

/// Two bytes of a header, as the number that they are.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*pair))
}

/// Four bytes of a header, as the number that they are.
pub(crate) fn long(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*four))
}

/// Writes where a header has room for it.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}
