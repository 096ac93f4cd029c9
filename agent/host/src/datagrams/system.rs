//! UDP sockets of the operating system, each with its own thread; the kernel
//! spreads clients over them. Replies leave from the address that was asked, also
//! where it is bound to all of the host's: a client takes an answer from there
//! alone (RFC 2181 §4.1).

mod pace;

use std::{
    future::Future,
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use innermesh_proto::limits;
use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvfrom,
        recvmmsg, sendmmsg, sendmsg, sendto, setsockopt, sockopt,
    },
};
use socket2::Socket;
use tokio::sync::mpsc;

use self::pace::Pace;
use crate::fragments;

use super::{
    Arrival, BATCH, DatagramBatch, DatagramSender, DatagramSlot, Datagrams, Responder, Serving,
};

/// How long a thread waits for room to send before it gives replies up, in
/// milliseconds: clients ask again.
const ROOM_MS: u16 = 100;

/// Sockets at one address.
#[derive(Debug)]
pub(crate) struct SystemDatagrams {
    address: SocketAddr,
    sockets: Vec<Arc<AnsweringSocket>>,
}

#[derive(Debug)]
struct AnsweringSocket {
    socket: Socket,
    /// Whether it is bound to all addresses of the host.
    is_any: bool,
    is_ipv4: bool,
    /// Whether its thread is to end.
    is_closing: AtomicBool,
}

impl SystemDatagrams {
    /// Binds with `bind`, which makes a socket that doesn't block and is bound
    /// unless told otherwise. The first is alone: another program that has the
    /// port, with whatever options, is noticed. The others join it.
    pub fn bind(
        wanted: SocketAddr,
        bind: impl Fn(SocketAddr, &dyn Fn(&Socket) -> io::Result<()>) -> io::Result<Socket>,
    ) -> io::Result<Self> {
        let first = bind(wanted, &|_| Ok(()))?;
        let address = first
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut sockets = vec![Arc::new(AnsweringSocket::new(first, address)?)];
        let threads = thread::available_parallelism().map_or(1, usize::from);
        for _ in 1..threads.min(limits::DNS_UDP_THREADS) {
            if let [first] = &*sockets {
                first.socket.set_reuse_port(true)?;
            }
            let next = bind(address, &|socket| socket.set_reuse_port(true))?;
            sockets.push(Arc::new(AnsweringSocket::new(next, address)?));
        }
        Ok(Self { address, sockets })
    }
}

impl Datagrams for SystemDatagrams {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn sender(&self) -> Arc<dyn DatagramSender> {
        // There is always a first.
        let first = self.sockets.first().cloned();
        Arc::new(FirstSocket(first))
    }

    fn serve(self: Box<Self>, responder: Arc<dyn Responder>) -> io::Result<Box<dyn Serving>> {
        let (closed, closing) = mpsc::channel(1);
        let mut ends = Ends::default();
        for socket in self.sockets {
            ends.0.push(socket.clone());
            let (responder, closed) = (responder.clone(), closed.clone());
            thread::Builder::new()
                .name("dns-udp".into())
                .spawn(move || {
                    socket.answer(&*responder);
                    drop(socket);
                    drop(closed);
                })?;
        }
        Ok(Box::new(AnsweringThreads { ends, closing }))
    }
}

/// The threads of one address.
struct AnsweringThreads {
    ends: Ends,
    closing: mpsc::Receiver<()>,
}

/// Has the threads of these sockets end when it is dropped.
#[derive(Default)]
struct Ends(Vec<Arc<AnsweringSocket>>);

impl Drop for Ends {
    fn drop(&mut self) {
        for socket in &self.0 {
            socket.close();
        }
    }
}

impl Serving for AnsweringThreads {
    fn end(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let Self { ends, mut closing } = *self;
        drop(ends);
        Box::pin(async move {
            // Nobody sends: it ends when the last thread has closed its socket.
            let _ = closing.recv().await;
        })
    }
}

/// The length of a datagram, who sent it, and where to.
type Arrived = (usize, Option<SocketAddr>, Option<IpAddr>);

/// What one thread works with.
struct BatchBuffers {
    batch: DatagramBatch,
    pace: Pace,
    incoming: MultiHeaders<SockaddrStorage>,
    /// What the call said of each.
    arrived: Vec<Arrived>,
    /// For replies that leave from where the socket is bound, and for others.
    plain: MultiHeaders<SockaddrStorage>,
    from_any: MultiHeaders<SockaddrStorage>,
}

impl BatchBuffers {
    fn new(socket: &AnsweringSocket) -> Self {
        Self {
            batch: DatagramBatch::new(BATCH),
            pace: Pace::default(),
            arrived: Vec::with_capacity(BATCH),
            incoming: socket.headers(socket.is_any),
            plain: socket.headers(false),
            from_any: socket.headers(socket.is_any),
        }
    }
}

impl DatagramSlot {
    /// Takes in a datagram that stands in its bytes, and forgets the last reply.
    fn arrive(&mut self, (length, source, destination): Arrived) {
        self.reply.clear();
        // Without a source nothing is to be answered.
        self.length = if source.is_some() { length } else { 0 };
        self.from = Arrival {
            source: source.unwrap_or(self.from.source),
            destination,
        };
    }
}

struct FirstSocket(Option<Arc<AnsweringSocket>>);

impl DatagramSender for FirstSocket {
    fn send(&self, bytes: &[u8], client: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
        let socket = self.0.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        socket.send_one(bytes, client, from)?;
        Ok(())
    }
}

impl AnsweringSocket {
    fn new(socket: Socket, address: SocketAddr) -> io::Result<Self> {
        let is_any = address.ip().is_unspecified();
        if address.is_ipv4() {
            fragments::never_cut(&socket);
        }
        if is_any && address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else if is_any {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        // Its thread waits in the call that receives.
        socket.set_nonblocking(false)?;
        Ok(Self {
            socket,
            is_any,
            is_ipv4: address.is_ipv4(),
            is_closing: AtomicBool::new(false),
        })
    }

    /// Has its thread end.
    fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
        // It says that there is no connection, and wakes whoever waits for datagrams.
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    /// Answers what comes until it is closed.
    fn answer(&self, responder: &dyn Responder) {
        // Many addresses are seldom asked, and need no room until then.
        let mut first = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        while poll(&mut first, PollTimeout::NONE) == Err(Errno::EINTR) {}
        let mut buffers = BatchBuffers::new(self);
        while !self.is_closing.load(Ordering::Relaxed) {
            match self.receive(&mut buffers) {
                Ok(0) => {}
                Ok(_) => {
                    responder.respond(&mut buffers.batch);
                    self.reply(&mut buffers);
                }
                Err(error) => {
                    tracing::warn!(%error, "can't receive DNS over UDP; trying again");
                    thread::park_timeout(Duration::from_millis(limits::ACCEPT_PAUSE_MS));
                }
            }
        }
    }

    fn headers(&self, with_control: bool) -> MultiHeaders<SockaddrStorage> {
        // Of exactly this size: what is sent has nothing behind it.
        let control = match (with_control, self.is_ipv4) {
            (false, _) => None,
            (true, true) => Some(cmsg_space!(libc::in_pktinfo)),
            (true, false) => Some(cmsg_space!(libc::in6_pktinfo)),
        };
        MultiHeaders::preallocate(BATCH, control)
    }

    /// Waits until something has come, and takes in what is there; says how much.
    fn receive(&self, buffers: &mut BatchBuffers) -> io::Result<usize> {
        buffers.batch.received = 0;
        let received = match buffers.pace.wanted() {
            1 if !self.is_any => self.receive_one(&mut buffers.batch),
            wanted => self.receive_many(wanted, buffers),
        };
        match received {
            Ok(received) => {
                buffers.pace.took(received);
                Ok(received)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// The next alone, at a socket that has one address.
    fn receive_one(&self, batch: &mut DatagramBatch) -> nix::Result<usize> {
        let Some(slot) = batch.slots.first_mut() else {
            return Ok(0);
        };
        let (length, source) =
            recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut slot.bytes)?;
        slot.arrive((length, source.as_ref().and_then(address), None));
        batch.received = 1;
        Ok(1)
    }

    fn receive_many(&self, wanted: usize, buffers: &mut BatchBuffers) -> nix::Result<usize> {
        let BatchBuffers {
            batch,
            incoming,
            arrived,
            ..
        } = buffers;
        arrived.clear();
        {
            let mut places: Vec<[IoSliceMut<'_>; 1]> = batch
                .slots
                .iter_mut()
                .take(wanted)
                .map(|slot| [IoSliceMut::new(&mut slot.bytes)])
                .collect();
            let fd = self.socket.as_raw_fd();
            let flags = MsgFlags::MSG_WAITFORONE;
            for message in recvmmsg(fd, incoming, places.iter_mut(), flags, None)? {
                let destination = if self.is_any {
                    let mut controls = message.cmsgs().into_iter().flatten();
                    controls.find_map(|control| destination(&control))
                } else {
                    None
                };
                let source = message.address.as_ref().and_then(address);
                arrived.push((message.bytes, source, destination));
            }
        }
        for (slot, arrived) in batch.slots.iter_mut().zip(&*arrived) {
            slot.arrive(*arrived);
        }
        batch.received = arrived.len();
        Ok(batch.received)
    }

    /// Sends the replies of a batch, those that leave from one address together.
    fn reply(&self, buffers: &mut BatchBuffers) {
        let BatchBuffers {
            batch,
            plain,
            from_any,
            ..
        } = buffers;
        if let [slot] = batch.received() {
            self.reply_one(slot);
            return;
        }
        let replies: Vec<&DatagramSlot> = {
            let slots = batch.received().iter();
            slots.filter(|slot| !slot.reply.is_empty()).collect()
        };
        let together =
            |a: &&DatagramSlot, b: &&DatagramSlot| a.from.destination == b.from.destination;
        for same in replies.chunk_by(together) {
            let from = same.first().and_then(|slot| slot.from.destination);
            let headers = if from.is_some() {
                &mut *from_any
            } else {
                &mut *plain
            };
            self.send_all(same, from, headers);
        }
    }

    fn reply_one(&self, slot: &DatagramSlot) {
        let Arrival {
            source,
            destination,
        } = slot.from;
        while !slot.reply.is_empty()
            && let Err(error) = self.send_one(&slot.reply, source, destination)
            && self.go_past(error) == Some(0)
        {}
    }

    /// Sends replies that leave from one address. One that can't be sent keeps no
    /// other back.
    fn send_all(
        &self,
        mut replies: &[&DatagramSlot],
        from: Option<IpAddr>,
        headers: &mut MultiHeaders<SockaddrStorage>,
    ) {
        while !replies.is_empty() {
            let parts: Vec<[IoSlice<'_>; 1]> = replies
                .iter()
                .map(|slot| [IoSlice::new(&slot.reply)])
                .collect();
            let clients: Vec<Option<SockaddrStorage>> = replies
                .iter()
                .map(|slot| Some(SockaddrStorage::from(slot.from.source)))
                .collect();
            let sent = with_control(from, |control| {
                let fd = self.socket.as_raw_fd();
                let flags = MsgFlags::MSG_DONTWAIT;
                sendmmsg(fd, headers, &parts, &clients, control, flags).map(Iterator::count)
            });
            let gone = match sent {
                Ok(0) => return,
                Ok(sent) => sent,
                Err(error) => match self.go_past(error) {
                    Some(gone) => gone,
                    None => return,
                },
            };
            replies = replies.get(gone..).unwrap_or_default();
        }
    }

    /// How many replies are done with after the first of them failed so; `None` for all.
    fn go_past(&self, error: Errno) -> Option<usize> {
        match error {
            Errno::EINTR => Some(0),
            Errno::EAGAIN => {
                let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                let room = poll(&mut socket, PollTimeout::from(ROOM_MS));
                matches!(room, Ok(1..)).then_some(0)
            }
            error => {
                // A client that is gone is no fault of ours.
                tracing::debug!(%error, "a reply over UDP was not sent");
                Some(1)
            }
        }
    }

    fn send_one(
        &self,
        bytes: &[u8],
        client: SocketAddr,
        from: Option<IpAddr>,
    ) -> nix::Result<usize> {
        let (fd, to) = (self.socket.as_raw_fd(), SockaddrStorage::from(client));
        let flags = MsgFlags::MSG_DONTWAIT;
        if from.is_none() {
            return sendto(fd, bytes, &to, flags);
        }
        let parts = [IoSlice::new(bytes)];
        with_control(from, |control| {
            sendmsg(fd, &parts, control, flags, Some(&to))
        })
    }
}

/// Does `send` with what has a datagram leave from an address.
fn with_control<T>(from: Option<IpAddr>, send: impl FnOnce(&[ControlMessage<'_>]) -> T) -> T {
    match from {
        None => send(&[]),
        Some(IpAddr::V4(from)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(from.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            send(&[ControlMessage::Ipv4PacketInfo(&info)])
        }
        Some(IpAddr::V6(from)) => {
            // A link-local address is that of the link that the client is on.
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: from.octets(),
                },
                ipi6_ifindex: 0,
            };
            send(&[ControlMessage::Ipv6PacketInfo(&info)])
        }
    }
}

fn destination(control: &ControlMessageOwned) -> Option<IpAddr> {
    match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into())
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
        }
        _ => None,
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*v4).into());
    }
    let v6 = storage.as_sockaddr_in6()?;
    Some(SocketAddrV6::from(*v6).into())
}

#[cfg(test)]
mod tests;
