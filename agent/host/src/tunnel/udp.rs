//! The embedded device's UDP socket: large buffers, and outer packets that may be
//! cut in pieces on their way and never go by an exit.

#![allow(
    missing_docs,
    reason = "options of sockets are named after their constants"
)]

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
};

use gotatun::{
    packet::Packet,
    udp::{
        UdpSend, UdpTransportFactory, UdpTransportFactoryParams,
        socket::{UdpSocket, UdpSocketFactory},
    },
};
use nix::sys::socket::{SetSockOpt, setsockopt, sockopt};

use crate::{fragments, mark};

/// The endpoint of a peer of which none is known, an address that nobody has (RFC 6666).
/// The device goes on with the clock of those peers alone that have an endpoint: a
/// handshake of another would be as old as the peer itself, and its session at its end
/// at once.
pub(super) const NOWHERE: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0)), 9);

/// Of each direction, in bytes: what comes in while a burst is decrypted.
const BUFFER: usize = 7 << 20;

/// Binds the device's port.
#[derive(Default)]
pub(super) struct Sockets(UdpSocketFactory);

impl UdpTransportFactory for Sockets {
    type Send = Sender;
    type Recv = UdpSocket;

    async fn bind(
        &mut self,
        params: &UdpTransportFactoryParams,
    ) -> io::Result<(Sender, UdpSocket)> {
        let (send, receive) = self.0.bind(params).await?;
        enlarge(&send);
        fragments::let_be_cut(&send);
        mark::past_exit(&send);
        Ok((Sender(send), receive))
    }
}

/// Sends what has somewhere to go.
#[derive(Clone)]
pub(super) struct Sender(UdpSocket);

impl UdpSend for Sender {
    type SendManyBuf = <UdpSocket as UdpSend>::SendManyBuf;

    async fn send_to(&self, packet: Packet, destination: SocketAddr) -> io::Result<()> {
        if destination == NOWHERE {
            return Ok(());
        }
        self.0.send_to(packet, destination).await
    }

    fn max_number_of_packets_to_send(&self) -> usize {
        self.0.max_number_of_packets_to_send()
    }

    async fn send_many_to(
        &self,
        send_buf: &mut Self::SendManyBuf,
        packets: &mut Vec<(Packet, SocketAddr)>,
    ) -> io::Result<()> {
        packets.retain(|(_, destination)| *destination != NOWHERE);
        if packets.is_empty() {
            return Ok(());
        }
        self.0.send_many_to(send_buf, packets).await
    }

    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        UdpSend::local_addr(&self.0)
    }

    fn set_fwmark(&self, mark: u32) -> io::Result<()> {
        self.0.set_fwmark(mark)
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

fn best_effort<O: SetSockOpt>(socket: &impl AsFd, option: O, value: &O::Val) {
    if let Err(error) = setsockopt(socket, option, value) {
        tracing::debug!(%error, "an option of the tunnel's socket was refused");
    }
}
