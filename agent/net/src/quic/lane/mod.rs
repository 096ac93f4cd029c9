//! Lanes: QUIC's datagrams inside a TCP connection, for hosts on networks that let no UDP
//! out. Each stands for a remote address of its own under quinn's socket ([`socket`]), so
//! that whatever goes over QUIC goes over a lane unchanged.
//!
//! What is around the datagrams (TCP, TLS, HTTP, WebSocket) proves nothing to anybody: a
//! lane is a wire. Both ends prove who they are inside, by QUIC's TLS, and who is in
//! between sees what it would see of UDP. So a lane's outer certificate isn't checked.
//!
//! A lane brings its datagrams to this endpoint alone, and answers go to its own TCP
//! connection alone: there is nothing to amplify, and nobody else to reach. All that waits
//! is bounded; what finds no room to be sent is lost, as UDP would lose it.

mod carry;
mod dial;
mod serve;
mod socket;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use innermesh_proto::{
    endpoint::{lane_number, of_lane},
    limits,
    path::lane,
    rpc::close,
};
use tokio::sync::Notify;

pub use self::{
    dial::{LaneDialError, OpenLane},
    serve::LaneServer,
};
use super::{counters::Tally, registry::Registry};
use crate::host::Clock;
pub(super) use socket::LaneSocket;

/// The lanes of one endpoint. Clones are the same.
#[derive(Clone)]
pub struct Lanes(Arc<Inner>);

struct Inner {
    registry: Arc<Registry>,
    tally: Arc<Tally>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Wakes who reads the socket.
    reader: AtomicWaker,
}

#[derive(Default)]
struct State {
    next: u32,
    lanes: BTreeMap<u32, Queues>,
    /// Lanes with something to take in; the first is next.
    turns: VecDeque<u32>,
}

/// What waits on a lane in either direction.
struct Queues {
    /// Where its TCP connection leads, or comes from.
    from: SocketAddr,
    /// Datagrams to send, as they stand in a message.
    outgoing: BytesMut,
    incoming: VecDeque<Bytes>,
    incoming_bytes: usize,
    news: Arc<News>,
}

/// Wakes who carries a lane.
#[derive(Default)]
struct News {
    to_send: Notify,
    taken_in: Notify,
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").finish_non_exhaustive()
    }
}

impl Lanes {
    pub(super) fn new(registry: Arc<Registry>, tally: Arc<Tally>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            registry,
            tally,
            clock,
            state: Mutex::default(),
            reader: AtomicWaker::new(),
        }))
    }

    /// Where the TCP connection of a lane leads, or comes from.
    pub fn from(&self, address: &SocketAddr) -> Option<SocketAddr> {
        let number = lane_number(address)?;
        Some(self.lock().lanes.get(&number)?.from)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().lanes.len()
    }

    /// A new lane over a TCP connection with `from`.
    fn open(&self, from: SocketAddr) -> Lane {
        let news = Arc::<News>::default();
        let mut state = self.lock();
        let number = loop {
            let at = of_lane(state.next);
            state.next = state.next.wrapping_add(1);
            match lane_number(&at) {
                Some(number) if !state.lanes.contains_key(&number) => break number,
                _ => {}
            }
        };
        let queues = Queues {
            from: SocketAddr::new(from.ip().to_canonical(), from.port()),
            outgoing: BytesMut::new(),
            incoming: VecDeque::new(),
            incoming_bytes: 0,
            news: news.clone(),
        };
        state.lanes.insert(number, queues);
        drop(state);
        self.0.tally.lanes.add();
        Lane {
            lanes: self.clone(),
            number,
            news,
        }
    }

    /// Puts datagrams of `segment` bytes each, the last perhaps shorter, into a lane's
    /// queue; those that find no room, or no lane, are lost.
    fn send(&self, number: u32, contents: &[u8], segment: usize) {
        let mut state = self.lock();
        let Some(queues) = state.lanes.get_mut(&number) else {
            return;
        };
        for datagram in contents.chunks(segment.max(1)) {
            let length = queues.outgoing.len() + lane::OVERHEAD + datagram.len();
            match lane::header(datagram) {
                Some(header) if length <= limits::LANE_MESSAGE_BYTES => {
                    queues.outgoing.extend_from_slice(&header);
                    queues.outgoing.extend_from_slice(datagram);
                }
                _ => self.0.tally.lane_datagrams_dropped.add(),
            }
        }
        queues.news.to_send.notify_one();
    }

    /// Takes datagrams in, one of each lane in turn: for each buffer one, as long as
    /// there are any. How many, with their lengths and lanes.
    fn receive(&self, mut take: impl FnMut(&[u8], SocketAddr) -> bool) {
        let mut state = self.lock();
        let State { lanes, turns, .. } = &mut *state;
        while let Some(number) = turns.front().copied() {
            let queues = lanes.get_mut(&number);
            let next = queues.and_then(|queues| Some((queues.incoming.front()?.clone(), queues)));
            let Some((datagram, queues)) = next else {
                turns.pop_front();
                continue;
            };
            if !take(&datagram, of_lane(number)) {
                return;
            }
            queues.incoming.pop_front();
            queues.incoming_bytes -= datagram.len();
            queues.news.taken_in.notify_one();
            turns.pop_front();
            if !queues.incoming.is_empty() {
                turns.push_back(number);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane for as long as it is held. The QUIC connections on it end with it.
struct Lane {
    lanes: Lanes,
    number: u32,
    news: Arc<News>,
}

impl Lane {
    fn address(&self) -> SocketAddr {
        of_lane(self.number)
    }

    /// What is to be sent next, as one message.
    async fn outgoing(&self) -> Bytes {
        loop {
            {
                let mut state = self.lanes.lock();
                let queues = state.lanes.get_mut(&self.number);
                if let Some(queues) = queues.filter(|queues| !queues.outgoing.is_empty()) {
                    return queues.outgoing.split().freeze();
                }
            }
            self.news.to_send.notified().await;
        }
    }

    /// Waits until there is room for a message that comes in.
    async fn has_room(&self) {
        loop {
            {
                let state = self.lanes.lock();
                let queues = state.lanes.get(&self.number);
                if queues.is_none_or(|it| it.incoming_bytes < limits::LANE_RECEIVED_BYTES) {
                    return;
                }
            }
            self.news.taken_in.notified().await;
        }
    }

    /// Takes a message in; `false` where it isn't one of a lane.
    fn take(&self, message: &Bytes) -> bool {
        let Some(datagrams) = lane::datagrams(message) else {
            return false;
        };
        let mut state = self.lanes.lock();
        let State { lanes, turns, .. } = &mut *state;
        if let Some(queues) = lanes.get_mut(&self.number) {
            if queues.incoming.is_empty() {
                turns.push_back(self.number);
            }
            for range in datagrams {
                queues.incoming_bytes += range.len();
                queues.incoming.push_back(message.slice(range));
            }
        }
        drop(state);
        self.lanes.0.reader.wake();
        true
    }

    /// Whether a QUIC connection stands on it, and whether it is a member's.
    fn is_used(&self) -> (bool, bool) {
        let links = self.lanes.0.registry.all();
        let mut here = links.iter().filter(|link| link.remote() == self.address());
        let is_used = here.clone().next().is_some();
        (is_used, here.any(|link| link.is_registered()))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.lanes.lock().lanes.remove(&self.number);
        for link in self.lanes.0.registry.all() {
            if link.remote() == self.address() {
                link.close(close::NORMAL, "the lane ended");
            }
        }
    }
}
