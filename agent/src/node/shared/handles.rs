//! What most parts of the node hold. Each part keeps those of them that it uses.

use std::sync::Arc;

use innermesh_proto::{id::NodeId, view::MeshView};
use tokio::sync::watch;

use crate::node::config::AgentConfig;
use crate::{
    gossip::Gossip,
    host::{Host, keys::NodeKey},
    ledger::{Ledger, client::Client},
    quic::Transport,
};

/// Keeps other agents off the state folder until its last clone is gone.
pub(crate) type FolderLock = Arc<dyn Send + Sync>;

/// Handles on what is opened once. Clones are the same.
#[derive(Clone)]
pub(crate) struct Handles {
    pub config: Arc<AgentConfig>,
    pub host: Host,
    pub me: NodeId,
    pub key: Arc<dyn NodeKey>,
    pub ledger: Ledger,
    pub client: Client,
    pub transport: Transport,
    pub gossip: Gossip,
    /// What this node concludes now.
    pub view: watch::Sender<Arc<MeshView>>,
}
