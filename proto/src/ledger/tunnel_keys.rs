//! Whose WireGuard key is whose, from rules 1 on (S26). A key belongs to one
//! node; what a node announces only says which of its two keys it uses.

pub use super::extension::NodeKeys;
use super::{refusal::Refusal, state::State};
use crate::{id::NodeId, map::Map, tunnel::TunnelKey};

impl State {
    /// The WireGuard keys of a node.
    pub fn tunnel_keys(&self, node: &NodeId) -> Option<&NodeKeys> {
        self.extension.tunnel.of.get(node)
    }

    /// Whose WireGuard key this is, or was until the change under way.
    pub fn tunnel_key_holder(&self, key: &TunnelKey) -> Option<NodeId> {
        self.extension.tunnel.holders.get(key).copied()
    }

    /// Whether `node` may have the key.
    pub(super) fn check_tunnel_key(&self, node: NodeId, key: TunnelKey) -> Result<(), Refusal> {
        let other = self.tunnel_key_holder(&key).filter(|held| *held != node);
        let is_of_another = other.is_some()
            || self.device_by_key(&key).is_some()
            || self.publish_link_by_key(&key).is_some();
        if is_of_another || key.0 == [0; 32] {
            return Err(Refusal::TunnelKey);
        }
        Ok(())
    }

    /// Gives a node its key; the one that it had stays its own until the next
    /// change.
    pub(super) fn set_tunnel_key(&mut self, node: NodeId, key: TunnelKey) {
        let before = self.tunnel_keys(&node).copied();
        self.free_tunnel_keys(&node);
        let keys = NodeKeys {
            current: key,
            previous: before.map(|before| before.current),
        };
        for key in keys.all() {
            self.extension.tunnel.holders.insert(key, node);
        }
        self.extension.tunnel.of.insert(node, keys);
    }

    /// A node that is no member has no keys. Anybody may have them then, and
    /// gains nothing: packets to that key only the old node can read.
    pub(super) fn free_tunnel_keys(&mut self, node: &NodeId) {
        let Some(keys) = self.tunnel_keys(node).copied() else {
            return;
        };
        for key in keys.all() {
            self.extension.tunnel.holders.remove(&key);
        }
        self.extension.tunnel.of.remove(node);
    }

    /// Whether both ways round say the same, of members only.
    pub(super) fn tunnel_keys_agree(&self) -> bool {
        let mut holders = Map::default();
        let mut count = 0;
        for (node, keys) in self.extension.tunnel.of.iter() {
            for key in keys.all() {
                holders.insert(key, *node);
                count += 1;
            }
        }
        holders.len() == count
            && holders == self.extension.tunnel.holders
            && self
                .extension
                .tunnel
                .of
                .keys()
                .all(|node| self.members.contains_key(node))
    }
}
