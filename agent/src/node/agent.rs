//! A running agent, as those see it who built it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use innermesh_proto::{
    crypto::Sealed,
    head::{Head, HeadTable, Known},
    id::NodeId,
    ledger::{Batch, Content, Outcome},
    view::MeshView,
};
use tokio::sync::{broadcast, watch};

use crate::{
    control::{Control, ControlError},
    dns::Dns,
    ledger::{RaftStatus, client::SubmitError},
    node::{
        commands::AgentControl,
        follow::{
            dns::Listening, overlay::OverlayKeeper, port_map::PortMapKeeper,
            publish::PublishKeeper, resolver::ResolverKeeper,
        },
        shared::handles::{FolderLock, Handles},
    },
    services::{FileProblem, Spec},
    tunnel::Tunnel,
};

/// A running agent. Clones are the same agent.
#[derive(Clone)]
pub struct Agent {
    running: Arc<RunningAgent>,
}

pub(super) struct RunningAgent {
    pub node: Handles,
    pub dns: Arc<Dns>,
    pub tunnel: Arc<dyn Tunnel>,
    pub overlay: Arc<OverlayKeeper>,
    pub publish: Arc<PublishKeeper>,
    pub port_maps: Arc<PortMapKeeper>,
    pub resolver: Arc<ResolverKeeper>,
    pub control: Arc<AgentControl>,
    /// Whether this machine has left the mesh.
    pub left: watch::Sender<bool>,
    pub listening: Arc<Listening>,
    pub _lock: FolderLock,
}

impl Agent {
    pub(super) fn new(running: RunningAgent) -> Self {
        Self {
            running: Arc::new(running),
        }
    }

    /// What this agent concludes now, and each time after.
    pub fn view(&self) -> watch::Receiver<Arc<MeshView>> {
        self.running.node.view.subscribe()
    }

    /// The newest head held here of each other member, as it was signed.
    pub fn heads(&self) -> Vec<(Head, Sealed)> {
        let signed = |known: &Known| (known.head.clone(), known.sealed.clone());
        let heads = |table: &HeadTable| table.iter().map(|(_, known)| signed(known)).collect();
        self.running.node.gossip.read(heads)
    }

    /// Reads the heads held here as they are now; gossip stands still meanwhile.
    pub fn read_heads<T>(&self, f: impl FnOnce(&HeadTable) -> T) -> T {
        self.running.node.gossip.read(f)
    }

    /// Batches of the ledger as they become durable here, from now on.
    pub fn batches(&self) -> broadcast::Receiver<Arc<Batch>> {
        self.running.node.ledger.batches()
    }

    /// Nodes whose key was seen in use twice (S10).
    pub fn conflicts(&self) -> BTreeSet<NodeId> {
        self.running.node.gossip.conflicts()
    }

    /// The newest head of this node.
    pub fn own_head(&self) -> Option<Head> {
        self.running.node.gossip.own_head()
    }

    /// The DNS service of this agent.
    pub fn dns(&self) -> Arc<Dns> {
        self.running.dns.clone()
    }

    /// This node's part in deciding the ledger, now and each time after.
    pub fn raft_status(&self) -> watch::Receiver<RaftStatus> {
        self.running.node.ledger.raft_status()
    }

    /// Has the ledger decide what this node asks of it.
    ///
    /// # Errors
    /// [`SubmitError`] after `patience`.
    pub async fn ask(&self, content: &Content, patience: Duration) -> Result<Outcome, SubmitError> {
        let client = &self.running.node.client;
        let request = client.request(content);
        client.submit(&request, patience).await
    }

    /// What a person or a script can ask and tell.
    pub fn control(&self) -> Arc<dyn Control> {
        self.running.control.clone()
    }

    /// Has these be the files of the configuration that aren't in force as they are.
    pub fn set_file_problems(&self, problems: Vec<FileProblem>) {
        let services = &self.running.control.services.services;
        services.set_file_problems(problems);
    }

    /// Takes the services of the configuration, all of them, in place of those that
    /// it had before.
    ///
    /// # Errors
    /// When one makes no sense, or can't be stored; all are as they were then.
    pub async fn configure_services(&self, services: Vec<Spec>) -> Result<(), ControlError> {
        self.running.control.services.configure(services).await
    }

    /// Waits until this machine has left the mesh: there is nothing to run for
    /// any more.
    pub async fn left(&self) {
        let mut left = self.running.left.subscribe();
        let _ = left.wait_for(|left| *left).await;
    }

    /// Says goodbye to peers and takes down what was brought up. A tunnel that
    /// the kernel carries stays, so that routes survive a restart, unless this
    /// machine has left.
    pub async fn stop(&self) {
        // First, as programs here ask other servers then.
        self.running.resolver.end().await;
        self.running.node.gossip.stop().await;
        self.running.listening.end();
        self.running.port_maps.end().await;
        self.running.node.transport.close().await;
        let state = self.running.tunnel.observe().await;
        let stays = |backend| backend == "kernel" && !*self.running.left.borrow();
        if state.is_ok_and(|state| !stays(state.backend))
            && let Err(error) = self.running.tunnel.down().await
        {
            tracing::warn!(%error, "the tunnel could not be taken down");
        }
        self.running.node.host.tasks.end().await;
        let has_left = *self.running.left.borrow();
        self.running.publish.end(has_left).await;
        // Last, as a task would put it back.
        if *self.running.left.borrow() {
            self.running.overlay.give_up().await;
        }
    }
}
