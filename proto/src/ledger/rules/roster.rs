//! Who becomes and stays a CA node, and who goes by itself.

use super::asking::AskingMember;
use crate::{
    certificate::{self, KeptCertificate},
    crypto::Verify,
    id::NodeId,
    ledger::{
        effect::Effect,
        refusal::Refusal,
        request::{Promote, Role, RosterChange},
        state::{Member, State},
    },
    limits,
};

/// The root's signature on the issuers is what makes a CA node; an admin, or
/// the CA node itself, brings them.
pub(super) fn rule_promote(
    state: &State,
    author: AskingMember<'_>,
    promote: &Promote,
    verify: &dyn Verify,
) -> Result<Effect, Refusal> {
    let node = promote.node;
    if !(author.is_admin() || (author.node == node && state.is_voter(node))) {
        return Err(Refusal::NotAdmin);
    }
    if !state.members.contains_key(&node) {
        return Err(Refusal::NoSuchNode);
    }
    if !state.voters.contains_key(&node) && state.voters.len() >= limits::CA_NODES {
        return Err(Refusal::TooManyCas);
    }
    let issuers = state.read_issuers(node, &promote.issuers, verify)?;
    Ok(Effect::Promote(node, issuers))
}

impl State {
    /// Issuers for `node`, if the root signed them and nothing else has their
    /// keys and serial numbers.
    pub(in crate::ledger) fn read_issuers(
        &self,
        node: NodeId,
        offered: &[Vec<u8>],
        verify: &dyn Verify,
    ) -> Result<Vec<KeptCertificate>, Refusal> {
        let wrong = |why: &str| Refusal::Issuer(why.to_string());
        let count = offered.len();
        if count == 0 || self.issuers_of(node).count() + count > limits::ISSUERS_PER_NODE {
            return Err(wrong("a CA node has from one to 8 issuers"));
        }
        let mut issuers: Vec<KeptCertificate> = Vec::new();
        for der in offered {
            let issuer = KeptCertificate::parse(der).map_err(|error| wrong(&error.to_string()))?;
            certificate::check_issuer(&issuer, &self.root, verify)
                .map_err(|error| wrong(&error.to_string()))?;
            if issuer.not_after_ms <= self.stamp_ms {
                return Err(wrong("it has expired"));
            }
            let same = |other: &KeptCertificate| {
                other.serial == issuer.serial || other.key_hash == issuer.key_hash
            };
            // No private key is ever in two places.
            let known = self.issuers.values().any(|known| {
                known.certificate.serial == issuer.serial
                    || (known.certificate.key_hash == issuer.key_hash && known.node != node)
            });
            if known || issuers.iter().any(same) || self.certificates.contains_key(&issuer.serial) {
                return Err(wrong("its key or its serial number is in use"));
            }
            if self.revoked_keys.contains_key(&issuer.key_hash) {
                return Err(Refusal::KeyRevoked);
            }
            issuers.push(issuer);
        }
        Ok(issuers)
    }
}

pub(super) fn rule_demote(
    state: &State,
    author: AskingMember<'_>,
    node: NodeId,
) -> Result<Effect, Refusal> {
    if author.node != node {
        author.require_admin()?;
    }
    let member = state.members.get(&node).ok_or(Refusal::NoSuchNode)?;
    check_demotion(state, node, member)?;
    Ok(Effect::Demote(node))
}

/// Whether there is a CA node then that decides, and this one is one now.
pub(super) fn check_demotion(state: &State, node: NodeId, member: &Member) -> Result<(), Refusal> {
    if !member.roles.contains(&Role::Ca) {
        return Err(Refusal::NotCa);
    }
    let others = state.roster.iter().filter(|other| **other != node);
    if state.roster.contains(&node) && !others.into_iter().any(|other| state.is_voter(*other)) {
        return Err(Refusal::LastCa);
    }
    Ok(())
}

/// By one of the roster, and only what [`State::may_become`] allows: whoever
/// leads chooses when, and among those that wait.
pub(super) fn rule_roster(
    state: &State,
    author: AskingMember<'_>,
    change: RosterChange,
) -> Result<Effect, Refusal> {
    if !state.roster.contains(&author.node) {
        return Err(Refusal::NotCa);
    }
    if state.may_become(&change.voters) {
        Ok(Effect::Roster(change.voters))
    } else {
        Err(Refusal::Roster)
    }
}

impl State {
    /// Whether `node` may leave, as far as the ledger is known here.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn may_leave(&self, node: NodeId) -> Result<(), Refusal> {
        let member = self.members.get(&node).ok_or(Refusal::NotMember)?;
        rule_leave(self, AskingMember { node, member }).map(|_| ())
    }
}

pub(super) fn rule_leave(state: &State, author: AskingMember<'_>) -> Result<Effect, Refusal> {
    if state.roster.contains(&author.node) {
        return Err(match state.roster.len() {
            1 => Refusal::LastCa,
            _ => Refusal::InRoster,
        });
    }
    if state.members.len() > 1 && state.is_only_admin(author.node) {
        return Err(Refusal::LastAdmin);
    }
    Ok(Effect::Leave(author.node))
}
