//! `agent invite`: what a machine that is let in may be given, and the token.

use std::collections::BTreeSet;

use innermesh_proto::{
    id::NodeId,
    ledger::{Member, Role, State, content::invite_id},
    limits,
    message::GivenInvite,
    name::NamePattern,
};
use ipnet::IpNet;

use crate::{
    control::{
        ControlError,
        members::{Grants, Invite, InviteRequest},
    },
    enroll::token::{InviteOptions, Token},
    host::UnixTime,
    node::shared::{
        handles::Handles,
        invites::{Invites, KeepError},
        refusals::{internal, invalid, not_member, refused},
    },
};

/// What is given, read and checked.
#[derive(Debug)]
pub struct Given {
    pub roles: BTreeSet<Role>,
    /// Names that may be granted.
    pub names: BTreeSet<NamePattern>,
    /// Networks that may be brought.
    pub routes: BTreeSet<IpNet>,
}

/// Makes a token, once it is written down what it gives.
///
/// # Errors
/// What this machine may not give, or what makes no sense.
pub async fn invite(
    node: &Handles,
    invites: &Invites,
    request: InviteRequest,
) -> Result<Invite, ControlError> {
    let state = node.ledger.state();
    let wanted = Grants {
        roles: request.roles,
        names: request.names,
        routes: request.routes,
    };
    let given = grants(&state, node.me, &wanted)?;
    let addresses = addresses(&state, request.addresses)?;
    let life_ms = request.ttl_s.saturating_mul(1000);
    if !(1..=limits::TOKEN_LIFETIME_MS).contains(&life_ms) {
        return Err(invalid("a token lives from a second to 30 days"));
    }
    if !(1..=limits::TOKEN_USES).contains(&request.uses) {
        return Err(invalid(format!(
            "a token has from 1 to {} uses",
            limits::TOKEN_USES
        )));
    }
    let options = InviteOptions {
        roles: given.roles,
        names: given.names,
        routes: given.routes,
        addresses,
        uses: request.uses,
        expires_ms: node.client.now_ms().saturating_add(life_ms),
    };
    let expires_ms = options.expires_ms;
    let own = node.gossip.own();
    let seeds: Vec<String> = own.quic.iter().map(ToString::to_string).collect();
    let (host, key) = (&node.host, &*node.key);
    let (mesh, position) = (state.mesh, state.position);
    let token = Token::new(host, key, mesh, position, options.clone(), seeds.clone());
    let public = token.stated_grant().map_err(internal)?.token;
    let given = GivenInvite {
        token: public,
        roles: options.roles,
        names: options.names,
        routes: options.routes,
        addresses: options.addresses,
        uses: options.uses,
        made_ms: node.client.now_ms(),
        expires_ms,
    };
    let now_ms = given.made_ms;
    let is_over = |invite: &GivenInvite| !is_open(&state, invite, now_ms);
    let kept = invites.keep(&*host.disk, given, is_over).await;
    kept.map_err(|error| match error {
        KeepError::Full => refused(error),
        KeepError::Io(_) => internal(error),
    })?;
    let token = token.to_text();
    let seed = seeds
        .first()
        .cloned()
        .unwrap_or_else(|| "ADDRESS-OF-THIS-MACHINE".into());
    let seed = seed.strip_suffix(":51819").unwrap_or(&seed);
    let asking = format!("agent join {seed} --token -");
    Ok(Invite {
        id: invite_id(&public),
        command: format!("printf %s {token} | {asking}"),
        asking,
        token,
        expires: UnixTime::from_ms(expires_ms),
        expires_ms,
    })
}

/// Whether `me` may give what is wanted; nobody gives more than they have.
///
/// # Errors
/// What is missing here.
pub fn grants(state: &State, me: NodeId, wanted: &Grants) -> Result<Given, ControlError> {
    let own = state.members.get(&me).ok_or_else(not_member)?;
    if !own.roles.contains(&Role::Admin) {
        return Err(refused(
            "this machine is not an admin; run `agent invite` on one that is",
        ));
    }
    let roles = wanted.roles.iter();
    let roles: BTreeSet<Role> = roles
        .map(|role| role.parse().map_err(invalid))
        .collect::<Result<_, _>>()?;
    if let Some(role) = roles.iter().find(|role| role.since_rules() > state.rules) {
        return Err(not_known(*role));
    }
    if let Some(role) = roles.iter().find(|role| !role.is_given_by(&own.roles)) {
        return Err(refused(format!(
            "this machine hasn't the role {role} and so can't give it; run it on one that has: {}",
            who(state, |member| role.is_given_by(&member.roles))
        )));
    }
    let names = if wanted.names.is_empty() {
        own.names.clone()
    } else {
        wanted.names.iter().cloned().collect()
    };
    let named = |member: &Member, name: &NamePattern| member.names.iter().any(|n| n.covers(name));
    if let Some(name) = names.iter().find(|name| !named(own, name)) {
        return Err(refused(format!(
            "this machine itself may have names like {} and so can't give {name}; run it on one \
             that can: {}",
            list(own.names.iter()),
            who(state, |member| named(member, name))
        )));
    }
    let routes: BTreeSet<IpNet> = wanted.routes.iter().copied().collect();
    check_routes(state, own, &routes)?;
    if names.len() > limits::GRANT_NAMES || routes.len() > limits::GRANT_ROUTES {
        return Err(invalid(
            "an invite gives at most 64 patterns of names and 64 routes",
        ));
    }
    Ok(Given {
        roles,
        names,
        routes,
    })
}

/// Whether somebody could still join by an invite.
pub fn is_open(state: &State, invite: &GivenInvite, now_ms: u64) -> bool {
    let used = state.tokens.get(&invite.token).map_or(0, |used| used.uses);
    used < invite.uses && invite.expires_ms >= now_ms
}

/// A role that the ledger doesn't know yet.
pub fn not_known(role: Role) -> ControlError {
    refused(format!(
        "not all nodes know the role {role} yet; update the agents, CA nodes first"
    ))
}

/// Networks outside the mesh; an admin may give any.
fn addresses(state: &State, wanted: Vec<IpNet>) -> Result<BTreeSet<IpNet>, ControlError> {
    let addresses: BTreeSet<IpNet> = wanted.into_iter().collect();
    if addresses.is_empty() {
        return Ok(addresses);
    }
    if state.rules == 0 {
        return Err(refused(
            "not all CA nodes know such grants yet; update the agents on all CA nodes first",
        ));
    }
    if addresses.len() > limits::GRANT_ADDRESSES {
        return Err(invalid(format!(
            "an invite gives the addresses of at most {} networks",
            limits::GRANT_ADDRESSES
        )));
    }
    for net in &addresses {
        is_network(state, net)?;
    }
    Ok(addresses)
}

/// Whether it is a network, and not one within the overlay.
fn is_network(state: &State, net: &IpNet) -> Result<(), ControlError> {
    if net.trunc() != *net {
        return Err(invalid(format!(
            "{net} is not a network; {} is",
            net.trunc()
        )));
    }
    let overlay = [IpNet::V4(state.ipv4), IpNet::V6(state.mesh.ula())];
    match overlay.iter().find(|own| own.contains(net)) {
        Some(own) => Err(invalid(format!(
            "{net} lies within the mesh's own {own}, which every member has already"
        ))),
        None => Ok(()),
    }
}

fn check_routes(state: &State, own: &Member, routes: &BTreeSet<IpNet>) -> Result<(), ControlError> {
    for route in routes {
        is_network(state, route)?;
        let routed = |member: &Member| member.routes.iter().any(|net| net.contains(route));
        if !routed(own) {
            return Err(refused(format!(
                "this machine itself may bring {} and so can't give {route}; run it on one that \
                 can: {}",
                list(own.routes.iter()),
                who(state, routed)
            )));
        }
    }
    Ok(())
}

/// The admins for whom `able` says so.
fn who(state: &State, able: impl Fn(&Member) -> bool) -> String {
    let admins = state.members.values();
    let admins = admins.filter(|member| member.roles.contains(&Role::Admin) && able(member));
    list(admins.map(|member| &member.name))
}

fn list(items: impl Iterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    if items.is_empty() {
        "none".into()
    } else {
        items.join(", ")
    }
}
