//! Where the names of a machine's zone lead (S28), told from what is served and
//! from who has what, by other code than decides it.

use std::{collections::BTreeSet, net::IpAddr};

use innermesh_proto::{
    id::NodeId,
    ledger::{Role, State},
    name::Label,
    view::MeshView,
    zone::{DomainName, Rdata},
};

use crate::violation::Seen;

/// Whether each name leads to nodes that have it, or where an admin put it. No
/// invite here grants addresses.
///
/// # Errors
/// S28.
pub fn names(view: &MeshView) -> Result<(), Seen> {
    let state = &*view.ledger;
    if state.rules == 0 || !is_worth_it(view) {
        return Ok(());
    }
    let input = view.zone_input();
    for (label, service) in &input.services {
        let holders = state.names.get(label).map(|name| {
            let all = name.shared.iter().chain([&name.owner]);
            all.copied().collect::<BTreeSet<NodeId>>()
        });
        let holders = holders.unwrap_or_default();
        let addresses = service.instances.iter().flat_map(|one| &one.addresses);
        is_theirs(state, label, &holders, addresses)?;
    }
    for (label, node) in &input.nodes {
        let owner = state.names.get(label).map(|name| name.owner);
        let instances = node.own_services.values().flatten();
        let addresses = instances.flat_map(|one| &one.addresses);
        is_theirs(state, label, &owner.into_iter().collect(), addresses)?;
    }
    for (name, all) in &input.records {
        for data in all {
            record(state, name, data)?;
        }
    }
    Ok(())
}

/// Whether anything is said that could lead elsewhere: a zone isn't made for
/// each look.
fn is_worth_it(view: &MeshView) -> bool {
    let mut announced = view.nodes.values().map(|node| &node.announcement.services);
    let by_member = |owner: &NodeId| !is_admin(&view.ledger, owner);
    announced.any(|services| services.values().any(|one| one.address.is_some()))
        || view
            .ledger
            .records
            .values()
            .flatten()
            .any(|record| by_member(&record.owner))
}

fn is_admin(state: &State, node: &NodeId) -> bool {
    let member = state.members.get(node);
    member.is_some_and(|member| member.roles.contains(&Role::Admin))
}

fn is_theirs<'a>(
    state: &State,
    name: &impl std::fmt::Display,
    holders: &BTreeSet<NodeId>,
    addresses: impl IntoIterator<Item = &'a IpAddr>,
) -> Result<(), Seen> {
    let members = || holders.iter().filter_map(|node| state.members.get(node));
    let by_admin = holders.iter().any(|node| is_admin(state, node));
    for address in addresses {
        let owned = members().any(|member| {
            IpAddr::V4(member.ipv4) == *address || IpAddr::V6(member.ipv6) == *address
        });
        let inside = match address {
            IpAddr::V4(v4) => state.ipv4.contains(v4),
            IpAddr::V6(v6) => state.mesh.ula().contains(v6),
        };
        if !owned && (inside || !by_admin) {
            return Err(("S28", format!("{name} leads to {address}")));
        }
    }
    Ok(())
}

/// A record that is served leads to who added it, unless that is an admin.
fn record(state: &State, name: &DomainName, data: &Rdata) -> Result<(), Seen> {
    let added = state.records.get(name).into_iter().flatten();
    let by: BTreeSet<NodeId> = added
        .filter(|record| record.data.rdata() == *data)
        .map(|record| record.owner)
        .collect();
    if by.iter().any(|node| is_admin(state, node)) {
        return Ok(());
    }
    let target = match data {
        Rdata::A(ip) => return is_theirs(state, name, &by, [&IpAddr::V4(*ip)]),
        Rdata::Aaaa(ip) => return is_theirs(state, name, &by, [&IpAddr::V6(*ip)]),
        Rdata::Cname(target) => target,
        Rdata::Srv(srv) => &srv.target,
        Rdata::Mx(mx) => &mx.exchange,
        Rdata::Svcb(svcb) | Rdata::Https(svcb) => {
            let hints: Vec<IpAddr> = svcb.hints().collect();
            is_theirs(state, name, &by, &hints)?;
            if svcb.target.is_root() {
                return Ok(());
            }
            &svcb.target
        }
        _ => return Ok(()),
    };
    let held = top(state, target).and_then(|label| state.names.get(&label));
    let agreed = held.is_some_and(|held| {
        by.iter()
            .all(|node| held.owner == *node || held.shared.contains(node))
    });
    if agreed {
        Ok(())
    } else {
        Err(("S28", format!("{name} leads to {target}")))
    }
}

/// The label directly below the domain.
fn top(state: &State, name: &DomainName) -> Option<Label> {
    let text = name.to_string();
    let above = text
        .trim_end_matches('.')
        .strip_suffix(state.domain.as_str())?
        .strip_suffix('.')?;
    above.rsplit('.').next()?.parse().ok()
}
