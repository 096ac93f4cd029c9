//! UDP services on simulated hosts: a batch is handed to whoever answers there, in
//! the caller's turn and without a thread. Programs of the same host ask, and what
//! comes by its tunnel.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use innermesh_agent::host::{
    DatagramBatch, DatagramSender, Datagrams, Presence, Responder, Serving, datagrams::Arrival,
};
use tokio::sync::mpsc;

use super::{
    place::{EPHEMERAL, HostId},
    wire::Wire,
};

/// What is bound in one world, and who waits for late replies.
#[derive(Default)]
pub(super) struct BoundSockets {
    sockets: BTreeMap<(HostId, SocketAddr), SimResponder>,
    asking: BTreeMap<(HostId, SocketAddr), mpsc::UnboundedSender<Vec<u8>>>,
    /// The number of the newest socket, and the port of the newest client.
    newest: u64,
    port: u16,
}

struct SimResponder {
    number: u64,
    responder: Option<Arc<dyn Responder>>,
}

impl BoundSockets {
    /// Takes from a host whatever it has open.
    pub(super) fn unplug(&mut self, host: HostId) {
        self.sockets.retain(|(at, _), _| *at != host);
        self.asking.retain(|(at, _), _| *at != host);
    }
}

/// What was said to a batch of questions.
pub struct Asked {
    /// The replies that came at once, in the order of the questions.
    pub replies: Vec<Option<Vec<u8>>>,
    /// Those that come later.
    pub late: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Wire {
    /// Sends datagrams together from `source` to a UDP service of `host`.
    ///
    /// # Errors
    /// Where nobody answers there.
    pub fn ask(
        &self,
        host: HostId,
        source: IpAddr,
        to: SocketAddr,
        datagrams: &[Vec<u8>],
    ) -> io::Result<Asked> {
        let (sender, late) = mpsc::unbounded_channel();
        let (source, responder) = {
            let mut state = self.lock();
            let bound = &mut state.datagrams;
            let socket = bound.sockets.get(&(host, to));
            let responder = socket.and_then(|socket| socket.responder.clone());
            let responder = responder.ok_or(io::ErrorKind::ConnectionRefused)?;
            bound.port = bound.port.checked_add(1).unwrap_or(0).max(EPHEMERAL);
            let source = SocketAddr::new(source, bound.port);
            bound.asking.retain(|_, asking| !asking.is_closed());
            bound.asking.insert((host, source), sender);
            (source, responder)
        };
        let from = Arrival {
            source,
            destination: None,
        };
        let mut batch = DatagramBatch::of(datagrams.iter().map(|bytes| (from, bytes.as_slice())));
        responder.respond(&mut batch);
        let slots = batch.received().iter_mut();
        let replies = slots.map(|slot| std::mem::take(&mut slot.reply));
        let replies = replies.map(|reply| Some(reply).filter(|reply| !reply.is_empty()));
        Ok(Asked {
            replies: replies.collect(),
            late,
        })
    }
}

/// Binds a UDP service to an address of a host.
pub(super) fn bind(
    wire: &Wire,
    host: HostId,
    address: SocketAddr,
    presence: Presence,
) -> io::Result<Box<dyn Datagrams>> {
    let mut state = wire.lock();
    let is_there = address.ip().is_unspecified() || state.has_address(host, address.ip());
    if !is_there && presence == Presence::Present {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    let bound = &mut state.datagrams;
    let at = |port| (host, SocketAddr::new(address.ip(), port));
    let is_free = |port: u16| !bound.sockets.contains_key(&at(port));
    let port = match address.port() {
        0 => (EPHEMERAL..u16::MAX).find(|port| is_free(*port)),
        port => Some(port).filter(|port| is_free(*port)),
    };
    let at = at(port.ok_or(io::ErrorKind::AddrInUse)?);
    bound.newest += 1;
    let number = bound.newest;
    bound.sockets.insert(
        at,
        SimResponder {
            number,
            responder: None,
        },
    );
    Ok(Box::new(SimSocket {
        wire: wire.clone(),
        at,
        number,
    }))
}

/// Bound until it is dropped.
struct SimSocket {
    wire: Wire,
    at: (HostId, SocketAddr),
    number: u64,
}

impl Datagrams for SimSocket {
    fn local_addr(&self) -> SocketAddr {
        self.at.1
    }

    fn sender(&self) -> Arc<dyn DatagramSender> {
        Arc::new(SimSender {
            wire: self.wire.clone(),
            host: self.at.0,
        })
    }

    fn serve(self: Box<Self>, responder: Arc<dyn Responder>) -> io::Result<Box<dyn Serving>> {
        let mut state = self.wire.lock();
        if let Some(socket) = state.datagrams.sockets.get_mut(&self.at)
            && socket.number == self.number
        {
            socket.responder = Some(responder);
        }
        drop(state);
        Ok(self)
    }
}

impl Serving for SimSocket {
    fn end(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        drop(self);
        Box::pin(async {})
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let mut state = self.wire.lock();
        let sockets = &mut state.datagrams.sockets;
        // After a crash another may have its address.
        let is_its = sockets
            .get(&self.at)
            .is_some_and(|socket| socket.number == self.number);
        let gone = if is_its {
            sockets.remove(&self.at)
        } else {
            None
        };
        drop(state);
        // What answered may have more to let go of.
        drop(gone);
    }
}

struct SimSender {
    wire: Wire,
    host: HostId,
}

impl DatagramSender for SimSender {
    fn send(&self, bytes: &[u8], client: SocketAddr, _: Option<IpAddr>) -> io::Result<()> {
        let state = self.wire.lock();
        let asking = state.datagrams.asking.get(&(self.host, client));
        let asking = asking.ok_or(io::ErrorKind::ConnectionRefused)?;
        // Who no longer waits misses it.
        let _ = asking.send(bytes.to_vec());
        Ok(())
    }
}
