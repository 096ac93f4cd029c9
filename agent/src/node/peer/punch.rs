//! Nodes that look for each other, told by one that both are connected with. What is
//! sent then is for the tunnel to prove; each message here costs one of the same length.

use std::sync::{Arc, Mutex, PoisonError};

use innermesh_proto::{
    codec,
    id::NodeId,
    limits,
    message::Punch,
    rpc::{Failure, method},
};
use tokio::sync::watch;

use super::decode::read;
use crate::{
    host::Host,
    ledger::deliveries::Deliveries,
    node::shared::{handles::Handles, tunnel_progress::TunnelProgress},
    quic::Transport,
    tunnel::Tunnel,
};

/// Brings nodes together.
pub(crate) struct Punches {
    host: Host,
    transport: Transport,
    tunnel: Arc<dyn Tunnel>,
    progress: watch::Sender<TunnelProgress>,
    /// What each member asked for, and what each told.
    asked: Mutex<Deliveries>,
    told: Mutex<Deliveries>,
}

impl Punches {
    pub fn new(
        node: &Handles,
        tunnel: Arc<dyn Tunnel>,
        progress: watch::Sender<TunnelProgress>,
    ) -> Self {
        let shares = || Mutex::new(Deliveries::of(limits::PUNCHES, limits::PUNCHES_PER_HOUR));
        Self {
            host: node.host.clone(),
            transport: node.transport.clone(),
            tunnel,
            progress,
            asked: shares(),
            told: shares(),
        }
    }

    /// Answers [`method::PUNCH`].
    ///
    /// # Errors
    /// Why the other isn't told.
    pub fn ask(&self, from: NodeId, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let Punch { node } = read(body)?;
        if !self.counts(&self.asked, from) {
            return Err(Failure::Busy);
        }
        let told = codec::encode(&Punch { node: from });
        if !self.transport.is_connected(node) || !self.transport.notify(node, method::PUNCHED, told)
        {
            return Err(Failure::Unavailable(
                "there is no connection with that node here".into(),
            ));
        }
        Ok(Vec::new())
    }

    /// Takes [`method::PUNCHED`].
    pub async fn told(&self, from: NodeId, body: &[u8]) {
        let Ok(Punch { node }) = codec::decode::<Punch>(body, limits::RPC_BYTES) else {
            return;
        };
        if !self.counts(&self.told, from) {
            return;
        }
        let key = {
            let progress = self.progress.borrow();
            let mut ways = progress.plan.ways.iter();
            ways.find(|(_, way)| way.node == node).map(|(key, _)| *key)
        };
        if let Some(key) = key
            && let Err(error) = self.tunnel.punch(key).await
        {
            tracing::debug!(%error, "a node that looks for this one isn't answered");
        }
    }

    fn counts(&self, shares: &Mutex<Deliveries>, node: NodeId) -> bool {
        let mut shares = shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.count(node, self.host.clock.now()).is_ok()
    }
}
