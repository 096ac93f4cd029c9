//! The PROXY protocol's header, version 2 (haproxy's proxy-protocol.txt, §2.2): what
//! a service is told of its client before the client's first byte.

use std::net::{IpAddr, SocketAddr};

/// By which a receiver knows it.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and "of a client" rather than of the proxy itself.
const PROXIED: u8 = 0x21;
const TCP_V4: u8 = 0x11;
const TCP_V6: u8 = 0x21;

/// The header of a connection from `client` to `to`. Where only one of the two is
/// IPv4, both are told as IPv6.
pub(super) fn header(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.push(PROXIED);
    let (client_ip, to_ip) = (client.ip().to_canonical(), to.ip().to_canonical());
    let mut addresses = Vec::new();
    let family = match (client_ip, to_ip) {
        (IpAddr::V4(client), IpAddr::V4(to)) => {
            addresses.extend(client.octets());
            addresses.extend(to.octets());
            TCP_V4
        }
        (client, to) => {
            for ip in [client, to] {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                addresses.extend(ip.octets());
            }
            TCP_V6
        }
    };
    for port in [client.port(), to.port()] {
        addresses.extend(port.to_be_bytes());
    }
    header.push(family);
    // 12 or 36 bytes.
    header.extend((addresses.len() as u16).to_be_bytes());
    header.extend(addresses);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_as_the_specification_has_it() {
        let v4 = header(
            "203.0.113.7:40000".parse().unwrap(),
            "192.0.2.1:25".parse().unwrap(),
        );
        let begin = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21\x11\x00\x0C";
        assert_eq!(v4[..16], *begin);
        assert_eq!(v4[16..], [203, 0, 113, 7, 192, 0, 2, 1, 0x9c, 0x40, 0, 25]);
        // A socket for both families shows IPv4 as mapped.
        let mapped = header(
            "[::ffff:203.0.113.7]:40000".parse().unwrap(),
            "[::ffff:192.0.2.1]:25".parse().unwrap(),
        );
        assert_eq!(mapped, v4);
        let v6 = header(
            "[2001:db8::7]:40000".parse().unwrap(),
            "[2001:db8::1]:25".parse().unwrap(),
        );
        assert_eq!(v6[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(v6.len(), 16 + 36);
    }
}
