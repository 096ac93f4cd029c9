//! Pre-shared keys of the devices that come in by this node: in the ledger they
//! are sealed to its WireGuard key.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use innermesh_proto::tunnel::{PresharedKey, TunnelKey, TunnelPlan, WrappedSecret};

use crate::{host::keys::Keys, node::shared::own_key::OwnKey};

/// Opens them, each once.
pub(crate) struct DeviceSecrets {
    keys: Arc<dyn Keys>,
    own: Arc<OwnKey>,
    opened: Mutex<Opened>,
}

/// By this node's key, the device's, and what is sealed.
type Opened = BTreeMap<(TunnelKey, TunnelKey, Vec<u8>), Option<PresharedKey>>;

impl DeviceSecrets {
    pub fn new(keys: Arc<dyn Keys>, own: Arc<OwnKey>) -> Self {
        Self {
            keys,
            own,
            opened: Mutex::default(),
        }
    }

    /// That of a device by its key; `None` where it isn't sealed to this node's.
    pub fn open(&self, device: &TunnelKey, secret: &WrappedSecret) -> Option<PresharedKey> {
        let secret = self.own.open(&*self.keys, &device.0, &secret.0);
        secret.ok().map(PresharedKey)
    }

    /// Makes peers of a plan's devices. Those whose secret this node can't read are
    /// left out: without it they aren't let in.
    pub fn complete(&self, plan: &mut TunnelPlan) {
        let own = self.own.get();
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody has any more is forgotten.
        let mut used = Opened::new();
        plan.open_devices(|key, device| {
            let place = (own, *key, device.secret.0.clone());
            let known = opened.get(&place).cloned();
            let secret = known.unwrap_or_else(|| self.open(key, &device.secret));
            used.insert(place, secret.clone());
            secret
        });
        *opened = used;
    }
}

#[cfg(test)]
mod tests {
    use innermesh_proto::tunnel::{DevicePeer, TunnelPeer};

    use super::*;
    use crate::{
        host::keys::SystemKeys,
        tunnel::{generate_private_key, public_key},
    };

    #[test]
    fn a_device_becomes_a_peer_by_a_secret_that_is_sealed_to_this_node_and_to_its_key() {
        let private = generate_private_key([7; 32]);
        let own = Arc::new(OwnKey::new(private));
        let secrets = DeviceSecrets::new(Arc::new(SystemKeys), own.clone());
        let [phone, tablet, foreign] = [1, 2, 3].map(|n| TunnelKey([n; 32]));
        let elsewhere = public_key(&generate_private_key([8; 32]));
        let sealed = |to: &TunnelKey, device: &TunnelKey| DevicePeer {
            peer: TunnelPeer::default(),
            sealed_to: *to,
            secret: WrappedSecret(SystemKeys.seal(to, &device.0, &[5; 32]).unwrap()),
        };
        let plan = || TunnelPlan {
            devices: [
                (phone, sealed(&own.get(), &phone)),
                // Taken from the phone's entry.
                (tablet, sealed(&own.get(), &phone)),
                (foreign, sealed(&elsewhere, &foreign)),
            ]
            .into(),
            ..TunnelPlan::default()
        };
        for _ in 0..2 {
            let mut plan = plan();
            secrets.complete(&mut plan);
            let peers: Vec<_> = plan.peers.iter().collect();
            let [(key, peer)] = peers[..] else {
                panic!("{peers:?}");
            };
            assert_eq!(
                (key, &peer.preshared_key),
                (&phone, &Some(PresharedKey([5; 32])))
            );
        }
        let mut plan = plan();
        own.set(&generate_private_key([9; 32]));
        secrets.complete(&mut plan);
        assert!(plan.peers.is_empty() && plan.devices.is_empty());
    }
}
