//! What the bodies of RPCs mean, by method (see [`crate::rpc::method`]).

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    admission::{Ask, KeyedWait, Wait},
    certificate::Serial,
    crypto::{Hash, PublicKey, Sealed, Signature},
    id::NodeId,
    ledger::{Batch, Outcome, Position, Role, SignedGenesis},
    name::NamePattern,
};

/// PUSH: heads that are new to the sender's peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// Each with its body where that is small.
    pub heads: Vec<PushedHead>,
}

/// One head on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedHead {
    /// The signed [`crate::head::Head`].
    pub head: Sealed,
    /// Its body, when at most [`crate::limits::INLINE_BODY_BYTES`].
    pub body: Option<Vec<u8>>,
}

/// HEADS: the answer lists every head that the peer holds, as [`Push`], but
/// only as many as one frame takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadsQuery {
    /// The asking node's position in the ledger.
    pub position: Position,
}

/// COMPARE: what the asking node holds of heads, the digest of each bucket
/// ([`crate::links::digest`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketsQuery {
    pub buckets: Vec<[u8; 16]>,
}

/// The answer to [`BucketsQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketsAnswer {
    /// Which differ: bit `n` for bucket `n`.
    pub differing: u64,
    /// The heads in those that the peer holds, with generation and sequence.
    pub heads: Vec<(NodeId, u64, u64)>,
}

/// HEADS_OF: asks for the heads of these nodes; the answer is a [`Push`] with those that
/// the peer holds, but only as many as one frame takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadsOfQuery {
    pub nodes: Vec<NodeId>,
}

/// BODY: asks for a head's body; the answer is the body itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyQuery {
    /// Hash of the body.
    pub hash: Hash,
}

/// REVOCATIONS: asks for an issuer's revocation list; the answer is its DER, or
/// nothing where the peer holds none with a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationsQuery {
    /// The issuer's serial number.
    pub issuer: Serial,
    /// The number of the list that the asking node holds; 0 for none.
    pub above: u64,
}

/// LEDGER: asks for batches from an index on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerQuery {
    /// The first index that is wanted.
    pub from: u64,
}

/// The answer to [`LedgerQuery`], and the content of a BATCHES push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batches {
    /// In order, without a gap.
    pub batches: Vec<Batch>,
}

/// PROPOSE and SUBMIT: a request on its way to the leader. What PROPOSE refuses
/// is written down, as earlier versions take any refusal for final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propose {
    /// The sealed [`crate::ledger::Request`].
    pub request: Sealed,
}

/// JOIN: a machine that isn't a member yet asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinQuery {
    /// What mesh is this, and what time does its ledger have?
    Hello,
    /// The sealed join request, signed with the token's key.
    Join(Sealed),
    /// May this machine be let in? It has no token.
    Ask(Ask),
    /// Is there news of that? The answer is [`crate::admission::News`].
    Wait(Wait),
    /// As `Wait`, with the WireGuard key that the machine is to have.
    KeyedWait(KeyedWait),
}

/// The answer to [`JoinQuery::Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinHello {
    /// The first entry of the ledger.
    pub genesis: SignedGenesis,
    /// What the peer holds for the time now, in milliseconds of ledger time.
    pub now_ms: u64,
}

/// The answer to [`JoinQuery::Join`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// What became of the request.
    pub outcome: Outcome,
    /// The membership certificate and its issuer's, DER; empty when refused.
    /// With them the machine can connect as a member and fetch the ledger,
    /// which it then checks them against.
    pub leaf: Vec<u8>,
    /// As `leaf`.
    pub issuer: Vec<u8>,
}

/// The answer to PROPOSE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decided {
    /// What became of the request.
    Outcome(Outcome),
    /// The peer doesn't decide; this one does, as far as it knows.
    Elsewhere(Option<NodeId>),
}

/// The answer to SUBMIT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Submitted {
    /// What became of the request. A refusal isn't in the ledger: it is final
    /// only for who knows that no other copy of the request is on its way.
    Outcome(Outcome),
    /// The peer doesn't lead; this one does, as far as it knows. It holds no
    /// copy of the request any more, but for one in the voters' log.
    Elsewhere(Option<NodeId>),
    /// The author, or the asking node, has used up what it may have the ledger
    /// do; nothing was changed.
    Spent {
        /// How long to wait, in milliseconds.
        wait_ms: u64,
    },
}

/// RELAY: what a node asks of another member, where it has no connection with the
/// node that leads. A member brings requests over one hop, and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relay {
    /// Whether it has a connection with this CA node; the answer is a boolean. Whoever
    /// hasn't never sees the request.
    Reaches(NodeId),
    /// To bring a request to a CA node; the answer is [`Relayed`], as that node gave it.
    Bring {
        /// The CA node.
        to: NodeId,
        /// The sealed [`crate::ledger::Request`].
        request: Sealed,
    },
}

/// The answer to RELAYED, whose question is [`Propose`]: signed by the CA node, so
/// that whoever brings it can't make one up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// The sealed [`RelayedAnswer`].
    pub answer: Sealed,
}

/// What a CA node says of a request that another node brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayedAnswer {
    /// Hash of the encoded [`Propose`] that it answers.
    pub request: Hash,
    /// As to SUBMIT.
    pub submitted: Submitted,
}

/// The answer to TUNNEL_SEEN, whose question is empty: what the asked node's
/// WireGuard device counted for the asking node since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelSeen {
    /// Bytes that came from it, handshakes included.
    pub rx_bytes: u64,
    /// Bytes that were sent to it.
    pub tx_bytes: u64,
}

/// The answer to TUNNEL_PLACE, whose question is empty: where packets of the asking
/// node come from that the asked node's WireGuard device took for its own; `None` where
/// none do, or by a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelPlace {
    pub place: Option<SocketAddr>,
}

/// PUNCH, and its notice PUNCHED: which node looks for which. The answer is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Punch {
    /// To a neighbour: who is looked for. From one: who looks.
    pub node: NodeId,
}

/// The answer to SPENDERS, whose question is empty: members whose budget was
/// spent lately, at most [`crate::limits::SPENDERS`]. Only who leads knows any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spenders {
    /// Whether the peer leads.
    pub leads: bool,
    /// Each with the milliseconds until it has half of its budget again.
    pub nodes: Vec<(NodeId, u64)>,
}

/// The answer to INVITES: what the asked node gave out, whether or not somebody
/// joined by it since; at most [`crate::limits::INVITES_PER_NODE`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenInvites {
    pub invites: Vec<GivenInvite>,
}

/// An invite, as whoever gave it out remembers it. Nobody can join by that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenInvite {
    /// The token's public key.
    pub token: PublicKey,
    pub roles: BTreeSet<Role>,
    /// Names that may be granted.
    pub names: BTreeSet<NamePattern>,
    /// Networks that may be brought.
    pub routes: BTreeSet<IpNet>,
    /// Networks outside the mesh that names may lead to.
    pub addresses: BTreeSet<IpNet>,
    /// How many may join by it in all.
    pub uses: u32,
    /// When it was made, in milliseconds of ledger time.
    pub made_ms: u64,
    /// When it is void, in milliseconds of ledger time.
    pub expires_ms: u64,
}

/// ENDORSE: a CA node's signature over the header of a batch that it applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endorse {
    /// The batch's index.
    pub index: u64,
    /// Hash of its header.
    pub header: Hash,
    /// The sender's signature over the header.
    pub signature: Signature,
    /// The sender still lacks signatures: it is to be sent the receiver's own,
    /// or the batch where that is proved.
    pub wanting: bool,
}

/// RENEW: a member asks for a new membership certificate, perhaps over a
/// connection on which it couldn't prove that it is one. The answer is a
/// [`Joined`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// The sealed [`crate::ledger::Request`].
    pub request: Sealed,
}

/// The answer to ISSUER_KEYS, whose question is empty: the public half of what
/// a node signs certificates with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerKeys {
    /// The issuers in the ledger, not revoked, whose keys the node has.
    pub held: Vec<Serial>,
    /// SubjectPublicKeyInfo (DER) of keys that no issuer is known for: of the
    /// next issuer, and of the one after it.
    pub offered: Vec<Vec<u8>>,
}

/// The answer to COUNCIL, whose question is empty: deciding, as one CA node
/// sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftProgress {
    pub leader: Option<NodeId>,
    /// How often a leader was elected so far.
    pub term: u64,
    /// The CA nodes, those that wait included; only who leads knows.
    pub voters: BTreeMap<NodeId, VoterSeen>,
}

/// One CA node, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterSeen {
    /// How many entries of the leader's log it lacks.
    pub behind: u64,
    /// Whether it was heard of lately.
    pub active: bool,
}

/// CUT_OFF: asks whether the peer has nothing to do with a node any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOffQuery {
    pub node: NodeId,
}

/// The answer to [`CutOffQuery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOff {
    /// Whether the peer's tunnel and connections are without it now.
    pub cut_off: bool,
}

/// RECOVERY: asks for the recoveries by the root with this number or a higher
/// one. The answer is [`Batches`] with the batches that say so, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryQuery {
    /// That of the newest that the sender knows.
    pub number: u32,
}

/// SNAPSHOT: asks for the newest state that the peer has the proved hash of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotQuery {
    /// The last batch that it may be of.
    pub most: u64,
}

/// The answer to [`SnapshotQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// The batches that ended epochs, up to it.
    pub ends: Vec<Batch>,
    /// The batch that it is of; none when the peer has none.
    pub at: Option<Batch>,
    /// Bytes of the encoded state.
    pub length: u64,
}

/// SNAPSHOT_PART: asks for bytes of a state; the answer is as many as the peer
/// gives at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPartQuery {
    /// The batch that the state is of.
    pub index: u64,
    /// The first byte that is wanted.
    pub from: u64,
}
