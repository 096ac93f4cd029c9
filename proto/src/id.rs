//! Identities: of a mesh and of a node, and the addresses that follow from them.

use std::{
    cmp::Ordering,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use data_encoding::BASE32_NOPAD;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::crypto::Hash;

/// Identity of a mesh: SHA-256 of its root certificate's SubjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MeshId(pub [u8; 32]);

/// Identity of a node: the first 16 bytes of SHA-256 of its Ed25519
/// SubjectPublicKeyInfo; written as 26 characters of lower-case base32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 16]);

/// As the bytes are ordered, but compared as one number: every map of nodes
/// is searched by it.
impl Ord for NodeId {
    fn cmp(&self, other: &Self) -> Ordering {
        u128::from_be_bytes(self.0).cmp(&u128::from_be_bytes(other.0))
    }
}

impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl MeshId {
    /// From the root's SubjectPublicKeyInfo in DER.
    pub fn of_root(spki: &[u8]) -> Self {
        Self(Hash::of(spki).0)
    }

    /// The mesh's IPv6 overlay: a unique local /48 (RFC 4193 §3.2), its global
    /// id the first 40 bits of the mesh id.
    pub fn ula(&self) -> Ipv6Net {
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&self.0[..5]);
        Ipv6Net::new(Ipv6Addr::from(octets), 48).expect("48 is a prefix length")
    }

    /// The `attempt`th choice of an IPv4 overlay: a /16 within 10/8.
    pub fn ipv4_net(&self, attempt: u8) -> Ipv4Net {
        let mut seed = self.0.to_vec();
        seed.push(attempt);
        // 10.0/16 and 10.1/16 are what home routers hand out; keep clear of them.
        let second = 2 + Hash::of(&seed).0[0] % 254;
        Ipv4Net::new(Ipv4Addr::new(10, second, 0, 0), 16).expect("16 is a prefix length")
    }

    /// The address on which every node's resolver answers, IPv6.
    pub fn resolver_v6(&self) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.ula().network()) | 0x53)
    }
}

/// The address on which every node's resolver answers, IPv4: `<net>.0.53`.
pub fn resolver_v4(net: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()) | 53)
}

impl NodeId {
    /// The node's overlay IPv6 address: the mesh's /48, then the first 80 bits
    /// of the node id. It needs no assignment, and a second key for the same
    /// address costs 2^80 work.
    pub fn ipv6(&self, mesh: &MeshId) -> Ipv6Addr {
        let mut octets = mesh.ula().network().octets();
        octets[6..].copy_from_slice(&self.0[..10]);
        Ipv6Addr::from(octets)
    }
}

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mesh:{}", data_encoding::HEXLOWER.encode(&self.0[..6]))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.8}", self.to_string())
    }
}

/// Not 26 characters of base32.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a node id: 26 characters of base32 were expected")]
pub struct NodeIdError;

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(s: &str) -> Result<Self, NodeIdError> {
        if s.len() != 26
            || !s
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        {
            return Err(NodeIdError);
        }
        let bytes = BASE32_NOPAD
            .decode(s.to_ascii_uppercase().as_bytes())
            .map_err(|_| NodeIdError)?;
        Ok(Self(bytes.try_into().map_err(|_| NodeIdError)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_survives_its_text_and_only_that_text() {
        let id = NodeId([0xa5; 16]);
        let text = id.to_string();
        assert_eq!(text.len(), 26);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse::<NodeId>(), Err(NodeIdError));
        assert_eq!("".parse::<NodeId>(), Err(NodeIdError));
    }

    #[test]
    fn overlay_addresses_lie_in_the_mesh_ranges() {
        let mesh = MeshId([9; 32]);
        assert!(mesh.ula().contains(&NodeId([3; 16]).ipv6(&mesh)));
        assert!(mesh.ula().contains(&mesh.resolver_v6()));
        for attempt in 0..20 {
            let net = mesh.ipv4_net(attempt);
            assert_eq!(net.network().octets()[0], 10);
            assert!(net.network().octets()[1] >= 2);
            assert_eq!(resolver_v4(net).octets()[2..], [0, 53]);
        }
    }
}
