//! A world: hosts on one network, everything in them from one seed.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use innermesh_agent::{
    host::{Host, Tunnels, tasks::Tasks},
    mesh::Config,
    tunnel::{BackendChoice, DEFAULT_MTU, Recorded, Tunnel, TunnelError, TunnelSettings},
};
use innermesh_proto::tunnel::TunnelPlan;

use crate::{
    clock::SimClock,
    disk::SimDisk,
    keys::{SimKeys, Verified},
    net::{self, Wire},
};

/// When a world begins, in milliseconds since 1970: in January 2027.
pub const START_MS: u64 = 1_800_000_000_000;
/// The port of the simulated agents.
pub const PORT: u16 = 51819;

/// A world.
pub struct World {
    seed: u64,
    /// The network.
    pub wire: Wire,
    verified: Verified,
    machines: u32,
}

/// One machine in a world.
pub struct Machine {
    /// Its name, which other machines can resolve.
    pub name: String,
    /// Where it is.
    pub address: IpAddr,
    /// What its agent is given.
    pub host: Host,
    /// Its state folder.
    pub disk: SimDisk,
    /// Its clock.
    pub clock: Arc<SimClock>,
    tunnels: Arc<SimTunnels>,
    wire: Wire,
}

impl World {
    /// An empty world. Time in it is tokio's, which the caller has paused.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            wire: Wire::new(seed),
            verified: Verified::default(),
            machines: 0,
        }
    }

    /// Adds a machine.
    pub fn machine(&mut self, name: &str) -> Machine {
        self.machines += 1;
        let address = net::address(self.machines);
        let disk = SimDisk::default();
        let tunnels = Arc::new(SimTunnels::default());
        let clock = Arc::new(SimClock::new(START_MS));
        Machine {
            name: name.into(),
            address,
            host: Host {
                clock: clock.clone(),
                keys: Arc::new(SimKeys::new(self.seed, name, self.verified.clone())),
                net: self.wire.plug(name, &[address]),
                disk: Arc::new(disk.clone()),
                tunnels: tunnels.clone(),
                tasks: Tasks::default(),
            },
            disk,
            clock,
            tunnels,
            wire: self.wire.clone(),
        }
    }
}

impl Machine {
    /// Takes its power away: what runs ends where it stands, and what wasn't
    /// synced is gone. An agent can be started on it again.
    pub async fn crash(&mut self) {
        self.wire.unplug(self.address);
        self.host.tasks.end().await;
        self.disk.crash();
        self.host.tasks = Tasks::default();
    }

    /// The configuration of its agent.
    pub fn config(&self) -> Config {
        Config {
            listen: vec![SocketAddr::from(([0u16; 8], PORT))],
            advertise: Vec::new(),
            interface: "im0".into(),
            tunnel_port: 51820,
            mtu: DEFAULT_MTU,
            backend: BackendChoice::Auto,
            dns_listen: Vec::new(),
            dns_upstream: Vec::new(),
            services: Vec::new(),
        }
    }

    /// What its tunnel was last told to be; empty before the agent runs.
    pub fn tunnel_plan(&self) -> TunnelPlan {
        self.tunnels
            .opened
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|tunnel| tunnel.plan())
            .unwrap_or_default()
    }
}

/// Tunnels that are recorded.
#[derive(Default)]
struct SimTunnels {
    opened: Mutex<Option<Arc<Recorded>>>,
}

#[async_trait]
impl Tunnels for SimTunnels {
    async fn open(&self, settings: TunnelSettings) -> Result<Arc<dyn Tunnel>, TunnelError> {
        let tunnel = Arc::new(Recorded::new(settings.listen_port));
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel.clone());
        Ok(tunnel)
    }
}
