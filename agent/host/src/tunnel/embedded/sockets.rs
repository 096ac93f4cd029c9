//! The device's UDP sockets, one for each family on one port: batches by the kernel's
//! segmentation where it has that, large buffers, and outer packets that may be cut in
//! pieces on their way and never go by an exit.

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use innermesh_engine::Wire;
use innermesh_proto::filter::MARK;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{SetSockOpt, setsockopt, sockopt},
};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    fragments,
    tunnel::relayed::{Relayed, is_relay_place},
};

/// Of each direction, in bytes: what comes in while a burst is decrypted.
const BUFFER: usize = 7 << 20;

/// How long a burst waits for room, in milliseconds; what finds none is lost, as on any
/// full link.
const ROOM_MS: u16 = 20;

/// How long bursts are cut here once the kernel refused one, before it is asked again.
const CUT_HERE: Duration = Duration::from_secs(60);

/// Ways of which that is remembered for each by itself.
const NARROW: usize = 32;

/// Buffers of one call, each of the greatest length that the kernel joins to.
const BATCH: usize = 8;
const BATCH_BYTES: usize = 1 << 16;

/// Both sockets.
pub(super) struct Sockets {
    v4: Udp,
    /// `None` on a host without IPv6.
    v6: Option<Udp>,
    port: u16,
    mark: u32,
    offloads: bool,
    /// Until when all bursts are cut here.
    cut_until: Option<Instant>,
    /// Until when those to one place are: over its way they don't fit uncut, and each
    /// datagram is cut in pieces.
    narrow: Vec<(SocketAddr, Instant)>,
    /// Takes what goes by relays.
    relayed: Relayed,
    now: Instant,
}

struct Udp {
    socket: Socket,
    state: UdpSocketState,
    is_ipv6: bool,
}

/// What one call takes in.
pub(super) struct Batch {
    buffers: Vec<Box<[u8]>>,
    metas: [RecvMeta; BATCH],
}

impl Batch {
    pub(super) fn new() -> Self {
        let buffer = || vec![0; BATCH_BYTES].into_boxed_slice();
        Self {
            buffers: std::iter::repeat_with(buffer).take(BATCH).collect(),
            metas: [RecvMeta::default(); BATCH],
        }
    }

    /// Where datagrams came from, they themselves, and how long each is.
    pub(super) fn received(
        &self,
        count: usize,
    ) -> impl Iterator<Item = (SocketAddr, &[u8], usize)> {
        let both = self.buffers.iter().zip(&self.metas).take(count);
        both.filter_map(|(buffer, meta)| Some((meta.addr, buffer.get(..meta.len)?, meta.stride)))
    }
}

impl Sockets {
    /// Binds `port` on all addresses of the host; 0 stands for any that is free.
    pub(super) fn bind(
        port: u16,
        mark: u32,
        offloads: bool,
        relayed: Relayed,
        now: Instant,
    ) -> io::Result<Self> {
        let v4 = Udp::bind((Ipv4Addr::UNSPECIFIED, port).into(), mark, offloads)?;
        let bound = v4.socket.local_addr()?.as_socket();
        let port = bound.map_or(port, |address| address.port());
        let v6 = match Udp::bind((Ipv6Addr::UNSPECIFIED, port).into(), mark, offloads) {
            Ok(socket) => Some(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "the tunnel has no IPv6 below it");
                None
            }
        };
        Ok(Self {
            v4,
            v6,
            port,
            mark,
            offloads,
            cut_until: None,
            narrow: Vec::new(),
            relayed,
            now,
        })
    }

    /// Binds another port; the one before is let go once that is done.
    pub(super) fn rebind(&mut self, port: u16) -> io::Result<()> {
        let relayed = self.relayed.clone();
        *self = Self::bind(port, self.mark, self.offloads, relayed, self.now)?;
        Ok(())
    }

    /// Marks what is sent from now on; 0 for no mark of its own.
    pub(super) fn set_mark(&mut self, mark: u32) -> io::Result<()> {
        for udp in std::iter::once(&self.v4).chain(&self.v6) {
            setsockopt(&udp.socket, sockopt::Mark, &mark)?;
        }
        self.mark = mark;
        Ok(())
    }

    /// Has the driver woken when something came by a relay.
    pub(super) fn wake_by(&self, waker: Arc<UnixStream>) {
        self.relayed.wake_by(waker);
    }

    /// What came by relays.
    pub(super) fn take_relayed(&self) -> VecDeque<(SocketAddr, Bytes)> {
        self.relayed.incoming()
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn mark(&self) -> u32 {
        self.mark
    }

    /// Those that datagrams come by.
    pub(super) fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let both = std::iter::once(&self.v4).chain(&self.v6);
        both.map(|udp| udp.socket.as_fd())
    }

    /// Takes in what the socket has, the first or the second of [`Sockets::files`]; how
    /// many of the batch are filled.
    pub(super) fn receive(&self, index: usize, batch: &mut Batch) -> io::Result<usize> {
        let mut both = std::iter::once(&self.v4).chain(&self.v6);
        let Some(udp) = both.nth(index) else {
            return Ok(0);
        };
        let mut places = batch.buffers.iter_mut();
        let mut slices: [IoSliceMut<'_>; BATCH] = std::array::from_fn(|_| {
            let buffer = places.next().map(|buffer| &mut buffer[..]);
            IoSliceMut::new(buffer.unwrap_or_default())
        });
        let socket = UdpSockRef::from(&udp.socket);
        udp.state.recv(socket, &mut slices, &mut batch.metas)
    }

    /// What time it is, and with that whether the kernel is asked again to cut bursts.
    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.narrow.retain(|(_, until)| now < *until);
        if self.cut_until.is_some_and(|until| now >= until) {
            self.cut_until = None;
            self.revive();
        }
    }

    fn revive(&mut self) {
        for udp in std::iter::once(&mut self.v4).chain(&mut self.v6) {
            udp.revive();
        }
    }

    /// Whether bursts to a place are to be cut here.
    fn cuts(&self, to: SocketAddr) -> bool {
        self.cut_until.is_some() || self.narrow.iter().any(|(narrow, _)| *narrow == to)
    }

    /// Notes that the kernel refused a burst; `false` where it would refuse each of its
    /// datagrams too.
    fn note_refused(&mut self, to: SocketAddr, error: &io::Error) -> bool {
        let until = self.now + CUT_HERE;
        match error.raw_os_error().map(Errno::from_raw) {
            // What the way's MTU has no room for, or not at all: the first costs one
            // place its bursts, and nobody else.
            Some(Errno::EMSGSIZE | Errno::EINVAL) if self.narrow.len() < NARROW => {
                self.narrow.push((to, until));
                self.revive();
            }
            Some(Errno::EMSGSIZE | Errno::EINVAL | Errno::EIO | Errno::EOPNOTSUPP) => {
                self.cut_until = Some(until);
            }
            _ => return false,
        }
        tracing::debug!(%error, %to, "the kernel doesn't cut a burst; it is cut here");
        true
    }

    fn send(&self, to: SocketAddr, segment: usize, bytes: &[u8]) -> io::Result<()> {
        let udp = match to {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => self.v6.as_ref().ok_or(Errno::EAFNOSUPPORT)?,
        };
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: bytes,
            segment_size: Some(segment),
            src_ip: None,
        };
        let send = || udp.state.try_send(UdpSockRef::from(&udp.socket), &transmit);
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut file = [PollFd::new(udp.socket.as_fd(), PollFlags::POLLOUT)];
                // Whether there is room then is seen by trying.
                let _ = poll(&mut file, PollTimeout::from(ROOM_MS));
                send()
            }
            other => other,
        }
    }
}

impl Wire for Sockets {
    fn transmit(&mut self, to: SocketAddr, segment: usize, bytes: &[u8]) {
        if is_relay_place(&to) {
            self.relayed.send(to, segment, bytes);
            return;
        }
        let is_burst = bytes.len() > segment;
        if !is_burst || !self.cuts(to) {
            let Err(error) = self.send(to, segment, bytes) else {
                return;
            };
            if !is_burst || !self.note_refused(to, &error) {
                tracing::trace!(%error, %to, "datagrams of the tunnel weren't sent");
                return;
            }
        }
        for datagram in bytes.chunks(segment.max(1)) {
            if let Err(error) = self.send(to, segment, datagram) {
                tracing::trace!(%error, %to, "a datagram of the tunnel wasn't sent");
            }
        }
    }

    fn segments(&self) -> usize {
        let least = std::iter::once(&self.v4).chain(&self.v6);
        let least = least.map(|udp| udp.state.max_gso_segments()).min();
        match least {
            Some(least) if self.offloads && self.cut_until.is_none() => least,
            _ => 1,
        }
    }
}

impl Udp {
    fn bind(address: SocketAddr, mark: u32, offloads: bool) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        enlarge(&socket);
        best_effort(&socket, sockopt::Mark, &mark);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let udp = Self {
            socket,
            state,
            is_ipv6: address.is_ipv6(),
        };
        udp.let_be_cut();
        if !offloads {
            best_effort(&udp.socket, sockopt::UdpGroSegment, &false);
        }
        Ok(udp)
    }

    /// Asks the kernel to cut bursts again.
    fn revive(&mut self) {
        match UdpSocketState::new(UdpSockRef::from(&self.socket)) {
            Ok(state) => {
                self.state = state;
                self.let_be_cut();
            }
            Err(error) => tracing::debug!(%error, "a socket's offloads stay off"),
        }
    }

    /// What its state sets is for those who look for the path's MTU themselves.
    fn let_be_cut(&self) {
        if self.is_ipv6 {
            fragments::let_be_cut_v6(&self.socket);
        } else {
            fragments::let_be_cut(&self.socket);
        }
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

/// What the sockets are marked with unless somebody sets another.
pub(super) const OWN_MARK: u32 = MARK;
