//! A WireGuard device in this process, for kernels without one.
//!
//! Owns the TUN interface's file descriptor, the UDP socket and the device's
//! control socket: all end with the process. The agent drives the device
//! directly; its socket is for `wg` only.

#![allow(
    clippy::disallowed_methods,
    reason = "the device node and the control socket are the backend itself, which the simulation replaces as a whole"
)]

use std::{collections::BTreeSet, fs::OpenOptions, io, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt;
use gotatun::{
    device::{
        Device as Gotatun, DeviceBuilder, Error, Peer,
        configure::{PeerMut, PeerStats},
        uapi::UapiServer,
    },
    tun::tun_async_device::{self, TunDevice},
    x25519,
};
use innermesh_proto::tunnel::{InstalledPeer, PresharedKey, Step, TunnelKey, TunnelPeer};
use ipnet::IpNet;
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use wireguard_control::InterfaceName;

use super::{
    Device, PeerState, Reading, TunnelError, TunnelSettings, device, socket,
    socket::Socket,
    udp::{NOWHERE, Sockets},
};

/// How often, and after which pause, a port is bound again that the device
/// itself had.
const REBINDS: u32 = 100;
const REBIND: Duration = Duration::from_millis(20);

/// A running device.
pub(super) struct Embedded {
    device: Gotatun<(Sockets, TunDevice, TunDevice)>,
    _socket: Socket,
}

impl Embedded {
    /// Makes the interface and binds its port.
    pub(super) async fn open(
        name: InterfaceName,
        settings: &TunnelSettings,
    ) -> Result<Self, TunnelError> {
        socket::refuse_if_answered(&name)?;
        check_tun()?;
        let (client, server) = UapiServer::new();
        let device = DeviceBuilder::new()
            .with_udp(Sockets::default())
            .create_tun(&settings.interface)
            .map_err(|error| tun_error(&settings.interface, error))?
            .with_uapi(server)
            .build()
            .await
            .map_err(|error| device_error(settings, error))?;
        // Not left to the builder, which binds the port only with a first peer.
        let key = x25519::StaticSecret::from(settings.private_key);
        device
            .write(async move |device| {
                device.set_private_key(key).await;
                device.set_listen_port(settings.listen_port);
            })
            .await
            .map_err(|error| device_error(settings, error))?;
        Ok(Self {
            device,
            _socket: Socket::open(name, client),
        })
    }
}

#[async_trait]
impl Device for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    async fn read(&self) -> Result<Reading, TunnelError> {
        let (public_key, listen_port, peers) = self
            .device
            .read(async |device| {
                let key = device.private_key().map(x25519::PublicKey::from);
                (key, device.listen_port(), device.peers().await)
            })
            .await;
        Ok(Reading {
            public_key: public_key.map(|key| TunnelKey(key.to_bytes())),
            listen_port,
            peers: peers.iter().map(seen).collect(),
        })
    }

    /// A peer that stays is changed in place: one that is replaced loses its
    /// session, and the other end, unaware, would be deaf for up to 15 s.
    async fn take_steps(&mut self, steps: &[Step]) -> io::Result<()> {
        let steps = steps.to_vec();
        if steps.is_empty() {
            return Ok(());
        }
        self.device
            .write(async move |device| {
                for step in steps {
                    let key = x25519::PublicKey::from(step.key().0);
                    match step {
                        Step::Remove(_) => {
                            device.remove_peer(&key).await;
                        }
                        Step::Add(_, peer) => {
                            device.add_peer(added(key, peer));
                        }
                        step => {
                            device.modify_peer(&key, |peer| edit(peer, step)).await;
                        }
                    }
                }
            })
            .await
            .map_err(io::Error::other)
    }

    /// Sessions end with the old one, so that the next packet makes new ones at
    /// once.
    async fn set_private_key(&mut self, private_key: [u8; 32]) -> io::Result<()> {
        let key = x25519::StaticSecret::from(private_key);
        self.device.suspend().await;
        let changed = self.device.set_private_key(key.clone()).await;
        changed.map_err(io::Error::other)?;
        let resumed = self.device.resume().await.is_ok();
        if resumed && !self.device.peers().await.is_empty() {
            return Ok(());
        }
        // The device lets its port go a moment after it has stopped, and
        // without peers it doesn't bind it by itself.
        let mut tries = 0;
        loop {
            let key = key.clone();
            let bound = self.device.write(async move |device| {
                // It binds the port only where the key changes.
                let other = x25519::StaticSecret::from([1; 32]);
                device.set_private_key(other).await;
                device.set_private_key(key).await;
            });
            match bound.await {
                Ok(()) => return Ok(()),
                Err(error) if tries == REBINDS => return Err(io::Error::other(error)),
                Err(_) => {
                    tries += 1;
                    tokio::time::sleep(REBIND).await;
                }
            }
        }
    }

    /// Whether one of its tasks gave up, such as on an error of its socket: the
    /// rest then stays without carrying packets.
    fn has_failed(&mut self) -> bool {
        self.device.wait().now_or_never().is_some()
    }

    /// The interface goes with the last of its tasks.
    async fn stop(self: Box<Self>) {
        self.device.stop().await;
    }
}

fn seen(found: &PeerStats) -> (TunnelKey, (InstalledPeer, PeerState)) {
    let (peer, stats) = (&found.peer, &found.stats);
    let nets = peer.allowed_ips.iter();
    let endpoint = peer.endpoint.filter(|endpoint| *endpoint != NOWHERE);
    let installed = InstalledPeer {
        allowed_ips: nets
            .filter_map(|net| IpNet::new(net.ip(), net.prefix()).ok())
            .collect(),
        endpoint,
        keepalive_s: peer.keepalive.filter(|seconds| *seconds > 0),
        preshared_key: peer
            .preshared_key
            .filter(|key| *key != [0; 32])
            .map(PresharedKey),
        alive: stats.last_handshake.is_some_and(device::is_session),
    };
    let state = PeerState {
        endpoint,
        last_handshake: stats.last_handshake,
        rx_bytes: stats.rx_bytes as u64,
        // What goes nowhere isn't sent.
        tx_bytes: endpoint.map_or(0, |_| stats.tx_bytes as u64),
    };
    let key = TunnelKey(peer.public_key.to_bytes());
    (key, (installed, state))
}

fn added(key: x25519::PublicKey, planned: TunnelPeer) -> Peer {
    let mut peer = Peer::new(key).with_allowed_ips(networks(planned.allowed_ips));
    peer.endpoint = Some(planned.endpoint.unwrap_or(NOWHERE));
    peer.keepalive = planned.keepalive_s;
    peer.preshared_key = planned.preshared_key.map(|secret| secret.0);
    peer
}

fn edit(peer: &mut PeerMut, step: Step) {
    match step {
        Step::Narrow(_, keep) => {
            peer.clear_allowed_ips();
            peer.add_allowed_ips(networks(keep));
        }
        Step::Change(_, change) => {
            peer.add_allowed_ips(networks(change.allow));
            if change.endpoint.is_some() {
                peer.set_endpoint(change.endpoint);
            }
            if let Some(keepalive) = change.keepalive_s {
                peer.set_keepalive(keepalive);
            }
            if let Some(secret) = change.preshared_key {
                peer.set_preshared_key(secret.map(|secret| secret.0));
            }
        }
        Step::Remove(_) | Step::Add(..) => {}
    }
}

fn networks(nets: BTreeSet<IpNet>) -> impl Iterator<Item = IpNetwork> {
    nets.into_iter()
        .filter_map(|net| IpNetwork::new(net.addr(), net.prefix_len()).ok())
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

fn tun_error(interface: &str, error: Error) -> TunnelError {
    let source = match error {
        Error::TunDevice(tun_async_device::Error::OpenTun(error)) => io::Error::from(error),
        other => io::Error::other(other),
    };
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => TunnelError::Taken {
            interface: interface.to_owned(),
            holder: "another program",
        },
        _ => TunnelError::system("make a TUN interface", source),
    }
}

fn device_error(settings: &TunnelSettings, error: Error) -> TunnelError {
    match error {
        Error::Bind(source, _) if source.kind() == io::ErrorKind::AddrInUse => {
            TunnelError::port_in_use(settings.listen_port)
        }
        Error::Bind(source, _) => TunnelError::system("bind the tunnel's UDP port", source),
        other => TunnelError::system("start the tunnel device", io::Error::other(other)),
    }
}
