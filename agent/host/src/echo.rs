//! ICMP echo (RFC 792; RFC 4443 section 4): whether a packet of some size comes
//! through.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use aws_lc_rs::rand;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// Of the message, without its data: type, code, checksum, identifier, number.
const HEADER: usize = 8;
/// By which a request's own reply is known.
const MARK: usize = 8;
/// More than any reply to a request of ours.
const REPLY_BYTES: usize = 64 * 1024;

/// Sends one request in a packet of `bytes` bytes, its IP header included, and
/// waits for the reply, without an end. With a `source`, an address of this host,
/// it is sent from there.
///
/// # Errors
/// The operating system's: `PermissionDenied` where this process may send none.
pub(crate) async fn echo(address: IpAddr, bytes: usize, source: Option<IpAddr>) -> io::Result<()> {
    let (socket, raw) = open(address, source)?;
    let mut message = vec![0; data_len(address, bytes).max(MARK) + HEADER];
    if let Some(first) = message.first_mut() {
        *first = if address.is_ipv4() { 8 } else { 128 };
    }
    if let Some(mark) = message.get_mut(HEADER..HEADER + MARK) {
        rand::fill(mark).map_err(io::Error::other)?;
    }
    if raw && address.is_ipv4() {
        // Of the others the kernel makes it.
        let sum = checksum(&message).to_be_bytes();
        if let Some(field) = message.get_mut(2..4) {
            field.copy_from_slice(&sum);
        }
    }
    socket.connect(SocketAddr::new(address, 0)).await?;
    socket.send(&message).await?;
    let data = message.get(HEADER..).unwrap_or_default();
    let mut buffer = vec![0; REPLY_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let received = buffer.get(..length).unwrap_or_default();
        let has_header = raw && address.is_ipv4();
        if reply(received, address.is_ipv4(), has_header) == Some(data) {
            return Ok(());
        }
    }
}

/// A socket for such messages alone where the host lets everybody have one
/// (`net.ipv4.ping_group_range`), else a raw one.
fn open(address: IpAddr, source: Option<IpAddr>) -> io::Result<(UdpSocket, bool)> {
    let domain = Domain::for_address(SocketAddr::new(address, 0));
    let protocol = if address.is_ipv4() {
        Protocol::ICMPV4
    } else {
        Protocol::ICMPV6
    };
    let (socket, raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => (socket, false),
        Err(_) => (Socket::new(domain, Type::RAW, Some(protocol))?, true),
    };
    socket.set_nonblocking(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    let socket = std::net::UdpSocket::from(OwnedFd::from(socket));
    Ok((UdpSocket::from_std(socket)?, raw))
}

fn data_len(address: IpAddr, bytes: usize) -> usize {
    let ip = if address.is_ipv4() { 20 } else { 40 };
    bytes.saturating_sub(ip + HEADER)
}

/// The data of a reply; `None` where it isn't one.
pub fn reply(received: &[u8], is_ipv4: bool, has_ip_header: bool) -> Option<&[u8]> {
    let words = received.first().map_or(0, |first| usize::from(first & 15));
    let skip = if has_ip_header { words * 4 } else { 0 };
    let message = received.get(skip..)?;
    let kind = if is_ipv4 { 0 } else { 129 };
    let is_reply = message.first() == Some(&kind) && message.get(1) == Some(&0);
    is_reply.then(|| message.get(HEADER..)).flatten()
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([
            pair.first().copied().unwrap_or(0),
            low,
        ]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_reply_is_told_from_what_else_comes() {
        let message = [&[0, 0, 1, 2, 3, 4, 5, 6][..], b"data"].concat();
        assert_eq!(reply(&message, true, false), Some(&b"data"[..]));
        let packet = [&[0x45; 20][..], &message].concat();
        assert_eq!(reply(&packet, true, true), Some(&b"data"[..]));
        assert_eq!(reply(&message, false, false), None);
        let request = [&[8][..], &message[1..]].concat();
        assert_eq!(reply(&request, true, false), None);
        for cut in 0..8 {
            assert_eq!(reply(&message[..cut], true, false), None);
        }
        for torn in [&[][..], &[0x4f], &[0x45; 20]] {
            assert_eq!(reply(torn, true, true), None);
        }
    }

    #[test]
    fn a_checksum_makes_all_words_add_up_to_ones() {
        // RFC 1071 section 3.
        let words = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&words), !0xddf2);
        assert_eq!(checksum(&[0xff; 3]), 0x00ff);
    }

    #[test]
    fn a_packet_has_the_size_that_is_asked_for() {
        assert_eq!(data_len(Ipv4Addr::LOCALHOST.into(), 1280), 1252);
        assert_eq!(data_len(Ipv6Addr::LOCALHOST.into(), 1280), 1232);
        assert_eq!(data_len(Ipv6Addr::LOCALHOST.into(), 10), 0);
    }

    #[tokio::test]
    async fn this_host_answers_itself() {
        for address in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            match echo(address, 1280, Some(address)).await {
                Ok(()) => {}
                Err(error) => innermesh_skip::leave_out(format!("no ICMP to {address}: {error}")),
            }
        }
    }
}
