//! Asking the ledger for something: from any node, over at most one hop to the
//! node that leads, again with the same id until there is an answer.

mod asking;
mod relay;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use self::{asking::Asking, relay::Brought};
use innermesh_proto::{
    certificate::{Certificate, Serial},
    codec,
    crypto::{Sealed, Sign},
    id::NodeId,
    ledger::{Author, Content, Outcome, Refusal, Request, RequestId, stamp},
    limits,
    message::{Decided, Submitted},
    rpc::{Failure, method},
};

use super::{
    decide::{ProposeError, spent},
    follow::Nudge,
    ledger::Ledger,
};
use crate::{
    gossip::Gossip,
    host::Host,
    quic::{CallError, Transport},
};

/// How long one node may take to answer.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long a connection may take before a request goes by way of another member.
const CONNECTS: Duration = Duration::from_millis(700);
/// How long a request waits at a node to be decided: it is told so before it
/// counts as lost.
pub const DECIDES: Duration = Duration::from_millis(1500);
/// How long a request is good for, in milliseconds of ledger time.
const LIFETIME_MS: u64 = limits::REQUEST_LIFETIME_MS / 2;

/// Brings requests to the node that decides.
#[derive(Clone)]
pub struct Client {
    host: Host,
    key: Arc<dyn Sign>,
    ledger: Ledger,
    transport: Transport,
    gossip: Gossip,
    nudge: Nudge,
    /// Who decided last.
    leader: Arc<Mutex<Option<NodeId>>>,
}

/// Why there is no answer. The request may or may not have been applied;
/// asking again with the same request is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// No node that decides could be reached in time.
    #[error("no CA node can be reached ({0}); existing services keep working; try again later")]
    Unreachable(String),
    /// The node that decides can't write.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// It was refused, and another copy of the request is with a node that
    /// didn't answer: where that leads next it may decide otherwise.
    #[error(
        "{0}; a CA node that doesn't answer may still decide otherwise within ten minutes: look \
         again then"
    )]
    Unsettled(Refusal),
    /// It was refused, and a copy of the request is with a node that brought it to
    /// the CA node: until that is void it may be decided otherwise.
    #[error(
        "{0}; that was answered by way of another node, which could bring the request again within \
         ten minutes"
    )]
    Relayed(Refusal),
    /// Too much was asked lately, and for so long it isn't taken. Nothing was
    /// changed.
    #[error("{}", spent(.0))]
    Spent(Duration),
}

/// A request that the ledger took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Whether it comes to pass only once a second admin asks for the same.
    pub is_waiting: bool,
    /// The certificate that was issued, where one was asked for and this node
    /// holds the batch. The state may have dropped it already, for a newer one.
    pub certificate: Option<IssuedCertificate>,
}

/// A certificate, as it was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// Its serial number.
    pub serial: Serial,
    /// In DER.
    pub der: Vec<u8>,
}

/// Why a request isn't done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The ledger said no. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no answer.
    #[error(transparent)]
    Unavailable(#[from] SubmitError),
}

impl Client {
    /// A client of `ledger` for the node with `key`.
    pub fn new(
        host: &Host,
        key: Arc<dyn Sign>,
        ledger: Ledger,
        transport: Transport,
        gossip: Gossip,
        nudge: Nudge,
    ) -> Self {
        Self {
            host: host.clone(),
            key,
            ledger,
            transport,
            gossip,
            nudge,
            leader: Arc::default(),
        }
    }

    /// What this node holds for the ledger's time now, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        let peer_clocks = self.gossip.peer_clocks();
        let (stamp_ms, elapsed_ms) = self.ledger.stamped(self.host.clock.now());
        stamp::estimate(
            stamp_ms,
            self.host.clock.wall_ms(),
            &peer_clocks,
            elapsed_ms,
        )
    }

    /// Makes a request of this node's and has it decided; answers when this
    /// node's own ledger shows it.
    ///
    /// # Errors
    /// [`RequestError`], at the latest after `patience`.
    pub async fn ask(
        &self,
        content: &Content,
        patience: Duration,
    ) -> Result<Accepted, RequestError> {
        let request = self.request(content);
        let (index, is_waiting) = match self.submit(&request, patience).await? {
            Outcome::Done(index) => (index, false),
            Outcome::Waiting(index) => (index, true),
            Outcome::Refused(refusal) => return Err(refusal.into()),
        };
        let certificate = match content {
            Content::Certify(_) => self.issued_for(&request, index).await,
            _ => None,
        };
        Ok(Accepted {
            is_waiting,
            certificate,
        })
    }

    /// The certificate that came with a request, by the batch that it is in.
    async fn issued_for(&self, request: &Sealed, index: u64) -> Option<IssuedCertificate> {
        let batches = self.ledger.range(index, 1).await.ok()?;
        let batch = batches.first()?;
        if batch.read_header().ok()?.index != index {
            return None;
        }
        let mut entries = batch.entries.iter();
        let entry = entries.find(|entry| entry.request == *request)?;
        let certificate = Certificate::parse(&entry.attachment).ok()?;
        Some(IssuedCertificate {
            serial: certificate.serial,
            der: entry.attachment.clone(),
        })
    }

    /// Makes a request of this node's.
    pub fn request(&self, content: &Content) -> Sealed {
        let now_ms = self.now_ms();
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
        let mut asking = Asking::new(self, request, end);
        // A leader that has lost the others takes a while to know it, and
        // whoever asks doesn't wait for that.
        let decided = tokio::select! {
            decided = asking.until_decided() => Some(decided),
            () = clock.sleep(end.saturating_sub(clock.now())) => None,
        };
        decided.unwrap_or_else(|| {
            // The next request doesn't begin with who was silent.
            self.remember(None);
            Err(asking.give_up())
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
            Err(ProposeError::Spent(wait)) => Told::Spent(wait),
            Err(error @ ProposeError::Busy) => Told::Failed(error.to_string()),
        }
    }

    /// One hop: whoever isn't the leader doesn't pass it on. With `relays` it goes by
    /// way of another member where no connection comes about.
    async fn pass_on(
        &self,
        node: NodeId,
        request: &Sealed,
        body: Vec<u8>,
        relays: bool,
    ) -> Brought {
        if relays && !self.transport.connect(node, CONNECTS).await {
            return self.relay(node, request, &body).await;
        }
        Brought::directly(self.pass_on_directly(node, body).await)
    }

    async fn pass_on_directly(&self, node: NodeId, body: Vec<u8>) -> Told {
        let call = |method| self.transport.call(node, method, body.clone(), ATTEMPT);
        let answer = match call(method::SUBMIT).await {
            // An earlier version, which writes refusals down.
            Err(CallError::Failed(Failure::UnknownMethod)) => {
                call(method::PROPOSE).await.map(|bytes| {
                    let decided = codec::decode::<Decided>(&bytes, limits::RPC_BYTES);
                    decided.map(|decided| match decided {
                        Decided::Outcome(outcome) => Submitted::Outcome(outcome),
                        Decided::Elsewhere(leader) => Submitted::Elsewhere(leader),
                    })
                })
            }
            answer => answer.map(|bytes| codec::decode(&bytes, limits::RPC_BYTES)),
        };
        match answer {
            Ok(Ok(Submitted::Outcome(outcome))) => Told::Outcome(outcome),
            Ok(Ok(Submitted::Elsewhere(leader))) => Told::Elsewhere(leader),
            Ok(Ok(Submitted::Spent { wait_ms })) => Told::Spent(Duration::from_millis(wait_ms)),
            Ok(Err(error)) => Told::Lost(format!("its answer is {error}")),
            Err(CallError::NotConnected(node)) => Told::Failed(format!(
                "no connection with {}",
                self.ledger.state().name_of(node)
            )),
            Err(error) if holds_no_copy(&error) => Told::Failed(error.to_string()),
            Err(error) => Told::Lost(error.to_string()),
        }
    }

    /// Why there is no decision where those who could be asked don't decide.
    fn nobody_leads(&self) -> String {
        let roster = &self.ledger.state().roster;
        if roster.len() == 1 && roster.contains(&self.me()) {
            "this machine decides alone and can't now: `agent ca status` says why"
        } else {
            "none of those that can be reached leads"
        }
        .into()
    }

    /// Who is likely to lead.
    fn hint(&self) -> Option<NodeId> {
        let leader = self.ledger.raft_status().borrow().leader;
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

enum Told {
    Outcome(Outcome),
    /// Another node leads, or none that it knew.
    Elsewhere(Option<NodeId>),
    /// This node's ledger can't be written.
    Stopped(ProposeError),
    /// Too much was asked lately; so long the leader doesn't take it.
    Spent(Duration),
    /// The node doesn't decide it, and holds no copy of it but for one in the
    /// voters' log.
    Failed(String),
    /// The node may hold a copy of it.
    Lost(String),
}

/// Whether the node that was called has no copy of the request that it may yet
/// propose. What is in the voters' log already is decided or gone as soon as
/// anybody leads, see [`asking`].
fn holds_no_copy(error: &CallError) -> bool {
    match error {
        CallError::NotConnected(_) | CallError::TooLong(_) => true,
        CallError::Deadline | CallError::Lost(_) | CallError::Garbled(_) => false,
        CallError::Failed(failure) => match failure {
            // A leader tells it once it has dropped what waited too long.
            Failure::DeadlineExceeded
            | Failure::Refused(_)
            | Failure::UnknownMethod
            | Failure::Malformed
            | Failure::NotMember
            | Failure::Busy
            | Failure::Unavailable(_) => true,
            Failure::Internal(_) | Failure::Other(..) => false,
        },
    }
}
