//! Datagrams that are answered many at a time: one call of the kernel takes in
//! what has come, one sends what is answered at once. A socket and its threads
//! are the host's; what is answered isn't. A simulation hands the same batches
//! over without either.

mod system;

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

pub(crate) use self::system::SystemDatagrams;

/// Longest datagram that is taken whole, in bytes; the rest of a longer one is
/// cut off.
pub const DATAGRAM_BYTES: usize = 4096;
/// Datagrams that one call takes in.
pub const BATCH: usize = 64;

/// What came in at once, and what is said to it.
#[derive(Debug)]
pub struct DatagramBatch {
    slots: Vec<DatagramSlot>,
    received: usize,
}

/// A datagram, and the reply to it.
#[derive(Debug)]
pub struct DatagramSlot {
    bytes: Box<[u8]>,
    length: usize,
    from: Arrival,
    /// What is sent back at once: nothing where it is empty.
    pub reply: Vec<u8>,
}

/// Where a datagram came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who sent it.
    pub source: SocketAddr,
    /// The address of this host that it was sent to, where the socket doesn't say.
    pub destination: Option<IpAddr>,
}

impl DatagramBatch {
    /// An empty one, with room for `size` datagrams.
    pub fn new(size: usize) -> Self {
        let nobody = Arrival {
            source: SocketAddr::from(([0, 0, 0, 0], 0)),
            destination: None,
        };
        let slot = || DatagramSlot {
            bytes: vec![0; DATAGRAM_BYTES].into_boxed_slice(),
            length: 0,
            from: nobody,
            reply: Vec::new(),
        };
        Self {
            slots: std::iter::repeat_with(slot).take(size).collect(),
            received: 0,
        }
    }

    /// A batch of these datagrams.
    pub fn of<'d>(datagrams: impl IntoIterator<Item = (Arrival, &'d [u8])>) -> Self {
        let slots: Vec<DatagramSlot> = datagrams
            .into_iter()
            .map(|(from, bytes)| DatagramSlot {
                bytes: bytes.into(),
                length: bytes.len(),
                from,
                reply: Vec::new(),
            })
            .collect();
        Self {
            received: slots.len(),
            slots,
        }
    }

    /// What came in, in order.
    pub fn received(&mut self) -> &mut [DatagramSlot] {
        let received = self.received.min(self.slots.len());
        self.slots.get_mut(..received).unwrap_or_default()
    }
}

impl DatagramSlot {
    /// What came.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Where from.
    pub fn from(&self) -> Arrival {
        self.from
    }

    /// What came, and the place for its reply.
    pub fn parts(&mut self) -> (&[u8], &mut Vec<u8>) {
        (
            self.bytes.get(..self.length).unwrap_or_default(),
            &mut self.reply,
        )
    }
}

/// What answers datagrams.
pub trait Responder: Send + Sync {
    /// Writes the replies that need no waiting. It may be called by several
    /// threads at a time.
    fn respond(&self, batch: &mut DatagramBatch);
}

/// A socket that is bound and not answered yet.
pub trait Datagrams: Send {
    /// Where it is bound.
    fn local_addr(&self) -> SocketAddr;
    /// Sends replies that had to wait.
    fn sender(&self) -> Arc<dyn DatagramSender>;
    /// Has `responder` answer until what is returned is dropped.
    ///
    /// # Errors
    /// The operating system's.
    fn serve(self: Box<Self>, responder: Arc<dyn Responder>) -> io::Result<Box<dyn Serving>>;
}

/// Sends replies from the address that was asked (RFC 2181 §4.1).
pub trait DatagramSender: Send + Sync {
    /// Sends to a client; drops what the socket has no room for.
    ///
    /// # Errors
    /// The operating system's.
    fn send(&self, bytes: &[u8], client: SocketAddr, from: Option<IpAddr>) -> io::Result<()>;
}

/// Datagrams are being answered; not any more when it is dropped.
pub trait Serving: Send {
    /// Ends. When that is done its address is free, once no sender is left.
    fn end(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}
