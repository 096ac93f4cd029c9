//! What is under way to a UDP socket.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::clock;

/// Datagrams that wait for one socket; what comes beyond is lost.
const WAITING: usize = 4096;

/// What arrives.
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// When a datagram arrives, and its number of all that were sent.
pub(super) type Arrival = (Instant, u64);

/// What is under way to one socket.
#[derive(Default)]
pub(super) struct Inbox(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    datagrams: BTreeMap<Arrival, Datagram>,
    reader: Option<Waker>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Inbox {
    pub(super) fn put(&self, place: Arrival, datagram: Datagram) {
        let mut queue = self.lock();
        if queue.datagrams.len() >= WAITING {
            return;
        }
        queue.datagrams.insert(place, datagram);
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Has everything that would arrive before `until` arrive then.
    pub(super) fn hold(&self, until: Instant) {
        let mut queue = self.lock();
        let later = queue.datagrams.split_off(&(until, 0));
        let held = std::mem::replace(&mut queue.datagrams, later);
        let held = held
            .into_iter()
            .map(|((_, number), one)| ((until, number), one));
        queue.datagrams.extend(held);
    }

    /// The next datagram that has arrived.
    pub(super) fn poll_take(&self, cx: &mut Context) -> Poll<Datagram> {
        let mut queue = self.lock();
        while let Some((&(due, _), _)) = queue.datagrams.first_key_value() {
            if due <= clock::now() {
                let (_, datagram) = queue.datagrams.pop_first().expect("it was there");
                return Poll::Ready(datagram);
            }
            let timer = queue
                .timer
                .get_or_insert_with(|| Box::pin(sleep_until(due)));
            timer.as_mut().reset(due);
            if Future::poll(timer.as_mut(), cx).is_pending() {
                break;
            }
        }
        queue.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
