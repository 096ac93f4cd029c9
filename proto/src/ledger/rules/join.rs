//! Who becomes a member, with what, and for how long.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};

use super::{asking::AskingMember, names::free_name};
use crate::{
    certificate::{LeafKind, LeafPlan},
    crypto::{PublicKey, Verify},
    id::NodeId,
    ledger::{
        effect::{Effect, JoinEffect},
        refusal::Refusal,
        request::{Admit, Grant, Join, KeyedAdmit, KeyedJoin, RevokeInvite, Role},
        state::{Member, State},
    },
    limits,
    name::{Label, MeshDomain, NamePattern},
    tunnel::TunnelKey,
};

pub(super) fn rule_join(
    state: &State,
    token: &PublicKey,
    join: &Join,
    tunnel: Option<TunnelKey>,
    stamp_ms: u64,
    verify: &dyn Verify,
) -> Result<Effect, Refusal> {
    let possession = match &tunnel {
        Some(key) => KeyedJoin::possession_message(&state.mesh, token, &join.exporter, key),
        None => Join::possession_message(&state.mesh, token, &join.exporter),
    };
    if !verify.ed25519(&join.node, &possession, &join.possession) {
        return Err(Refusal::Signature);
    }
    let stated = Grant::peek(&join.grant).map_err(|_| Refusal::Grant)?;
    // To earlier rules such a grant is none.
    if stated.since_rules() > state.rules {
        return Err(Refusal::Grant);
    }
    let inviter = state.members.get(&stated.inviter).ok_or(Refusal::Inviter)?;
    let grant = Grant::open(&join.grant, &inviter.key, &state.mesh, verify)
        .filter(|grant| grant.token == *token)
        .ok_or(Refusal::Grant)?;
    if !inviter.roles.contains(&Role::Admin) {
        return Err(Refusal::Inviter);
    }
    if grant.uses > limits::TOKEN_USES {
        return Err(Refusal::GrantTooWide);
    }
    check_addresses(state, &grant.addresses)?;
    if grant.expires_ms < stamp_ms
        || grant.expires_ms > stamp_ms.saturating_add(limits::TOKEN_LIFETIME_MS)
    {
        return Err(Refusal::TokenExpired);
    }
    if state.tokens.get(token).map_or(0, |used| used.uses) >= grant.uses {
        return Err(Refusal::TokenUsedUp);
    }
    let wish = Wish {
        key: join.node,
        name: &join.name,
        roles: grant.roles,
        names: grant.names,
        routes: grant.routes,
        addresses: grant.addresses,
        tunnel,
    };
    let inviter = AskingMember {
        node: stated.inviter,
        member: inviter,
    };
    admission(state, inviter, wish, Some((*token, grant.expires_ms)))
}

pub(super) fn rule_admit(
    state: &State,
    author: AskingMember<'_>,
    admit: &Admit,
    tunnel: Option<TunnelKey>,
    verify: &dyn Verify,
) -> Result<Effect, Refusal> {
    author.require_admin()?;
    let (mesh, admin, transcript) = (&state.mesh, &author.member.key, &admit.transcript);
    let possession = match &tunnel {
        Some(key) => KeyedAdmit::possession_message(mesh, admin, transcript, key),
        None => Admit::possession_message(mesh, admin, transcript),
    };
    if !verify.ed25519(&admit.node, &possession, &admit.possession) {
        return Err(Refusal::Signature);
    }
    let wish = Wish {
        key: admit.node,
        name: &admit.name,
        roles: admit.roles.clone(),
        names: admit.names.clone(),
        routes: admit.routes.clone(),
        addresses: BTreeSet::new(),
        tunnel,
    };
    admission(state, author, wish, None)
}

/// By an admin, whoever gave the token out: a lost one is to be of no use.
pub(super) fn rule_revoke_invite(
    state: &State,
    author: AskingMember<'_>,
    revoke: RevokeInvite,
) -> Result<Effect, Refusal> {
    author.require_admin()?;
    let latest_ms = state.stamp_ms.saturating_add(limits::TOKEN_LIFETIME_MS);
    if !(state.stamp_ms..=latest_ms).contains(&revoke.expires_ms) {
        return Err(Refusal::TokenExpired);
    }
    Ok(Effect::RevokeInvite(revoke, author.node))
}

/// What a new member is to be.
struct Wish<'w> {
    key: PublicKey,
    name: &'w Label,
    roles: BTreeSet<Role>,
    names: BTreeSet<NamePattern>,
    routes: BTreeSet<IpNet>,
    addresses: BTreeSet<IpNet>,
    tunnel: Option<TunnelKey>,
}

fn admission(
    state: &State,
    inviter: AskingMember<'_>,
    wish: Wish<'_>,
    token: Option<(PublicKey, u64)>,
) -> Result<Effect, Refusal> {
    check_grant(state, inviter.member, &wish)?;
    let node = wish.key.node_id();
    if state.members.contains_key(&node) {
        return Err(Refusal::AlreadyMember);
    }
    if state.evicted.contains_key(&node) {
        return Err(Refusal::Evicted);
    }
    if state.members.len() >= limits::MEMBERS {
        return Err(Refusal::MeshFull);
    }
    if let Some(key) = wish.tunnel {
        state.check_tunnel_key(node, key)?;
    }
    // An admin that lets a machine in by its code has chosen the name itself.
    let allowed = match token {
        Some(_) => &wish.names,
        None => &inviter.member.names,
    };
    let name = free_name(state, allowed, wish.name)?;
    let ipv4 =
        free_ipv4(state.ipv4, |ip| state.is_taken(ip), node).ok_or(Refusal::AddressesExhausted)?;
    let tunnel = wish.tunnel;
    let member = Member {
        key: wish.key,
        name,
        ipv4,
        ipv6: node.ipv6(&state.mesh),
        roles: wish.roles,
        names: wish.names,
        routes: wish.routes,
        invited_by: Some(inviter.node),
        joined: state.position.index + 1,
        joined_ms: state.stamp_ms,
        certificate: None,
    };
    let plan = membership_plan(&state.domain, &member, state.stamp_ms);
    Ok(Effect::Join(Box::new(JoinEffect {
        member,
        addresses: wish.addresses,
        token,
        plan,
        tunnel,
    })))
}

/// Nobody gives more than they have.
fn check_grant(state: &State, inviter: &Member, wish: &Wish<'_>) -> Result<(), Refusal> {
    let named = |pattern: &NamePattern| inviter.names.iter().any(|own| own.covers(pattern));
    let routed = |route: &IpNet| inviter.routes.iter().any(|own| own.contains(route));
    if wish.names.len() > limits::GRANT_NAMES
        || wish.routes.len() > limits::GRANT_ROUTES
        || !wish
            .roles
            .iter()
            .all(|role| role.is_given_by(&inviter.roles))
        || !wish.names.iter().all(named)
        || !wish.routes.iter().all(routed)
    {
        return Err(Refusal::GrantTooWide);
    }
    let overlay = [IpNet::V4(state.ipv4), IpNet::V6(state.mesh.ula())];
    let wrong =
        |route: &&IpNet| route.trunc() != **route || overlay.iter().any(|net| net.contains(*route));
    match wish.routes.iter().find(wrong) {
        Some(route) => Err(Refusal::Route(*route)),
        None => Ok(()),
    }
}

/// An admin's names may lead to any address outside the mesh, and so may those
/// of whom it invites.
fn check_addresses(state: &State, addresses: &BTreeSet<IpNet>) -> Result<(), Refusal> {
    if addresses.len() > limits::GRANT_ADDRESSES {
        return Err(Refusal::GrantTooWide);
    }
    let overlay = [IpNet::V4(state.ipv4), IpNet::V6(state.mesh.ula())];
    let wrong = |net: &&IpNet| net.trunc() != **net || overlay.iter().any(|own| own.contains(*net));
    match addresses.iter().find(wrong) {
        Some(net) => Err(Refusal::Route(*net)),
        None => Ok(()),
    }
}

/// What a membership certificate of `member` must say.
pub(in crate::ledger) fn membership_plan(
    domain: &MeshDomain,
    member: &Member,
    stamp_ms: u64,
) -> LeafPlan {
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

pub(super) fn rule_renew(state: &State, author: AskingMember<'_>) -> Result<Effect, Refusal> {
    let AskingMember { node, member } = author;
    // A certificate that is forgotten ended before the grace period did.
    let serial = member.certificate.ok_or(Refusal::GraceOver)?;
    let issued = state.certificates.get(&serial).ok_or(Refusal::GraceOver)?;
    let grace_ms = u64::from(limits::RENEWAL_GRACE_DAYS) * 86_400_000;
    if state.stamp_ms > issued.not_after_ms.saturating_add(grace_ms) {
        return Err(Refusal::GraceOver);
    }
    // Whoever has had its share gets the one that it has: else a node could have
    // any number of them.
    if state.rules > 0 && !state.may_renew(node) && !state.is_revoked(&serial, issued) {
        return Ok(Effect::Nothing);
    }
    let plan = membership_plan(&state.domain, member, state.stamp_ms);
    Ok(Effect::Renew(plan, node))
}

/// The first free host address, searched from a place that the node id gives,
/// so that a machine tends to get the same one again. The first and the last
/// 256 stay free: resolver, gateways, and what looks like a broadcast address.
pub(in crate::ledger) fn free_ipv4(
    net: Ipv4Net,
    is_taken: impl Fn(Ipv4Addr) -> bool,
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
            last != 0 && last != 255 && !is_taken(*address)
        })
}
