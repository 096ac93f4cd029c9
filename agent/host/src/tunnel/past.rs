//! Datagrams from the tunnel's port that don't come from its device, by raw sockets.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use innermesh_proto::filter::MARK;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

const HEADER: usize = 8;
/// UDP in IP's headers.
const UDP: u32 = 17;

/// Whether this process may send so.
pub(super) fn is_allowed() -> bool {
    raw(Domain::IPV4).is_ok()
}

fn raw(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::Mark, &MARK)?;
    Ok(socket)
}

/// UDP's header before the datagram (RFC 768); the kernel adds IP's. IPv4 allows that there
/// is no checksum, and IPv6 doesn't.
pub(super) fn send(to: SocketAddr, port: u16, datagram: &[u8]) -> io::Result<()> {
    let length = u16::try_from(datagram.len() + HEADER).map_err(io::Error::other)?;
    let mut packet = Vec::with_capacity(usize::from(length));
    for word in [port, to.port(), length, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(datagram);
    let socket = raw(Domain::for_address(to))?;
    match send_packet(&socket, to, packet) {
        // There is no way to that one.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            tracing::trace!(%error, %to, "no way there");
            Ok(())
        }
        sent => sent,
    }
}

fn send_packet(socket: &Socket, to: SocketAddr, mut packet: Vec<u8>) -> io::Result<()> {
    let place = SocketAddr::new(to.ip(), 0);
    if let IpAddr::V6(to) = to.ip() {
        socket.connect(&place.into())?;
        let from = socket.local_addr()?.as_socket_ipv6();
        let from = from.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let sum = checksum(*from.ip(), to, &packet).to_be_bytes();
        if let Some(field) = packet.get_mut(HEADER - sum.len()..HEADER) {
            field.copy_from_slice(&sum);
        }
        socket.send(&packet)?;
    } else {
        socket.send_to(&packet, &place.into())?;
    }
    Ok(())
}

/// Of a packet of UDP whose own field is zero (RFC 8200, section 8.1).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let places = [from, to];
    let places = places.iter().flat_map(Ipv6Addr::segments).map(u32::from);
    let length = u32::try_from(packet.len()).unwrap_or_default();
    let mut sum = words.chain(places).sum::<u32>() + length + UDP;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or_default();
    // None at all is written so.
    if sum == 0 { 0xffff } else { sum }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_checksum_makes_the_sum_of_all_words_ones() {
        let at = |n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n);
        for length in [8, 9, 156, 1500] {
            let mut packet: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            packet[6..8].fill(0);
            let sum = checksum(at(1), at(2), &packet);
            packet[6..8].copy_from_slice(&sum.to_be_bytes());
            let again = checksum(at(1), at(2), &packet);
            assert_eq!(again, 0xffff, "{length}");
        }
    }

    #[test]
    fn a_datagram_arrives_from_the_port_that_is_named() {
        if !is_allowed() {
            return innermesh_skip::skip("raw sockets need CAP_NET_RAW");
        }
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let socket = UdpSocket::bind(local).unwrap();
            let named = UdpSocket::bind(local).unwrap().local_addr().unwrap();
            send(socket.local_addr().unwrap(), named.port(), b"one").unwrap();
            let mut buffer = [0; 16];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&b"one"[..], named));
        }
    }
}
