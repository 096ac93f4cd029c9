//! The issuers' revocation lists that this node holds, and hands out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use innermesh_proto::{
    certificate::{RevocationList, Serial},
    ledger::{State, state::Issuer as Listed},
    message::RevocationsQuery,
};
use tokio::sync::watch;

use crate::control::finding::{Finding, code};

/// The lists that this node holds.
pub(crate) struct Lists {
    held: Mutex<BTreeMap<Serial, Arc<SignedList>>>,
    changes: watch::Sender<()>,
}

/// One list, as it was signed and as it was read.
#[derive(Debug)]
pub(crate) struct SignedList {
    /// In DER.
    pub der: Bytes,
    pub list: RevocationList,
}

impl Default for Lists {
    fn default() -> Self {
        Self {
            held: Mutex::default(),
            changes: watch::Sender::new(()),
        }
    }
}

impl Lists {
    /// The list of an issuer; it may have ended.
    pub fn of(&self, issuer: &Serial) -> Option<Arc<SignedList>> {
        self.lock().get(issuer).cloned()
    }

    /// Tells when one of them changes.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// What a peer is answered.
    pub fn answer(&self, query: &RevocationsQuery) -> Vec<u8> {
        let newer = self.of(&query.issuer);
        let newer = newer.filter(|held| held.list.number > query.above);
        newer.map(|held| held.der.to_vec()).unwrap_or_default()
    }

    /// What is to be said of lists that have ended: servers that check them
    /// refuse what hangs from their issuers.
    pub fn findings(&self, state: &State, now_ms: u64) -> Vec<Finding> {
        let used = state.issuers.values().filter(|i| is_used(i, now_ms));
        used.filter_map(|issuer| {
            let held = self.of(&issuer.certificate.serial)?;
            warning(&held, &state.name_of(issuer.node), now_ms)
        })
        .collect()
    }

    /// Hands this one out from now on.
    pub fn insert(&self, issuer: Serial, list: SignedList) {
        self.lock().insert(issuer, Arc::new(list));
    }

    /// Hands none out any more; whether there was one.
    pub fn remove(&self, issuer: &Serial) -> bool {
        self.lock().remove(issuer).is_some()
    }

    /// Says that something changed.
    pub fn note_change(&self) {
        self.changes.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Serial, Arc<SignedList>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether anybody may still ask what an issuer revoked.
pub(crate) fn is_used(issuer: &Listed, now_ms: u64) -> bool {
    issuer.revoked.is_none() && issuer.certificate.not_after_ms > now_ms
}

fn warning(held: &SignedList, node: &str, now_ms: u64) -> Option<Finding> {
    (!held.list.holds_at(now_ms)).then(|| {
        Finding::warning(
            code::REVOCATION_LIST_ENDED,
            format!(
                "the revocation list of an issuer of {node} has ended: programs that check it \
                 refuse certificates of that issuer"
            ),
            format!("Start {node}, or issue them anew"),
        )
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        ca::{
            revocations::ListPlan,
            testing::{NOW, issuer, root},
        },
        host::keys::SystemKeys,
    };

    pub(crate) const HOUR: u64 = 3600 * 1000;

    pub(crate) fn revoked(serials: &[u8]) -> BTreeMap<Serial, u64> {
        serials.iter().map(|n| (Serial([*n; 16]), NOW)).collect()
    }

    pub(crate) fn held(serials: &[u8]) -> SignedList {
        let plan = ListPlan {
            number: 1,
            now_ms: NOW,
            revoked: revoked(serials),
        };
        let der = issuer(&root(), NOW).sign_list(&plan, &SystemKeys).unwrap();
        SignedList {
            list: RevocationList::parse(&der).unwrap(),
            der: der.into(),
        }
    }

    #[test]
    fn the_end_of_a_list_is_told_with_what_to_do() {
        let list = held(&[]);
        assert_eq!(warning(&list, "alpha", NOW + 23 * HOUR), None);
        let told = warning(&list, "alpha", NOW + 24 * HOUR).unwrap().sentence();
        assert!(
            told.contains("has ended") && told.contains("Start alpha"),
            "{told}"
        );
    }

    #[test]
    fn a_peer_gets_a_list_only_if_it_is_newer_than_its_own() {
        let lists = Lists::default();
        let serial = Serial([9; 16]);
        let ask = |above| {
            lists.answer(&RevocationsQuery {
                issuer: serial,
                above,
            })
        };
        assert!(ask(0).is_empty());
        let list = held(&[1]);
        let der = list.der.clone();
        lists.insert(serial, list);
        assert_eq!(ask(0), der);
        assert!(ask(1).is_empty() && ask(u64::MAX).is_empty());
    }
}
