//! What a tunnel is opened with.

use std::fmt;

use innermesh_proto::tunnel::TunnelKey;
use serde::{Deserialize, Serialize};

use super::relayed::Relayed;

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
    /// Whether the embedded device lets the kernel cut and join packets, where it can.
    pub offloads: bool,
    /// What goes by relays.
    pub relayed: Relayed,
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
            offloads: true,
            relayed: Relayed::default(),
        };
        let text = format!("{settings:?}");
        assert!(text.contains("mesh0") && !text.contains("171"), "{text}");
    }
}
