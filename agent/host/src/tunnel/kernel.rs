//! The kernel's WireGuard interface, which outlives this process.

use std::{collections::BTreeMap, io};

use async_trait::async_trait;
use innermesh_proto::{
    filter::MARK,
    path::Way,
    tunnel::{Step, TunnelKey},
};
use nix::errno::Errno;
use wireguard_control::{DeviceUpdate, InterfaceName, Key};

use super::{
    Device, Reading, TunnelError, TunnelSettings, WallClock, interface::Netlink, kernel_peers,
    kernel_ways::KernelWays, keys,
};

/// The kernel's device of one interface.
pub(super) struct Kernel {
    name: InterfaceName,
    clock: WallClock,
    ways: KernelWays,
}

impl Kernel {
    /// Makes the interface, or takes over the one that an earlier run left: its
    /// peers and routes stay in force until the first plan.
    pub(super) async fn open(
        netlink: &Netlink,
        name: InterfaceName,
        settings: &TunnelSettings,
        clock: WallClock,
    ) -> Result<Self, TunnelError> {
        open(netlink, name, settings).await?;
        let ways = KernelWays::start(name, clock.clone(), settings.relayed.clone());
        Ok(Self { name, clock, ways })
    }
}

#[async_trait]
impl Device for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }

    async fn read(&self) -> Result<Reading, TunnelError> {
        let mut reading = kernel_peers::read(self.name, (self.clock)()).await?;
        self.ways.explain(&mut reading);
        Ok(reading)
    }

    async fn take_steps(&mut self, steps: &[Step]) -> io::Result<()> {
        kernel_peers::take_steps(self.name, steps).await
    }

    async fn set_ways(&mut self, ways: &BTreeMap<TunnelKey, Way>) -> io::Result<()> {
        self.ways.set(ways);
        Ok(())
    }

    async fn punch(&self, key: TunnelKey) -> io::Result<()> {
        let reading = kernel_peers::read(self.name, 0).await;
        let port = reading.map_err(io::Error::other)?.listen_port;
        self.ways.punch(&key, port);
        Ok(())
    }

    async fn set_private_key(&mut self, private_key: [u8; 32]) -> io::Result<()> {
        let update = DeviceUpdate::new().set_private_key(Key(private_key));
        kernel_peers::update(self.name, update).await
    }

    /// It ends with its interface, which is looked at anyway.
    fn has_failed(&mut self) -> bool {
        false
    }

    async fn stop(self: Box<Self>) {}
}

async fn open(
    netlink: &Netlink,
    name: InterfaceName,
    settings: &TunnelSettings,
) -> Result<(), TunnelError> {
    let found = netlink
        .link(&settings.interface)
        .await
        .map_err(|source| TunnelError::system("look for the interface", source))?;
    let taken = |holder| TunnelError::Taken {
        interface: settings.interface.clone(),
        holder,
    };
    match found {
        Some(link) if !link.wireguard => Err(taken("another program")),
        Some(_) => {
            let own = keys::public_key(&settings.private_key);
            let reading = kernel_peers::read(name, 0).await?;
            let ours = |key: TunnelKey| key == own || Some(key) == settings.earlier_key;
            if reading.public_key.is_some_and(|key| !ours(key)) {
                return Err(taken("another WireGuard configuration"));
            }
            configure(name, settings, reading.listen_port).await
        }
        None => {
            netlink
                .create_wireguard(&settings.interface)
                .await
                .map_err(creation_error)?;
            let configured = configure(name, settings, 0).await;
            if configured.is_err() {
                // So that a failed start leaves nothing behind.
                let _ = netlink.delete(&settings.interface).await;
            }
            configured
        }
    }
}

/// The port is bound at once where the interface is up, else when it goes up.
async fn configure(
    name: InterfaceName,
    settings: &TunnelSettings,
    listen_port: u16,
) -> Result<(), TunnelError> {
    let mut update = DeviceUpdate::new()
        .set_private_key(Key(settings.private_key))
        // What it sends to peers never goes by an exit.
        .set_fwmark(MARK);
    if listen_port != settings.listen_port {
        update = update.set_listen_port(settings.listen_port);
    }
    kernel_peers::update(name, update)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => TunnelError::port_in_use(settings.listen_port),
            _ => TunnelError::system("configure the WireGuard interface", source),
        })
}

fn creation_error(source: io::Error) -> TunnelError {
    match source.raw_os_error().map(Errno::from_raw) {
        // "Unknown device type": neither built in nor a module that loads.
        Some(Errno::EOPNOTSUPP) => TunnelError::NoKernelWireGuard,
        _ => TunnelError::system("make a WireGuard interface", source),
    }
}
