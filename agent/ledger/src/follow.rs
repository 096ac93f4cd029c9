//! Following the ledger: batches are pushed as they are decided, and what the
//! pushes missed is fetched from peers that claim to have more.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use innermesh_proto::{
    codec,
    crypto::Hash,
    id::NodeId,
    ledger::{Position, State},
    message::Batches,
    rpc::method,
};
use tokio::sync::Notify;

pub use super::take::take;
use super::{claims::Claims, ledger::Ledger, source::Source};
use crate::{gossip, host::Host, quic::Transport};

/// To how many peers a pushed batch that was new is passed on: of about eight that each
/// node is connected with in a large mesh, so many that seldom somebody is left out.
const FAN_OUT: usize = 5;

/// Tells the follower that a peer claims a ledger that reaches further than
/// this one's, or another. Of each peer one claim is kept, the newest.
#[derive(Clone, Default)]
pub struct Nudge(Arc<Shared>);

#[derive(Default)]
struct Shared {
    claims: Mutex<Claims>,
    new: Notify,
}

impl Nudge {
    /// `peer` claims batches up to `index`.
    pub fn ahead(&self, peer: NodeId, index: u64) {
        self.claims().ahead(peer, index);
        self.0.new.notify_one();
    }

    /// `peer` holds another batch than this node for some index: the root may
    /// have replaced a lost roster.
    pub fn differs(&self, peer: NodeId) {
        self.claims().differs(peer);
        self.0.new.notify_one();
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        let claims = self.0.claims.lock();
        claims.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ledger as gossip sees it.
pub struct Gossiped {
    /// What is asked.
    pub ledger: Ledger,
    /// Where peers' claims go.
    pub nudge: Nudge,
}

#[async_trait]
impl gossip::Ledger for Gossiped {
    fn state(&self) -> Arc<State> {
        self.ledger.state()
    }

    fn durable(&self) -> Position {
        *self.ledger.durable().borrow()
    }

    fn hash_at(&self, index: u64) -> Option<Hash> {
        self.ledger.hash_at(index)
    }

    fn opened_at(&self) -> u64 {
        self.ledger.opened_at()
    }

    fn was_damaged(&self) -> bool {
        self.ledger.was_damaged()
    }

    async fn roll_back(&self) {
        self.ledger.roll_back().await;
    }

    fn ahead(&self, peer: NodeId, index: u64) {
        self.nudge.ahead(peer, index);
    }

    fn differs(&self, peer: NodeId) {
        self.nudge.differs(peer);
    }
}

/// Starts pushing what is new and fetching what is missing.
pub fn start(host: &Host, me: NodeId, ledger: Ledger, transport: Transport, nudge: Nudge) {
    let tasks = host.tasks.clone();
    tasks.spawn(push(host.clone(), me, ledger.clone(), transport.clone()));
    tasks.spawn(fetch(host.clone(), ledger, transport, nudge));
}

/// Pushes each batch that becomes durable here: the leader to all that are
/// connected, the others to a few, so that it reaches also those whom the
/// leader isn't connected to.
async fn push(host: Host, me: NodeId, ledger: Ledger, transport: Transport) {
    let mut batches = ledger.batches();
    loop {
        let batch = match batches.recv().await {
            Ok(batch) => batch,
            // Positions in heads repair what was passed over.
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        };
        let decided_here = batch.proof.contains_key(&me) && ledger.raft_status().borrow().leads;
        let mut peers: Vec<NodeId> = transport.peers();
        let bytes = codec::encode(&Batches {
            batches: vec![(*batch).clone()],
        });
        if !decided_here {
            peers.retain(|peer| !batch.proof.contains_key(peer));
            while peers.len() > FAN_OUT {
                let mut random = [0; 8];
                host.keys.random(&mut random);
                let at = u64::from_le_bytes(random) % peers.len() as u64;
                peers.swap_remove(at as usize);
            }
        }
        for peer in peers {
            transport.notify(peer, method::BATCHES, bytes.clone());
        }
    }
}

/// Asks whom [`Claims`] says, several at the same time.
async fn fetch(host: Host, ledger: Ledger, transport: Transport, nudge: Nudge) {
    let mut running = FuturesUnordered::new();
    loop {
        let due = loop {
            let now = host.clock.now();
            let state = ledger.state();
            let connected: BTreeSet<NodeId> = transport.peers().into_iter().collect();
            let mut claims = nudge.claims();
            claims.keep(|node| state.members.contains_key(node));
            let is_voter = |node: &NodeId| state.roster.contains(node);
            let held = state.position.index;
            match claims.next(now, held, &connected, is_voter) {
                Some((peer, task)) => {
                    let (host, ledger, transport) =
                        (host.clone(), ledger.clone(), transport.clone());
                    running.push(async move {
                        let source = Source {
                            host: &host,
                            ledger: &ledger,
                            transport: &transport,
                            peer,
                        };
                        (peer, source.run(task).await)
                    });
                }
                None => break claims.due(now, &connected),
            }
        };
        let wait = due.map(|due| due.saturating_sub(host.clock.now()));
        tokio::select! {
            () = nudge.0.new.notified() => {}
            Some((peer, end)) = running.next(), if !running.is_empty() => {
                nudge.claims().done(host.clock.now(), peer, end);
            }
            () = host.clock.sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
}
