//! Sockets that listen, with the options that all of this program's have.

use std::{io, net::SocketAddr};

use innermesh_proto::limits;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// A socket that doesn't block and isn't bound yet.
///
/// # Errors
/// The operating system's.
pub fn socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and :: can be served side by side.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// A TCP socket that listens at `address`.
///
/// # Errors
/// The operating system's, such as an address in use.
pub fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM)?;
    // A restart finds connections of its predecessor in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits::BACKLOG)?;
    TcpListener::from_std(socket.into())
}
