//! Devices without an agent, such as phones: what the ledger says of them, from
//! rules 4 on.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    crypto::Hash,
    id::{MeshId, NodeId},
    name::Label,
    tunnel::{TunnelKey, WrappedSecret},
};

/// Identity of a device: the first 16 bytes of SHA-256 of the first WireGuard key
/// that it had. It stays when the key changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId(pub [u8; 16]);

impl DeviceId {
    /// Of a device with this as its first key.
    pub fn of(key: &TunnelKey) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&Hash::of(&key.0).0[..16]);
        Self(id)
    }

    /// Its overlay IPv6 address, made as a node's is.
    pub fn ipv6(&self, mesh: &MeshId) -> Ipv6Addr {
        NodeId(self.0).ipv6(mesh)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&NodeId(self.0), f)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device:{:.8}", self.to_string())
    }
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub name: Label,
    /// The member whose it is; it goes when that one does.
    pub owner: NodeId,
    pub key: TunnelKey,
    /// The key that takes the place of the other at its first handshake.
    pub next: Option<NextKey>,
    /// Its overlay addresses.
    pub ipv4: Ipv4Addr,
    /// As `ipv4`.
    pub ipv6: Ipv6Addr,
    /// What its configuration says.
    pub profile: Profile,
    /// Groups of the policy that it is in.
    pub groups: BTreeSet<Label>,
    /// In milliseconds of ledger time.
    pub added_ms: u64,
    /// When it goes by itself, in milliseconds of ledger time.
    pub expires_ms: Option<u64>,
}

/// A key that a device is to have, with the configuration that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextKey {
    pub key: TunnelKey,
    pub profile: Profile,
}

/// What a device's configuration says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The gateways that take it in, with a configuration for each.
    pub gateways: BTreeMap<NodeId, GatewayProfile>,
    /// Networks beyond the overlay that it sends to a gateway and may reach.
    pub routes: BTreeSet<IpNet>,
    /// Whether it sends everything to the gateway.
    pub full_tunnel: bool,
    /// Whether it asks the mesh's resolver.
    pub dns: bool,
}

/// What a device's configuration says of one gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayProfile {
    /// The gateway's WireGuard key.
    pub key: TunnelKey,
    /// `HOST:PORT`, where the device looks for it.
    pub endpoint: String,
    /// What only that gateway can open.
    pub secret: WrappedSecret,
}

/// Asks for a device more; the author's own or, by an admin, another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddDevice {
    pub name: Label,
    pub owner: NodeId,
    pub key: TunnelKey,
    pub profile: Profile,
    pub groups: BTreeSet<Label>,
    /// In milliseconds of ledger time.
    pub expires_ms: Option<u64>,
}

/// Asks for something about a device to be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeDevice {
    pub device: DeviceId,
    pub change: DeviceChange,
}

/// What may change of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceChange {
    Rename(Label),
    /// It gets a new key; until that is seen in use the one that it has counts too.
    Renew(NextKey),
    /// A gateway saw the next key in use.
    Switched(TunnelKey),
    /// Its configuration is another one.
    Profile(Profile),
    Groups(BTreeSet<Label>),
    Expires(Option<u64>),
}

impl Device {
    /// The keys that count, each with its configuration.
    pub fn keys(&self) -> impl Iterator<Item = (TunnelKey, &Profile)> {
        let next = self.next.iter().map(|next| (next.key, &next.profile));
        std::iter::once((self.key, &self.profile)).chain(next)
    }

    pub fn addresses(&self) -> [IpAddr; 2] {
        [IpAddr::V4(self.ipv4), IpAddr::V6(self.ipv6)]
    }

    /// The gateways that take it in, by either key.
    pub fn gateways(&self) -> BTreeSet<NodeId> {
        let profiles = self.keys().map(|(_, profile)| profile);
        profiles
            .flat_map(|profile| profile.gateways.keys().copied())
            .collect()
    }
}

/// What a gateway says of a device whose tunnel it has open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSeen {
    /// By which of its keys.
    pub key: TunnelKey,
    /// Seconds since its newest handshake, when this was said.
    pub age_s: u32,
    /// Where its packets come from.
    pub endpoint: Option<SocketAddr>,
    /// Bytes from it and to it.
    pub received: u64,
    pub sent: u64,
}

/// Who has an address of the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Node(NodeId),
    Device(DeviceId),
}
