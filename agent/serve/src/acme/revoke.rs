//! The end of a certificate before its time (RFC 8555 §7.6).

use data_encoding::BASE64URL_NOPAD;
use innermesh_proto::certificate::Certificate;
use serde::Deserialize;

use super::{
    Acme, Answer, Signed,
    jwk::Jwk,
    jws::Jws,
    mesh::IssueError,
    order::{Identifier, Status},
    problem::{Kind, Problem},
};

/// Reasons that a subscriber may give (RFC 5280 §5.3.1): unspecified, key
/// compromise, affiliation changed, superseded, cessation of operation.
const REASONS: [u8; 5] = [0, 1, 3, 4, 5];

#[derive(Deserialize)]
struct Revoke {
    certificate: String,
    reason: Option<u8>,
}

impl Acme {
    /// By whoever holds the certificate's own key.
    pub(super) async fn revoke_by_key(&self, jws: &Jws, key: &Jwk) -> Result<Answer, Problem> {
        let certificate = self.named(jws)?;
        if key.spki() != certificate.spki {
            return Err(Problem::unauthorized(
                "the request is signed with another key than the certificate's",
            ));
        }
        self.revoke(&certificate).await
    }

    /// By the account that it was issued to, or one that has shown control of
    /// all of its names.
    pub(super) async fn revoke_by_account(&self, signed: &Signed) -> Result<Answer, Problem> {
        let certificate = self.named(&signed.jws)?;
        let serial = certificate.serial.to_string();
        let may = {
            let store = self.store();
            let account = store.accounts.get(&signed.account);
            let orders = || {
                account
                    .into_iter()
                    .flat_map(|account| account.orders.values())
            };
            let issued = orders().any(|order| {
                order
                    .certified
                    .as_ref()
                    .is_some_and(|certified| certified.serial == serial)
            });
            let dns = certificate.dns.iter().cloned().map(Identifier::Dns);
            let mut names = dns.chain(certificate.ips.iter().copied().map(Identifier::Ip));
            let now_ms = self.now_ms();
            let shown = |identifier: Identifier| {
                let (wildcard, base) = identifier.base();
                orders()
                    .filter(|order| now_ms <= order.expires_ms)
                    .any(|order| {
                        order.authorizations.iter().any(|authorization| {
                            authorization.status == Status::Valid
                                && authorization.identifier == base
                                && authorization.wildcard == wildcard
                        })
                    })
            };
            issued || names.all(shown)
        };
        if may {
            self.revoke(&certificate).await
        } else {
            Err(Problem::unauthorized(
                "the certificate isn't this account's, and it hasn't shown control of its names",
            ))
        }
    }

    /// The certificate that a request names.
    fn named(&self, jws: &Jws) -> Result<Certificate, Problem> {
        let wanted: Revoke = jws.json()?;
        if let Some(reason) = wanted.reason
            && !REASONS.contains(&reason)
        {
            return Err(Problem::new(
                Kind::BadRevocationReason,
                "the reason can be 0, 1, 3, 4 or 5",
            ));
        }
        let der = BASE64URL_NOPAD
            .decode(wanted.certificate.as_bytes())
            .map_err(|_| Problem::malformed("the certificate is not base64url of DER"))?;
        Certificate::parse(&der).map_err(|error| Problem::malformed(error.to_string()))
    }

    async fn revoke(&self, certificate: &Certificate) -> Result<Answer, Problem> {
        let known = self
            .mesh
            .certificate(&certificate.serial)
            .ok_or_else(|| Problem::not_found("this mesh has issued no such certificate"))?;
        if known.is_revoked {
            return Err(Problem::new(
                Kind::AlreadyRevoked,
                "the certificate is revoked already",
            ));
        }
        if !known.is_own {
            return Err(Problem::unauthorized(
                "the certificate was issued to another machine; ask the agent there",
            ));
        }
        match self.mesh.revoke(certificate.serial).await {
            Ok(()) => Ok(Answer {
                status: 200,
                ..Answer::default()
            }),
            Err(IssueError::Refused(why)) => Err(Problem::unauthorized(why)),
            Err(IssueError::Unavailable(why)) => Err(Problem::unavailable(why)),
            Err(IssueError::Spent(why, wait)) => Err(Problem::rate_limited(why, wait)),
        }
    }
}
