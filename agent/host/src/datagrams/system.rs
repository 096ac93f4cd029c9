//! UDP sockets of the operating system, each with its own thread; the kernel
//! spreads clients over them. Replies leave from the address that was asked, also
//! where it is bound to all of the host's: a client takes an answer from there
//! alone (RFC 2181 §4.1).

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
        ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg,
        sendmmsg, sendmsg, setsockopt, sockopt,
    },
};
use socket2::Socket;
use tokio::sync::mpsc;

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

/// What one thread works with.
struct BatchBuffers {
    batch: DatagramBatch,
    incoming: MultiHeaders<SockaddrStorage>,
    /// For replies that leave from where the socket is bound, and for others.
    plain: MultiHeaders<SockaddrStorage>,
    from_any: MultiHeaders<SockaddrStorage>,
}

impl BatchBuffers {
    fn new(socket: &AnsweringSocket) -> Self {
        Self {
            batch: DatagramBatch::new(BATCH),
            incoming: socket.headers(socket.is_any),
            plain: socket.headers(false),
            from_any: socket.headers(socket.is_any),
        }
    }
}

struct FirstSocket(Option<Arc<AnsweringSocket>>);

impl DatagramSender for FirstSocket {
    fn send(&self, bytes: &[u8], client: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
        let socket = self.0.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        socket.send(bytes, client, from)
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
        let BatchBuffers {
            batch, incoming, ..
        } = buffers;
        batch.received = 0;
        let mut arrived = [(0, None, None); BATCH];
        let received = {
            let mut places: Vec<[IoSliceMut<'_>; 1]> = batch
                .slots
                .iter_mut()
                .map(|slot| [IoSliceMut::new(&mut slot.bytes)])
                .collect();
            let flags = MsgFlags::MSG_WAITFORONE;
            let messages = recvmmsg(
                self.socket.as_raw_fd(),
                incoming,
                places.iter_mut(),
                flags,
                None,
            );
            let messages = match messages {
                Ok(messages) => messages,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(0),
                Err(error) => return Err(error.into()),
            };
            let mut received = 0;
            for (message, place) in messages.zip(&mut arrived) {
                let destination = if self.is_any {
                    let mut controls = message.cmsgs().into_iter().flatten();
                    controls.find_map(|control| destination(&control))
                } else {
                    None
                };
                let source = message.address.as_ref().and_then(address);
                *place = (message.bytes, source, destination);
                received += 1;
            }
            received
        };
        for (slot, (length, source, destination)) in batch.slots.iter_mut().zip(arrived) {
            slot.reply.clear();
            // Without a source nothing is to be answered.
            slot.length = if source.is_some() { length } else { 0 };
            slot.from = Arrival {
                source: source.unwrap_or(slot.from.source),
                destination,
            };
        }
        batch.received = received;
        Ok(received)
    }

    /// Sends the replies of a batch, those that leave from one address together.
    fn reply(&self, buffers: &mut BatchBuffers) {
        let BatchBuffers {
            batch,
            plain,
            from_any,
            ..
        } = buffers;
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
                Err(Errno::EINTR) => 0,
                Err(Errno::EAGAIN) => {
                    let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                    match poll(&mut socket, PollTimeout::from(ROOM_MS)) {
                        Ok(1..) => 0,
                        _ => return,
                    }
                }
                Err(error) => {
                    // A client that is gone is no fault of ours.
                    tracing::debug!(%error, "a reply over UDP was not sent");
                    1
                }
            };
            replies = replies.get(gone..).unwrap_or_default();
        }
    }

    fn send(&self, bytes: &[u8], client: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
        let parts = [IoSlice::new(bytes)];
        let to = SockaddrStorage::from(client);
        with_control(from, |control| {
            let fd = self.socket.as_raw_fd();
            sendmsg(fd, &parts, control, MsgFlags::MSG_DONTWAIT, Some(&to))
        })?;
        Ok(())
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
