//! Which networks beside the overlay a gateway may bring.

use std::net::IpAddr;

use ipnet::IpNet;

use super::asking::AskingMember;
use crate::{
    ledger::{effect::Effect, refusal::Refusal, request::Role, route::RouteChange, state::State},
    limits,
};

/// By the gateway, within what its invite grants, or by an admin.
pub(super) fn rule_add(
    state: &State,
    author: AskingMember<'_>,
    add: RouteChange,
) -> Result<Effect, Refusal> {
    let gateway = state.members.get(&add.gateway).ok_or(Refusal::NoSuchNode)?;
    if !gateway.roles.contains(&Role::Gateway) {
        return Err(Refusal::NotGateway(gateway.name.clone()));
    }
    let is_granted = |net: &IpNet| gateway.routes.iter().any(|own| own.contains(net));
    let is_own = author.node == add.gateway && is_granted(&add.net);
    if !is_own && !author.is_admin() {
        return Err(Refusal::RouteNotGranted(add.net));
    }
    check_net(state, &add.net)?;
    let mut own = 0;
    for (net, gateways) in state.routes() {
        own += usize::from(gateways.contains(&add.gateway));
        if *net == add.net && gateways.contains(&add.gateway) {
            return Ok(Effect::Nothing);
        }
        // Equal ones have several gateways; of others nobody could say whose an
        // address is (S11).
        if *net != add.net && (net.contains(&add.net) || add.net.contains(net)) {
            return Err(Refusal::RouteOverlaps(*net));
        }
    }
    if own >= limits::ROUTES_PER_GATEWAY || state.routes().count() >= limits::ROUTES {
        return Err(Refusal::TooManyRoutes);
    }
    Ok(Effect::AddRoute(add))
}

pub(super) fn rule_remove(
    state: &State,
    author: AskingMember<'_>,
    remove: RouteChange,
) -> Result<Effect, Refusal> {
    if author.node != remove.gateway && !author.is_admin() {
        return Err(Refusal::NotAdmin);
    }
    let mut routes = state.routes();
    let is_there =
        routes.any(|(net, gateways)| *net == remove.net && gateways.contains(&remove.gateway));
    if !is_there {
        return Err(Refusal::NoSuchRoute(remove.net));
    }
    Ok(Effect::RemoveRoute(remove))
}

/// A network of a LAN: none of the overlay's, no default route, and nothing
/// that means another thing on each host.
pub(super) fn check_net(state: &State, net: &IpNet) -> Result<(), Refusal> {
    let overlay = [IpNet::V4(state.ipv4), IpNet::V6(state.mesh.ula())];
    let meets = |other: &IpNet| other.contains(net) || net.contains(other);
    let address = net.addr();
    let special = address.is_loopback()
        || address.is_multicast()
        || address.is_unspecified()
        || match address {
            IpAddr::V4(ip) => ip.is_link_local() || ip.octets()[0] >= 224,
            IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
        };
    let shortest = match net {
        IpNet::V4(_) => limits::ROUTE_PREFIX_V4,
        IpNet::V6(_) => limits::ROUTE_PREFIX_V6,
    };
    let wide = net.prefix_len() < shortest;
    if net.trunc() != *net || wide || special || overlay.iter().any(meets) {
        return Err(Refusal::Net(*net));
    }
    Ok(())
}
