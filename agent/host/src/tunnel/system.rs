//! A real interface, over whichever device there is.
//!
//! Owns the order in which the parts are changed, and the memory of which
//! endpoints were set.

use std::{collections::BTreeMap, io, net::SocketAddr};

use async_trait::async_trait;
use innermesh_proto::tunnel::{Step, TunnelKey, TunnelPlan, steps};
use tokio::sync::Mutex;
use wireguard_control::InterfaceName;

use super::{
    Applied, BackendChoice, Device, Tunnel, TunnelError, TunnelSettings, TunnelState, WallClock,
    embedded::Embedded,
    interface::{Changed, Link, Netlink},
    kernel::Kernel,
};

pub(super) struct System {
    name: InterfaceName,
    /// But for the private key, which is `Inner`'s.
    settings: TunnelSettings,
    clock: WallClock,
    netlink: Netlink,
    /// One change at a time: two interleaved could give an address twice.
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    private_key: [u8; 32],
    device: Option<Box<dyn Device>>,
    /// The endpoints of the last plan that was applied whole.
    set_before: BTreeMap<TunnelKey, SocketAddr>,
    warned_of_ipv6: bool,
}

impl System {
    pub(super) async fn open(
        settings: TunnelSettings,
        clock: WallClock,
    ) -> Result<Self, TunnelError> {
        let system = Self {
            name: interface_name(&settings.interface)?,
            settings,
            clock,
            netlink: Netlink::open()
                .map_err(|source| TunnelError::system("ask the kernel for interfaces", source))?,
            inner: Mutex::default(),
        };
        let private_key = system.settings.private_key;
        let device = system.make(private_key).await?;
        {
            let mut inner = system.inner.lock().await;
            inner.private_key = private_key;
            inner.device = Some(device);
        }
        Ok(system)
    }

    /// Makes the interface and brings it up, so that a taken port shows at once.
    async fn make(&self, private_key: [u8; 32]) -> Result<Box<dyn Device>, TunnelError> {
        let settings = TunnelSettings {
            private_key,
            ..self.settings.clone()
        };
        let kernel = match self.settings.backend {
            BackendChoice::Embedded | BackendChoice::None => Err(TunnelError::NoKernelWireGuard),
            BackendChoice::Auto | BackendChoice::Kernel => {
                Kernel::open(&self.netlink, self.name, &settings, self.clock.clone()).await
            }
        };
        let device: Box<dyn Device> = match kernel {
            Ok(kernel) => Box::new(kernel),
            Err(TunnelError::NoKernelWireGuard)
                if self.settings.backend != BackendChoice::Kernel =>
            {
                Box::new(self.make_embedded(&settings).await?)
            }
            Err(error) => return Err(error),
        };
        if let Err(error) = self.bring_up(&*device).await {
            self.unmake(device).await?;
            return Err(error);
        }
        Ok(device)
    }

    async fn make_embedded(&self, settings: &TunnelSettings) -> Result<Embedded, TunnelError> {
        self.refuse_foreign_link().await?;
        let opened = Embedded::open(self.name, settings, &self.clock).await;
        match &opened {
            Ok(_) | Err(TunnelError::Taken { .. }) => {}
            // The device's tasks hold the interface for a moment longer, and
            // the next attempt would take it for somebody else's.
            Err(_) => {
                let _ = self.netlink.delete(&self.settings.interface).await;
            }
        }
        opened
    }

    /// An embedded device's interface ends with its process: one that is there
    /// is somebody else's.
    async fn refuse_foreign_link(&self) -> Result<(), TunnelError> {
        match self.find_link().await? {
            Some(link) => Err(TunnelError::Taken {
                interface: self.settings.interface.clone(),
                holder: if link.wireguard {
                    "the kernel's WireGuard"
                } else {
                    "another program"
                },
            }),
            None => Ok(()),
        }
    }

    /// Takes the interface away; waits until the kernel has let it go.
    async fn unmake(&self, device: Box<dyn Device>) -> Result<(), TunnelError> {
        device.stop().await;
        self.netlink
            .delete(&self.settings.interface)
            .await
            .map_err(|source| TunnelError::system("delete the interface", source))
    }

    /// Returns the interface's index, and whether it wasn't up as it should be.
    async fn bring_up(&self, device: &dyn Device) -> Result<(u32, bool), TunnelError> {
        let link = self.find_link().await?.ok_or(TunnelError::Down)?;
        let mtu = device.mtu(self.settings.mtu);
        if link.up && link.mtu == mtu {
            return Ok((link.index, false));
        }
        self.netlink
            .bring_up(link.index, mtu)
            .await
            .map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => TunnelError::port_in_use(self.settings.listen_port),
                _ => TunnelError::system("bring the interface up", source),
            })?;
        Ok((link.index, true))
    }

    async fn find_link(&self) -> Result<Option<Link>, TunnelError> {
        self.netlink
            .link(&self.settings.interface)
            .await
            .map_err(|source| TunnelError::system("look for the interface", source))
    }

    /// Brings back an interface that was taken down, deleted by somebody, or
    /// whose device gave up.
    async fn ensure(&self, inner: &mut Inner) -> Result<bool, TunnelError> {
        let device = inner.device.as_mut();
        let carries = device.is_some_and(|device| !device.has_failed());
        if carries && self.find_link().await?.is_some() {
            return Ok(false);
        }
        if let Some(device) = inner.device.take() {
            self.unmake(device).await?;
        }
        inner.set_before.clear();
        inner.device = Some(self.make(inner.private_key).await?);
        Ok(true)
    }
}

#[async_trait]
impl Tunnel for System {
    async fn apply(&self, plan: &TunnelPlan) -> Result<Applied, TunnelError> {
        if let Some(overlap) = plan.overlap() {
            return Err(TunnelError::Overlap(Box::new(overlap)));
        }
        let mut inner = self.inner.lock().await;
        let made = self.ensure(&mut inner).await?;
        let Inner {
            device, set_before, ..
        } = &mut *inner;
        let device = device.as_mut().ok_or(TunnelError::Down)?;
        let (index, raised) = self.bring_up(&**device).await?;

        let reading = device.read().await?;
        let installed = reading
            .peers
            .into_iter()
            .map(|(key, (peer, _))| (key, peer));
        let steps = steps(plan, &installed.collect(), set_before);
        let (take, give) = steps.split_at(steps.partition_point(Step::takes));

        device.take_steps(take).await.map_err(unchanged_peers)?;
        let addresses = self
            .netlink
            .set_addresses(index, plan)
            .await
            .map_err(|source| TunnelError::system("set the interface's addresses", source))?;
        device.take_steps(give).await.map_err(unchanged_peers)?;
        device.set_ways(&plan.ways).await.map_err(unchanged_peers)?;
        let routes = self
            .netlink
            .set_routes(index, plan)
            .await
            .map_err(|source| TunnelError::system("set the tunnel's routes", source))?;

        inner.set_before = endpoints(plan);
        inner.warn_of_ipv6(&self.settings.interface, [&addresses, &routes]);
        Ok(Applied {
            addresses: addresses.count,
            routes: routes.count,
            interface: made || raised,
            ..Applied::of(&steps)
        })
    }

    async fn observe(&self) -> Result<TunnelState, TunnelError> {
        let inner = self.inner.lock().await;
        let device = inner.device.as_ref().ok_or(TunnelError::Down)?;
        let reading = device.read().await?;
        Ok(TunnelState {
            backend: device.name(),
            listen_port: reading.listen_port,
            peers: reading
                .peers
                .into_iter()
                .map(|(key, (_, state))| (key, state))
                .collect(),
        })
    }

    async fn set_private_key(&self, private_key: [u8; 32]) -> Result<(), TunnelError> {
        let mut inner = self.inner.lock().await;
        if let Some(device) = &mut inner.device {
            let changed = device.set_private_key(private_key).await;
            changed.map_err(|source| TunnelError::system("change the tunnel's key", source))?;
        }
        inner.private_key = private_key;
        Ok(())
    }

    async fn punch(&self, key: TunnelKey) -> Result<(), TunnelError> {
        let inner = self.inner.lock().await;
        let device = inner.device.as_ref().ok_or(TunnelError::Down)?;
        device.punch(key).await.map_err(unchanged_peers)
    }

    async fn down(&self) -> Result<(), TunnelError> {
        let mut inner = self.inner.lock().await;
        inner.set_before.clear();
        match inner.device.take() {
            Some(device) => self.unmake(device).await,
            None => Ok(()),
        }
    }
}

impl Inner {
    fn warn_of_ipv6(&mut self, interface: &str, changes: [&Changed; 2]) {
        let Some(error) = changes
            .into_iter()
            .find_map(|change| change.no_ipv6.as_ref())
        else {
            return;
        };
        if !std::mem::replace(&mut self.warned_of_ipv6, true) {
            tracing::warn!(
                interface,
                %error,
                "IPv6 is switched off on this host, so the overlay is reached by IPv4 only here; \
                 `sysctl net.ipv6.conf.all.disable_ipv6` shows whether that is meant"
            );
        }
    }
}

fn unchanged_peers(source: io::Error) -> TunnelError {
    TunnelError::system("change the tunnel's peers", source)
}

fn endpoints(plan: &TunnelPlan) -> BTreeMap<TunnelKey, SocketAddr> {
    plan.peers
        .iter()
        .filter_map(|(key, peer)| Some((*key, peer.endpoint?)))
        .collect()
}

/// Stricter than the kernel: the name is also a file's, and a word on the
/// command lines that messages print.
fn interface_name(name: &str) -> Result<InterfaceName, TunnelError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.parse()
        .ok()
        .filter(|_| name.chars().all(plain) && !name.starts_with('-'))
        .ok_or_else(|| TunnelError::Name(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_options_or_too_long_are_refused() {
        for name in [
            "",
            "..",
            "a/b",
            "a b",
            "-x",
            "sixteen-letters-",
            "ü",
            "wg%d",
        ] {
            assert!(
                matches!(interface_name(name), Err(TunnelError::Name(_))),
                "{name}"
            );
        }
        for name in ["innermesh0", "fifteen-letters", "_"] {
            assert!(interface_name(name).is_ok(), "{name}");
        }
    }
}
