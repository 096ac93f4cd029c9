//! Sockets that listen, with the options that all of this program's have.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4},
    os::fd::AsFd,
};

use async_trait::async_trait;
use innermesh_proto::limits;
use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    Accepted, Presence, TcpListener, datagrams::SystemDatagrams, mark, owner, port_map::Gateway,
};

/// Receive buffer of a UDP socket that answers DNS, in bytes: room for a burst.
const UDP_BUFFER: usize = 1 << 20;
/// Largest answer of a router that is read, in bytes.
const ROUTER_ANSWER: usize = 2048;

/// A socket that doesn't block and isn't bound yet.
fn socket(address: SocketAddr, kind: Type, presence: Presence) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and :: can be served side by side.
        socket.set_only_v6(true)?;
    }
    if presence == Presence::Awaited {
        // A kernel without it (IPv6: before 4.15) says so when the socket is bound.
        let _ = match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true),
            SocketAddr::V6(_) => socket.set_freebind_v6(true),
        };
    }
    Ok(socket)
}

/// What a TCP socket takes that isn't sent yet, in bytes: more would only wait there, behind
/// nothing that could go first.
const UNSENT: u32 = 64 * 1024;

/// Has a TCP socket, and those that it accepts, take little more than it can send.
pub(crate) fn send_late(socket: &impl AsFd) {
    // Best effort: what is written whole arrives either way.
    let _ = SockRef::from(socket).set_tcp_notsent_lowat(UNSENT);
}

/// A TCP socket that listens at `address`.
pub(crate) fn tcp(address: SocketAddr, presence: Presence) -> io::Result<Box<dyn TcpListener>> {
    let socket = socket(address, Type::STREAM, presence)?;
    // A restart finds connections of its predecessor in TIME_WAIT.
    socket.set_reuse_address(true)?;
    send_late(&socket);
    socket.bind(&address.into())?;
    socket.listen(limits::BACKLOG)?;
    let listener = tokio::net::TcpListener::from_std(socket.into())?;
    Ok(Box::new(SystemListener(listener)))
}

/// UDP sockets at `address` that answer.
pub(crate) fn udp(address: SocketAddr, presence: Presence) -> io::Result<SystemDatagrams> {
    SystemDatagrams::bind(address, |address, prepare| {
        let socket = socket(address, Type::DGRAM, presence)?;
        // Best effort: the kernel caps it.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        prepare(&socket)?;
        socket.bind(&address.into())?;
        Ok(socket)
    })
}

/// Binds a UDP port on all addresses, of each family that the host has, and lets
/// go of it.
pub(crate) fn try_udp_port(port: u16) -> io::Result<()> {
    for ip in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
        let address = SocketAddr::new(ip, port);
        let bound = socket(address, Type::DGRAM, Presence::Present)
            .and_then(|socket| socket.bind(&address.into()));
        match bound {
            Err(error) if address.is_ipv4() || error.kind() == io::ErrorKind::AddrInUse => {
                return Err(error);
            }
            // A host may have no IPv6.
            _ => {}
        }
    }
    Ok(())
}

/// A socket whose packets go by this host's own routes.
fn own_way() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    mark::past_exit(&socket);
    Ok(socket)
}

/// This host's address towards a router. Nothing is sent: the kernel says which way it
/// would go.
pub(crate) fn towards(router: Ipv4Addr) -> io::Result<Gateway> {
    let socket = own_way()?;
    socket.connect(&SocketAddrV4::new(router, 1).into())?;
    match socket.local_addr()?.as_socket_ipv4() {
        Some(own) => Ok(Gateway {
            router,
            own: *own.ip(),
        }),
        None => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// See [`crate::Network::ask_router`].
pub(crate) async fn ask_router(
    gateway: &Gateway,
    packets: &[(SocketAddrV4, Vec<u8>)],
) -> io::Result<Vec<u8>> {
    let socket = own_way()?;
    socket.set_multicast_if_v4(&gateway.own)?;
    socket.bind(&SocketAddrV4::new(gateway.own, 0).into())?;
    let socket = tokio::net::UdpSocket::from_std(socket.into())?;
    // The kernel then takes packets from there alone, and says where nobody listens.
    if let [(to, _)] = packets {
        socket.connect(to).await?;
    }
    for (to, packet) in packets {
        match packets {
            [_] => socket.send(packet).await?,
            _ => socket.send_to(packet, to).await?,
        };
    }
    let mut answer = vec![0; ROUTER_ANSWER];
    loop {
        let (length, from) = socket.recv_from(&mut answer).await?;
        if from.ip() == gateway.router {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

struct SystemListener(tokio::net::TcpListener);

#[async_trait]
impl TcpListener for SystemListener {
    async fn accept(&self) -> io::Result<Accepted> {
        let (stream, from) = self.0.accept().await?;
        // One that has ended already is found out by whoever reads it.
        let _ = stream.set_nodelay(true);
        Ok(Accepted {
            to: stream.local_addr().ok(),
            stream: Box::new(stream),
            from,
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn user_of(&self, accepted: &Accepted) -> Option<u32> {
        owner::of_tcp(accepted.from, accepted.to?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Datagrams;

    /// Documentation's (RFC 5737, RFC 3849): no interface has them.
    const NOBODYS: [&str; 2] = ["203.0.113.53:0", "[2001:db8:ffff::53]:0"];

    #[tokio::test]
    async fn a_port_can_be_had_before_its_address_is_there() {
        for address in NOBODYS {
            let address: SocketAddr = address.parse().unwrap();
            let early = udp(address, Presence::Awaited).unwrap();
            let port = early.local_addr().port();
            let at = SocketAddr::new(address.ip(), port);
            let listener = tcp(at, Presence::Awaited).unwrap();
            assert_eq!(listener.local_addr().unwrap(), at);
            // It is taken from then on.
            let again = udp(at, Presence::Awaited).map(drop).unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AddrInUse, "{address}");
        }
    }

    #[tokio::test]
    async fn an_address_that_is_to_be_there_and_is_not_is_an_error() {
        for address in NOBODYS {
            let error = udp(address.parse().unwrap(), Presence::Present).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{address}");
        }
    }

    #[test]
    fn a_udp_port_that_somebody_has_at_one_address_is_not_free() {
        let holder = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let taken = try_udp_port(port).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
