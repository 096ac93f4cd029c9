//! A device without packets: it remembers its peers, as a device does, step by
//! step.

#![allow(missing_docs, reason = "the names say it")]

use std::{collections::BTreeMap, io};

use async_trait::async_trait;
use innermesh_proto::tunnel::{InstalledPeer, Step, TunnelKey};

use super::{Device, PeerState, Reading, TunnelError, keys};

/// Remembers what it was told.
#[derive(Clone, Debug, Default)]
pub struct MemoryDevice {
    public_key: Option<TunnelKey>,
    listen_port: u16,
    peers: BTreeMap<TunnelKey, InstalledPeer>,
}

impl MemoryDevice {
    /// One without peers that reports `listen_port` as its own; nothing is bound.
    pub fn new(listen_port: u16) -> Self {
        Self {
            listen_port,
            ..Self::default()
        }
    }

    /// Its peers; none of them is ever heard.
    pub fn peers(&self) -> &BTreeMap<TunnelKey, InstalledPeer> {
        &self.peers
    }

    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Remove(key) => {
                self.peers.remove(key);
            }
            Step::Narrow(key, keep) => {
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.allowed_ips = keep.clone();
                }
            }
            Step::Add(key, peer) => {
                let peer = InstalledPeer {
                    allowed_ips: peer.allowed_ips.clone(),
                    endpoint: peer.endpoint,
                    keepalive_s: peer.keepalive_s,
                    preshared_key: peer.preshared_key.clone(),
                    alive: false,
                };
                self.peers.insert(*key, peer);
            }
            Step::Change(key, change) => {
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.allowed_ips.extend(&change.allow);
                    peer.endpoint = change.endpoint.or(peer.endpoint);
                    peer.keepalive_s = change.keepalive_s.unwrap_or(peer.keepalive_s);
                    if let Some(secret) = &change.preshared_key {
                        peer.preshared_key = secret.clone();
                    }
                }
            }
        }
    }
}

#[async_trait]
impl Device for MemoryDevice {
    fn name(&self) -> &'static str {
        "none"
    }

    async fn read(&self) -> Result<Reading, TunnelError> {
        let peers = self.peers.iter().map(|(key, peer)| {
            let state = PeerState {
                endpoint: peer.endpoint,
                ..PeerState::default()
            };
            (*key, (peer.clone(), state))
        });
        Ok(Reading {
            public_key: self.public_key,
            listen_port: self.listen_port,
            peers: peers.collect(),
        })
    }

    async fn take_steps(&mut self, steps: &[Step]) -> io::Result<()> {
        for step in steps {
            self.take(step);
        }
        Ok(())
    }

    async fn set_private_key(&mut self, private_key: [u8; 32]) -> io::Result<()> {
        self.public_key = Some(keys::public_key(&private_key));
        Ok(())
    }

    fn has_failed(&mut self) -> bool {
        false
    }

    async fn stop(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use innermesh_proto::tunnel::{TunnelPeer, TunnelPlan, steps};

    use super::*;

    fn plan(peers: &[(u8, &[&str])]) -> TunnelPlan {
        let peers = peers.iter().map(|(key, nets)| {
            let allowed_ips = nets.iter().map(|net| net.parse().expect("a network"));
            let peer = TunnelPeer {
                allowed_ips: allowed_ips.collect(),
                ..TunnelPeer::default()
            };
            (TunnelKey([*key; 32]), peer)
        });
        TunnelPlan {
            peers: peers.collect(),
            ..TunnelPlan::default()
        }
    }

    /// Makes a device equal to a plan as the interface does.
    async fn make_equal(device: &mut dyn Device, plan: &TunnelPlan) -> usize {
        let reading = device.read().await.expect("it can be read");
        let installed = reading
            .peers
            .into_iter()
            .map(|(key, (peer, _))| (key, peer));
        let steps = steps(plan, &installed.collect(), &BTreeMap::new());
        device.take_steps(&steps).await.expect("it can be changed");
        steps.len()
    }

    #[tokio::test]
    async fn a_device_that_took_all_steps_to_a_plan_is_equal_to_it() {
        let mut device = MemoryDevice::new(7);
        for plan in [
            plan(&[(1, &["10.7.0.1/32", "10.7.1.0/24"]), (2, &["10.7.0.2/32"])]),
            plan(&[(1, &["10.7.0.1/32"]), (3, &["10.7.0.2/32", "10.7.1.0/24"])]),
            plan(&[]),
        ] {
            make_equal(&mut device, &plan).await;
            assert_eq!(make_equal(&mut device, &plan).await, 0);
            let reading = device.read().await.expect("it can be read");
            let holds = |(key, (peer, _)): (&TunnelKey, &(InstalledPeer, PeerState))| {
                (*key, peer.allowed_ips.clone())
            };
            let held: BTreeMap<_, BTreeSet<_>> = reading.peers.iter().map(holds).collect();
            let planned = plan.peers.iter();
            let planned = planned.map(|(key, peer)| (*key, peer.allowed_ips.clone()));
            assert_eq!(held, planned.collect());
        }
    }

    #[tokio::test]
    async fn another_key_leaves_peers_and_port_as_they_are() {
        let mut device = MemoryDevice::new(7);
        make_equal(&mut device, &plan(&[(1, &["10.7.0.1/32"])])).await;
        device.set_private_key([5; 32]).await.expect("it has it");
        let reading = device.read().await.expect("it can be read");
        assert_eq!(reading.public_key, Some(keys::public_key(&[5; 32])));
        assert_eq!((reading.listen_port, reading.peers.len()), (7, 1));
    }
}
