//! The thread that drives the engine: it waits for datagrams, frames, timers and for
//! what it is asked, and works off each in batches, in turns, so that neither direction
//! waits long for the other.

#![allow(
    clippy::disallowed_methods,
    reason = "the engine's time is that of the device, which the simulation replaces as a whole"
)]

use std::{
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    interface::{Interface, Taken},
    sockets::{Batch, Sockets},
};
use crate::tunnel::engine_device::{Beginning, EngineDevice};

/// Frames that are taken from the interface before datagrams have their turn again.
const FRAMES: usize = 16;
/// Requests that wait.
const REQUESTS: usize = 16;

type Request = Box<dyn FnOnce(&mut Running) + Send>;

/// What the thread works with.
pub(super) struct Running {
    pub(super) device: EngineDevice<Sockets, Interface>,
    batch: Batch,
    /// Not `poll`, which takes no more files than the process may open at the moment.
    epoll: Epoll,
    woken: UnixStream,
}

/// Asks the thread; there may be several.
#[derive(Clone)]
pub(super) struct Handle {
    requests: mpsc::Sender<Request>,
    waker: Arc<UnixStream>,
    is_ending: Arc<AtomicBool>,
}

/// The thread itself.
pub(super) struct Driver {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// What a file that is ready stands for; the sockets follow.
const REQUEST: u64 = 0;
const INTERFACE: u64 = 1;
const SOCKETS: u64 = 2;

impl Running {
    fn new(device: EngineDevice<Sockets, Interface>, woken: UnixStream) -> io::Result<Self> {
        woken.set_nonblocking(true)?;
        let running = Self {
            device,
            batch: Batch::new(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            woken,
        };
        let watch = |file, what| {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, what);
            running.epoll.add(file, event)
        };
        watch(running.woken.as_fd(), REQUEST)?;
        watch(running.device.inside.file(), INTERFACE)?;
        running.watch_sockets()?;
        Ok(running)
    }

    /// Binds another port.
    pub(super) fn rebind(&mut self, port: u16) -> io::Result<()> {
        if port == self.device.wire.port() {
            return Ok(());
        }
        self.device.wire.rebind(port)?;
        self.watch_sockets()
    }

    /// What is closed isn't watched any more.
    fn watch_sockets(&self) -> io::Result<()> {
        for (file, what) in self.device.wire.files().zip(SOCKETS..) {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, what);
            self.epoll.add(file, event)?;
        }
        Ok(())
    }

    fn run(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        is_ending: &AtomicBool,
    ) -> io::Result<()> {
        let mut drained = [0; 64];
        while !is_ending.load(Ordering::Relaxed) {
            let mut ready = [EpollEvent::empty(); 4];
            let count = match self.epoll.wait(&mut ready, self.patience()) {
                Err(Errno::EINTR) => 0,
                waited => waited?,
            };
            self.device.now = Instant::now();
            self.device.wire.set_now(self.device.now);
            for event in ready.iter().take(count) {
                match event.data() {
                    REQUEST => {
                        // One byte for each that wakes; what is left wakes again.
                        let _ = self.woken.read(&mut drained);
                        while let Ok(request) = requests.try_recv() {
                            request(self);
                            self.device.flush();
                        }
                        self.take_relayed();
                    }
                    INTERFACE => self.take_frames()?,
                    socket => self.take_datagrams(usize::from(socket > SOCKETS))?,
                }
            }
            self.device.handle_timeout();
        }
        Ok(())
    }

    fn patience(&self) -> EpollTimeout {
        let Some(at) = self.device.poll_timeout() else {
            return EpollTimeout::NONE;
        };
        let left = at.saturating_duration_since(Instant::now());
        // Rounded up: a timer isn't due before its time.
        let left = left + Duration::from_micros(999);
        EpollTimeout::try_from(left.as_millis()).unwrap_or(EpollTimeout::MAX)
    }

    fn take_datagrams(&mut self, index: usize) -> io::Result<()> {
        let count = match self.device.wire.receive(index, &mut self.batch) {
            Ok(count) => count,
            // Such as what ICMP said of an earlier datagram.
            Err(error) => {
                if error.raw_os_error() == Some(Errno::EBADF as i32) {
                    return Err(error);
                }
                return Ok(());
            }
        };
        for (from, bytes, segment) in self.batch.received(count) {
            self.device.take_datagrams(from, bytes, segment);
        }
        self.device.flush();
        Ok(())
    }

    fn take_frames(&mut self) -> io::Result<()> {
        for _ in 0..FRAMES {
            let EngineDevice {
                engine,
                wire,
                inside,
                now,
                ..
            } = &mut self.device;
            let taken = inside.take_one(engine, *now, wire)?;
            if taken == Taken::Nothing {
                break;
            }
        }
        self.device.flush();
        Ok(())
    }

    /// What came by relays.
    fn take_relayed(&mut self) {
        for (from, datagram) in self.device.wire.take_relayed() {
            self.device.take_datagrams(from, &datagram, datagram.len());
        }
        self.device.flush();
    }
}

impl Handle {
    /// Has the thread do something between two batches, and gives what it returns.
    ///
    /// # Errors
    /// The device has ended.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Running) -> T + Send + 'static,
    ) -> io::Result<T> {
        let ended = || io::Error::other("the tunnel's device has ended");
        let (answer, answered) = oneshot::channel();
        let request: Request = Box::new(move |running| {
            // Whoever asked may have gone.
            let _ = answer.send(what(running));
        });
        self.requests.send(request).await.map_err(|_| ended())?;
        self.wake();
        answered.await.map_err(|_| ended())
    }

    fn wake(&self) {
        // A full one wakes too.
        let _ = (&*self.waker).write(&[1]);
    }
}

impl Driver {
    /// Starts it, with what it is to work with.
    pub(super) fn start(
        beginning: Beginning,
        sockets: Sockets,
        interface: Interface,
        now: Instant,
    ) -> io::Result<Self> {
        let (waker, woken) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        let waker = Arc::new(waker);
        sockets.wake_by(Arc::clone(&waker));
        let device = EngineDevice::new(beginning, sockets, interface, now);
        let mut running = Running::new(device, woken)?;
        let (requests, mut asked) = mpsc::channel(REQUESTS);
        let handle = Handle {
            requests,
            waker,
            is_ending: Arc::default(),
        };
        let is_ending = Arc::clone(&handle.is_ending);
        let thread = thread::Builder::new()
            .name("tunnel".into())
            .spawn(move || {
                if let Err(error) = running.run(&mut asked, &is_ending) {
                    tracing::debug!(%error, "the tunnel's device has ended");
                }
            })?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether it carries nothing any more.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the thread, with its sockets and its interface.
    pub(super) async fn end(&mut self) {
        self.handle.is_ending.store(true, Ordering::Relaxed);
        self.handle.wake();
        if let Some(thread) = self.thread.take() {
            // It looks at once, and its last batch is short.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.handle.is_ending.store(true, Ordering::Relaxed);
        self.handle.wake();
    }
}
