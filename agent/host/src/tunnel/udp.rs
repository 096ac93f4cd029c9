//! The embedded device's UDP socket: large buffers, and outer packets that may be
//! cut in pieces on their way and never go by an exit.

#![allow(
    missing_docs,
    reason = "options of sockets are named after their constants"
)]

use std::{io, os::fd::AsFd};

use gotatun::udp::{
    UdpTransportFactory, UdpTransportFactoryParams,
    socket::{UdpSocket, UdpSocketFactory},
};
use nix::{
    libc, setsockopt_impl, sockopt_impl,
    sys::socket::{SetSockOpt, setsockopt, sockopt},
};

use crate::mark;

/// Of each direction, in bytes: what comes in while a burst is decrypted.
const BUFFER: usize = 7 << 20;

sockopt_impl!(
    IpMtuDiscover,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int
);
/// Binds the device's port.
#[derive(Default)]
pub(super) struct Sockets(UdpSocketFactory);

impl UdpTransportFactory for Sockets {
    type Send = UdpSocket;
    type Recv = UdpSocket;

    async fn bind(
        &mut self,
        params: &UdpTransportFactoryParams,
    ) -> io::Result<(UdpSocket, UdpSocket)> {
        let (send, receive) = self.0.bind(params).await?;
        enlarge(&send);
        let_be_cut(&send);
        mark::past_exit(&send);
        Ok((send, receive))
    }
}

/// Beyond what the kernel grants everybody where this process may, else up to
/// that.
fn enlarge(socket: &impl AsFd) {
    if setsockopt(socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        best_effort(socket, sockopt::RcvBuf, &BUFFER);
    }
    if setsockopt(socket, sockopt::SndBufForce, &BUFFER).is_err() {
        best_effort(socket, sockopt::SndBuf, &BUFFER);
    }
}

/// A hop that is narrower than the tunnel's packets and says nothing would
/// swallow all that fill one: over IPv4 routers cut them. Over IPv6 only the
/// sender may, and Linux does so only once it knows of the hop (`IPV6_MTU` is
/// looked at for packets that the route's own MTU has cut already).
fn let_be_cut(socket: &impl AsFd) {
    best_effort(socket, IpMtuDiscover, &libc::IP_PMTUDISC_DONT);
}

fn best_effort<O: SetSockOpt>(socket: &impl AsFd, option: O, value: &O::Val) {
    if let Err(error) = setsockopt(socket, option, value) {
        tracing::debug!(%error, "an option of the tunnel's socket was refused");
    }
}
