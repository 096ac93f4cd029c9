//! The rule of each request, found by its content.

use super::{
    asking::AskingMember, certificates, devices, evict, join, names, policy, publish, records,
    roles, roster, routes, tunnel_keys, version,
};
use crate::{
    crypto::{Purpose, Sealed, Verify},
    ledger::{
        effect::Effect,
        outcome::RequestKey,
        refusal::Refusal,
        request::{Author, Content, Request, Role, RoleChange},
        state::State,
    },
    limits,
};

/// Decides one request at ledger time `stamp_ms`; with it, where it is to be
/// remembered, by what and until when.
pub(in crate::ledger) fn rule(
    state: &State,
    sealed: &Sealed,
    stamp_ms: u64,
    verify: &dyn Verify,
) -> (Option<(RequestKey, u64)>, Result<Effect, Refusal>) {
    let Ok(request) = Request::peek_under(sealed, state.rules) else {
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
            let author = AskingMember { node, member };
            rule_content(state, author, content, verify)
        }
    }?;
    if state.rules > 0 {
        state.check_shares(request.author, &effect)?;
    }
    Ok(effect)
}

fn rule_content(
    state: &State,
    author: AskingMember<'_>,
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
        // From rules 2 on it takes as much as to take the role, which it is.
        Content::Demote(node) if state.rules > 1 => {
            let change = RoleChange {
                node,
                role: Role::Ca,
                root: None,
            };
            roles::rule_take(state, author, &change, verify)
        }
        Content::Demote(node) => roster::rule_demote(state, author, node),
        Content::Roster(change) => roster::rule_roster(state, author, change),
        Content::Leave => roster::rule_leave(state, author),
        Content::Evict(evict) => evict::rule_evict(state, author, &evict, verify),
        Content::Unhold(unhold) => evict::rule_unhold(state, author, &unhold),
        Content::AddRecord(record) => records::rule_add(state, author, record),
        Content::RemoveRecords(records) => records::rule_remove(state, author, records),
        Content::RemoveRecord(record) => records::rule_remove_one(state, author, record),
        Content::Rules(rules) => {
            version::rule_rules(state, state.roster.contains(&author.node), rules)
                .map(Effect::Rules)
        }
        Content::TunnelKey(key) => tunnel_keys::rule_tunnel_key(state, author.node, key),
        Content::GiveRole(change) => roles::rule_give(state, author, &change, verify),
        Content::TakeRole(change) => roles::rule_take(state, author, &change, verify),
        Content::Withdraw(withdraw) => roles::rule_withdraw(state, author.node, withdraw),
        Content::RevokeInvite(revoke) => join::rule_revoke_invite(state, author, revoke),
        Content::AddDevice(add) => devices::rule_add(state, author, *add),
        Content::ChangeDevice(change) => devices::rule_change(state, author, *change),
        Content::RemoveDevice(id) => devices::rule_remove(state, author, id),
        Content::AddRoute(add) => routes::rule_add(state, author, add),
        Content::RemoveRoute(remove) => routes::rule_remove(state, author, remove),
        Content::Policy(text) => policy::rule_policy(state, author, text),
        Content::Publish(publish) => publish::rule_publish(state, author, *publish),
        Content::Unpublish(at) => publish::rule_unpublish(state, author, at),
        Content::PublishKey(set) => publish::rule_key(state, author, set),
    }
}
