//! Asking the ledger for something: from any node, over at most one hop to the
//! node that leads, again with the same id until there is an answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
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
use crate::{
    host::{Host, Mono},
    quic::{CallError, Transport},
};

/// How long one node may take to answer.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long a node may be silent until another one is asked beside it: a leader
/// that died says nothing, and the others soon know better.
const HEDGE: Duration = Duration::from_millis(300);
/// How long a node that gave no decision isn't asked again.
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
        Request::seal(
            &*self.key,
            self.ledger.state().mesh,
            RequestId(id),
            Author::Node(self.me()),
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
        let mut asking = Asking::new(self, request);
        // A leader that has lost the others takes a while to know it, and
        // whoever asks doesn't wait for that.
        let decided = tokio::select! {
            decided = asking.until_decided() => Some(decided),
            () = clock.sleep(end.saturating_sub(clock.now())) => None,
        };
        decided.unwrap_or_else(|| {
            // The next request doesn't begin with who was silent.
            self.remember(None);
            Err(SubmitError::Unreachable(asking.why))
        })
    }

    fn me(&self) -> NodeId {
        self.key.public().node_id()
    }

    async fn decide_here(&self, request: Sealed) -> Told {
        match self.ledger.propose(request).await {
            Ok(outcome) => Told::Outcome(outcome),
            Err(ProposeError::NotLeader(leader)) => Told::Elsewhere(leader),
            Err(error @ (ProposeError::Stopped(_) | ProposeError::Full)) => Told::Stopped(error),
            Err(error @ ProposeError::Busy) => Told::Failed(error.to_string()),
        }
    }

    /// One hop: whoever isn't the leader doesn't pass it on.
    async fn pass_on(&self, node: NodeId, body: Vec<u8>) -> Told {
        let answer = self
            .transport
            .call(node, method::PROPOSE, body, ATTEMPT)
            .await;
        match answer.map(|bytes| codec::decode::<Decided>(&bytes, limits::RPC_BYTES)) {
            Ok(Ok(Decided::Outcome(outcome))) => Told::Outcome(outcome),
            Ok(Ok(Decided::Elsewhere(leader))) => Told::Elsewhere(leader),
            Ok(Err(error)) => Told::Failed(format!("its answer is {error}")),
            Err(CallError::NotConnected(node)) => Told::Failed(format!(
                "no connection with {}",
                self.ledger.state().name_of(node)
            )),
            Err(error) => Told::Failed(error.to_string()),
        }
    }

    /// Why there is no decision where those who could be asked don't decide.
    fn nobody_leads(&self) -> String {
        let roster = &self.ledger.state().roster;
        match roster.len() == 1 && roster.contains(&self.me()) {
            true => "this machine decides alone and can't now: `agent ca status` says why",
            false => "none of those that can be reached leads",
        }
        .into()
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

/// A request under way with one or several of those who decide. Whoever isn't
/// the leader says who may be; as the request has an id, it does no harm that
/// several hold it.
struct Asking<'a> {
    client: &'a Client,
    request: &'a Sealed,
    body: Vec<u8>,
    calls: FuturesUnordered<BoxFuture<'a, Answer>>,
    /// Whom there is a call to.
    busy: BTreeSet<NodeId>,
    /// When whoever gave no decision may be asked again.
    rests: BTreeMap<NodeId, Mono>,
    /// Who is likely to lead, by the last who said.
    hint: Option<NodeId>,
    /// Why there is no decision yet.
    why: String,
}

/// What a node made of a request.
struct Answer {
    node: NodeId,
    told: Told,
}

enum Told {
    Outcome(Outcome),
    /// Another node leads, or none that it knew.
    Elsewhere(Option<NodeId>),
    /// This node's ledger can't be written.
    Stopped(ProposeError),
    Failed(String),
}

impl<'a> Asking<'a> {
    fn new(client: &'a Client, request: &'a Sealed) -> Self {
        let body = codec::encode(&Propose {
            request: request.clone(),
        });
        Self {
            client,
            request,
            body,
            calls: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            rests: BTreeMap::new(),
            hint: client.hint(),
            why: "it doesn't answer in time".into(),
        }
    }

    async fn until_decided(&mut self) -> Result<(Outcome, Option<NodeId>), SubmitError> {
        let me = self.client.me();
        let clock = &self.client.host.clock;
        loop {
            let now = clock.now();
            let free = self.ask_next(now);
            let pause = match free {
                Next::Asked => HEDGE,
                Next::Rests(until) => until.saturating_sub(now),
                Next::Nobody => ATTEMPT,
            };
            let answer = tokio::select! {
                Some(answer) = self.calls.next() => answer,
                () = clock.sleep(pause) => continue,
            };
            self.busy.remove(&answer.node);
            self.rests.insert(answer.node, clock.now() + PAUSE);
            match answer.told {
                Told::Outcome(outcome) => {
                    let from = Some(answer.node).filter(|node| *node != me);
                    self.client.remember(from);
                    return Ok((outcome, from));
                }
                Told::Elsewhere(leader) => {
                    self.hint = leader;
                    self.why = self.client.nobody_leads();
                }
                Told::Stopped(error) => return Err(error.into()),
                Told::Failed(why) => self.why = why,
            }
        }
    }

    /// Asks one more node, if there is one: this one if it has a vote, then
    /// whoever is likely to lead, else any.
    fn ask_next(&mut self, now: Mono) -> Next {
        let me = self.client.me();
        let roster = &self.client.ledger.state().roster;
        let idle = roster.iter().filter(|node| !self.busy.contains(node));
        let rest = |node: &NodeId| self.rests.get(node).copied().unwrap_or_default();
        let order = |node: &NodeId| (rest(node), *node != me, Some(*node) != self.hint);
        let due = idle.clone().filter(|node| rest(node) <= now);
        let likely = self
            .hint
            .filter(|hint| due.clone().any(|node| node == hint));
        let own = due.clone().find(|node| **node == me).copied();
        let any = || due.min_by_key(|node| order(node)).copied();
        let Some(node) = own.or(likely).or_else(any) else {
            let until = idle.map(rest).min();
            return until.map_or(Next::Nobody, Next::Rests);
        };
        self.busy.insert(node);
        let (client, request, body) = (self.client, self.request.clone(), self.body.clone());
        self.calls.push(Box::pin(async move {
            let told = match node == client.me() {
                true => client.decide_here(request).await,
                false => client.pass_on(node, body).await,
            };
            Answer { node, told }
        }));
        Next::Asked
    }
}

/// Whether there was a node to ask.
enum Next {
    Asked,
    /// Those without a call rest until then.
    Rests(Mono),
    /// There is a call to each.
    Nobody,
}
