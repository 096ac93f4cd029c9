//! What this node answers to its peers, method by method.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_proto::{
    admission::KeyedWait,
    certificate::Serial,
    codec,
    crypto::{PublicKey, Purpose, Sealed, Verify},
    id::NodeId,
    ledger::{
        Author, Batch, Content, Outcome, Request, Role, State,
        request::{Grant, Join, KeyedJoin},
    },
    limits,
    message::{
        Batches, BodyQuery, CutOff, CutOffQuery, Decided, HeadsQuery, JoinHello, JoinQuery, Joined,
        LedgerQuery, Propose, Push, RecoveryQuery, Renew, SnapshotHead, SnapshotPartQuery,
        SnapshotQuery, Submitted,
    },
    rpc::{Failure, method},
};
use serde::de::DeserializeOwned;

use crate::node::Inner;
use crate::node::follow::tunnel;
use crate::node::peer::requests;
use crate::{
    host::keys::Keys,
    ledger::{Ledger, ProposeError, client, follow},
    quic::{Caller, Handler, Held, Membership, MembershipCheck},
};

/// How long a request of a joining or renewing machine may take to be decided.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a request of a member that delivers too many is held back.
const HELD_BACK: Duration = Duration::from_secs(1);

/// Who is a member, by the ledger held here and admins' holds.
pub struct LedgerMembership {
    /// That.
    pub ledger: Ledger,
    /// Whom an admin holds.
    pub held: Arc<Mutex<BTreeSet<NodeId>>>,
    /// Checks what strangers sign.
    pub keys: Arc<dyn Keys>,
}

impl LedgerMembership {
    fn is_held(&self, node: &NodeId) -> bool {
        let held = self.held.lock().unwrap_or_else(|e| e.into_inner());
        held.contains(node)
    }
}

impl MembershipCheck for LedgerMembership {
    fn check(&self, key: &PublicKey) -> Membership {
        let state = self.ledger.state();
        match state.member_by_key(key) {
            Some((node, _)) if self.is_held(&node) => Membership::Revoked,
            Some(_) => Membership::Member,
            None if state.evicted.contains_key(&key.node_id()) => Membership::Revoked,
            None => Membership::Unknown,
        }
    }

    /// A renewal is signed with a member's key; a join is for this session and
    /// comes with a grant of an admin.
    fn proves(&self, caller: &Caller, method: u16, body: &[u8]) -> bool {
        let state = self.ledger.state();
        let verify = &*self.keys;
        match method {
            method::RENEW => read::<Renew>(body)
                .ok()
                .is_some_and(|renew| renewing(&state, &renew.request, verify).is_some()),
            method::JOIN => match read(body) {
                Ok(JoinQuery::Join(sealed)) => is_invited(&state, &sealed, caller, verify),
                _ => false,
            },
            _ => false,
        }
    }
}

/// The member that signed a request for its renewal.
fn renewing(state: &State, sealed: &Sealed, verify: &dyn Verify) -> Option<NodeId> {
    let request: Request = sealed.peek(limits::REQUEST_BYTES).ok()?;
    let Author::Node(node) = request.author else {
        return None;
    };
    let member = state.members.get(&node)?;
    let signed = sealed.is_by(verify, &member.key, Purpose::Request, &state.mesh);
    signed.then_some(node)
}

/// Whether a request to join is signed with the token of an admin's grant that
/// holds still.
fn is_invited(state: &State, sealed: &Sealed, caller: &Caller, verify: &dyn Verify) -> bool {
    let Ok(request) = sealed.peek::<Request>(limits::REQUEST_BYTES) else {
        return false;
    };
    let content = Content::decode(request.kind, &request.content);
    let join = content.as_ref().and_then(Content::join);
    let (Some(join), Author::Token(token)) = (join, request.author) else {
        return false;
    };
    let grant = Grant::peek(&join.grant).ok();
    let inviter = grant.and_then(|stated| state.members.get(&stated.inviter));
    let Some(inviter) = inviter.filter(|inviter| inviter.roles.contains(&Role::Admin)) else {
        return false;
    };
    join.exporter == caller.exporter
        && sealed.is_by(verify, &token, Purpose::Request, &state.mesh)
        && Grant::open(&join.grant, &inviter.key, &state.mesh, verify)
            .is_some_and(|grant| grant.token == token && grant.expires_ms >= state.stamp_ms)
}

/// Answers peers.
pub struct PeerHandler(pub Arc<Inner>);

#[async_trait]
impl Handler for PeerHandler {
    async fn call(&self, caller: &Caller, method: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        match (method, caller.node) {
            (method::JOIN, _) => self.join(caller, &body).await,
            (method::RENEW, node) => self.renew(node, &body).await,
            (_, None) => Err(Failure::NotMember),
            (method::PING, _) => Ok(body),
            (method::BODY, _) => self.body(&body),
            (method::HEADS, Some(node)) => self.heads(node, &body),
            (method::LEDGER, _) => self.ledger(&body).await,
            (method::PROPOSE, Some(node)) => self.propose(node, &body).await,
            (method::SUBMIT, Some(node)) => self.submitted(node, &body).await,
            (method::SPENDERS, Some(node)) => self.spenders(node).await,
            (method::GENESIS, _) => Ok(codec::encode(self.0.ledger.genesis())),
            (method::ISSUER_KEYS, Some(node)) => self.issuer_keys(node).await,
            (method::SNAPSHOT, _) => self.snapshot(&body).await,
            (method::SNAPSHOT_PART, _) => self.snapshot_part(&body).await,
            (method::RECOVERY, _) => self.recovery(&body).await,
            (method::REVOCATIONS, _) => Ok(self.0.lists.answer(&read(&body)?)),
            (method::CUT_OFF, _) => {
                let CutOffQuery { node } = read(&body)?;
                let cut_off = tunnel::is_cut_off(&self.0, node).await;
                Ok(codec::encode(&CutOff { cut_off }))
            }
            (method::COUNCIL, _) => Ok(codec::encode(&self.0.ledger.deciding().await)),
            (method::ADMISSION, Some(node)) => {
                let answer = requests::admission(&self.0, node, read(&body)?)?;
                Ok(codec::encode(&answer))
            }
            _ => Err(Failure::UnknownMethod),
        }
    }

    fn is_free(&self, node: &NodeId) -> bool {
        self.0.ledger.state().voters.contains_key(node)
    }

    async fn make_room(&self, caller: &Caller, method: u16) -> Held {
        match (method, caller.node) {
            (
                method::LEDGER | method::SNAPSHOT | method::SNAPSHOT_PART | method::RECOVERY,
                Some(node),
            ) => self.0.answers.room(node).await,
            _ => Box::new(()),
        }
    }

    async fn notice(&self, caller: &Caller, method: u16, body: Vec<u8>) {
        let Some(node) = caller.node else { return };
        match method {
            method::GOSSIP => self.0.gossip.take_message(node, &body),
            method::PUSH => {
                if let Ok(push) = codec::decode::<Push>(&body, limits::RPC_BYTES) {
                    self.0.gossip.take_push(node, push.heads);
                }
            }
            method::BATCHES => {
                if let Ok(pushed) = codec::decode::<Batches>(&body, limits::RPC_BYTES) {
                    self.batches(node, pushed).await;
                }
            }
            method::RAFT => self.0.ledger.hear_raft(node, &body),
            method::ENDORSE => self.0.ledger.hear_endorsement(node, &body),
            _ => {}
        }
    }
}

/// Why a request was not decided; no copy of it waits here.
fn not_decided(error: ProposeError) -> Failure {
    match error {
        ProposeError::Busy | ProposeError::Spent(_) => Failure::Busy,
        error => Failure::Unavailable(error.to_string()),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    codec::decode(body, limits::RPC_BYTES).map_err(|_| Failure::Malformed)
}

impl PeerHandler {
    fn body(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: BodyQuery = read(body)?;
        self.0
            .gossip
            .body(&query.hash)
            .ok_or_else(|| Failure::Unavailable("no head here names that body".into()))
    }

    fn heads(&self, node: NodeId, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: HeadsQuery = read(body)?;
        if query.position.index > self.0.ledger.state().position.index {
            self.0.nudge.ahead(node, query.position.index);
        }
        let heads = self.0.gossip.heads();
        Ok(codec::encode(&Push { heads }))
    }

    async fn ledger(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: LedgerQuery = read(body)?;
        let most = limits::LEDGER_ANSWER_BYTES;
        let batches = self.0.ledger.encoded_range(query.from, most).await;
        let batches = batches.map_err(|e| Failure::Internal(e.to_string()))?;
        Ok(codec::encode_list(&batches))
    }

    async fn snapshot(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: SnapshotQuery = read(body)?;
        let start = self.0.ledger.start_for(query.most).await;
        let start = start.map_err(|e| Failure::Internal(e.to_string()))?;
        let head = start.map(|start| SnapshotHead {
            ends: start.ends.clone(),
            at: Some(start.at.clone()),
            length: start.bytes.len() as u64,
        });
        Ok(codec::encode(&head.unwrap_or_default()))
    }

    async fn snapshot_part(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: SnapshotPartQuery = read(body)?;
        let start = self.0.ledger.start_at(query.index).await;
        let start = start.ok_or_else(|| {
            Failure::Unavailable("that state isn't at hand any more; ask for the newest".into())
        })?;
        let from = usize::try_from(query.from).unwrap_or(usize::MAX);
        let rest = start.bytes.get(from..).unwrap_or_default();
        Ok(rest[..rest.len().min(limits::SNAPSHOT_PART_BYTES)].to_vec())
    }

    async fn recovery(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: RecoveryQuery = read(body)?;
        let batches = self.0.ledger.recoveries_from(query.number).await;
        let batches = batches.map_err(|e| Failure::Internal(e.to_string()))?;
        Ok(codec::encode(&Batches { batches }))
    }

    /// Public keys only; making them costs this node something, and only an
    /// admin has a use for them.
    async fn issuer_keys(&self, node: NodeId) -> Result<Vec<u8>, Failure> {
        self.require_admin(node)?;
        let keys = self.0.ledger.issuer_keys().await;
        Ok(codec::encode(&keys.map_err(Failure::Unavailable)?))
    }

    async fn batches(&self, from: NodeId, pushed: Batches) {
        let held = self.0.ledger.state().position.index;
        let first = pushed
            .batches
            .first()
            .and_then(|batch| batch.read_header().ok());
        let last = pushed
            .batches
            .last()
            .and_then(|batch| batch.read_header().ok());
        let (Some(first), Some(last)) = (first, last) else {
            return;
        };
        if last.index <= held {
            let place = pushed.batches.last().map(Batch::position);
            if let Some(Ok(place)) = place
                && last.recovery.is_some()
                && self.0.ledger.hash_at(place.index) != Some(place.hash)
            {
                self.0.nudge.differs(from);
            }
            return;
        }
        let keys = &*self.0.host.keys;
        if first.index > held + 1 {
            if let Some(last) = pushed.batches.last() {
                self.0.ledger.note_proved(last, keys);
            }
            return self.0.nudge.ahead(from, last.index);
        }
        let _ = follow::take(&self.0.ledger, keys, from, pushed.batches).await;
    }

    /// Counts a request that a member delivers. One that delivers too many waits
    /// for each, and so for the end of its streams: that is all it costs here.
    async fn deliver(&self, from: NodeId) -> Result<(), Duration> {
        let clock = &self.0.host.clock;
        let end = clock.now() + HELD_BACK;
        loop {
            let now = clock.now();
            let counted = {
                let deliveries = self.0.deliveries.lock();
                deliveries
                    .unwrap_or_else(|e| e.into_inner())
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

    /// Whose requests were turned away: names for admins only.
    async fn spenders(&self, node: NodeId) -> Result<Vec<u8>, Failure> {
        self.require_admin(node)?;
        Ok(codec::encode(&self.0.ledger.spenders().await))
    }

    fn require_admin(&self, node: NodeId) -> Result<(), Failure> {
        let state = self.0.ledger.state();
        let member = state.members.get(&node).ok_or(Failure::NotMember)?;
        if member.roles.contains(&Role::Admin) {
            return Ok(());
        }
        Err(Failure::Refused("only an admin may ask this".into()))
    }

    /// A request that a member of an earlier version passes on to this node,
    /// which decides or says that it doesn't: one hop, so that requests can't go
    /// in circles. As that member takes a refusal for final, it is written down.
    async fn propose(&self, from: NodeId, body: &[u8]) -> Result<Vec<u8>, Failure> {
        if self.deliver(from).await.is_err() {
            return Err(Failure::Busy);
        }
        let propose: Propose = read(body)?;
        let asked = self.0.ledger.propose_by(Some(from), propose.request, true);
        let decided = match asked.await {
            Ok(outcome) => Decided::Outcome(outcome),
            Err(ProposeError::NotLeader(leader)) => Decided::Elsewhere(leader),
            Err(error) => return Err(not_decided(error)),
        };
        Ok(codec::encode(&decided))
    }

    /// As [`PeerHandler::propose`], for a member that knows when a refusal is
    /// final. Where it isn't decided in time it isn't any more: with the answer
    /// no copy of the request waits here.
    async fn submitted(&self, from: NodeId, body: &[u8]) -> Result<Vec<u8>, Failure> {
        if let Err(wait) = self.deliver(from).await {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            return Ok(codec::encode(&Submitted::Spent { wait_ms }));
        }
        let propose: Propose = read(body)?;
        let asked = self.0.ledger.propose_by(Some(from), propose.request, false);
        let clock = &self.0.host.clock;
        let decided = tokio::select! {
            decided = asked => decided,
            () = clock.sleep(client::DECIDES) => return Err(Failure::DeadlineExceeded),
        };
        let submitted = match decided {
            Ok(outcome) => Submitted::Outcome(outcome),
            Err(ProposeError::NotLeader(leader)) => Submitted::Elsewhere(leader),
            Err(ProposeError::Spent(wait)) => Submitted::Spent {
                wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            },
            Err(error) => return Err(not_decided(error)),
        };
        Ok(codec::encode(&submitted))
    }

    async fn join(&self, caller: &Caller, body: &[u8]) -> Result<Vec<u8>, Failure> {
        match read(body)? {
            JoinQuery::Hello => Ok(codec::encode(&JoinHello {
                genesis: self.0.ledger.genesis().clone(),
                now_ms: self.0.now_ms(),
            })),
            JoinQuery::Join(request) => {
                let (joined, outcome) = self.admit(caller, request).await?;
                if let Outcome::Refused(refusal) = &outcome {
                    tracing::info!(remote = %caller.remote, %refusal, "a join was refused");
                }
                self.certificate_of(&joined, outcome)
            }
            JoinQuery::Ask(ask) => {
                requests::ask(&self.0, caller, ask)?;
                Ok(Vec::new())
            }
            JoinQuery::Wait(wait) => {
                let news = requests::wait(&self.0, caller, wait, None).await?;
                Ok(codec::encode(&news))
            }
            JoinQuery::KeyedWait(KeyedWait { wait, key }) => {
                let news = requests::wait(&self.0, caller, wait, Some(key)).await?;
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
        let state = self.0.ledger.state();
        let message = match &tunnel {
            Some(key) => KeyedJoin::possession_message(&state.mesh, &token, &join.exporter, key),
            None => Join::possession_message(&state.mesh, &token, &join.exporter),
        };
        let possesses = self
            .0
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

    async fn renew(&self, from: Option<NodeId>, body: &[u8]) -> Result<Vec<u8>, Failure> {
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
        let state = self.0.ledger.state();
        let member = state.members.get(&node).ok_or(Failure::NotMember)?;
        if self.0.view.borrow().held.contains_key(&node) {
            return Err(Failure::NotMember);
        }
        // Only what the member itself signed is worth the leader's time.
        if renewing(&state, &renew.request, &*self.0.host.keys) != Some(node) {
            return Err(Failure::Malformed);
        }
        let outcome = self.submit(&renew.request).await?;
        self.certificate_of(&member.key, outcome)
    }

    async fn submit(&self, request: &Sealed) -> Result<Outcome, Failure> {
        self.0
            .client
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
        let state = self.0.ledger.state();
        let (_, member) = state.member_by_key(key)?;
        let serial: Serial = member.certificate?;
        let issued = state.certificates.get(&serial)?;
        Some((issued.der.to_vec(), state.issuer_of(issued)?.der().to_vec()))
    }
}
