//! Has the ledger decide what peers deliver: requests of members, joins and
//! renewals.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use innermesh_proto::{
    admission::KeyedWait,
    certificate::Serial,
    codec,
    crypto::{Hash, PublicKey, Purpose, Sealed, Sign},
    id::NodeId,
    ledger::{
        Author, Content, Outcome, Request,
        request::{Join, KeyedJoin},
    },
    limits,
    message::{
        Decided, JoinHello, JoinQuery, Joined, Propose, Relayed, RelayedAnswer, Renew, Submitted,
    },
    rpc::Failure,
    view::MeshView,
};
use tokio::sync::watch;

use super::{decode::read, membership::renewing, requests::Requests};
use crate::{
    host::Host,
    ledger::{
        Ledger, ProposeError,
        client::{self, Client},
        deliveries::Deliveries,
    },
    node::shared::handles::Handles,
    quic::Caller,
};

/// How long a request of a joining or renewing machine may take to be decided.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a request of a member that delivers too many is held back.
const HELD_BACK: Duration = Duration::from_secs(1);

/// Takes requests to the ledger.
pub(crate) struct Decider {
    host: Host,
    key: Arc<dyn Sign>,
    ledger: Ledger,
    client: Client,
    view: watch::Sender<Arc<MeshView>>,
    requests: Arc<Requests>,
    deliveries: Mutex<Deliveries>,
}

impl Decider {
    pub fn new(node: &Handles, requests: Arc<Requests>) -> Self {
        Self {
            host: node.host.clone(),
            key: node.key.clone(),
            ledger: node.ledger.clone(),
            client: node.client.clone(),
            view: node.view.clone(),
            requests,
            deliveries: Mutex::default(),
        }
    }

    /// Counts a request that a member delivers. One that delivers too many waits
    /// for each, and so for the end of its streams: that is all it costs here.
    async fn deliver(&self, from: NodeId) -> Result<(), Duration> {
        let clock = &self.host.clock;
        let end = clock.now() + HELD_BACK;
        loop {
            let now = clock.now();
            let counted = {
                let deliveries = self.deliveries.lock();
                deliveries
                    .unwrap_or_else(PoisonError::into_inner)
                    .count(from, now)
            };
            let Err(wait) = counted else { return Ok(()) };
            if now + wait > end {
                clock.sleep(end.saturating_sub(now)).await;
                return Err(wait);
            }
            clock.sleep(wait).await;
        }
    }

    /// A request that a member of an earlier version passes on to this node,
    /// which decides or says that it doesn't: one hop, so that requests can't go
    /// in circles. As that member takes a refusal for final, it is written down.
    pub async fn propose(&self, from: NodeId, body: &[u8]) -> Result<Vec<u8>, Failure> {
        if self.deliver(from).await.is_err() {
            return Err(Failure::Busy);
        }
        let propose: Propose = read(body)?;
        let asked = self.ledger.propose_by(Some(from), propose.request, true);
        let decided = match asked.await {
            Ok(outcome) => Decided::Outcome(outcome),
            Err(ProposeError::NotLeader(leader)) => Decided::Elsewhere(leader),
            Err(error) => return Err(not_decided(error)),
        };
        Ok(codec::encode(&decided))
    }

    /// As [`Decider::propose`], for a member that knows when a refusal is
    /// final. Where it isn't decided in time it isn't any more: with the answer
    /// no copy of the request waits here.
    pub async fn submitted(&self, from: NodeId, body: &[u8]) -> Result<Vec<u8>, Failure> {
        Ok(codec::encode(&self.submit_of(from, body).await?))
    }

    /// As [`Decider::submitted`], for a member that brings another's request: who
    /// made it is to know that the answer is this node's.
    pub async fn relayed(&self, from: NodeId, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let answer = RelayedAnswer {
            submitted: self.submit_of(from, body).await?,
            request: Hash::of(body),
        };
        let mesh = self.ledger.state().mesh;
        let answer = Sealed::new(&*self.key, Purpose::Answer, &mesh, &answer);
        Ok(codec::encode(&Relayed { answer }))
    }

    async fn submit_of(&self, from: NodeId, body: &[u8]) -> Result<Submitted, Failure> {
        if let Err(wait) = self.deliver(from).await {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            return Ok(Submitted::Spent { wait_ms });
        }
        let propose: Propose = read(body)?;
        let asked = self.ledger.propose_by(Some(from), propose.request, false);
        let clock = &self.host.clock;
        let decided = tokio::select! {
            decided = asked => decided,
            () = clock.sleep(client::DECIDES) => return Err(Failure::DeadlineExceeded),
        };
        match decided {
            Ok(outcome) => Ok(Submitted::Outcome(outcome)),
            Err(ProposeError::NotLeader(leader)) => Ok(Submitted::Elsewhere(leader)),
            Err(ProposeError::Spent(wait)) => Ok(Submitted::Spent {
                wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            }),
            Err(error) => Err(not_decided(error)),
        }
    }

    pub async fn join(&self, caller: &Caller, body: &[u8]) -> Result<Vec<u8>, Failure> {
        match read(body)? {
            JoinQuery::Hello => Ok(codec::encode(&JoinHello {
                genesis: self.ledger.genesis().clone(),
                now_ms: self.client.now_ms(),
            })),
            JoinQuery::Join(request) => {
                let (joined, outcome) = self.admit(caller, request).await?;
                if let Outcome::Refused(refusal) = &outcome {
                    tracing::info!(remote = %caller.remote, %refusal, "a join was refused");
                }
                self.certificate_of(&joined, outcome)
            }
            JoinQuery::Ask(ask) => {
                self.requests.ask(caller, ask)?;
                Ok(Vec::new())
            }
            JoinQuery::Wait(wait) => {
                let news = self.requests.wait(caller, wait, None).await?;
                Ok(codec::encode(&news))
            }
            JoinQuery::KeyedWait(KeyedWait { wait, key }) => {
                let news = self.requests.wait(caller, wait, Some(key)).await?;
                Ok(codec::encode(&news))
            }
        }
    }

    /// Has a join decided. A machine that was admitted and lost the answer
    /// gets it again.
    async fn admit(
        &self,
        caller: &Caller,
        sealed: Sealed,
    ) -> Result<(PublicKey, Outcome), Failure> {
        let request: Request = sealed
            .peek(limits::REQUEST_BYTES)
            .map_err(|_| Failure::Malformed)?;
        let (join, tunnel) = match Content::decode(request.kind, &request.content) {
            Some(Content::Join(join)) => (*join, None),
            Some(Content::KeyedJoin(keyed)) => (keyed.join, Some(keyed.tunnel)),
            _ => return Err(Failure::Malformed),
        };
        if join.exporter != caller.exporter {
            return Err(Failure::Refused(
                "the request was made for another connection; ask again".into(),
            ));
        }
        let Author::Token(token) = request.author else {
            return Err(Failure::Malformed);
        };
        let state = self.ledger.state();
        let message = match &tunnel {
            Some(key) => KeyedJoin::possession_message(&state.mesh, &token, &join.exporter, key),
            None => Join::possession_message(&state.mesh, &token, &join.exporter),
        };
        let possesses = self
            .host
            .keys
            .ed25519(&join.node, &message, &join.possession);
        if let Some((_, member)) = state.member_by_key(&join.node)
            && possesses
            && member.name == join.name
        {
            return Ok((join.node, Outcome::Done(member.joined)));
        }
        let outcome = self.submit(&sealed).await?;
        Ok((join.node, outcome))
    }

    pub async fn renew(&self, from: Option<NodeId>, body: &[u8]) -> Result<Vec<u8>, Failure> {
        if let Some(from) = from
            && self.deliver(from).await.is_err()
        {
            return Err(Failure::Busy);
        }
        let renew: Renew = read(body)?;
        let request: Request = renew
            .request
            .peek(limits::REQUEST_BYTES)
            .map_err(|_| Failure::Malformed)?;
        let Some(Content::Renew) = Content::decode(request.kind, &request.content) else {
            return Err(Failure::Malformed);
        };
        let Author::Node(node) = request.author else {
            return Err(Failure::Malformed);
        };
        let state = self.ledger.state();
        let member = state.members.get(&node).ok_or(Failure::NotMember)?;
        if self.view.borrow().held.contains_key(&node) {
            return Err(Failure::NotMember);
        }
        // Only what the member itself signed is worth the leader's time.
        if renewing(&state, &renew.request, &*self.host.keys) != Some(node) {
            return Err(Failure::Malformed);
        }
        let outcome = self.submit(&renew.request).await?;
        self.certificate_of(&member.key, outcome)
    }

    async fn submit(&self, request: &Sealed) -> Result<Outcome, Failure> {
        self.client
            .submit(request, PATIENCE)
            .await
            .map_err(|error| Failure::Unavailable(error.to_string()))
    }

    fn certificate_of(&self, key: &PublicKey, outcome: Outcome) -> Result<Vec<u8>, Failure> {
        let (leaf, issuer) = match &outcome {
            Outcome::Refused(_) => Default::default(),
            Outcome::Done(_) | Outcome::Waiting(_) => self.chain_of(key).ok_or_else(|| {
                Failure::Unavailable("this node's ledger is behind; ask again".into())
            })?,
        };
        Ok(codec::encode(&Joined {
            outcome,
            leaf,
            issuer,
        }))
    }

    fn chain_of(&self, key: &PublicKey) -> Option<(Vec<u8>, Vec<u8>)> {
        let state = self.ledger.state();
        let (_, member) = state.member_by_key(key)?;
        let serial: Serial = member.certificate?;
        let issued = state.certificates.get(&serial)?;
        Some((issued.der.to_vec(), state.issuer_of(issued)?.der().to_vec()))
    }
}

/// Why a request was not decided; no copy of it waits here.
fn not_decided(error: ProposeError) -> Failure {
    match error {
        ProposeError::Busy | ProposeError::Spent(_) => Failure::Busy,
        error => Failure::Unavailable(error.to_string()),
    }
}
