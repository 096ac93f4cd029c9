//! PCP (RFC 6887): its packets.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4},
    time::Duration,
};

use super::{Gateway, Granted, MapError, Protocol, Refusal, Wanted};

/// By which a server knows whose mapping is meant (§11.2).
pub type Nonce = [u8; 12];

const VERSION: u8 = 2;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
/// §7.2.
const ANSWER: u8 = 0x80;
const UDP: u8 = 17;
/// §7.1, §11.1.
const HEADER: usize = 24;
const MAPPED: usize = 60;
/// §7.
pub(super) const MOST: usize = 1100;

fn header(opcode: u8, lifetime: Duration, own: Ipv4Addr) -> Vec<u8> {
    let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
    let mut packet = Vec::with_capacity(MAPPED);
    packet.extend([VERSION, opcode, 0, 0]);
    packet.extend(seconds.to_be_bytes());
    packet.extend(own.to_ipv6_mapped().octets());
    packet
}

/// Asks for the server's time, and for nothing else (§14.1).
pub fn announce(gateway: &Gateway) -> Vec<u8> {
    header(ANNOUNCE, Duration::ZERO, gateway.own)
}

/// Asks for a mapping, or for its end where the lifetime is zero (§11.1, §15).
pub fn map(gateway: &Gateway, wanted: &Wanted, lifetime: Duration) -> Vec<u8> {
    // §15: nothing is suggested where it ends.
    let port = if lifetime.is_zero() { 0 } else { wanted.port };
    let before = wanted.before.filter(|_| !lifetime.is_zero());
    let before = before.unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
    let mut packet = header(MAP, lifetime, gateway.own);
    packet.extend(wanted.nonce);
    packet.extend([UDP, 0, 0, 0]);
    packet.extend(wanted.port.to_be_bytes());
    packet.extend(before.port().to_be_bytes());
    packet.extend(before.ip().to_ipv6_mapped().octets());
    packet
}

/// The server's time, from the answer to `announce`.
///
/// # Errors
/// [`MapError`].
pub fn announced(packet: &[u8]) -> Result<u32, MapError> {
    Ok(success(packet, ANNOUNCE)?.1)
}

/// What came of `map`, or what its end left.
///
/// # Errors
/// [`MapError`].
pub fn mapped(packet: &[u8], wanted: &Wanted) -> Result<Granted, MapError> {
    let (lifetime, epoch) = success(packet, MAP)?;
    let malformed = MapError::Malformed(Protocol::Pcp);
    let body = packet.get(HEADER..MAPPED).ok_or(malformed.clone())?;
    let is_ours = body.starts_with(&wanted.nonce)
        && body[12] == UDP
        && body[16..18] == wanted.port.to_be_bytes();
    if !is_ours {
        return Err(malformed);
    }
    let port = u16::from_be_bytes([body[18], body[19]]);
    let octets: [u8; 16] = body[20..36].try_into().map_err(|_| malformed.clone())?;
    let ip = Ipv6Addr::from(octets).to_ipv4_mapped().ok_or(malformed)?;
    Ok(Granted {
        external: SocketAddrV4::new(ip, port),
        lifetime: Some(Duration::from_secs(lifetime.into())),
        epoch: Some(epoch),
    })
}

/// Lifetime and server's time of an answer that is no error (§7.2).
fn success(packet: &[u8], opcode: u8) -> Result<(u32, u32), MapError> {
    let malformed = MapError::Malformed(Protocol::Pcp);
    let Some(version) = packet.first() else {
        return Err(malformed);
    };
    if *version != VERSION {
        // §9: NAT-PMP alone, or something newer.
        return Err(MapError::Silent(Protocol::Pcp));
    }
    let is_whole = packet.len().is_multiple_of(4) && packet.len() <= MOST;
    let header: &[u8; HEADER] = packet.first_chunk().ok_or(malformed.clone())?;
    if !is_whole || header[1] != ANSWER | opcode {
        return Err(malformed);
    }
    let number = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    match header[3] {
        0 => Ok((number(4), number(8))),
        code => Err(refused(code)),
    }
}

/// §7.4.
fn refused(code: u8) -> MapError {
    let refusal = match code {
        1 => return MapError::Silent(Protocol::Pcp),
        2 => Refusal::NotAuthorized,
        4 | 9 => Refusal::Unsupported,
        7 => Refusal::NoNetwork,
        8 | 10 => Refusal::Full,
        11 => Refusal::Taken,
        12 => Refusal::OtherAddress,
        code => Refusal::Other {
            code: code.into(),
            text: String::new(),
        },
    };
    MapError::Refused(Protocol::Pcp, refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            port: 51820,
            before: "203.0.113.7:40001".parse().ok(),
            nonce: *b"twelve bytes",
        }
    }

    fn answer(result: u8) -> Vec<u8> {
        let gateway = gateway();
        let mut packet = map(&gateway, &wanted(), Duration::from_secs(600));
        packet[1] |= ANSWER;
        packet[3] = result;
        packet[8..12].copy_from_slice(&77u32.to_be_bytes());
        packet[12..24].fill(0);
        packet
    }

    fn gateway() -> Gateway {
        Gateway {
            router: Ipv4Addr::new(192, 168, 1, 1),
            own: Ipv4Addr::new(192, 168, 1, 7),
        }
    }

    #[test]
    fn a_request_is_as_the_rfc_has_it() {
        let packet = map(&gateway(), &wanted(), Duration::from_secs(7200));
        let expected: Vec<u8> = [
            &[2, 1, 0, 0, 0, 0, 0x1c, 0x20][..],
            &[0; 10],
            &[0xff, 0xff, 192, 168, 1, 7],
            b"twelve bytes",
            &[17, 0, 0, 0, 0xca, 0x6c, 0x9c, 0x41],
            &[0; 10],
            &[0xff, 0xff, 203, 0, 113, 7],
        ]
        .concat();
        assert_eq!(packet, expected);
        let end = map(&gateway(), &wanted(), Duration::ZERO);
        assert_eq!(
            (end[4..8].to_vec(), end[42..44].to_vec()),
            (vec![0; 4], vec![0; 2])
        );
        assert_eq!(end[56..], [0; 4]);
        assert_eq!(announce(&gateway()).len(), HEADER);
    }

    #[test]
    fn an_answer_counts_for_what_was_asked_alone() {
        let granted = Granted {
            external: "203.0.113.7:40001".parse().unwrap(),
            lifetime: Some(Duration::from_secs(600)),
            epoch: Some(77),
        };
        assert_eq!(mapped(&answer(0), &wanted()), Ok(granted));
        // With options behind it (§7.3).
        assert_eq!(
            mapped(&[&answer(0)[..], &[0; 8]].concat(), &wanted()),
            Ok(granted)
        );
        let malformed = Err(MapError::Malformed(Protocol::Pcp));
        for at in [1, 24, 36, 40] {
            let mut other = answer(0);
            other[at] ^= 1;
            assert_eq!(mapped(&other, &wanted()), malformed, "{at}");
        }
        let whole = answer(0);
        for length in [0, 1, 23, 24, 59, 58] {
            assert_eq!(mapped(&whole[..length], &wanted()), malformed, "{length}");
        }
        assert_eq!(
            mapped(&[0; MOST + 4], &wanted()),
            Err(MapError::Silent(Protocol::Pcp))
        );
        assert_eq!(
            announced(&answer(0)),
            Err(MapError::Malformed(Protocol::Pcp))
        );
    }

    #[test]
    fn refusals_and_other_versions_are_told_apart() {
        // What a NAT-PMP router says to PCP (RFC 6887 §9, RFC 6886 §3.5).
        let silent = Err(MapError::Silent(Protocol::Pcp));
        assert_eq!(mapped(&[0, 128, 0, 1, 0, 0, 0, 9], &wanted()), silent);
        assert_eq!(mapped(&answer(1), &wanted()), silent);
        for (code, refusal) in [
            (2, Refusal::NotAuthorized),
            (7, Refusal::NoNetwork),
            (8, Refusal::Full),
            (10, Refusal::Full),
            (11, Refusal::Taken),
            (12, Refusal::OtherAddress),
        ] {
            let refused = MapError::Refused(Protocol::Pcp, refusal);
            assert_eq!(mapped(&answer(code), &wanted()), Err(refused), "{code}");
        }
    }
}
