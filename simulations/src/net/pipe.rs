//! The bytes of a TCP connection between two simulated hosts, on their way.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::{
    io::ReadBuf,
    time::{Instant, Sleep, sleep_until},
};

use super::place::HostId;
use crate::clock;

/// A connection of two hosts, of which the first opened it.
pub(super) struct Connection {
    pub(super) hosts: [HostId; 2],
    /// What each of them has sent.
    pub(super) pipes: [Pipe; 2],
}

impl Connection {
    pub(super) fn break_off(&self) {
        for pipe in &self.pipes {
            let mut flow = pipe.lock();
            flow.is_broken = true;
            flow.wake();
        }
    }
}

#[derive(Default)]
pub(super) struct Pipe(Mutex<Flow>);

/// One direction.
#[derive(Default)]
pub(super) struct Flow {
    pub(super) segments: VecDeque<(Instant, Vec<u8>)>,
    pub(super) bytes: usize,
    /// When the newest bytes arrive: none overtakes another.
    pub(super) newest: Option<Instant>,
    /// Nothing more is written.
    pub(super) is_ended: bool,
    /// Nobody reads any more.
    pub(super) is_closed: bool,
    pub(super) is_broken: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) timer: Option<Pin<Box<Sleep>>>,
}

impl Pipe {
    pub(super) fn lock(&self) -> MutexGuard<'_, Flow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
    pub(super) fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }

    /// Waits until `due`.
    fn poll_until(&mut self, due: Instant, cx: &mut Context) -> Poll<()> {
        if due <= clock::now() {
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        timer.as_mut().reset(due);
        Future::poll(timer.as_mut(), cx)
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context,
        buffer: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let due = self.segments.front().map(|(due, _)| *due);
        let end = self.newest.filter(|_| self.is_ended);
        if let Some(due) = due.or(end)
            && self.poll_until(due, cx).is_pending()
        {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let Some((_, segment)) = self.segments.front_mut() else {
            if self.is_ended {
                return Poll::Ready(Ok(()));
            }
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let count = segment.len().min(buffer.remaining());
        buffer.put_slice(&segment[..count]);
        segment.drain(..count);
        self.bytes -= count;
        if segment.is_empty() {
            self.segments.pop_front();
        }
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}
