//! Has this host's router map the ports by which others reach this node, where the
//! configuration asks for that.

use std::sync::Arc;

use innermesh_proto::crypto::Hash;
use tokio::sync::watch;

use crate::{
    host::port_map::{Keeper, Mappings},
    node::{config::AgentConfig, shared::handles::Handles},
    quic::Transport,
    tunnel::BackendChoice,
};

/// What PCP's nonces are made of: a signature is the same each time, and nobody else makes
/// it.
const SECRET: &[u8] = b"innermesh: the nonces of PCP";

/// See the module.
pub(crate) struct PortMapKeeper {
    config: Arc<AgentConfig>,
    transport: Transport,
    keeper: Keeper,
}

impl PortMapKeeper {
    pub fn new(node: &Handles, told: watch::Sender<Mappings>) -> Self {
        let secret = Hash::of(&node.key.sign(SECRET).to_bytes());
        Self {
            config: node.config.clone(),
            transport: node.transport.clone(),
            keeper: Keeper::new(&node.host, secret, told),
        }
    }

    /// Goes on until [`PortMapKeeper::end`].
    pub async fn run(self: Arc<Self>) {
        if self.config.port_mapping {
            self.keeper.run(&self.ports()).await;
        }
    }

    /// Gives back what is mapped.
    pub async fn end(&self) {
        if self.config.port_mapping {
            self.keeper.end().await;
        }
    }

    /// This node's ports, the tunnel's first: it carries most.
    fn ports(&self) -> Vec<u16> {
        let has_tunnel = self.config.backend != BackendChoice::None;
        let tunnel = has_tunnel.then_some(self.config.tunnel_port);
        let quic = self.transport.local_addr().ok();
        let quic = quic.map(|address| address.port());
        tunnel.into_iter().chain(quic).collect()
    }
}
