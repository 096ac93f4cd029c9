//! Who may have a certificate for which names, and who may end it.

use std::net::IpAddr;

use super::asking::AskingMember;
use crate::{
    certificate::{LeafKind, LeafPlan, Serial},
    crypto::Hash,
    id::{NodeId, resolver_v4},
    ledger::{
        effect::Effect,
        refusal::Refusal,
        request::Certify,
        state::{Member, State},
    },
    limits,
    name::Label,
};

/// Every agent answers ACME at this name, and shows a certificate for it.
const ACME: &str = "acme";
/// From rules 6 on the same for DNS over TLS and HTTPS, at the resolver's addresses.
const NS: &str = "ns";
const RESOLVER_SINCE: u32 = 6;
/// Longest common name (RFC 5280 Appendix A.1, ub-common-name).
const COMMON_NAME_BYTES: usize = 64;

pub(super) fn rule_certify(
    state: &State,
    author: AskingMember<'_>,
    certify: &Certify,
) -> Result<Effect, Refusal> {
    let AskingMember { node, member } = author;
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
    if state.revoked_keys.contains_key(&Hash::of(&certify.spki)) {
        return Err(Refusal::KeyRevoked);
    }
    let names = certify.names.iter();
    let ns = format!("{NS}.{}", state.domain);
    let plan = LeafPlan {
        kind: LeafKind::Service,
        dns: names
            .clone()
            .filter(|name| address(name).is_none())
            .cloned()
            .collect(),
        ips: names.filter_map(|name| address(name)).collect(),
        spki: certify.spki.clone(),
        // Clients such as kdig 3.2 take no certificate with an empty subject.
        common_name: Some(ns)
            .filter(|ns| ns.len() <= COMMON_NAME_BYTES && certify.names.contains(ns)),
        days: certify.days,
        stamp_ms: state.stamp_ms,
    };
    Ok(Effect::Certify(plan, node))
}

/// The address that a name is, written as usual.
fn address(name: &str) -> Option<IpAddr> {
    let ip: IpAddr = name.parse().ok()?;
    (ip.to_string() == name).then_some(ip)
}

impl State {
    /// Whether a member may have a certificate for a name, perhaps with `*` as
    /// its first label, or for an address.
    pub fn may_certify(&self, node: NodeId, name: &str) -> bool {
        let member = self.members.get(&node);
        member.is_some_and(|member| may_certify(self, node, member, name))
    }
}

/// Whether `node` may have a certificate for `name`: its own name and
/// addresses, services that it owns or that are shared with it, what is below
/// these, and where every agent answers ACME and DNS.
fn may_certify(state: &State, node: NodeId, member: &Member, name: &str) -> bool {
    let is_resolver_certified = state.rules >= RESOLVER_SINCE;
    if let Some(ip) = address(name) {
        let resolvers = [
            IpAddr::V4(resolver_v4(state.ipv4)),
            IpAddr::V6(state.mesh.resolver_v6()),
        ];
        return ip == member.ipv4
            || ip == member.ipv6
            || is_resolver_certified && resolvers.contains(&ip);
    }
    let Some(relative) = name
        .strip_suffix(state.domain.as_str())
        .and_then(|rest| rest.strip_suffix('.'))
    else {
        return false;
    };
    let labels: Vec<&str> = relative.split('.').collect();
    let own = |label: &str| {
        label == member.name.as_str()
            || label
                .parse()
                .is_ok_and(|label: Label| state.may_serve(node, &label))
    };
    let plain = |label: &str| label.parse::<Label>().is_ok_and(|l| l.as_str() == label);
    match labels[..] {
        [label] if plain(label) => {
            label == ACME || label == NS && is_resolver_certified || own(label)
        }
        [sub, label] => plain(label) && own(label) && (sub == "*" || plain(sub)),
        _ => false,
    }
}

/// S17: what is revoked is a key as well as a serial, so a membership, whose
/// key is the machine's identity, ends by eviction only.
pub(super) fn rule_revoke(
    state: &State,
    author: AskingMember<'_>,
    serial: Serial,
) -> Result<Effect, Refusal> {
    let issued = state
        .certificates
        .get(&serial)
        .ok_or(Refusal::NoSuchCertificate(serial))?;
    if issued.owner != author.node && !author.is_admin() {
        return Err(Refusal::NotYourCertificate);
    }
    if state.revoked.contains_key(&serial) {
        return Ok(Effect::Nothing);
    }
    let owner = state.members.get(&issued.owner);
    if owner.is_some_and(|owner| Hash::of(&owner.key.spki()) == issued.key_hash) {
        return Err(Refusal::MembershipSerial(serial));
    }
    Ok(Effect::Revoke(serial))
}
