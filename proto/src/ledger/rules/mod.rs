//! Who may have what: the pure rule that decides each request against the
//! state just before it. The leader asks it before it proposes, every node
//! when it applies; the answer is the same.

mod certificates;
mod evict;
mod join;
mod names;
mod records;
mod refusal;
mod roster;

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::{evict::Eviction, refusal::Refusal};
pub(super) use self::{
    join::{free_ipv4, membership_plan},
    records::label_of,
};
use super::{
    request::{AddRecord, Author, Content, HoldId, RemoveRecords, Request, RequestId, Role, Share},
    state::{Member, State},
    tunnel_keys, version,
};
use crate::{
    certificate::{KeptCertificate, LeafPlan, Serial},
    crypto::{PublicKey, Purpose, Sealed, Verify},
    id::NodeId,
    limits,
    name::Label,
    tunnel::TunnelKey,
};

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, in the batch with this index.
    Done(u64),
    /// Written down in the batch with this index; it comes to pass when a
    /// second admin asks for the same.
    Waiting(u64),
    /// Refused.
    Refused(Refusal),
}

impl Outcome {
    /// The batch that it was decided in, unless it was refused.
    pub fn index(&self) -> Option<u64> {
        match self {
            Self::Done(index) | Self::Waiting(index) => Some(*index),
            Self::Refused(_) => None,
        }
    }
}

/// What a request that isn't refused still needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, not even to be written down: it was decided before, like this.
    Repeat(Outcome),
    /// Nothing.
    Plain,
    /// A certificate by this plan, as the entry's attachment.
    Certificate(LeafPlan),
}

/// What a request that passed every check will change.
pub(super) enum Effect {
    /// Was applied before: this was the outcome.
    Repeat(Outcome),
    /// Was asked for and is so already.
    Nothing,
    Join(Box<JoinEffect>),
    Renew(LeafPlan, NodeId),
    Claim(Label, NodeId),
    Share(Share),
    Unshare(Share),
    Release(Label),
    Certify(LeafPlan, NodeId),
    Promote(NodeId, Vec<KeptCertificate>),
    Demote(NodeId),
    Roster(BTreeSet<NodeId>),
    Leave(NodeId),
    /// A first admin's word; the second's is awaited.
    Propose {
        node: NodeId,
        by: NodeId,
    },
    Evict {
        node: NodeId,
        hold: Option<(NodeId, HoldId)>,
    },
    Unhold(NodeId, HoldId),
    Revoke(Serial),
    AddRecord(AddRecord, NodeId),
    RemoveRecords(RemoveRecords),
    Rules(u32),
    TunnelKey(NodeId, TunnelKey),
}

pub(super) struct JoinEffect {
    pub member: Member,
    /// Addresses outside the mesh that its names may lead to.
    pub addresses: BTreeSet<IpNet>,
    /// The token that it spends, and until when that counts.
    pub token: Option<(PublicKey, u64)>,
    pub plan: LeafPlan,
    /// The WireGuard key that it gets with its membership.
    pub tunnel: Option<TunnelKey>,
}

/// By what a request that was decided is known again: two authors can't get
/// into each other's way by their ids.
pub(super) type RequestKey = (Author, RequestId);

/// Decides one request at ledger time `stamp_ms`; with it, where it is to be
/// remembered, by what and until when.
pub(super) fn rule(
    state: &State,
    sealed: &Sealed,
    stamp_ms: u64,
    verify: &dyn Verify,
) -> (Option<(RequestKey, u64)>, Result<Effect, Refusal>) {
    let Ok(request) = sealed.peek::<Request>(limits::REQUEST_BYTES) else {
        return (None, Err(Refusal::NotUnderstood));
    };
    let ruling = rule_request(state, sealed, &request, stamp_ms, verify);
    // Only an id whose author is proved is remembered: else anybody could burn ids.
    let remember = !matches!(&ruling, Err(refusal) if refusal.is_anonymous());
    let key = (request.author, request.id);
    (remember.then_some((key, request.expires_ms)), ruling)
}

fn rule_request(
    state: &State,
    sealed: &Sealed,
    request: &Request,
    stamp_ms: u64,
    verify: &dyn Verify,
) -> Result<Effect, Refusal> {
    if request.mesh != state.mesh {
        return Err(Refusal::Mesh);
    }
    if request.expires_ms < stamp_ms {
        return Err(Refusal::Expired);
    }
    if request.expires_ms > stamp_ms.saturating_add(2 * limits::REQUEST_LIFETIME_MS) {
        return Err(Refusal::TooFarAhead);
    }
    let key = match request.author {
        Author::Node(node) => state.members.get(&node).ok_or(Refusal::NotMember)?.key,
        Author::Token(key) => key,
    };
    if !sealed.is_by(verify, &key, Purpose::Request, &state.mesh) {
        return Err(Refusal::Signature);
    }
    if let Some(outcome) = state.outcome_of(request.author, request.id) {
        return Ok(Effect::Repeat(outcome.clone()));
    }
    let content = Content::decode(request.kind, &request.content)
        .filter(|content| content.since_rules() <= state.rules)
        .ok_or(Refusal::NotUnderstood)?;
    let effect = match request.author {
        Author::Token(token) => match content {
            Content::Join(join) => join::rule_join(state, &token, &join, None, stamp_ms, verify),
            Content::KeyedJoin(keyed) => {
                let key = Some(keyed.tunnel);
                join::rule_join(state, &token, &keyed.join, key, stamp_ms, verify)
            }
            _ => Err(Refusal::NotMember),
        },
        Author::Node(node) => {
            let member = state.members.get(&node).ok_or(Refusal::NotMember)?;
            let author = Asking { node, member };
            rule_content(state, author, content, verify)
        }
    }?;
    if state.rules > 0 {
        state.check_shares(request.author, &effect)?;
    }
    Ok(effect)
}

/// The member that asks.
#[derive(Clone, Copy)]
struct Asking<'s> {
    node: NodeId,
    member: &'s Member,
}

impl Asking<'_> {
    fn is_admin(&self) -> bool {
        self.member.roles.contains(&Role::Admin)
    }

    fn require_admin(&self) -> Result<(), Refusal> {
        self.is_admin().then_some(()).ok_or(Refusal::NotAdmin)
    }
}

fn rule_content(
    state: &State,
    author: Asking<'_>,
    content: Content,
    verify: &dyn Verify,
) -> Result<Effect, Refusal> {
    match content {
        Content::Join(_) | Content::KeyedJoin(_) => Err(Refusal::NotUnderstood),
        Content::Admit(admit) => join::rule_admit(state, author, &admit, None, verify),
        Content::KeyedAdmit(keyed) => {
            join::rule_admit(state, author, &keyed.admit, Some(keyed.tunnel), verify)
        }
        Content::Renew => join::rule_renew(state, author),
        Content::Claim(name) => names::rule_claim(state, author, name),
        Content::Share(share) => names::rule_share(state, author, share),
        Content::Unshare(share) => names::rule_unshare(state, author, share),
        Content::Release(name) => names::rule_release(state, author, name),
        Content::Certify(certify) => certificates::rule_certify(state, author, &certify),
        Content::Revoke(serial) => certificates::rule_revoke(state, author, serial),
        Content::Promote(promote) => roster::rule_promote(state, author, &promote, verify),
        Content::Demote(node) => roster::rule_demote(state, author, node),
        Content::Roster(change) => roster::rule_roster(state, author, change),
        Content::Leave => roster::rule_leave(state, author),
        Content::Evict(evict) => evict::rule_evict(state, author, &evict, verify),
        Content::Unhold(unhold) => evict::rule_unhold(state, author, &unhold),
        Content::AddRecord(record) => records::rule_add(state, author, record),
        Content::RemoveRecords(records) => records::rule_remove(state, author, records),
        Content::Rules(rules) => {
            version::rule_rules(state, state.roster.contains(&author.node), rules)
                .map(Effect::Rules)
        }
        Content::TunnelKey(key) => tunnel_keys::rule_tunnel_key(state, author.node, key),
    }
}
