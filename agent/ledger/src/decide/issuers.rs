//! What this node signs certificates with, and whether it may lead with that.

use innermesh_ca::Issuer;
use innermesh_proto::{certificate::Serial, id::NodeId, ledger::State};

/// Serials of issuers, and whether each is revoked.
pub type ListedIssuers = Vec<(Serial, bool)>;

/// The issuers that the newest state lists for this node, aren't revoked, and
/// whose keys it has.
#[derive(Default)]
pub struct Issuers {
    usable: Vec<Issuer>,
    /// What that follows from; nothing before it was looked at.
    listed: Option<ListedIssuers>,
}

impl Issuers {
    /// What `state` lists for `me`, if it is other than what was looked at last.
    pub fn changed(&self, state: &State, me: NodeId) -> Option<ListedIssuers> {
        let listed: ListedIssuers = state
            .issuers_of(me)
            .map(|issuer| (issuer.certificate.serial, issuer.revoked.is_some()))
            .collect();
        (self.listed.as_ref() != Some(&listed)).then_some(listed)
    }

    /// Of those listed these can be signed with.
    pub fn set(&mut self, listed: ListedIssuers, usable: Vec<Issuer>) {
        if usable.is_empty() && listed.iter().any(|(_, is_revoked)| !is_revoked) {
            tracing::warn!(
                "no key of this node's issuers is here: it issues nothing until an admin \
                 promotes it again"
            );
        }
        (self.usable, self.listed) = (usable, Some(listed));
    }

    /// The issuer to sign with at this time: of those in force the one that
    /// lasts longest, so that a successor takes over as soon as it may.
    pub fn at(&self, ms: u64) -> Option<&Issuer> {
        let usable = self.usable.iter();
        usable
            .filter(|issuer| issuer.certificate().is_valid_at(ms))
            .max_by_key(|issuer| issuer.certificate().not_after_ms)
    }

    pub fn serials(&self) -> Vec<Serial> {
        let usable = self.usable.iter();
        usable.map(|issuer| issuer.certificate().serial).collect()
    }

    /// Whether `me` should lead: it can issue, or nobody can. Somebody must
    /// still write down that an issuer is renewed.
    pub fn may_lead(&self, state: &State, me: NodeId, now_ms: u64) -> bool {
        let mut others = state.roster.iter().filter(|node| **node != me);
        self.at(now_ms).is_some() || !others.any(|node| state.can_issue_at(*node, now_ms))
    }
}
