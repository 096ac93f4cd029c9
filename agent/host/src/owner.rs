//! Whose program is at the other end of a TCP connection from this host:
//! asked of the kernel over netlink (sock_diag(7)), as a list of all
//! connections would cost the more the more there are.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// `SOCK_DIAG_BY_FAMILY` and `NLM_F_REQUEST` of linux/sock_diag.h, linux/netlink.h.
const BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;
/// Bytes of `nlmsghdr`, of `inet_diag_req_v2`, and of `inet_diag_msg` before
/// the user id.
const HEADER: usize = 16;
const QUESTION: usize = 56;
const BEFORE_UID: usize = 64;

/// The user whose socket is bound to `from` and connected to `to`; `None`
/// where there is none on this host, or it can't be told.
pub fn of_tcp(from: SocketAddr, to: SocketAddr) -> Option<u32> {
    ask(from, to).ok().flatten()
}

fn ask(from: SocketAddr, to: SocketAddr) -> io::Result<Option<u32>> {
    let netlink: OwnedFd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkSockDiag,
    )?;
    let message = question(from, to);
    let kernel = NetlinkAddr::new(0, 0);
    sendto(netlink.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
    // The kernel answers before the call returns.
    let mut answer = [0; 512];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    Ok(uid(&answer[..length.min(answer.len())]))
}

fn question(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (from_ip, to_ip) = (from.ip().to_canonical(), to.ip().to_canonical());
    let family = match from_ip {
        IpAddr::V4(_) => AddressFamily::Inet as u8,
        IpAddr::V6(_) => AddressFamily::Inet6 as u8,
    };
    let mut message = Vec::with_capacity(HEADER + QUESTION);
    message.extend(((HEADER + QUESTION) as u32).to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    // family, protocol (TCP), extensions, padding, all states
    message.extend([family, 6, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(from.port().to_be_bytes());
    message.extend(to.port().to_be_bytes());
    for ip in [from_ip, to_ip] {
        let mut bytes = [0; 16];
        match ip {
            IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes = ip.octets(),
        }
        message.extend(bytes);
    }
    // any interface, no cookie
    message.extend([0; 4]);
    message.extend([0xff; 8]);
    message
}

/// The user id in an answer; an answer of another type is an error.
fn uid(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let place = HEADER + BEFORE_UID;
    let bytes = answer.get(place..place + 4)?.try_into().ok()?;
    (kind == BY_FAMILY).then_some(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_user_of_a_local_connection_is_told_over_ipv4_and_ipv6_and_nobody_s_is_not() {
        let own = nix::unistd::geteuid().as_raw();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                assert!(address.contains('['), "IPv6 alone may be missing");
                continue;
            };
            let to = listener.local_addr().unwrap();
            let client = TcpStream::connect(to).unwrap();
            let from = client.local_addr().unwrap();
            assert_eq!(of_tcp(from, to), Some(own), "{address}");
            let nobody = SocketAddr::new(from.ip(), 1);
            assert_eq!(of_tcp(nobody, to), None);
        }
        assert_eq!(uid(&[0; 200]), None);
        assert_eq!(uid(&[]), None);
    }
}
