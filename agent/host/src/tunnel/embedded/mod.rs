//! A WireGuard device in this process, for kernels without one: the engine behind a TUN
//! interface and UDP sockets.
//!
//! Owns the thread that drives it and its control socket: all end with the process. The
//! agent drives the device directly; its socket is for `wg` only.

#![allow(
    clippy::disallowed_methods,
    reason = "the device node, its time and its keys are the backend itself, which the simulation replaces as a whole"
)]

mod driver;
mod interface;
mod socket;
mod sockets;
pub mod uapi;

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use innermesh_proto::{
    path::Way,
    tunnel::{Step, TunnelKey},
};
use nix::errno::Errno;
use wireguard_control::InterfaceName;

use self::{
    driver::{Driver, Running},
    interface::Interface,
    socket::Socket,
    sockets::{OWN_MARK, Sockets},
};
use super::{Device, Reading, TunnelError, TunnelSettings, WallClock, engine_device::Beginning};

/// What a packet's length is padded to a multiple of, in bytes.
const PADDING: u32 = 16;

/// A running device.
pub(super) struct Embedded {
    driver: Driver,
    _socket: Socket,
}

impl Embedded {
    /// Makes the interface and binds its port.
    pub(super) async fn open(
        name: InterfaceName,
        settings: &TunnelSettings,
        clock: &WallClock,
    ) -> Result<Self, TunnelError> {
        socket::refuse_if_answered(&name)?;
        check_tun()?;
        let interface = Interface::make(&settings.interface, settings.offloads)
            .map_err(|error| tun_error(&settings.interface, error))?;
        let now = Instant::now();
        let relayed = settings.relayed.clone();
        let sockets = Sockets::bind(
            settings.listen_port,
            OWN_MARK,
            settings.offloads,
            relayed,
            now,
        )
        .map_err(|error| bind_error(settings.listen_port, error))?;
        let drawn = || seed().map_err(|error| TunnelError::system("draw a random number", error));
        let [a, b, c, d, e, f, g, h, ..] = drawn()?;
        let beginning = Beginning {
            private_key: settings.private_key,
            seed: drawn()?,
            number: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            unix: Duration::from_millis(clock()),
            relayed: settings.relayed.clone(),
        };
        let driver = Driver::start(beginning, sockets, interface, now)
            .map_err(|error| TunnelError::system("start the tunnel device", error))?;
        let socket = Socket::open(name, driver.handle().clone(), clock.clone());
        Ok(Self {
            driver,
            _socket: socket,
        })
    }
}

#[async_trait]
impl Device for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    /// Packets are padded to a multiple of 16 bytes (whitepaper §5.4.6), beyond the MTU
    /// too: 1420 would be 1,504 bytes over IPv6, in two pieces each.
    fn mtu(&self, most: u32) -> u32 {
        most - most % PADDING
    }

    async fn read(&self) -> Result<Reading, TunnelError> {
        let read = |running: &mut Running| Reading {
            public_key: Some(TunnelKey(running.device.engine.public_key())),
            listen_port: running.device.wire.port(),
            peers: running.device.peers(),
        };
        let reading = self.driver.handle().ask(read).await;
        reading.map_err(|error| TunnelError::system("read the tunnel device", error))
    }

    /// A peer that stays is changed in place: one that is replaced loses its
    /// session, and the other end, unaware, would be deaf for up to 15 s.
    async fn take_steps(&mut self, steps: &[Step]) -> io::Result<()> {
        let steps = steps.to_vec();
        if steps.is_empty() {
            return Ok(());
        }
        let take = move |running: &mut Running| {
            for step in steps {
                running.device.take_step(step);
            }
        };
        self.driver.handle().ask(take).await
    }

    async fn set_ways(&mut self, ways: &BTreeMap<TunnelKey, Way>) -> io::Result<()> {
        let ways = ways.clone();
        let set = move |running: &mut Running| running.device.set_ways(&ways);
        self.driver.handle().ask(set).await
    }

    async fn punch(&self, key: TunnelKey) -> io::Result<()> {
        let punch = move |running: &mut Running| running.device.punch(&key);
        self.driver.handle().ask(punch).await
    }

    /// Sessions end with the old one, so that the next packet makes new ones at
    /// once.
    async fn set_private_key(&mut self, private_key: [u8; 32]) -> io::Result<()> {
        let seed = seed()?;
        let set = move |running: &mut Running| {
            let now = running.device.now;
            running
                .device
                .engine
                .set_private_key(private_key, seed, now);
        };
        self.driver.handle().ask(set).await
    }

    /// Whether its thread gave up, such as where the interface was deleted.
    fn has_failed(&mut self) -> bool {
        self.driver.has_ended()
    }

    /// The interface goes with the thread.
    async fn stop(mut self: Box<Self>) {
        self.driver.end().await;
    }
}

fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    let drawn = aws_lc_rs::rand::fill(&mut seed);
    drawn.map_err(|_| io::Error::other("the system has no randomness"))?;
    Ok(seed)
}

/// Tells the ways apart in which /dev/net/tun fails, before a library does so
/// in fewer words.
fn check_tun() -> Result<(), TunnelError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    match opened {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.raw_os_error().map(Errno::from_raw) {
            // The node is there, and no module behind it.
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => TunnelError::TunMissing,
            Some(Errno::EACCES | Errno::EPERM) => TunnelError::TunForbidden,
            _ => TunnelError::system("open /dev/net/tun", error),
        }),
    }
}

fn tun_error(interface: &str, source: io::Error) -> TunnelError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => TunnelError::Taken {
            interface: interface.to_owned(),
            holder: "another program",
        },
        _ => TunnelError::system("make a TUN interface", source),
    }
}

fn bind_error(port: u16, source: io::Error) -> TunnelError {
    match source.kind() {
        io::ErrorKind::AddrInUse => TunnelError::port_in_use(port),
        _ => TunnelError::system("bind the tunnel's UDP port", source),
    }
}
