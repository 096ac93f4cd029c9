//! From an order that is ready to its certificate (RFC 8555 §7.4).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use innermesh_proto::zone::Caa;
use serde::Deserialize;

use super::{
    Acme, Answer, Signed,
    account_store::Account,
    mesh::{IssueError, Wanted},
    order::{Identifier, Status},
    orders::{AT_ONCE, RETRY_S},
    problem::{Kind, Problem},
};
use innermesh_ca::csr::Csr;

/// How long the ledger is asked for a certificate: whoever leads may have died.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Finalize {
    csr: String,
}

impl Acme {
    pub(super) async fn finalize(
        self: &Arc<Self>,
        signed: &Signed,
        id: &str,
    ) -> Result<Answer, Problem> {
        let account = &signed.account;
        let wanted: Finalize = signed.jws.json()?;
        let (status, identifiers, days) = self.change_order(account, id, |order| {
            (order.status, order.identifiers.clone(), order.days)
        })?;
        if status != Status::Ready {
            return Err(not_ready(status));
        }
        let csr = self.csr_for(&wanted.csr, account, &identifiers)?;
        for identifier in &identifiers {
            self.check_caa(identifier)?;
        }
        let begun = self.change_order(account, id, |order| {
            let begins = order.status == Status::Ready;
            if begins {
                order.status = Status::Processing;
            }
            begins
        })?;
        if begun {
            let owner = self.store().accounts.get(account).map(Account::owner);
            let request = Wanted {
                spki: csr.spki,
                names: identifiers.iter().map(Identifier::name).collect(),
                days,
            };
            let (acme, account, id) = (self.clone(), account.clone(), id.to_owned());
            self.host.tasks.spawn(async move {
                let _turn = match owner {
                    Some(owner) => Some(acme.issues.take(&owner).await),
                    None => None,
                };
                acme.issue(&account, &id, request).await;
            });
        }
        self.until(AT_ONCE, || {
            let store = self.store();
            store
                .order(account, id)
                .is_none_or(|order| order.status != Status::Processing)
        })
        .await;
        // It may be ready again, with the reason: that is told as one.
        let again = {
            let store = self.store();
            let order = store.order(account, id);
            order.and_then(|order| match order.status {
                Status::Ready => order.error.clone(),
                _ => None,
            })
        };
        match again {
            Some(problem) => Err(problem),
            None => self.order_json(account, id, 200),
        }
    }

    /// The signing request in `text`, base64url of DER, if it is one for these
    /// identifiers and a key of its own.
    fn csr_for(
        &self,
        text: &str,
        account: &str,
        identifiers: &BTreeSet<Identifier>,
    ) -> Result<Csr, Problem> {
        let bad = |detail: &str| Problem::new(Kind::BadCsr, detail);
        let der = BASE64URL_NOPAD
            .decode(text.as_bytes())
            .map_err(|_| bad("the request is not base64url of DER"))?;
        let csr = Csr::parse(&der).map_err(|error| Problem::new(Kind::BadCsr, error))?;
        let named = csr.dns.iter().cloned().map(Identifier::Dns);
        let named: BTreeSet<Identifier> = named
            .chain(csr.ips.iter().copied().map(Identifier::Ip))
            .collect();
        if let Some(more) = named.difference(identifiers).next() {
            return Err(bad(&format!(
                "the signing request is also for {}, which the order isn't",
                more.name()
            )));
        }
        if let Some(less) = identifiers.difference(&named).next() {
            return Err(bad(&format!(
                "the order is also for {}, which the signing request isn't",
                less.name()
            )));
        }
        let store = self.store();
        let key = store.accounts.get(account).map(|account| &account.key);
        if key.is_some_and(|key| key.spki() == csr.spki) {
            return Err(bad(
                "the account's key can't be a certificate's too (RFC 8555 section 11.1)",
            ));
        }
        Ok(csr)
    }

    async fn issue(&self, account: &str, id: &str, wanted: Wanted) {
        let certified = self.mesh.certify(wanted, PATIENCE).await;
        let changed = self.change_order(account, id, |order| match certified {
            Ok(certified) => {
                order.status = Status::Valid;
                order.error = None;
                order.certified = Some(certified);
            }
            Err(error) => {
                tracing::warn!(not_done = %error, "an ACME order came to nothing");
                let (status, problem) = match error {
                    IssueError::Refused(why) => (Status::Invalid, Problem::unauthorized(why)),
                    IssueError::Unavailable(why) => (Status::Invalid, Problem::unavailable(why)),
                    // It may be finalized again after a while.
                    IssueError::Spent(why, wait) => {
                        (Status::Ready, Problem::rate_limited(why, wait))
                    }
                };
                order.status = status;
                order.error = Some(problem);
            }
        });
        if changed.is_ok() {
            let _ = self.save(account).await;
        }
    }

    /// RFC 8659 §3: the records closest to the name say who may issue.
    fn check_caa(&self, identifier: &Identifier) -> Result<(), Problem> {
        let (wildcard, Identifier::Dns(name)) = identifier.base() else {
            return Ok(());
        };
        let domain = self.mesh.domain();
        let mut at = name.as_str();
        let records = loop {
            let records = self.mesh.caa(at);
            if !records.is_empty() {
                break records;
            }
            match at.split_once('.') {
                Some((_, parent)) if at != domain => at = parent,
                _ => return Ok(()),
            }
        };
        if allows(&records, wildcard, &domain) {
            Ok(())
        } else {
            Err(Problem::new(
                Kind::Caa,
                format!(
                    "a CAA record at {at} keeps this CA from it; `issue \"{domain}\"` there would \
                     let it"
                ),
            ))
        }
    }

    pub(super) fn certificate(&self, signed: &Signed, order: &str) -> Result<Answer, Problem> {
        let store = self.store();
        let certified = store
            .order(&signed.account, order)
            .and_then(|order| order.certified.as_ref());
        let certified =
            certified.ok_or_else(|| Problem::not_found("this account has no such certificate"))?;
        Ok(Answer {
            status: 200,
            headers: Vec::new(),
            content_type: "application/pem-certificate-chain",
            body: certified.chain.clone().into_bytes(),
        })
    }
}

/// Whether these records let a CA with this domain issue.
fn allows(records: &[Caa], wildcard: bool, domain: &str) -> bool {
    const CRITICAL: u8 = 0x80;
    const KNOWN: [&str; 6] = [
        "issue",
        "issuewild",
        "iodef",
        "contactemail",
        "contactphone",
        "issuemail",
    ];
    let unknown = |caa: &&Caa| caa.flags & CRITICAL != 0 && !KNOWN.contains(&caa.tag.as_str());
    if records.iter().find(unknown).is_some() {
        return false;
    }
    let of = |tag: &'static str| records.iter().filter(move |caa| caa.tag == tag);
    let tag = if wildcard && of("issuewild").next().is_some() {
        "issuewild"
    } else {
        "issue"
    };
    let is_ours = |caa: &Caa| {
        let text = String::from_utf8_lossy(&caa.value);
        let named = text
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        named == domain
    };
    of(tag).next().is_none() || of(tag).any(is_ours)
}

fn not_ready(status: Status) -> Problem {
    let detail = match status {
        Status::Pending => "control of its names has not been shown yet",
        Status::Processing => "its certificate is being issued; ask for the order",
        Status::Valid => "it has its certificate; ask for the order",
        _ => "it came to nothing; make a new order",
    };
    let problem = Problem::new(Kind::OrderNotReady, detail);
    if status == Status::Processing {
        problem.with_retry(RETRY_S)
    } else {
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caa(flags: u8, tag: &str, value: &str) -> Caa {
        Caa {
            flags,
            tag: tag.into(),
            value: value.as_bytes().to_vec(),
        }
    }

    #[test]
    fn caa_records_are_read_as_rfc_8659_says() {
        let d = "home.example.com";
        let ours = [caa(0, "issue", "Home.Example.com; x=1")];
        assert!(allows(&ours, false, d) && allows(&ours, true, d));
        assert!(!allows(&[caa(0, "issue", ";")], false, d));
        assert!(!allows(&[caa(0, "issue", "other.example")], false, d));
        assert!(allows(&[caa(0, "iodef", "mailto:a@b")], false, d));
        let wild = [caa(0, "issue", "other.example"), caa(0, "issuewild", d)];
        assert!(allows(&wild, true, d) && !allows(&wild, false, d));
        assert!(!allows(
            &[caa(128, "unknown", "x"), caa(0, "issue", d)],
            false,
            d
        ));
    }
}
