//! NAT-PMP (RFC 6886): its packets.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use super::{Granted, MapError, Protocol, Refusal, Wanted};

const VERSION: u8 = 0;
const ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;
const ANSWER: u8 = 0x80;

/// Asks for the outer address, and for nothing else (§3.2).
pub const ASK_ADDRESS: [u8; 2] = [VERSION, ADDRESS];

/// Asks for a mapping, or for its end where the lifetime is zero (§3.3, §3.4).
pub fn map(wanted: &Wanted, lifetime: Duration) -> Vec<u8> {
    let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
    let before = wanted.before.filter(|_| !lifetime.is_zero());
    let outer = match before {
        Some(before) => before.port(),
        None if lifetime.is_zero() => 0,
        None => wanted.port,
    };
    let mut packet = vec![VERSION, MAP_UDP, 0, 0];
    packet.extend(wanted.port.to_be_bytes());
    packet.extend(outer.to_be_bytes());
    packet.extend(seconds.to_be_bytes());
    packet
}

/// The outer address and the router's time, from the answer to `ASK_ADDRESS`.
///
/// # Errors
/// [`MapError`].
pub fn address(packet: &[u8]) -> Result<(Ipv4Addr, u32), MapError> {
    let epoch = success(packet, ADDRESS)?;
    let malformed = MapError::Malformed(Protocol::NatPmp);
    let octets: [u8; 4] = packet[8..].try_into().map_err(|_| malformed)?;
    Ok((octets.into(), epoch))
}

/// What came of `map`; the outer address is asked for by itself.
///
/// # Errors
/// [`MapError`].
pub fn mapped(packet: &[u8], wanted: &Wanted, ip: Ipv4Addr) -> Result<Granted, MapError> {
    let epoch = success(packet, MAP_UDP)?;
    let malformed = MapError::Malformed(Protocol::NatPmp);
    let body: [u8; 8] = packet[8..].try_into().map_err(|_| malformed.clone())?;
    let [port @ .., outer_0, outer_1, _, _, _, _] = body;
    if port != wanted.port.to_be_bytes() {
        return Err(malformed);
    }
    let [.., s0, s1, s2, s3] = body;
    let seconds = u32::from_be_bytes([s0, s1, s2, s3]);
    Ok(Granted {
        external: SocketAddrV4::new(ip, u16::from_be_bytes([outer_0, outer_1])),
        lifetime: Some(Duration::from_secs(seconds.into())),
        epoch: Some(epoch),
    })
}

/// The router's time in an answer that is no error; eight bytes are there then.
fn success(packet: &[u8], opcode: u8) -> Result<u32, MapError> {
    let malformed = MapError::Malformed(Protocol::NatPmp);
    let Some(version) = packet.first() else {
        return Err(malformed);
    };
    if *version != VERSION {
        return Err(MapError::Silent(Protocol::NatPmp));
    }
    let header: &[u8; 8] = packet.first_chunk().ok_or(malformed.clone())?;
    let [_, answered, code @ .., e0, e1, e2, e3] = *header;
    if answered != ANSWER | opcode {
        return Err(malformed);
    }
    match u16::from_be_bytes(code) {
        0 => Ok(u32::from_be_bytes([e0, e1, e2, e3])),
        code => Err(refused(code)),
    }
}

/// §3.5.
fn refused(code: u16) -> MapError {
    let refusal = match code {
        1 => return MapError::Silent(Protocol::NatPmp),
        2 => Refusal::NotAuthorized,
        3 => Refusal::NoNetwork,
        4 => Refusal::Full,
        5 => Refusal::Unsupported,
        code => Refusal::Other {
            code,
            text: String::new(),
        },
    };
    MapError::Refused(Protocol::NatPmp, refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted {
        port: 51820,
        before: None,
        nonce: [0; 12],
    };

    #[test]
    fn packets_are_as_the_rfc_has_them() {
        let packet = map(&WANTED, Duration::from_secs(7200));
        assert_eq!(
            packet,
            [0, 1, 0, 0, 0xca, 0x6c, 0xca, 0x6c, 0, 0, 0x1c, 0x20]
        );
        let end = map(&WANTED, Duration::ZERO);
        assert_eq!(end, [0, 1, 0, 0, 0xca, 0x6c, 0, 0, 0, 0, 0, 0]);
        let ip = Ipv4Addr::new(203, 0, 113, 7);
        let told = [0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 7];
        assert_eq!(address(&told), Ok((ip, 9)));
        let told = [
            0, 129, 0, 0, 0, 0, 0, 9, 0xca, 0x6c, 0x9c, 0x41, 0, 0, 2, 0x58,
        ];
        let granted = Granted {
            external: SocketAddrV4::new(ip, 40001),
            lifetime: Some(Duration::from_secs(600)),
            epoch: Some(9),
        };
        assert_eq!(mapped(&told, &WANTED, ip), Ok(granted));
    }

    #[test]
    fn what_else_comes_is_refused_or_means_nothing() {
        let ip = Ipv4Addr::LOCALHOST;
        let told = [
            0, 129, 0, 0, 0, 0, 0, 9, 0xca, 0x6c, 0x9c, 0x41, 0, 0, 2, 0x58,
        ];
        let malformed = MapError::Malformed(Protocol::NatPmp);
        for length in 0..told.len() {
            assert_eq!(mapped(&told[..length], &WANTED, ip), Err(malformed.clone()));
        }
        for (at, expected) in [
            (0, MapError::Silent(Protocol::NatPmp)),
            (1, malformed.clone()),
            (9, malformed),
        ] {
            let mut other = told;
            other[at] ^= 2;
            assert_eq!(mapped(&other, &WANTED, ip), Err(expected), "{at}");
        }
        for (code, refusal) in [(2, Refusal::NotAuthorized), (4, Refusal::Full)] {
            let told = [0, 129, 0, code, 0, 0, 0, 9];
            let refused = Err(MapError::Refused(Protocol::NatPmp, refusal));
            assert_eq!(mapped(&told, &WANTED, ip), refused);
        }
    }
}
