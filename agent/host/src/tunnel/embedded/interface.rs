//! The TUN interface, whose frames may be of many segments where the kernel has that.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use innermesh_engine::{Engine, Inside, Wire, limits};
use nix::errno::Errno;
use tun_rs::{DeviceBuilder, SyncDevice};

/// A TUN interface; it ends with this value.
pub(super) struct Interface {
    device: SyncDevice,
    /// Whether the kernel's header stands before each frame.
    has_header: bool,
    joins_tcp: bool,
    joins_udp: bool,
    frame: Box<[u8]>,
}

/// What a look at the interface showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    One,
    Nothing,
}

impl Interface {
    /// Makes it, with offloads where they are wanted and the kernel has them.
    pub(super) fn make(name: &str, offloads: bool) -> io::Result<Self> {
        let make = |offloads| {
            let builder = DeviceBuilder::new().name(name).offload(offloads);
            builder.inherit_enable_state().build_sync()
        };
        let device = match make(offloads) {
            Err(error) if offloads && is_unknown(&error) => {
                tracing::warn!(%error, "the TUN interface has no offloads; the tunnel is slower");
                make(false)
            }
            other => other,
        }?;
        device.set_nonblocking(true)?;
        Ok(Self {
            has_header: device.tcp_gso(),
            joins_tcp: device.tcp_gso(),
            joins_udp: device.udp_gso(),
            device,
            frame: vec![0; limits::FRAME_BYTES].into_boxed_slice(),
        })
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Hands the engine the next frame.
    ///
    /// # Errors
    /// The interface is gone.
    pub(super) fn take_one(
        &mut self,
        engine: &mut Engine,
        now: Instant,
        wire: &mut impl Wire,
    ) -> io::Result<Taken> {
        let length = match self.device.recv(&mut self.frame) {
            Ok(length) => length,
            Err(error) if is_passing(&error) => return Ok(Taken::Nothing),
            Err(error) => return Err(error),
        };
        let frame = self.frame.get_mut(..length).unwrap_or_default();
        let taken = if self.has_header {
            engine.take_frame(frame, now, wire)
        } else {
            engine.take_packet(frame, now, wire)
        };
        if let Err(error) = taken {
            tracing::trace!(%error, "a frame of the interface was dropped");
        }
        Ok(Taken::One)
    }
}

impl Inside for Interface {
    fn deliver(&mut self, parts: &[IoSlice<'_>]) {
        let is_joined = parts.len() > 2;
        let parts = if self.has_header {
            parts
        } else {
            parts.get(1..).unwrap_or_default()
        };
        let Err(error) = self.device.send_vectored(parts) else {
            return;
        };
        // It isn't up yet, or not any more: nothing is wrong with the frame.
        let is_down = error.raw_os_error() == Some(Errno::EIO as i32);
        if is_joined && !is_down && !is_passing(&error) {
            tracing::warn!(%error, "the kernel refuses joined packets; they go one by one");
            self.joins_tcp = false;
            self.joins_udp = false;
        }
    }

    fn joins_tcp(&self) -> bool {
        self.joins_tcp
    }

    fn joins_udp(&self) -> bool {
        self.joins_udp
    }
}

/// Whether the kernel doesn't know what was asked for.
fn is_unknown(error: &io::Error) -> bool {
    let codes = [Errno::EINVAL, Errno::ENOTTY, Errno::EOPNOTSUPP];
    let code = error.raw_os_error().map(Errno::from_raw);
    code.is_some_and(|code| codes.contains(&code))
}

fn is_passing(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
    kinds.contains(&error.kind())
}
