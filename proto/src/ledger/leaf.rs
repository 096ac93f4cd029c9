//! How an issued certificate comes into the state.

use super::{
    sizes::der_bytes,
    state::{Issued, State},
};
use crate::{
    certificate::{self, Certificate, CertificateError, LeafKind, LeafPlan, Serial},
    crypto::Verify,
    id::NodeId,
};

impl State {
    /// Takes an issued certificate in, after checking it against its plan.
    pub(super) fn take_leaf(
        &mut self,
        plan: &LeafPlan,
        owner: NodeId,
        der: &[u8],
        verify: &dyn Verify,
    ) -> Result<Serial, LeafError> {
        let leaf = Certificate::parse(der)?;
        let issuer = self
            .issuers
            .values()
            .find(|issuer| {
                self.roster.contains(&issuer.node)
                    && self.is_voter(issuer.node)
                    && issuer.revoked.is_none()
                    && issuer.certificate.subject == leaf.issuer
                    && issuer.certificate.key_id == leaf.authority_key_id
            })
            .ok_or(LeafError::Issuer)?;
        certificate::check_leaf(&leaf, plan, &issuer.certificate, verify)?;
        // An extension that nobody reads would be charged to the owner.
        if self.rules > 0 && der.len() as u64 > der_bytes(plan) {
            return Err(LeafError::TooLong(der.len()));
        }
        // S15: no serial is used twice.
        let serial = leaf.serial;
        if self.certificates.contains_key(&serial) || self.issuers.contains_key(&serial) {
            return Err(LeafError::Serial);
        }
        // A vector that grew keeps room for four; there are many of these.
        let mut names = self.names_of(plan);
        names.shrink_to_fit();
        let issued = Issued {
            owner,
            issuer: issuer.certificate.serial,
            names,
            key_hash: leaf.key_hash,
            not_before_ms: leaf.not_before_ms,
            not_after_ms: leaf.not_after_ms,
            der: der.into(),
        };
        self.insert_certificate(serial, issued);
        Ok(serial)
    }

    /// The names that are kept of a certificate, rising: from rules 3 on also its
    /// addresses, but for a membership, whose addresses are the member's.
    pub(super) fn names_of(&self, plan: &LeafPlan) -> Vec<String> {
        let mut names: Vec<String> = plan.dns.iter().cloned().collect();
        if self.rules > 2 && plan.kind == LeafKind::Service {
            names.extend(plan.ips.iter().map(ToString::to_string));
            names.sort();
        }
        names
    }
}

/// Why an attached certificate was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeafError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("no issuer of the roster signed it")]
    Issuer,
    #[error("its serial was used before")]
    Serial,
    #[error("it has {0} bytes, which is more than what it says takes")]
    TooLong(usize),
}
