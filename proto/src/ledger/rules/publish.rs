//! What may be published, where, and by whose word.

use super::{asking::AskingMember, join::free_ipv4};
use crate::{
    ledger::{
        effect::Effect,
        publish::{PublicPort, Publish, PublishKey, PublishLink},
        refusal::Refusal,
        state::State,
    },
    limits,
};

/// By admins: what is published is open to everybody.
pub(super) fn rule_publish(
    state: &State,
    author: AskingMember<'_>,
    publish: Publish,
) -> Result<Effect, Refusal> {
    author.require_admin()?;
    let on = state.members.get(&publish.at.on);
    let on = on.ok_or(Refusal::NoSuchNode)?;
    if publish.at.port == 0 || publish.to_port == 0 {
        return Err(Refusal::PublishPort);
    }
    let inside = state.publishable_on(&publish.name);
    if inside.is_empty() {
        return Err(Refusal::PublishName(publish.name));
    }
    if inside.iter().all(|node| *node == publish.at.on) {
        return Err(Refusal::PublishToItself(publish.name, on.name.clone()));
    }
    if let Some(held) = state.publication(&publish.at) {
        let is_so = held.name == publish.name
            && held.to_port == publish.to_port
            && held.proxy_protocol == publish.proxy_protocol;
        if is_so {
            return Ok(Effect::Nothing);
        }
        return Err(Refusal::PortPublished {
            port: publish.at.port,
            on: on.name.clone(),
            name: held.name.clone(),
        });
    }
    let ports = state.publications();
    let own = ports.filter(|(at, _)| at.on == publish.at.on).count();
    if own >= limits::PUBLICATIONS_PER_NODE || state.publications().count() >= limits::PUBLICATIONS
    {
        return Err(Refusal::TooManyPublications);
    }
    Ok(Effect::Publish(Box::new(publish), author.node))
}

pub(super) fn rule_unpublish(
    state: &State,
    author: AskingMember<'_>,
    at: PublicPort,
) -> Result<Effect, Refusal> {
    // A node may always close what is open on it.
    if author.node != at.on {
        author.require_admin()?;
    }
    if state.publication(&at).is_none() {
        return Err(Refusal::NotPublished(at.port));
    }
    Ok(Effect::Unpublish(at))
}

/// By a node that something published leads to; its key is nobody else's (S26).
pub(super) fn rule_key(
    state: &State,
    author: AskingMember<'_>,
    set: PublishKey,
) -> Result<Effect, Refusal> {
    let inside = author.node;
    if !state.needs_link(inside, set.on) {
        return Err(Refusal::NothingPublished);
    }
    let held = state.publish_link(inside, set.on);
    if held.is_some_and(|held| held.key == set.key) {
        return Ok(Effect::Nothing);
    }
    let taken = state.tunnel_key_holder(&set.key).is_some()
        || state.device_by_key(&set.key).is_some()
        || state.publish_link_by_key(&set.key).is_some();
    if taken || set.key.0 == [0; 32] {
        return Err(Refusal::DeviceKey);
    }
    if let Some(held) = held {
        return Ok(Effect::PublishKey(inside, set, held.ipv4));
    }
    let own = state.publish_links();
    let own = own.filter(|((node, _), _)| *node == inside).count();
    if own >= limits::PUBLISH_LINKS_PER_NODE
        || state.publish_links().count() >= limits::PUBLISH_LINKS
    {
        return Err(Refusal::TooManyPublications);
    }
    let seed = PublishLink::seed(inside, set.on);
    let ipv4 = free_ipv4(state.ipv4, |ip| state.is_taken(ip), seed);
    let ipv4 = ipv4.ok_or(Refusal::AddressesExhausted)?;
    Ok(Effect::PublishKey(inside, set, ipv4))
}
