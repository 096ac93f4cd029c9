//! A tunnel without an interface: plans are kept in memory. For
//! `tunnel.backend = "none"` and for simulations.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use innermesh_proto::tunnel::{Step, TunnelPlan, steps};

use super::{Applied, Device, MemoryDevice, Tunnel, TunnelError, TunnelState};

/// Remembers the plan that it was last given.
#[derive(Debug, Default)]
pub struct Recorded {
    listen_port: u16,
    /// One change at a time.
    device: tokio::sync::Mutex<MemoryDevice>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    plan: TunnelPlan,
    applied: u64,
    changed: u64,
}

impl Recorded {
    /// Reports `listen_port` as its own; nothing is bound.
    pub fn new(listen_port: u16) -> Self {
        Self {
            listen_port,
            device: tokio::sync::Mutex::new(MemoryDevice::new(listen_port)),
            state: Mutex::default(),
        }
    }

    /// The plan in force; empty before the first and after [`Tunnel::down`].
    pub fn plan(&self) -> TunnelPlan {
        self.lock().plan.clone()
    }

    /// How many plans were applied, and how many of them changed something.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.applied, state.changed)
    }

    /// A panic of another holder leaves a whole plan behind, as it is assigned
    /// at once.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Tunnel for Recorded {
    async fn apply(&self, plan: &TunnelPlan) -> Result<Applied, TunnelError> {
        if let Some(overlap) = plan.overlap() {
            return Err(TunnelError::Overlap(Box::new(overlap)));
        }
        let mut device = self.device.lock().await;
        let steps = steps(plan, device.peers(), &BTreeMap::new());
        let taken = device.take_steps(&steps).await;
        taken.map_err(|source| TunnelError::system("change the tunnel's peers", source))?;
        let mut state = self.lock();
        let applied = applied(&steps, &state.plan, plan);
        state.applied = state.applied.saturating_add(1);
        state.changed = state.changed.saturating_add(applied.changed().into());
        state.plan = plan.clone();
        Ok(applied)
    }

    async fn observe(&self) -> Result<TunnelState, TunnelError> {
        let device = self.device.lock().await;
        let reading = device.read().await?;
        let peers = reading.peers.into_iter();
        Ok(TunnelState {
            backend: device.name(),
            listen_port: reading.listen_port,
            peers: peers.map(|(key, (_, state))| (key, state)).collect(),
        })
    }

    async fn set_private_key(&self, private_key: [u8; 32]) -> Result<(), TunnelError> {
        let mut device = self.device.lock().await;
        let changed = device.set_private_key(private_key).await;
        changed.map_err(|source| TunnelError::system("change the tunnel's key", source))
    }

    async fn down(&self) -> Result<(), TunnelError> {
        *self.device.lock().await = MemoryDevice::new(self.listen_port);
        self.lock().plan = TunnelPlan::default();
        Ok(())
    }
}

/// What these steps and the rest of an interface's way from `old` to `new` change.
fn applied(steps: &[Step], old: &TunnelPlan, new: &TunnelPlan) -> Applied {
    Applied {
        addresses: old.addresses.symmetric_difference(&new.addresses).count()
            + usize::from(old.resolver_v4 != new.resolver_v4)
            + usize::from(old.resolver_v6 != new.resolver_v6),
        routes: old.routes().symmetric_difference(&new.routes()).count(),
        ..Applied::of(steps)
    }
}

#[cfg(test)]
mod tests {
    use innermesh_proto::tunnel::{TunnelKey, TunnelPeer};

    use super::*;

    fn plan(peers: &[(u8, &str)]) -> TunnelPlan {
        let peers = peers.iter().map(|(key, net)| {
            let peer = TunnelPeer {
                allowed_ips: [net.parse().unwrap()].into(),
                ..TunnelPeer::default()
            };
            (TunnelKey([*key; 32]), peer)
        });
        TunnelPlan {
            addresses: ["10.7.0.1/16".parse().unwrap()].into(),
            peers: peers.collect(),
            ..TunnelPlan::default()
        }
    }

    #[tokio::test]
    async fn applying_twice_changes_nothing_the_second_time() {
        let tunnel = Recorded::new(1);
        let plan = plan(&[(1, "10.7.0.2/32"), (2, "192.168.4.0/24")]);
        let first = tunnel.apply(&plan).await.unwrap();
        assert_eq!(
            (first.peers_added, first.addresses, first.routes),
            (2, 1, 2)
        );
        assert!(!tunnel.apply(&plan).await.unwrap().changed());
        assert_eq!(tunnel.counts(), (2, 1));
        assert_eq!(tunnel.plan(), plan);
    }

    #[tokio::test]
    async fn a_plan_that_gives_an_address_to_two_peers_is_refused_whole() {
        let tunnel = Recorded::new(1);
        let good = plan(&[(1, "10.7.0.2/32")]);
        tunnel.apply(&good).await.unwrap();
        let bad = plan(&[(1, "10.7.0.2/32"), (2, "10.7.0.0/24")]);
        assert!(matches!(
            tunnel.apply(&bad).await,
            Err(TunnelError::Overlap(_))
        ));
        assert_eq!(tunnel.plan(), good);
    }

    #[tokio::test]
    async fn a_peer_that_gains_one_network_and_loses_another_changed_once() {
        let tunnel = Recorded::new(1);
        tunnel.apply(&plan(&[(1, "10.7.0.2/32")])).await.unwrap();
        let applied = tunnel.apply(&plan(&[(1, "10.7.0.3/32")])).await.unwrap();
        assert_eq!(
            applied,
            Applied {
                peers_changed: 1,
                ..Applied::default()
            }
        );
    }
}
