//! Who may have what: the pure rule that decides each request against the
//! state just before it. The leader asks it before it proposes, every node
//! when it applies; the answer is the same.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{
    request::{Author, Certify, Content, Grant, Join, Request, RequestId, Role, Share},
    state::{Member, NameKind, State},
};
use crate::{
    certificate::{LeafKind, LeafPlan},
    crypto::{PublicKey, Purpose, Sealed, Verify},
    id::NodeId,
    limits,
    map::Map,
    name::{Label, MeshDomain, NamePattern},
};

/// Why a request was refused. Refusals change nothing; they are recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A kind or an encoding that this build doesn't know.
    #[error("the request is of a kind that this version doesn't know; update the CA nodes first")]
    NotUnderstood,
    /// Made for another mesh.
    #[error("the request is for another mesh")]
    Mesh,
    /// Not signed by its stated author.
    #[error("the signature is not its author's")]
    Signature,
    /// Ledger time is past its expiry.
    #[error("the request has expired; is this machine's clock right?")]
    Expired,
    /// Its expiry is further ahead than is allowed.
    #[error("the request expires too far ahead; is this machine's clock right?")]
    TooFarAhead,
    /// The author is no member.
    #[error("the author is not a member of this mesh")]
    NotMember,
    /// The inviter is no member, or no admin any more.
    #[error("the token's inviter is not an admin of this mesh; ask an admin for a new invite")]
    Inviter,
    /// The token gives more than its inviter has.
    #[error("the token grants more than its inviter holds; ask for a new invite")]
    GrantTooWide,
    /// The grant doesn't belong to the key that signed.
    #[error("the token is damaged or forged; ask for a new invite")]
    Grant,
    /// The token is past its expiry.
    #[error("the token has expired; ask for a new invite")]
    TokenExpired,
    /// All uses of the token are spent.
    #[error("the token is used up; ask for a new invite")]
    TokenUsedUp,
    /// The machine is a member already.
    #[error("this machine is a member already")]
    AlreadyMember,
    /// The mesh has as many members as it may.
    #[error("the mesh has as many members as it may have")]
    MeshFull,
    /// Every IPv4 address of the overlay is taken.
    #[error("every IPv4 address of the overlay is taken")]
    AddressesExhausted,
    /// Somebody else has the name.
    #[error("the name {name} is taken by {owner}; choose another, or ask its owner to share it")]
    NameTaken {
        /// The name.
        name: Label,
        /// Name of the node that has it.
        owner: Label,
    },
    /// The name is kept for the mesh itself.
    #[error("the name {0} is reserved")]
    NameReserved(Label),
    /// The author's invite doesn't cover the name.
    #[error("the name {0} is outside what this machine's invite allows")]
    NameNotAllowed(Label),
    /// The author has as many names as one node may.
    #[error("this machine holds as many names as one may")]
    TooManyNames,
    /// The author doesn't own the name.
    #[error("the name {0} is not this machine's")]
    NotOwner(Label),
    /// A node's own name can't be given back while it is a member.
    #[error("{0} is a machine's own name; it is freed when the machine leaves")]
    NodeName(Label),
    /// The other node is no member.
    #[error("the node to share with is not a member")]
    NoSuchNode,
    /// A certificate was asked for a name that the author may not have.
    #[error("{0} is not a name that this machine holds; add the service first")]
    NotCertifiable(String),
    /// The asked life or number of names is out of bounds.
    #[error("a certificate may have 1 to 32 names and live 1 to 825 days")]
    CertificateBounds,
    /// The membership expired too long ago to renew.
    #[error("the membership expired too long ago to be renewed; join again with a new invite")]
    GraceOver,
    /// The leader attached a certificate that isn't what was asked for.
    #[error("the certificate is not what was asked for: {0}")]
    Certificate(String),
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, in the batch with this index.
    Done(u64),
    /// Refused.
    Refused(Refusal),
}

impl Refusal {
    /// Whether the author isn't proved to be a member or an invited machine.
    /// Such a refusal isn't written down: anybody could fill the ledger with it.
    pub fn is_anonymous(&self) -> bool {
        matches!(
            self,
            Self::Mesh
                | Self::Signature
                | Self::NotMember
                | Self::Expired
                | Self::TooFarAhead
                | Self::NotUnderstood
                | Self::Inviter
                | Self::Grant
                | Self::TokenExpired
                | Self::TokenUsedUp
        )
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
    Release(Label),
    Certify(LeafPlan, NodeId),
}

pub(super) struct JoinEffect {
    pub member: Member,
    pub token: PublicKey,
    pub token_expires_ms: u64,
    pub plan: LeafPlan,
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
    let content = Content::decode(request.kind, &request.content).ok_or(Refusal::NotUnderstood)?;
    match (request.author, content) {
        (Author::Token(token), Content::Join(join)) => {
            rule_join(state, &token, &join, stamp_ms, verify)
        }
        (Author::Node(node), content) => {
            let member = state.members.get(&node).ok_or(Refusal::NotMember)?;
            match content {
                Content::Join(_) => Err(Refusal::NotUnderstood),
                Content::Renew => rule_renew(state, node, member, stamp_ms),
                Content::Claim(name) => rule_claim(state, node, member, name),
                Content::Share(share) => rule_share(state, node, share),
                Content::Release(name) => rule_release(state, node, name),
                Content::Certify(certify) => rule_certify(state, node, member, &certify, stamp_ms),
            }
        }
        (Author::Token(_), _) => Err(Refusal::NotMember),
    }
}

fn rule_join(
    state: &State,
    token: &PublicKey,
    join: &Join,
    stamp_ms: u64,
    verify: &dyn Verify,
) -> Result<Effect, Refusal> {
    let possession = Join::possession_message(&state.mesh, token, &join.exporter);
    if !verify.ed25519(&join.node, &possession, &join.possession) {
        return Err(Refusal::Signature);
    }
    let stated: Grant = join
        .grant
        .peek(limits::REQUEST_BYTES)
        .map_err(|_| Refusal::Grant)?;
    let inviter = state.members.get(&stated.inviter).ok_or(Refusal::Inviter)?;
    let grant = Grant::open(&join.grant, &inviter.key, &state.mesh, verify)
        .filter(|grant| grant.token == *token)
        .ok_or(Refusal::Grant)?;
    if !inviter.roles.contains(&Role::Admin) {
        return Err(Refusal::Inviter);
    }
    let covered = |pattern: &NamePattern| inviter.names.iter().any(|own| own.covers(pattern));
    if !grant.roles.is_subset(&inviter.roles)
        || !grant.names.iter().all(covered)
        || grant.uses > limits::TOKEN_USES
    {
        return Err(Refusal::GrantTooWide);
    }
    if grant.expires_ms < stamp_ms
        || grant.expires_ms > stamp_ms.saturating_add(limits::TOKEN_LIFETIME_MS)
    {
        return Err(Refusal::TokenExpired);
    }
    if state.tokens.get(token).map_or(0, |used| used.uses) >= grant.uses {
        return Err(Refusal::TokenUsedUp);
    }
    let node = join.node.node_id();
    if state.members.contains_key(&node) {
        return Err(Refusal::AlreadyMember);
    }
    if state.members.len() >= limits::MEMBERS {
        return Err(Refusal::MeshFull);
    }
    let name = free_name(state, &grant.names, &join.name)?;
    let ipv4 = free_ipv4(state.ipv4, &state.addresses, node).ok_or(Refusal::AddressesExhausted)?;
    let member = Member {
        key: join.node,
        name,
        ipv4,
        ipv6: node.ipv6(&state.mesh),
        roles: grant.roles,
        names: grant.names,
        invited_by: Some(stated.inviter),
        joined: state.position.index + 1,
        certificate: None,
    };
    let plan = membership_plan(&state.domain, &member, stamp_ms);
    Ok(Effect::Join(Box::new(JoinEffect {
        member,
        token: *token,
        token_expires_ms: grant.expires_ms,
        plan,
    })))
}

/// What a membership certificate of `member` must say.
pub(super) fn membership_plan(domain: &MeshDomain, member: &Member, stamp_ms: u64) -> LeafPlan {
    LeafPlan {
        kind: LeafKind::Membership,
        dns: BTreeSet::from([domain.join(&member.name)]),
        ips: BTreeSet::from([IpAddr::V4(member.ipv4), IpAddr::V6(member.ipv6)]),
        spki: member.key.spki().to_vec(),
        common_name: Some(member.key.node_id().to_string()),
        days: limits::MEMBERSHIP_DAYS,
        stamp_ms,
    }
}

fn rule_renew(
    state: &State,
    node: NodeId,
    member: &Member,
    stamp_ms: u64,
) -> Result<Effect, Refusal> {
    let ended_ms = member
        .certificate
        .and_then(|serial| state.certificates.get(&serial))
        .map_or(u64::MAX, |issued| issued.not_after_ms);
    let grace_ms = u64::from(limits::RENEWAL_GRACE_DAYS) * 86_400_000;
    if stamp_ms > ended_ms.saturating_add(grace_ms) {
        return Err(Refusal::GraceOver);
    }
    Ok(Effect::Renew(
        membership_plan(&state.domain, member, stamp_ms),
        node,
    ))
}

impl State {
    /// Whether `node` would be granted `name`, as far as the ledger is known
    /// here. Who asks for what is refused for sure only makes it longer.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn may_claim(&self, node: NodeId, name: &Label) -> Result<(), Refusal> {
        let member = self.members.get(&node).ok_or(Refusal::NotMember)?;
        rule_claim(self, node, member, name.clone()).map(|_| ())
    }
}

fn rule_claim(
    state: &State,
    node: NodeId,
    member: &Member,
    name: Label,
) -> Result<Effect, Refusal> {
    if let Some(held) = state.names.get(&name)
        && (held.owner == node || held.shared.contains(&node))
    {
        return match held.kind {
            NameKind::Service => Ok(Effect::Nothing),
            NameKind::Node => Err(Refusal::NodeName(name)),
        };
    }
    if state.names_held_by(node) as usize >= limits::NAMES_PER_NODE {
        return Err(Refusal::TooManyNames);
    }
    let name = free_name(state, &member.names, &name)?;
    Ok(Effect::Claim(name, node))
}

fn rule_share(state: &State, node: NodeId, share: Share) -> Result<Effect, Refusal> {
    owned_service(state, node, &share.name)?;
    if !state.members.contains_key(&share.with) {
        return Err(Refusal::NoSuchNode);
    }
    Ok(Effect::Share(share))
}

fn rule_release(state: &State, node: NodeId, name: Label) -> Result<Effect, Refusal> {
    owned_service(state, node, &name)?;
    Ok(Effect::Release(name))
}

fn rule_certify(
    state: &State,
    node: NodeId,
    member: &Member,
    certify: &Certify,
    stamp_ms: u64,
) -> Result<Effect, Refusal> {
    if !(1..=limits::CERTIFICATE_NAMES).contains(&certify.names.len())
        || !(1..=limits::LEAF_DAYS).contains(&certify.days)
        || certify.spki.len() > limits::CERTIFICATE_BYTES
    {
        return Err(Refusal::CertificateBounds);
    }
    for name in &certify.names {
        if !may_certify(state, node, member, name) {
            return Err(Refusal::NotCertifiable(name.chars().take(255).collect()));
        }
    }
    let plan = LeafPlan {
        kind: LeafKind::Service,
        dns: certify.names.clone(),
        ips: BTreeSet::new(),
        spki: certify.spki.clone(),
        common_name: None,
        days: certify.days,
        stamp_ms,
    };
    Ok(Effect::Certify(plan, node))
}

/// Whether `node` may have a certificate for `name`: its own name, what is
/// below it, and services that it owns or that are shared with it.
fn may_certify(state: &State, node: NodeId, member: &Member, name: &str) -> bool {
    let Some(relative) = name
        .strip_suffix(state.domain.as_str())
        .and_then(|rest| rest.strip_suffix('.'))
    else {
        return false;
    };
    let labels: Vec<&str> = relative.split('.').collect();
    let own = |label: &str| label == member.name.as_str();
    let plain = |label: &str| label.parse::<Label>().is_ok_and(|l| l.as_str() == label);
    match labels[..] {
        [label] if plain(label) => {
            own(label)
                || label.parse().is_ok_and(|label: Label| {
                    state.names.get(&label).is_some_and(|held| {
                        held.kind == NameKind::Service
                            && (held.owner == node || held.shared.contains(&node))
                    })
                })
        }
        [sub, label] => own(label) && plain(sub),
        _ => false,
    }
}

fn owned_service(state: &State, node: NodeId, name: &Label) -> Result<(), Refusal> {
    match state.names.get(name) {
        Some(held) if held.owner == node && held.kind == NameKind::Node => {
            Err(Refusal::NodeName(name.clone()))
        }
        Some(held) if held.owner == node => Ok(()),
        _ => Err(Refusal::NotOwner(name.clone())),
    }
}

fn free_name(
    state: &State,
    allowed: &BTreeSet<NamePattern>,
    name: &Label,
) -> Result<Label, Refusal> {
    let name = name
        .clone()
        .grantable()
        .map_err(|_| Refusal::NameReserved(name.clone()))?;
    if let Some(held) = state.names.get(&name) {
        let owner = state
            .members
            .get(&held.owner)
            .map_or_else(|| name.clone(), |member| member.name.clone());
        return Err(Refusal::NameTaken { name, owner });
    }
    if !allowed.iter().any(|pattern| pattern.matches(&name)) {
        return Err(Refusal::NameNotAllowed(name));
    }
    Ok(name)
}

/// The first free host address, searched from a place that the node id gives,
/// so that a machine tends to get the same one again. The first and the last
/// 256 stay free: resolver, gateways, and what looks like a broadcast address.
pub(super) fn free_ipv4(
    net: Ipv4Net,
    taken: &Map<Ipv4Addr, NodeId>,
    node: NodeId,
) -> Option<Ipv4Addr> {
    const FIRST: u32 = 256;
    let size = 1u32.checked_shl(32 - u32::from(net.prefix_len()))?;
    let usable = size.checked_sub(2 * FIRST).filter(|&usable| usable > 0)?;
    let start = u32::from_be_bytes([node.0[12], node.0[13], node.0[14], node.0[15]]) % usable;
    (0..usable)
        .map(|step| FIRST + (start + step) % usable)
        .map(|host| Ipv4Addr::from(u32::from(net.network()) | host))
        .find(|address| {
            let last = address.octets()[3];
            last != 0 && last != 255 && !taken.contains_key(address)
        })
}
