//! What this node answers to its peers, method by method.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use innermesh_proto::{
    codec,
    id::NodeId,
    ledger::{Batch, Role},
    limits,
    message::{
        Batches, BodyQuery, BucketsQuery, CutOff, CutOffQuery, GivenInvites, HeadsOfQuery,
        HeadsQuery, LedgerQuery, Push, RecoveryQuery, SnapshotHead, SnapshotPartQuery,
        SnapshotQuery, TunnelPlace, TunnelSeen,
    },
    path::is_frame,
    rpc::{Failure, method},
};

use super::{
    answers::AnswerRoom, decider::Decider, decode::read, pair_keys::PairKeyAnswers, punch::Punches,
    relay::Relays, requests::Requests,
};
use crate::{
    gossip::Gossip,
    host::Host,
    ledger::{
        Ledger,
        client::Client,
        follow::{self, Nudge},
    },
    node::shared::{
        cut_off::CutOffWatch, handles::Handles, invites::Invites, relaying::Relaying,
        revocation_lists::Lists, tunnel_counters::TunnelCounters,
    },
    quic::{Caller, Handler, Held},
};

/// Answers peers.
pub(crate) struct PeerHandler {
    host: Host,
    ledger: Ledger,
    gossip: Gossip,
    nudge: Nudge,
    answers: AnswerRoom,
    lists: Arc<Lists>,
    cut_off: CutOffWatch,
    requests: Arc<Requests>,
    invites: Arc<Invites>,
    client: Client,
    decider: Decider,
    relays: Relays,
    tunnel: TunnelAnswers,
}

/// What is asked about the tunnel, and comes by it for others.
pub(crate) struct TunnelAnswers {
    pub counters: TunnelCounters,
    pub punches: Punches,
    pub pair_keys: PairKeyAnswers,
    pub relaying: Arc<Relaying>,
}

impl PeerHandler {
    pub fn new(
        node: &Handles,
        nudge: Nudge,
        lists: Arc<Lists>,
        cut_off: CutOffWatch,
        requests: Arc<Requests>,
        invites: Arc<Invites>,
        tunnel: TunnelAnswers,
    ) -> Self {
        Self {
            host: node.host.clone(),
            ledger: node.ledger.clone(),
            gossip: node.gossip.clone(),
            nudge,
            answers: AnswerRoom::default(),
            lists,
            cut_off,
            decider: Decider::new(node, requests.clone()),
            requests,
            invites,
            client: node.client.clone(),
            relays: Relays::new(node),
            tunnel,
        }
    }
}

#[async_trait]
impl Handler for PeerHandler {
    async fn call(&self, caller: &Caller, method: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        match (method, caller.node) {
            (method::JOIN, _) => self.decider.join(caller, &body).await,
            (method::RENEW, node) => self.decider.renew(node, &body).await,
            (_, None) => Err(Failure::NotMember),
            (method::PING, _) => Ok(body),
            (method::BODY, _) => self.body(&body),
            (method::HEADS, Some(node)) => self.heads(node, &body),
            (method::COMPARE, Some(_)) => self.compare(&body),
            (method::HEADS_OF, Some(_)) => self.heads_of(&body),
            (method::LEDGER, _) => self.ledger(&body).await,
            (method::PROPOSE, Some(node)) => self.decider.propose(node, &body).await,
            (method::SUBMIT, Some(node)) => self.decider.submitted(node, &body).await,
            (method::RELAYED, Some(node)) => self.decider.relayed(node, &body).await,
            (method::RELAY, Some(node)) => self.relays.answer(node, &body).await,
            (method::TUNNEL_SEEN, Some(node)) => self.tunnel_seen(node).await,
            (method::TUNNEL_PLACE, Some(node)) => self.tunnel_place(node).await,
            (method::PUNCH, Some(node)) => self.tunnel.punches.ask(node, &body),
            (method::PAIR_KEY, Some(node)) => self.tunnel.pair_keys.step(node, &body).await,
            (method::PAIR_KEY_BY, Some(node)) => self.tunnel.pair_keys.bring(node, &body).await,
            (method::SPENDERS, Some(node)) => self.spenders(node).await,
            (method::INVITES, Some(node)) => self.invites(node),
            (method::GENESIS, _) => Ok(codec::encode(self.ledger.genesis())),
            (method::ISSUER_KEYS, Some(node)) => self.issuer_keys(node).await,
            (method::SNAPSHOT, _) => self.snapshot(&body).await,
            (method::SNAPSHOT_PART, _) => self.snapshot_part(&body).await,
            (method::RECOVERY, _) => self.recovery(&body).await,
            (method::REVOCATIONS, _) => Ok(self.lists.answer(&read(&body)?)),
            (method::CUT_OFF, _) => {
                let CutOffQuery { node } = read(&body)?;
                let cut_off = self.cut_off.is_cut_off(node).await;
                Ok(codec::encode(&CutOff { cut_off }))
            }
            (method::COUNCIL, _) => Ok(codec::encode(&self.ledger.raft_progress().await)),
            (method::ADMISSION, Some(node)) => {
                let answer = self.requests.answer(node, read(&body)?)?;
                Ok(codec::encode(&answer))
            }
            _ => Err(Failure::UnknownMethod),
        }
    }

    fn is_free(&self, node: &NodeId) -> bool {
        self.ledger.state().voters.contains_key(node)
    }

    async fn make_room(&self, caller: &Caller, method: u16) -> Held {
        match (method, caller.node) {
            (
                method::LEDGER | method::SNAPSHOT | method::SNAPSHOT_PART | method::RECOVERY,
                Some(node),
            ) => self.answers.room(node).await,
            _ => Box::new(()),
        }
    }

    async fn notice(&self, caller: &Caller, method: u16, body: Vec<u8>) {
        let Some(node) = caller.node else { return };
        match method {
            method::GOSSIP => self.gossip.take_message(node, &body),
            method::PUSH => {
                if let Ok(push) = codec::decode::<Push>(&body, limits::RPC_BYTES) {
                    self.gossip.take_push(node, push.heads);
                }
            }
            method::BATCHES => {
                if let Ok(pushed) = codec::decode::<Batches>(&body, limits::RPC_BYTES) {
                    self.batches(node, pushed).await;
                }
            }
            method::RAFT => self.ledger.hear_raft(node, &body),
            method::ENDORSE => self.ledger.hear_endorsement(node, &body),
            method::PUNCHED => self.tunnel.punches.told(node, &body).await,
            _ => {}
        }
    }

    fn datagram(&self, caller: &Caller, datagram: Bytes) {
        if let Some(node) = caller.node {
            if is_frame(&datagram) {
                self.tunnel.relaying.take(node, &datagram);
            } else {
                self.gossip.take_datagram(node, &datagram);
            }
        }
    }
}

impl PeerHandler {
    fn body(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: BodyQuery = read(body)?;
        self.gossip
            .body(&query.hash)
            .ok_or_else(|| Failure::Unavailable("no head here names that body".into()))
    }

    fn heads(&self, node: NodeId, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: HeadsQuery = read(body)?;
        if query.position.index > self.ledger.state().position.index {
            self.nudge.ahead(node, query.position.index);
        }
        let heads = self.gossip.heads();
        Ok(codec::encode(&Push { heads }))
    }

    fn compare(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: BucketsQuery = read(body)?;
        let answer = self.gossip.compare_buckets(&query);
        Ok(codec::encode(&answer.ok_or(Failure::Malformed)?))
    }

    fn heads_of(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: HeadsOfQuery = read(body)?;
        let heads = self.gossip.heads_of(&query.nodes);
        Ok(codec::encode(&Push { heads }))
    }

    async fn ledger(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: LedgerQuery = read(body)?;
        let most = limits::LEDGER_ANSWER_BYTES;
        let batches = self.ledger.encoded_range(query.from, most).await;
        let batches = batches.map_err(|e| Failure::Internal(e.to_string()))?;
        Ok(codec::encode_list(&batches))
    }

    async fn snapshot(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: SnapshotQuery = read(body)?;
        let start = self.ledger.start_for(query.most).await;
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
        let start = self.ledger.start_at(query.index).await;
        let start = start.ok_or_else(|| {
            Failure::Unavailable("that state isn't at hand any more; ask for the newest".into())
        })?;
        let from = usize::try_from(query.from).unwrap_or(usize::MAX);
        let rest = start.bytes.get(from..).unwrap_or_default();
        Ok(rest[..rest.len().min(limits::SNAPSHOT_PART_BYTES)].to_vec())
    }

    async fn recovery(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let query: RecoveryQuery = read(body)?;
        let batches = self.ledger.recoveries_from(query.number).await;
        let batches = batches.map_err(|e| Failure::Internal(e.to_string()))?;
        Ok(codec::encode(&Batches { batches }))
    }

    /// Public keys only; making them costs this node something, and only an
    /// admin has a use for them.
    async fn issuer_keys(&self, node: NodeId) -> Result<Vec<u8>, Failure> {
        self.require_admin(node)?;
        let keys = self.ledger.issuer_keys().await;
        let keys = keys.map_err(|error| Failure::Unavailable(error.to_string()))?;
        Ok(codec::encode(&keys))
    }

    async fn batches(&self, from: NodeId, pushed: Batches) {
        let held = self.ledger.state().position.index;
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
                && self.ledger.hash_at(place.index) != Some(place.hash)
            {
                self.nudge.differs(from);
            }
            return;
        }
        let keys = &*self.host.keys;
        if first.index > held + 1 {
            if let Some(last) = pushed.batches.last() {
                self.ledger.note_proved(last, keys);
            }
            return self.nudge.ahead(from, last.index);
        }
        let _ = follow::take(&self.ledger, keys, from, pushed.batches).await;
    }

    /// What the device here counted for whoever asks.
    async fn tunnel_seen(&self, node: NodeId) -> Result<Vec<u8>, Failure> {
        let state = self.ledger.state();
        let member = state.members.get(&node).ok_or(Failure::NotMember)?;
        let seen =
            self.tunnel.counters.of(member).await.ok_or_else(|| {
                Failure::Unavailable("there is no tunnel to that node here".into())
            })?;
        Ok(codec::encode(&TunnelSeen {
            rx_bytes: seen.rx_bytes,
            tx_bytes: seen.tx_bytes,
        }))
    }

    async fn tunnel_place(&self, node: NodeId) -> Result<Vec<u8>, Failure> {
        let state = self.ledger.state();
        let member = state.members.get(&node).ok_or(Failure::NotMember)?;
        let place = self.tunnel.counters.place_of(member).await;
        Ok(codec::encode(&TunnelPlace { place }))
    }

    /// Whose requests were turned away: names for admins only.
    async fn spenders(&self, node: NodeId) -> Result<Vec<u8>, Failure> {
        self.require_admin(node)?;
        Ok(codec::encode(&self.ledger.spenders().await))
    }

    /// What was given out here: for admins only.
    fn invites(&self, node: NodeId) -> Result<Vec<u8>, Failure> {
        self.require_admin(node)?;
        let invites = self.invites.open(self.client.now_ms());
        Ok(codec::encode(&GivenInvites { invites }))
    }

    fn require_admin(&self, node: NodeId) -> Result<(), Failure> {
        let state = self.ledger.state();
        let member = state.members.get(&node).ok_or(Failure::NotMember)?;
        if member.roles.contains(&Role::Admin) {
            return Ok(());
        }
        Err(Failure::Refused("only an admin may ask this".into()))
    }
}
