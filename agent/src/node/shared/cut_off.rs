//! Whether this node has cut another off, as it is asked by others and by the
//! command line.

use std::{sync::Arc, time::Duration};

use innermesh_proto::{id::NodeId, view::MeshView};
use tokio::sync::watch;

use crate::{
    host::Clock,
    node::shared::{handles::Handles, tunnel_progress::TunnelProgress},
    quic::Transport,
    tunnel::Tunnel,
};

/// Between two looks at what changes without a word.
const LOOK: Duration = Duration::from_millis(50);
/// How long a node may take to cut another off before it says that it hasn't.
const CUT_OFF: Duration = Duration::from_millis(1500);

/// Sees whom this node has cut off. Clones are the same.
#[derive(Clone)]
pub(crate) struct CutOffWatch {
    clock: Arc<dyn Clock>,
    view: watch::Sender<Arc<MeshView>>,
    transport: Transport,
    tunnel: Arc<dyn Tunnel>,
    progress: watch::Sender<TunnelProgress>,
}

impl CutOffWatch {
    pub fn new(
        node: &Handles,
        tunnel: Arc<dyn Tunnel>,
        progress: watch::Sender<TunnelProgress>,
    ) -> Self {
        Self {
            clock: node.host.clock.clone(),
            view: node.view.clone(),
            transport: node.transport.clone(),
            tunnel,
            progress,
        }
    }

    /// Whether this node has cut another off: no connection, and a plan without it
    /// in force on the device. Waits a moment for it.
    pub async fn is_cut_off(&self, node: NodeId) -> bool {
        let clock = &self.clock;
        let end = clock.now() + CUT_OFF;
        let mut progress = self.progress.subscribe();
        loop {
            if self.cut_off_now(node).await {
                return true;
            }
            if clock.now() >= end {
                return false;
            }
            tokio::select! {
                _ = progress.changed() => {}
                () = clock.sleep(LOOK) => {}
            }
        }
    }

    async fn cut_off_now(&self, node: NodeId) -> bool {
        let view = self.view.borrow().clone();
        let out = !view.ledger.members.contains_key(&node) || view.held.contains_key(&node);
        let progress = self.progress.borrow().clone();
        let connected = self.transport.connected();
        if !out || progress.view < view.version || connected.iter().any(|peer| peer.node == node) {
            return false;
        }
        let state = self.tunnel.observe().await;
        state.is_ok_and(|state| {
            let mut keys = state.peers.keys();
            keys.all(|key| progress.plan.peers.contains_key(key))
        })
    }
}
