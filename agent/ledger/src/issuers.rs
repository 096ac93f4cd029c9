//! What this node signs certificates with: the issuers that the ledger lists
//! for it, as far as their keys are in its folder; and whether it may lead.

use innermesh_proto::{
    certificate::Serial,
    ledger::{State, stamp, state::Issuer as Listed},
    message::IssuerKeys,
};

use super::writer::Writer;
use crate::{
    ca::Issuer,
    host::key_files::{self as keys, KeyFileError},
    host::{Host, keys::CaKey},
};

impl Writer {
    /// Looks at the issuers that the newest state lists for this node, when
    /// they are others than before.
    pub async fn follow_issuers(&mut self, state: &State) {
        let listed: Vec<(Serial, bool)> = state
            .issuers_of(self.me())
            .map(|issuer| (issuer.certificate.serial, issuer.revoked.is_some()))
            .collect();
        if self.listed_issuers.as_ref() == Some(&listed) {
            return;
        }
        self.issuers =
            match load(&self.host, &state.issuers_of(self.me()).collect::<Vec<_>>()).await {
                Ok(issuers) => issuers,
                Err(error) => {
                    tracing::warn!(%error, "the keys of this node's issuers can't be read");
                    return;
                }
            };
        if self.issuers.is_empty() && listed.iter().any(|(_, revoked)| !revoked) {
            tracing::warn!(
                "no key of this node's issuers is here: it issues nothing until an admin \
                 promotes it again"
            );
        }
        self.listed_issuers = Some(listed);
    }

    /// The issuer to sign with at this time: of those in force the one that
    /// lasts longest, so that a successor takes over as soon as it may.
    pub fn issuer_at(&self, ms: u64) -> Option<&Issuer> {
        let issuers = self.issuers.iter();
        issuers
            .filter(|issuer| issuer.certificate().is_valid_at(ms))
            .max_by_key(|issuer| issuer.certificate().not_after_ms)
    }

    /// Whether this node should lead: it can issue, or nobody can. Somebody
    /// must still write down that an issuer is renewed.
    pub fn may_lead(&self) -> bool {
        let (state, me) = (self.current(), self.me());
        let wall_ms = self.host.clock.wall_ms();
        let now_ms = stamp::estimate(state.stamp_ms, wall_ms, &self.clocks, self.elapsed_ms());
        let mut others = state.roster.iter().filter(|node| **node != me);
        self.issuer_at(now_ms).is_some() || !others.any(|node| state.can_issue_at(*node, now_ms))
    }

    /// Has the engine know it.
    pub fn tell_may_lead(&mut self) {
        let able = self.rotation.abstains.is_none() && self.may_lead();
        if let Some(voter) = &mut self.voter {
            voter.engine.set_may_lead(able);
        }
    }

    /// As [`super::Ledger::issuer_keys`].
    pub async fn offer_keys(&mut self) -> Result<IssuerKeys, String> {
        let state = self.current();
        self.follow_issuers(&state).await;
        let offered = keys::offer_issuers(&self.host).await;
        let offered = offered.map_err(|error| error.to_string())?;
        let held = self.issuers.iter();
        Ok(IssuerKeys {
            held: held.map(|issuer| issuer.certificate().serial).collect(),
            offered: offered.iter().map(|key| key.spki()).collect(),
        })
    }
}

/// Those of the `listed` that can be signed with: not revoked, and with a key
/// in the node's folder.
async fn load(host: &Host, listed: &[&Listed]) -> Result<Vec<Issuer>, KeyFileError> {
    let is_listed = |key: &dyn CaKey| {
        let spki = key.spki();
        listed.iter().any(|issuer| issuer.certificate.spki == spki)
    };
    keys::keep_issuers(host, is_listed).await?;
    let held = keys::issuers(host).await?;
    let usable = listed.iter().filter(|issuer| issuer.revoked.is_none());
    Ok(usable
        .filter_map(|issuer| {
            let certificate = &issuer.certificate;
            let key = held.iter().find(|key| key.spki() == certificate.spki)?;
            Issuer::new(key.clone(), certificate.der().to_vec()).ok()
        })
        .collect())
}
