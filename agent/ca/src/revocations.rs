//! The making of revocation lists (RFC 5280 §5).

use std::collections::BTreeMap;

use innermesh_proto::{
    certificate::{RevocationList, Serial},
    crypto::Verify,
    limits,
};
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};

use super::{
    CaError, Issuer,
    build::{self, RcgenKey, encoding},
};

/// What a list is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPlan {
    /// Higher than that of any list before (§5.2.3).
    pub number: u64,
    /// Now, in milliseconds since 1970. The list is set back by
    /// [`limits::BACKDATE_S`], as certificates are: a client whose clock is a
    /// little behind would refuse it else.
    pub now_ms: u64,
    /// The serials, and when each was revoked, in milliseconds since 1970.
    pub revoked: BTreeMap<Serial, u64>,
}

impl Issuer {
    /// Signs the revocation list that `plan` describes, which holds for
    /// [`limits::REVOCATION_LIST_MS`] from now on; in DER.
    ///
    /// # Errors
    /// [`CaError::RefusedList`] for more entries than a list may have;
    /// [`CaError::Time`], [`CaError::Encoding`].
    pub fn sign_list(&self, plan: &ListPlan, verify: &dyn Verify) -> Result<Vec<u8>, CaError> {
        let key_id = self.certificate().key_id.clone().unwrap_or_default();
        let mut revoked_certs = Vec::with_capacity(plan.revoked.len());
        for (serial, at_ms) in &plan.revoked {
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial.0),
                revocation_time: build::moment(*at_ms)?,
                reason_code: None,
                invalidity_date: None,
            });
        }
        let begin_ms = plan.now_ms.saturating_sub(limits::BACKDATE_S * 1000);
        let end_ms = plan.now_ms.saturating_add(limits::REVOCATION_LIST_MS);
        let params = CertificateRevocationListParams {
            this_update: build::moment(begin_ms)?,
            next_update: build::moment(end_ms)?,
            crl_number: SerialNumber::from(plan.number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::PreSpecified(key_id),
        };
        let signer =
            rcgen::Issuer::from_ca_cert_der(&self.der().into(), RcgenKey(self.key().clone()))
                .map_err(encoding)?;
        let list = params.signed_by(&signer).map_err(encoding)?;
        let der = list.der().to_vec();
        RevocationList::parse(&der)?.check(self.certificate(), verify)?;
        Ok(der)
    }
}

#[cfg(test)]
mod tests {
    use innermesh_host::keys::SystemKeys;
    use innermesh_proto::certificate::RevocationListError;
    use rcgen::{CrlIssuingDistributionPoint, RevocationReason};

    use super::*;
    use crate::testing::{NOW, issuer, root};

    fn plan(serials: &[u8]) -> ListPlan {
        ListPlan {
            number: 7,
            now_ms: NOW,
            revoked: serials.iter().map(|n| (Serial([*n; 16]), NOW)).collect(),
        }
    }

    #[test]
    fn what_was_planned_is_read_back_and_is_its_issuer_s_alone() {
        let root = root();
        let (own, other) = (issuer(&root, NOW), issuer(&root, NOW));
        for serials in [&[][..], &[1, 0x7f, 0x80, 0xff]] {
            let der = own.sign_list(&plan(serials), &SystemKeys).unwrap();
            let list = RevocationList::parse(&der).unwrap();
            let seconds = |ms: u64| ms / 1000 * 1000;
            assert_eq!(list.number, 7);
            assert_eq!(
                list.this_update_ms,
                seconds(NOW - limits::BACKDATE_S * 1000)
            );
            assert_eq!(list.next_update_ms, seconds(NOW) + 24 * 3600 * 1000);
            let wanted = plan(serials).revoked.into_iter();
            let wanted: BTreeMap<_, _> = wanted.map(|(s, at)| (s, seconds(at))).collect();
            assert_eq!(list.revoked, wanted);
            assert_eq!(list.check(own.certificate(), &SystemKeys), Ok(()));
            assert_eq!(
                list.check(other.certificate(), &SystemKeys),
                Err(RevocationListError::Issuer)
            );
            assert!(list.holds_at(NOW) && !list.holds_at(NOW + limits::REVOCATION_LIST_MS));
        }
    }

    #[test]
    fn a_list_with_a_bit_changed_or_bytes_added_is_refused() {
        let own = issuer(&root(), NOW);
        let der = own.sign_list(&plan(&[1, 2]), &SystemKeys).unwrap();
        for bit in 0..der.len() * 8 {
            let mut other = der.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            let taken = RevocationList::parse(&other)
                .and_then(|list| list.check(own.certificate(), &SystemKeys));
            assert!(taken.is_err(), "bit {bit}");
        }
        for end in 0..der.len() {
            assert!(RevocationList::parse(&der[..end]).is_err());
        }
        assert!(RevocationList::parse(&[&der[..], &[0]].concat()).is_err());
        // Inside of the outermost frame, behind the signature.
        let mut inside = [&der[..], &[5, 0]].concat();
        let length = u16::from_be_bytes([inside[2], inside[3]]) + 2;
        inside[2..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(inside[..2], [0x30, 0x82]);
        let refused = RevocationList::parse(&inside);
        assert!(
            matches!(
                refused,
                Err(RevocationListError::Trailing | RevocationListError::Malformed(_))
            ),
            "{refused:?}"
        );
        let long = vec![0; limits::REVOCATION_LIST_BYTES + 1];
        assert_eq!(
            RevocationList::parse(&long),
            Err(RevocationListError::TooLong(long.len()))
        );
    }

    #[test]
    fn a_list_of_a_part_of_what_is_revoked_is_refused() {
        let own = issuer(&root(), NOW);
        let entry = RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[1; 16]),
            revocation_time: build::moment(NOW).unwrap(),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let mut params = CertificateRevocationListParams {
            this_update: build::moment(NOW).unwrap(),
            next_update: build::moment(NOW + 1000).unwrap(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![entry.clone()],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signer =
            rcgen::Issuer::from_ca_cert_der(&own.der().into(), RcgenKey(own.key().clone()))
                .unwrap();
        let read = |params: &CertificateRevocationListParams| {
            RevocationList::parse(params.signed_by(&signer).unwrap().der())
        };
        // A reason is what a later version may add.
        assert_eq!(read(&params).map(|list| list.revoked.len()), Ok(1));
        params.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
            distribution_point: rcgen::CrlDistributionPoint {
                uris: vec!["http://ca.lab.internal/1.crl".into()],
            },
            scope: None,
        });
        assert_eq!(
            read(&params),
            Err(RevocationListError::Extension("2.5.29.28".into()))
        );
        params.issuing_distribution_point = None;
        params.revoked_certs = vec![entry.clone(), entry];
        assert_eq!(read(&params), Err(RevocationListError::Entry));
        params.revoked_certs = Vec::new();
        params.crl_number = SerialNumber::from_slice(&[0x7f; 20]);
        assert_eq!(read(&params), Err(RevocationListError::Number));
    }
}
