//! The tunnel's datagrams that go by relays, between the device and whoever is connected
//! with relays: both directions are bounded, and what finds no room is lost and counted.

use std::{
    collections::VecDeque,
    io::Write,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use innermesh_proto::tunnel::TunnelKey;
use tokio::sync::Notify;

/// Bytes that wait in each direction.
const WAITING: usize = 1 << 20;
/// Peers for which somebody is to be asked.
const ASKS: usize = 64;
/// The network of addresses that stand for relays: none of its packets goes anywhere
/// (RFC 6666).
const DISCARD: [u16; 4] = [0x100, 0, 0, 0];

/// The address that stands for the relay by which a peer is reached, in the device and in
/// what `wg` shows. Its last eight bytes are the key's first, so that nothing has to be
/// kept.
pub fn relay_place(key: &TunnelKey) -> SocketAddr {
    let [a, b, c, d, e, f, g, h, ..] = key.0;
    let [p, q, r, s] = DISCARD;
    let word = |high, low| u16::from_be_bytes([high, low]);
    let ip = Ipv6Addr::new(p, q, r, s, word(a, b), word(c, d), word(e, f), word(g, h));
    SocketAddr::new(ip.into(), 1)
}

/// Whether an address stands for a relay.
pub fn is_relay_place(place: &SocketAddr) -> bool {
    match place.ip() {
        IpAddr::V6(ip) => ip.segments().starts_with(&DISCARD),
        IpAddr::V4(_) => false,
    }
}

/// Datagrams of one length that go to one peer; the last may be shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burst {
    /// As [`relay_place`] gives it.
    pub to: SocketAddr,
    /// Bytes of each.
    pub segment: usize,
    /// All of them.
    pub bytes: Bytes,
}

/// See the module. Clones are the same.
#[derive(Clone, Default)]
pub struct Relayed(Arc<Inner>);

#[derive(Default)]
struct Inner {
    outgoing: Mutex<Queue<Burst>>,
    incoming: Mutex<Queue<(SocketAddr, Bytes)>>,
    asks: Mutex<VecDeque<TunnelKey>>,
    has_outgoing: Notify,
    has_incoming: Notify,
    has_asks: Notify,
    waker: Mutex<Option<Arc<UnixStream>>>,
    dropped: AtomicU64,
}

struct Queue<T> {
    all: VecDeque<T>,
    bytes: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            all: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Whether there was room.
    fn push(&mut self, what: T, bytes: usize) -> bool {
        let fits = self.bytes + bytes <= WAITING;
        if fits {
            self.all.push_back(what);
            self.bytes += bytes;
        }
        fits
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relayed {
    /// Takes datagrams of the device.
    pub fn send(&self, to: SocketAddr, segment: usize, bytes: &[u8]) {
        let burst = Burst {
            to,
            segment,
            bytes: Bytes::copy_from_slice(bytes),
        };
        if lock(&self.0.outgoing).push(burst, bytes.len()) {
            self.0.has_outgoing.notify_one();
        } else {
            self.count(bytes.len().div_ceil(segment.max(1)));
        }
    }

    /// What the device has to send next.
    pub async fn outgoing(&self) -> Burst {
        loop {
            {
                let mut outgoing = lock(&self.0.outgoing);
                if let Some(burst) = outgoing.all.pop_front() {
                    outgoing.bytes -= burst.bytes.len();
                    return burst;
                }
            }
            self.0.has_outgoing.notified().await;
        }
    }

    /// Brings the device a datagram of a peer's.
    pub fn deliver(&self, from: SocketAddr, datagram: Bytes) {
        let length = datagram.len();
        let (was_empty, is_kept) = {
            let mut incoming = lock(&self.0.incoming);
            let was_empty = incoming.all.is_empty();
            (was_empty, incoming.push((from, datagram), length))
        };
        if !is_kept {
            self.count(1);
        }
        self.0.has_incoming.notify_one();
        if was_empty && let Some(waker) = &*lock(&self.0.waker) {
            // A full one wakes too.
            let _ = (&**waker).write(&[1]);
        }
    }

    /// What was brought since.
    pub(super) fn incoming(&self) -> VecDeque<(SocketAddr, Bytes)> {
        std::mem::take(&mut *lock(&self.0.incoming)).all
    }

    /// What was brought next.
    pub async fn next_incoming(&self) -> (SocketAddr, Bytes) {
        loop {
            {
                let mut incoming = lock(&self.0.incoming);
                if let Some((from, datagram)) = incoming.all.pop_front() {
                    incoming.bytes -= datagram.len();
                    return (from, datagram);
                }
            }
            self.0.has_incoming.notified().await;
        }
    }

    /// Has the device woken by this when there is something for it.
    pub(super) fn wake_by(&self, waker: Arc<UnixStream>) {
        *lock(&self.0.waker) = Some(waker);
    }

    /// Asks that a peer be told that it is looked for.
    pub(super) fn ask_punch(&self, key: TunnelKey) {
        let mut asks = lock(&self.0.asks);
        if asks.len() < ASKS && !asks.contains(&key) {
            asks.push_back(key);
            self.0.has_asks.notify_one();
        }
    }

    /// Which peer is to be told next that it is looked for.
    pub async fn punch_asked(&self) -> TunnelKey {
        loop {
            let next = lock(&self.0.asks).pop_front();
            if let Some(key) = next {
                return key;
            }
            self.0.has_asks.notified().await;
        }
    }

    /// Counts datagrams that were lost.
    pub fn count(&self, dropped: usize) {
        self.0.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
    }

    /// Datagrams that found no room, or no way.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_relays_are_told_from_addresses_and_from_each_other() {
        let place = |n| relay_place(&TunnelKey([n; 32]));
        assert!(is_relay_place(&place(1)) && place(1) != place(2));
        for other in ["192.0.2.1:1", "[2001:db8::1]:1", "[100:0:0:1::1]:1"] {
            assert!(!is_relay_place(&other.parse().unwrap()), "{other}");
        }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_the_rest_is_counted() {
        let relayed = Relayed::default();
        let place = relay_place(&TunnelKey([1; 32]));
        let bytes = vec![0; 1000];
        for _ in 0..2000 {
            relayed.send(place, 100, &bytes);
            relayed.deliver(place, Bytes::from(bytes.clone()));
        }
        let kept = relayed.incoming().len();
        assert!((1000..1100).contains(&kept), "{kept}");
        assert_eq!(relayed.dropped(), 11 * (2000 - kept as u64));
        for _ in 0..kept {
            assert_eq!(relayed.outgoing().await.segment, 100);
        }
        relayed.send(place, 7, &bytes);
        assert_eq!(relayed.outgoing().await.segment, 7);
    }
}
