//! Connections on demand: who asks for one, which of them are used, and where peers were
//! reached. Whoever keeps connections (the dialer) reads it and answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use innermesh_proto::{id::NodeId, limits, rpc::Failure};
use tokio::sync::{mpsc, oneshot};

use super::transport::{Caller, Handler, Held};
use crate::host::{Clock, Mono, within};

/// Somebody needs a connection with the node. Sending says that there is one, dropping it
/// that there is none.
pub struct Demand {
    /// The member.
    pub node: NodeId,
    /// Whoever waits.
    pub connected: oneshot::Sender<()>,
}

/// What the transport and whoever dials tell each other. All of it is about members.
#[derive(Default)]
pub(super) struct Demands {
    to_dialer: OnceLock<(mpsc::Sender<Demand>, Arc<dyn Clock>)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Peers that asked or were asked something since this was last taken.
    used: BTreeSet<NodeId>,
    /// Where each was reached last.
    reached: BTreeMap<NodeId, SocketAddr>,
    /// Since when each couldn't be connected with.
    failing: BTreeMap<NodeId, Mono>,
}

impl Demands {
    /// Where demands go; only the first call has an effect.
    pub fn listen(&self, clock: Arc<dyn Clock>) -> mpsc::Receiver<Demand> {
        let (sender, receiver) = mpsc::channel(limits::DIAL_DEMANDS);
        let _ = self.to_dialer.set((sender, clock));
        receiver
    }

    /// Waits until there is a connection with `node`, for `timeout` at most. Gives how
    /// long that took; `None` where there is none.
    pub async fn connect(&self, node: NodeId, timeout: Duration) -> Option<Duration> {
        let (sender, clock) = self.to_dialer.get()?;
        let begun = clock.now();
        let (connected, told) = oneshot::channel();
        sender.try_send(Demand { node, connected }).ok()?;
        within(&**clock, timeout, told).await?.ok()?;
        Some(clock.now().saturating_sub(begun))
    }

    pub fn note_used(&self, node: NodeId) {
        self.lock().used.insert(node);
    }

    /// Who was used since the last time.
    pub fn take_used(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.lock().used)
    }

    pub fn note_reached(&self, node: NodeId, at: SocketAddr) {
        let mut state = self.lock();
        state.reached.insert(node, at);
        state.failing.remove(&node);
    }

    pub fn note_failed(&self, node: NodeId, now: Mono) {
        let mut state = self.lock();
        state.reached.remove(&node);
        state.failing.entry(node).or_insert(now);
    }

    /// Forgets the failures of those that nobody dials any more, and all of others.
    pub fn retain(&self, is_member: impl Fn(&NodeId) -> bool, is_tried: impl Fn(&NodeId) -> bool) {
        let mut state = self.lock();
        state.reached.retain(|node, _| is_member(node));
        state.used.retain(|node| is_member(node));
        state
            .failing
            .retain(|node, _| is_member(node) && is_tried(node));
    }

    pub fn reached(&self) -> BTreeMap<NodeId, SocketAddr> {
        self.lock().reached.clone()
    }

    pub fn failing(&self) -> BTreeMap<NodeId, Mono> {
        self.lock().failing.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handler that notes which connections are used.
pub(super) struct Noting {
    pub handler: Arc<dyn Handler>,
    pub demands: Arc<Demands>,
}

#[async_trait]
impl Handler for Noting {
    async fn call(&self, caller: &Caller, method: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        if let Some(node) = caller.node {
            self.demands.note_used(node);
        }
        self.handler.call(caller, method, body).await
    }

    async fn make_room(&self, caller: &Caller, method: u16) -> Held {
        self.handler.make_room(caller, method).await
    }

    async fn notice(&self, caller: &Caller, method: u16, body: Vec<u8>) {
        self.handler.notice(caller, method, body).await;
    }

    fn is_free(&self, node: &NodeId) -> bool {
        self.handler.is_free(node)
    }

    fn datagram(&self, caller: &Caller, datagram: Bytes) {
        self.handler.datagram(caller, datagram);
    }
}
