//! A UDP socket whose replies leave from the address that was asked, also where
//! it is bound to all of the host's: a client takes an answer from there alone
//! (RFC 2181 §4.1).

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
};

use nix::{
    cmsg_space, libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
        setsockopt, sockopt,
    },
};
use tokio::{io::Interest, net::UdpSocket};

/// A UDP socket that answers.
#[derive(Debug)]
pub struct DnsSocket {
    socket: UdpSocket,
    /// Whether it is bound to all addresses of the host.
    is_any: bool,
}

/// What came in, but for its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// In bytes.
    pub length: usize,
    /// Who sent it.
    pub source: SocketAddr,
    /// The address of this host that it was sent to, where the socket doesn't say.
    pub destination: Option<IpAddr>,
}

impl DnsSocket {
    /// Of a socket that is bound.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let is_any = address.ip().is_unspecified();
        if is_any && address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else if is_any {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Self { socket, is_any })
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next datagram; what doesn't fit the buffer is cut off.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Datagram> {
        if !self.is_any {
            let (length, source) = self.socket.recv_from(buffer).await?;
            return Ok(Datagram {
                length,
                source,
                destination: None,
            });
        }
        self.socket
            .async_io(Interest::READABLE, || {
                receive(self.socket.as_raw_fd(), buffer)
            })
            .await
    }

    /// Sends to a client, from the address that it asked.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn send(
        &self,
        bytes: &[u8],
        client: SocketAddr,
        from: Option<IpAddr>,
    ) -> io::Result<()> {
        let Some(from) = from else {
            return self.socket.send_to(bytes, client).await.map(drop);
        };
        self.socket
            .async_io(Interest::WRITABLE, || {
                send(self.socket.as_raw_fd(), bytes, client, from)
            })
            .await
    }
}

fn receive(socket: i32, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut space = cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<SockaddrStorage>(socket, &mut parts, Some(&mut space), MsgFlags::empty())?;
    let destination = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into())
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
        }
        _ => None,
    });
    let source = message.address.as_ref().and_then(address);
    Ok(Datagram {
        length: message.bytes,
        source: source.ok_or(io::ErrorKind::InvalidData)?,
        destination,
    })
}

fn send(socket: i32, bytes: &[u8], client: SocketAddr, from: IpAddr) -> io::Result<()> {
    let v4 = |from: Ipv4Addr| libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from_ne_bytes(from.octets()),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    // A link-local address is that of the link that the client is on.
    let v6 = |from: Ipv6Addr| libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr {
            s6_addr: from.octets(),
        },
        ipi6_ifindex: 0,
    };
    let parts = [IoSlice::new(bytes)];
    let to = SockaddrStorage::from(client);
    let flags = MsgFlags::empty();
    match from {
        IpAddr::V4(from) => {
            let info = v4(from);
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(socket, &parts, &control, flags, Some(&to))?;
        }
        IpAddr::V6(from) => {
            let info = v6(from);
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            sendmsg(socket, &parts, &control, flags, Some(&to))?;
        }
    }
    Ok(())
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*v4).into());
    }
    let v6 = storage.as_sockaddr_in6()?;
    Some(SocketAddrV6::from(*v6).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client hears that takes answers from the address it asked alone.
    async fn exchange(any: &str, client: &str, asked: &str) -> Datagram {
        let server = UdpSocket::bind(any).await.unwrap();
        let server = DnsSocket::new(server).unwrap();
        let client = UdpSocket::bind(client).await.unwrap();
        let port = server.local_addr().unwrap().port();
        let asked = SocketAddr::new(asked.parse().unwrap(), port);
        client.connect(asked).await.unwrap();
        client.send(b"question").await.unwrap();
        let mut buffer = [0; 64];
        let datagram = server.receive(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..datagram.length], b"question");
        assert_eq!(datagram.source, client.local_addr().unwrap());
        let (to, from) = (datagram.source, datagram.destination);
        server.send(b"answer", to, from).await.unwrap();
        let length = client.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"answer");
        datagram
    }

    #[tokio::test]
    async fn replies_leave_from_the_address_that_was_asked() {
        let datagram = exchange("0.0.0.0:0", "127.0.0.1:0", "127.0.0.7").await;
        assert_eq!(datagram.destination, Some([127, 0, 0, 7].into()));
        let datagram = exchange("127.0.0.9:0", "127.0.0.1:0", "127.0.0.9").await;
        assert_eq!(datagram.destination, None);
    }

    #[tokio::test]
    async fn replies_over_ipv6_leave_from_the_address_that_was_asked() {
        if UdpSocket::bind("[::1]:0").await.is_err() {
            innermesh_skip::skip("this machine has no IPv6 loopback address");
            return;
        }
        let datagram = exchange("[::]:0", "[::1]:0", "::1").await;
        assert_eq!(datagram.destination, Some(Ipv6Addr::LOCALHOST.into()));
    }
}
