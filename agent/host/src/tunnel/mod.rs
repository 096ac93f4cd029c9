//! The WireGuard side of the mesh: makes one interface equal to a
//! [`TunnelPlan`].
//!
//! Owns the interface, its addresses and the routes through it. Must not know
//! why a peer is in the plan, and never filters or masquerades (S23).
//!
//! Two backends are driven alike: the kernel's WireGuard where there is one
//! (its routes survive a restart of the agent), and otherwise a device in this
//! process behind the socket that `wg` knows. [`Recorded`] stands in for both
//! where no interface is wanted.

mod device;
mod embedded;
mod error;
pub(crate) mod interface;
mod kernel;
mod keys;
mod recorded;
pub mod routes;
mod socket;
mod system;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use innermesh_proto::tunnel::{Step, TunnelKey, TunnelPlan};
use serde::{Deserialize, Serialize};

pub use self::{
    error::TunnelError,
    keys::{generate_private_key, public_key},
    recorded::Recorded,
};

/// Settings that don't change while the interface is up.
#[derive(Clone)]
pub struct TunnelSettings {
    /// The interface's name, 1 to 15 bytes. Userspace sockets are named after
    /// it and shared by all network namespaces of a host.
    pub interface: String,
    /// This node's WireGuard private key.
    pub private_key: [u8; 32],
    /// The public key that an interface of an earlier run may have instead,
    /// where a change of key was cut short.
    pub earlier_key: Option<TunnelKey>,
    /// UDP port that peers reach.
    pub listen_port: u16,
    /// Largest packet through the tunnel, in bytes.
    pub mtu: u32,
    /// What carries the packets.
    pub backend: BackendChoice,
}

impl fmt::Debug for TunnelSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelSettings")
            .field("interface", &self.interface)
            .field("listen_port", &self.listen_port)
            .field("mtu", &self.mtu)
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

/// The MTU that passes everywhere IPv6 does, and the smallest that IPv6 takes.
pub const DEFAULT_MTU: u32 = 1280;

/// What carries the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// The kernel's WireGuard where there is one, otherwise the embedded device.
    #[default]
    Auto,
    /// The kernel's WireGuard or none.
    Kernel,
    /// A device in this process.
    Embedded,
    /// No interface: plans are recorded only.
    None,
}

/// The effect: makes the world equal to a plan, whole and idempotently.
#[async_trait]
pub trait Tunnel: Send + Sync {
    /// Makes the interface equal to `plan`. A second time changes nothing. An
    /// interface that was taken down, or deleted by somebody, comes back.
    ///
    /// # Errors
    /// What was done before the error stands and is never unsafe: addresses
    /// are taken before they are given. Applying again goes on from there.
    async fn apply(&self, plan: &TunnelPlan) -> Result<Applied, TunnelError>;

    /// What the interface knows of its peers.
    ///
    /// # Errors
    /// Where it can't be read, such as after [`Tunnel::down`].
    async fn observe(&self) -> Result<TunnelState, TunnelError>;

    /// Gives the interface another private key; peers, addresses and routes
    /// stay. With the same one nothing changes.
    ///
    /// # Errors
    /// It has the old one still; calling again is fine.
    async fn set_private_key(&self, private_key: [u8; 32]) -> Result<(), TunnelError>;

    /// Takes the interface away, with its routes.
    ///
    /// # Errors
    /// The interface may still be there; calling again is fine.
    async fn down(&self) -> Result<(), TunnelError>;
}

/// How much an apply changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Peers that weren't there.
    pub peers_added: usize,
    /// Peers that are gone.
    pub peers_removed: usize,
    /// Peers that stayed, with other settings.
    pub peers_changed: usize,
    /// Addresses of the interface added or removed.
    pub addresses: usize,
    /// Routes through the interface added or removed.
    pub routes: usize,
    /// Whether the interface had to be made, brought up or given its MTU.
    pub interface: bool,
}

impl Applied {
    /// Whether anything changed.
    pub fn changed(&self) -> bool {
        *self != Self::default()
    }

    /// Counts peers, each once: one that gives and takes has changed once.
    pub fn of(steps: &[Step]) -> Self {
        let mut applied = Self::default();
        let mut changed = BTreeSet::new();
        for step in steps {
            match step {
                Step::Remove(_) => applied.peers_removed += 1,
                Step::Add(..) => applied.peers_added += 1,
                Step::Narrow(key, _) | Step::Change(key, _) => {
                    changed.insert(*key);
                }
            }
        }
        applied.peers_changed = changed.len();
        applied
    }
}

/// What the interface knows of its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelState {
    /// "kernel", "embedded" or "none".
    pub backend: &'static str,
    /// UDP port that it listens on.
    pub listen_port: u16,
    /// Peers by key.
    pub peers: BTreeMap<TunnelKey, PeerState>,
}

/// What the interface knows of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerState {
    /// Where its packets go: set by the plan, or learned from its last
    /// authentic packet.
    pub endpoint: Option<SocketAddr>,
    /// Time since its last handshake by the host's wall clock, which may jump.
    pub last_handshake: Option<Duration>,
    /// Bytes received from it since it was added.
    pub rx_bytes: u64,
    /// Bytes sent to it since it was added.
    pub tx_bytes: u64,
}

/// The host's wall clock, in milliseconds since 1970: handshakes are told by it.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Brings the interface up without peers, after clearing what a crash left:
/// a kernel interface with this key is taken over as it stands, a dead
/// process's socket is removed.
///
/// # Errors
/// Each says what to change on the host; the interface isn't up then.
pub async fn open(
    settings: TunnelSettings,
    clock: WallClock,
) -> Result<Arc<dyn Tunnel>, TunnelError> {
    match settings.backend {
        BackendChoice::None => Ok(Arc::new(Recorded::new(settings.listen_port))),
        _ => Ok(Arc::new(system::System::open(settings, clock).await?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_named_in_lower_case() {
        #[derive(Deserialize)]
        struct Section {
            backend: BackendChoice,
        }
        for (name, backend) in [
            ("auto", BackendChoice::Auto),
            ("kernel", BackendChoice::Kernel),
            ("embedded", BackendChoice::Embedded),
            ("none", BackendChoice::None),
        ] {
            let section: Section = toml::from_str(&format!("backend = \"{name}\"")).unwrap();
            assert_eq!(section.backend, backend);
        }
    }

    #[test]
    fn settings_are_printed_without_the_private_key() {
        let settings = TunnelSettings {
            interface: "mesh0".to_owned(),
            private_key: [0xab; 32],
            earlier_key: None,
            listen_port: 51820,
            mtu: DEFAULT_MTU,
            backend: BackendChoice::Auto,
        };
        let text = format!("{settings:?}");
        assert!(text.contains("mesh0") && !text.contains("171"), "{text}");
    }
}
