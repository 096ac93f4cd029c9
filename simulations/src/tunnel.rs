//! A tunnel that is kept in memory and changed step by step, as a device is:
//! what must hold of it must hold between any two steps.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_agent::{
    host::{Network, Tunnels},
    overlay::RecordedOverlay,
    tunnel::{
        Applied, MemoryDevice, PeerState, Recorded, Tunnel, TunnelError, TunnelSettings,
        TunnelState,
    },
};
use innermesh_proto::crypto::Hash;
use innermesh_proto::filter::{FilterPlan, Interface, OverlayRoute};
use innermesh_proto::tunnel::{Step, TunnelKey, TunnelPlan, steps};
use ipnet::IpNet;
use tokio::time::Instant;

use crate::{clock, packets::PacketDevice, violation::Seen, world::START_MS};

/// The tunnel's interface on each machine.
pub const INTERFACE: &str = "im0";

fn tunnel() -> Interface {
    INTERFACE.to_owned().try_into().expect("a name")
}

/// The tunnels of one machine: one, which survives nothing.
#[derive(Clone, Default)]
pub struct SimTunnels {
    state: Arc<Mutex<State>>,
    overlay: RecordedOverlay,
    /// Where it carries packets, if it does.
    carrying: Option<Carrying>,
}

/// What a device that carries packets needs of its machine.
#[derive(Clone)]
struct Carrying {
    net: Arc<dyn Network>,
    began: Instant,
    seed: u64,
}

#[derive(Default)]
struct State {
    plan: Arc<TunnelPlan>,
    device: MemoryDevice,
    /// How many peers have each address.
    holders: BTreeMap<IpNet, usize>,
    /// When each peer without an agent made its newest handshake, and from where.
    handshakes: BTreeMap<TunnelKey, (Instant, SocketAddr)>,
    overlap: Option<String>,
    open: Option<String>,
    listen_port: u16,
    packets: Option<PacketDevice>,
    /// Devices that there were.
    runs: u64,
}

impl SimTunnels {
    /// Those of a host whose packet filter and routing are `overlay`.
    pub fn behind(overlay: RecordedOverlay) -> Self {
        Self {
            overlay,
            ..Self::default()
        }
    }

    /// As [`SimTunnels::behind`], with packets that really pass.
    pub fn carrying(self, net: Arc<dyn Network>, seed: u64) -> Self {
        let carrying = Some(Carrying {
            net,
            began: clock::now(),
            seed,
        });
        Self { carrying, ..self }
    }

    /// Puts a packet with this number into it.
    pub fn send(&self, from: Ipv4Addr, to: Ipv4Addr, number: u64) {
        if let Some(packets) = &self.lock().packets {
            packets.send(from, to, number);
        }
    }

    /// What came out since the last call: from whom, and its number.
    pub fn delivered(&self) -> VecDeque<(Ipv4Addr, u64)> {
        let state = self.lock();
        let packets = state.packets.as_ref();
        packets.map(PacketDevice::delivered).unwrap_or_default()
    }

    /// The first datagram that it sent where it must not.
    pub fn sent_wrong(&self) -> Option<Seen> {
        self.lock().packets.as_ref()?.violation()
    }

    /// The machine's power is off.
    pub fn end(&self) {
        self.lock().packets = None;
    }

    /// The first moment at which the tunnel had an address that the host's
    /// filter and routing left open, if there was one (S25).
    pub fn open_to_others(&self) -> Option<String> {
        self.lock().open.clone()
    }

    /// What it was last told to be; empty before the agent runs.
    pub fn plan(&self) -> Arc<TunnelPlan> {
        self.lock().plan.clone()
    }

    /// The first moment at which two peers had one address, if there was one
    /// (S11).
    pub fn overlap(&self) -> Option<String> {
        self.lock().overlap.clone()
    }

    /// Somebody without an agent makes a handshake; whether they are let in.
    pub fn shake(&self, key: TunnelKey, from: SocketAddr) -> bool {
        let mut state = self.lock();
        let is_peer = state.device.peers().contains_key(&key);
        if is_peer {
            state.handshakes.insert(key, (clock::now(), from));
        }
        is_peer
    }

    /// Somebody takes a peer out of the device, and tells nobody.
    pub fn lose(&self, key: TunnelKey) {
        self.lock().take(&Step::Remove(key));
    }

    /// How long ago a peer made its newest handshake, where it is a peer still.
    pub fn handshake(&self, key: &TunnelKey) -> Option<Duration> {
        let state = self.lock();
        let (at, _) = state.handshakes.get(key)?;
        Some(clock::now() - *at)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Tunnels for SimTunnels {
    async fn open(&self, settings: TunnelSettings) -> Result<Arc<dyn Tunnel>, TunnelError> {
        let is_link = Interface::try_from(settings.interface.clone())
            .is_ok_and(|interface| interface.is_link_of(&tunnel()));
        // Who is behind a public node isn't simulated; what may come from there is
        // asked of the filter's plan.
        if is_link {
            return Ok(Arc::new(Recorded::new(settings.listen_port)));
        }
        let (overlap, open) = (self.overlap(), self.open_to_others());
        let runs = self.lock().runs + 1;
        // The port of an earlier one is free then.
        self.end();
        let packets = match &self.carrying {
            Some(carrying) => Some(carrying.start(&settings, runs)?),
            None => None,
        };
        *self.lock() = State {
            listen_port: settings.listen_port,
            overlap,
            open,
            packets,
            runs,
            ..State::default()
        };
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Tunnel for SimTunnels {
    async fn apply(&self, plan: &TunnelPlan) -> Result<Applied, TunnelError> {
        let filter = self.overlay.plan();
        let mut state = self.lock();
        if let Some(words) = left_open(plan, filter.as_ref()) {
            state.open.get_or_insert(words);
        }
        let steps = steps(plan, state.device.peers(), &BTreeMap::new());
        for step in &steps {
            state.take(step);
        }
        if let Some(packets) = &state.packets {
            packets.take_steps(&steps, &plan.ways);
        }
        let State {
            handshakes, device, ..
        } = &mut *state;
        handshakes.retain(|key, _| device.peers().contains_key(key));
        if let Some(overlap) = nested(plan) {
            state.overlap.get_or_insert(overlap);
        }
        state.plan = Arc::new(plan.clone());
        Ok(Applied::of(&steps))
    }

    async fn observe(&self) -> Result<TunnelState, TunnelError> {
        let state = self.lock();
        if let Some(packets) = &state.packets {
            let peers = packets.peers().into_iter();
            return Ok(TunnelState {
                backend: "simulated",
                listen_port: state.listen_port,
                peers: peers.map(|(key, (_, seen))| (key, seen)).collect(),
            });
        }
        let peers = state.plan.peers.iter().map(|(key, peer)| {
            let handshake = state.handshakes.get(key);
            let peer = PeerState {
                endpoint: handshake.map(|(_, from)| *from).or(peer.endpoint),
                last_handshake: handshake.map(|(at, _)| clock::now() - *at),
                ..PeerState::default()
            };
            (*key, peer)
        });
        Ok(TunnelState {
            backend: "simulated",
            listen_port: state.listen_port,
            peers: peers.collect(),
        })
    }

    async fn set_private_key(&self, private_key: [u8; 32]) -> Result<(), TunnelError> {
        if let (Some(packets), Some(carrying)) = (&self.lock().packets, &self.carrying) {
            packets.set_private_key(private_key, carrying.drawn(&private_key));
        }
        Ok(())
    }

    async fn punch(&self, key: TunnelKey) -> Result<(), TunnelError> {
        if let Some(packets) = &self.lock().packets {
            packets.punch(&key);
        }
        Ok(())
    }

    async fn down(&self) -> Result<(), TunnelError> {
        let mut state = self.lock();
        state.plan = Arc::default();
        state.packets = None;
        state.device = MemoryDevice::default();
        state.holders.clear();
        state.handshakes.clear();
        Ok(())
    }
}

impl Carrying {
    fn start(&self, settings: &TunnelSettings, run: u64) -> Result<PacketDevice, TunnelError> {
        let since = clock::now().duration_since(self.began);
        let unix = Duration::from_millis(START_MS) + since;
        let drawn = self.drawn(&run.to_le_bytes());
        let started = PacketDevice::start(settings, &*self.net, (drawn, unix));
        started.map_err(|source| TunnelError::System {
            doing: "bind the tunnel's UDP port".to_owned(),
            source,
        })
    }

    fn drawn(&self, about: &[u8]) -> [u8; 32] {
        Hash::of(&[&self.seed.to_le_bytes(), about].concat()).0
    }
}

/// Networks of two peers of which one lies within the other, where there are any but
/// single addresses.
fn nested(plan: &TunnelPlan) -> Option<String> {
    let mut nets = plan.peers.values().flat_map(|peer| &peer.allowed_ips);
    let is_wide = nets.any(|net| net.prefix_len() < net.max_prefix_len());
    let overlap = is_wide.then(|| plan.overlap()).flatten();
    overlap.map(|overlap| overlap.to_string())
}

/// What of a tunnel others can reach beside it.
pub fn left_open(plan: &TunnelPlan, filter: Option<&FilterPlan>) -> Option<String> {
    let closed = |address: &IpAddr| {
        filter.is_some_and(|filter| {
            let routes = filter.routes();
            filter.networks.iter().any(|net| {
                net.contains(address) && routes.contains(&OverlayRoute::Unreachable(*net))
            })
        })
    };
    let own = plan.addresses.iter().map(IpNet::addr);
    let resolver = plan.resolver_v4.map(IpAddr::from);
    let resolver = resolver
        .into_iter()
        .chain(plan.resolver_v6.map(IpAddr::from));
    let peers = plan.peers.values().flat_map(|peer| &peer.allowed_ips);
    // A LAN behind a gateway is open to whoever is in it.
    let overlay = |net: &&IpNet| plan.addresses.iter().any(|own| own.contains(*net));
    let peers = peers.filter(overlay).map(IpNet::addr);
    let mut all = own.chain(resolver).chain(peers);
    let open = all.find(|address| !closed(address))?;
    Some(format!(
        "{open} is in the tunnel, and open to other networks"
    ))
}

impl State {
    fn take(&mut self, step: &Step) {
        let key = &step.key();
        let before = self.allowed(key);
        self.device.take(step);
        for net in before {
            if let Some(holders) = self.holders.get_mut(&net) {
                *holders -= 1;
            }
        }
        for net in self.allowed(key) {
            let holders = self.holders.entry(net).or_default();
            *holders += 1;
            if *holders > 1 {
                let words = format!("two peers have {net} after {step:?}");
                self.overlap.get_or_insert(words);
            }
        }
    }

    fn allowed(&self, key: &TunnelKey) -> BTreeSet<IpNet> {
        let peer = self.device.peers().get(key);
        peer.map(|peer| peer.allowed_ips.clone())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use innermesh_proto::tunnel::TunnelPeer;

    use super::*;

    #[tokio::test]
    async fn an_address_that_moves_is_never_at_two_peers() {
        let plan = |key: u8| TunnelPlan {
            peers: BTreeMap::from([(
                TunnelKey([key; 32]),
                TunnelPeer {
                    allowed_ips: ["10.7.0.2/32".parse().unwrap()].into(),
                    ..TunnelPeer::default()
                },
            )]),
            ..TunnelPlan::default()
        };
        let tunnel = SimTunnels::default();
        tunnel.apply(&plan(1)).await.unwrap();
        tunnel.apply(&plan(2)).await.unwrap();
        assert_eq!((&*tunnel.plan(), tunnel.overlap()), (&plan(2), None));
        let step = Step::Add(
            TunnelKey([3; 32]),
            plan(1).peers.into_values().next().unwrap(),
        );
        tunnel.lock().take(&step);
        assert!(tunnel.overlap().unwrap().contains("10.7.0.2"));
    }
}
