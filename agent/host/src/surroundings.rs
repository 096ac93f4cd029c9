//! Everything outside the agent, as one value.

use std::sync::Arc;

use crate::{
    Clock, Disk, Network, Tunnels, keys::Keys, outside::Outside, overlay::Overlay,
    resolver::HostResolver, tasks::Tasks,
};

/// Everything outside the agent.
#[derive(Clone)]
pub struct Host {
    /// Monotonic and wall time.
    pub clock: Arc<dyn Clock>,
    /// Key generation, signing, verifying, randomness.
    pub keys: Arc<dyn Keys>,
    /// Sockets, addresses and probes.
    pub net: Arc<dyn Network>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Files of other programs, and commands.
    pub outside: Arc<dyn Outside>,
    /// Makes the tunnel interface.
    pub tunnels: Arc<dyn Tunnels>,
    /// Packet filter and routing: what closes the overlay to other networks.
    pub overlay: Arc<dyn Overlay>,
    /// Who answers this host's programs for names.
    pub resolver: Arc<dyn HostResolver>,
    /// What runs in the background.
    pub tasks: Tasks,
}
