//! Asking the ledger for something: from any node, over at most one hop to the
//! node that leads, again with the same id until there is an answer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use innermesh_proto::{
    codec,
    crypto::{Sealed, Sign},
    id::NodeId,
    ledger::{Author, Content, Outcome, Request, RequestId, stamp},
    limits,
    message::{Decided, Propose},
    rpc::method,
};

use super::{Ledger, ProposeError, follow::Nudge};
use crate::{host::Host, quic::Transport};

/// How long one node may take to answer. A leader that died says nothing, and
/// the others know better by then.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Time between attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a request is good for, in milliseconds of ledger time.
const LIFETIME_MS: u64 = limits::REQUEST_LIFETIME_MS / 2;

/// Brings requests to the node that decides.
#[derive(Clone)]
pub struct Client {
    host: Host,
    key: Arc<dyn Sign>,
    ledger: Ledger,
    transport: Transport,
    nudge: Nudge,
    /// Who decided last.
    leader: Arc<Mutex<Option<NodeId>>>,
}

/// Why there is no answer. The request may or may not have been applied;
/// asking again with the same request is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// No node that decides could be reached in time.
    #[error(
        "no CA node can be reached ({0}); what is there already goes on, and this can be tried again later"
    )]
    Unreachable(String),
    /// The node that decides can't write.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

impl Client {
    /// A client of `ledger` for the node with `key`.
    pub fn new(
        host: &Host,
        key: Arc<dyn Sign>,
        ledger: Ledger,
        transport: Transport,
        nudge: Nudge,
    ) -> Self {
        Self {
            host: host.clone(),
            key,
            ledger,
            transport,
            nudge,
            leader: Arc::default(),
        }
    }

    /// What this node holds for the ledger's time now, in milliseconds.
    pub fn now_ms(&self, peer_clocks: &[u64]) -> u64 {
        stamp::estimate(
            self.ledger.state().stamp_ms,
            self.host.clock.wall_ms(),
            peer_clocks,
        )
    }

    /// Makes a request of this node's.
    pub fn request(&self, content: &Content, now_ms: u64) -> Sealed {
        let mut id = [0; 16];
        self.host.keys.random(&mut id);
        let node = self.key.public().node_id();
        Request::seal(
            &*self.key,
            self.ledger.state().mesh,
            RequestId(id),
            Author::Node(node),
            now_ms.saturating_add(LIFETIME_MS),
            content,
        )
    }

    /// Has a request decided; answers when this node's own ledger shows it.
    ///
    /// # Errors
    /// [`SubmitError`] after `patience`.
    pub async fn submit(
        &self,
        request: &Sealed,
        patience: Duration,
    ) -> Result<Outcome, SubmitError> {
        let end = self.host.clock.now() + patience;
        let (outcome, from) = self.decided(request, end).await?;
        self.await_own(&outcome, from, end).await;
        Ok(outcome)
    }

    /// As [`Client::submit`], but answers as soon as it is decided: for what
    /// this node's own ledger may never show it.
    ///
    /// # Errors
    /// [`SubmitError`] after `patience`.
    pub async fn tell(&self, request: &Sealed, patience: Duration) -> Result<Outcome, SubmitError> {
        let end = self.host.clock.now() + patience;
        let (outcome, _) = self.decided(request, end).await?;
        Ok(outcome)
    }

    async fn decided(
        &self,
        request: &Sealed,
        end: Duration,
    ) -> Result<(Outcome, Option<NodeId>), SubmitError> {
        let clock = &self.host.clock;
        let mut error = SubmitError::Unreachable("it doesn't answer in time".into());
        loop {
            // A leader that has lost the others takes a while to know it, and
            // whoever asks doesn't wait for that.
            tokio::select! {
                attempt = self.attempt(request) => match attempt {
                    Ok(decided) => return Ok(decided),
                    Err(SubmitError::Propose(
                        stopped @ (ProposeError::Stopped(_) | ProposeError::Full),
                    )) => {
                        return Err(stopped.into());
                    }
                    Err(failed) => error = failed,
                },
                () = clock.sleep(end.saturating_sub(clock.now())) => {
                    // The next request doesn't begin with who was silent.
                    self.remember(None);
                    return Err(error);
                }
            }
            if clock.now() >= end {
                return Err(error);
            }
            clock.sleep(PAUSE).await;
        }
    }

    async fn attempt(&self, request: &Sealed) -> Result<(Outcome, Option<NodeId>), SubmitError> {
        let state = self.ledger.state();
        let me = self.key.public().node_id();
        let mut hint = self.hint();
        if state.roster.contains(&me) {
            match self.ledger.propose(request.clone()).await {
                Err(ProposeError::NotLeader(leader)) => hint = leader.or(hint),
                other => return Ok((other?, None)),
            }
        }
        let body = codec::encode(&Propose {
            request: request.clone(),
        });
        let mut left: VecDeque<NodeId> = state.roster.iter().copied().collect();
        left.retain(|node| *node != me);
        let mut why = match left.is_empty() {
            true => "this machine decides alone and can't now: `agent ca status` says why",
            false => "it is offline",
        }
        .to_string();
        // One hop each: to who leads, as far as it is known, else to any, who
        // tells who does.
        loop {
            let known = hint.take().filter(|node| left.contains(node));
            let Some(node) = known.or_else(|| left.pop_front()) else {
                return Err(SubmitError::Unreachable(why));
            };
            left.retain(|other| *other != node);
            let answer = self
                .transport
                .call(node, method::PROPOSE, body.clone(), ATTEMPT)
                .await;
            match answer.map(|bytes| codec::decode::<Decided>(&bytes, limits::RPC_BYTES)) {
                Ok(Ok(Decided::Outcome(outcome))) => {
                    self.remember(Some(node));
                    return Ok((outcome, Some(node)));
                }
                Ok(Ok(Decided::Elsewhere(leader))) => {
                    why = "none of those that can be reached leads".into();
                    hint = leader;
                }
                Ok(Err(error)) => why = format!("its answer is {error}"),
                Err(error) => why = error.to_string(),
            }
            self.remember(hint);
        }
    }

    /// Who is likely to lead.
    fn hint(&self) -> Option<NodeId> {
        let leader = self.ledger.council().borrow().leader;
        leader.or_else(|| *self.leader.lock().unwrap_or_else(|e| e.into_inner()))
    }

    fn remember(&self, leader: Option<NodeId>) {
        *self.leader.lock().unwrap_or_else(|e| e.into_inner()) = leader;
    }

    /// Waits until the own ledger holds what was decided: who asked can then
    /// see it.
    async fn await_own(&self, outcome: &Outcome, from: Option<NodeId>, end: Duration) {
        let Some(index) = outcome.index() else {
            return;
        };
        let mut durable = self.ledger.durable();
        while durable.borrow_and_update().index < index {
            if let Some(from) = from {
                self.nudge.ahead(from, index);
            }
            let left = end.saturating_sub(self.host.clock.now());
            let clock = self.host.clock.clone();
            tokio::select! {
                // The ledger's file takes nothing more: it won't come there.
                changed = durable.changed() => if changed.is_err() {
                    return;
                },
                () = clock.sleep(left.min(ATTEMPT)) => {
                    if self.host.clock.now() >= end {
                        return;
                    }
                }
            }
        }
    }
}
