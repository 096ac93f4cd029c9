//! Which issuers are about to go, and whose certificates they signed.

use innermesh_proto::{
    id::NodeId,
    ledger::{State, state::Issuer},
};

/// Whether the eviction of an issuer's CA node is proposed while another could
/// sign: what it signed for `me`, another node, is renewed first.
pub(crate) fn is_leaving(state: &State, me: NodeId, issuer: &Issuer) -> bool {
    let ca = issuer.node;
    let mut proposed = state.proposed_evictions();
    let mut roster = state.roster.iter();
    ca != me
        && proposed.any(|(node, _)| node == ca)
        && roster.any(|node| *node != ca && state.can_issue(*node))
}

/// Whether a member's membership certificate was signed by an issuer of `ca`.
pub(crate) fn is_signed_by(state: &State, member: NodeId, ca: NodeId) -> bool {
    let issued = state
        .members
        .get(&member)
        .and_then(|member| state.certificates.get(&member.certificate?));
    let issuer = issued.and_then(|issued| state.issuers.get(&issued.issuer));
    issuer.is_some_and(|issuer| issuer.node == ca)
}
