//! Sockets that listen, with the options that all of this program's have.

use std::{io, net::SocketAddr};

use async_trait::async_trait;
use innermesh_proto::limits;
use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;

use crate::{Accepted, TcpListener, owner};

/// Receive buffer of a UDP socket that answers DNS, in bytes: room for a burst.
const UDP_BUFFER: usize = 1 << 20;

/// A socket that doesn't block and isn't bound yet.
fn socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and :: can be served side by side.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// A TCP socket that listens at `address`.
pub(crate) fn tcp(address: SocketAddr) -> io::Result<Box<dyn TcpListener>> {
    let socket = socket(address, Type::STREAM)?;
    // A restart finds connections of its predecessor in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits::BACKLOG)?;
    let listener = tokio::net::TcpListener::from_std(socket.into())?;
    Ok(Box::new(SystemListener(listener)))
}

/// A UDP socket at `address`.
pub(crate) fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM)?;
    // Best effort: the kernel caps it.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
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
