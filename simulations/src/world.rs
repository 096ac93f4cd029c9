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
    keys::SimKeys,
    net::{self, Wire},
};

/// When a world begins, in milliseconds since 1970: in January 2027.
pub const START_MS: u64 = 1_800_000_000_000;
/// The port of the simulated agents.
pub const PORT: u16 = 51819;

/// A world.
pub struct World {
    seed: u64,
    wire: Wire,
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
    tunnels: Arc<SimTunnels>,
}

impl World {
    /// An empty world. Time in it is tokio's, which the caller has paused.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            wire: Wire::default(),
            machines: 0,
        }
    }

    /// Adds a machine.
    pub fn machine(&mut self, name: &str) -> Machine {
        self.machines += 1;
        let address = net::address(self.machines);
        let disk = SimDisk::default();
        let tunnels = Arc::new(SimTunnels::default());
        Machine {
            name: name.into(),
            address,
            host: Host {
                clock: Arc::new(SimClock::new(START_MS)),
                keys: Arc::new(SimKeys::new(self.seed, name)),
                net: self.wire.plug(name, &[address]),
                disk: Arc::new(disk.clone()),
                tunnels: tunnels.clone(),
                tasks: Tasks::default(),
            },
            disk,
            tunnels,
        }
    }
}

impl Machine {
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
