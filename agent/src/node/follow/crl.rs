//! The issuers' revocation lists on this node: it signs those of its own
//! issuers, takes those of others from the nodes that hold their keys (or from
//! any peer, while such a node is off), and keeps the last good one of each. What
//! is on one the ledger says; a signature says that it is the issuer's.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use innermesh_proto::{
    certificate::{RevocationList, Serial},
    codec,
    id::NodeId,
    ledger::{State, state::Issuer as Listed},
    limits,
    message::RevocationsQuery,
    rpc::method,
};
use tokio::sync::watch;

use crate::node::Inner;
use crate::{
    ca::{Issuer, revocations::ListPlan},
    host::key_files as keys,
};

/// The folder, below the state folder. Each file is named after an issuer's
/// serial number.
const FOLDER: &str = "crl";
/// Age at which a list is made anew although nothing else was revoked: half of
/// its life.
const RENEW_MS: u64 = limits::REVOCATION_LIST_MS / 2;
/// How often it is looked whether one is due.
const LOOK: Duration = Duration::from_secs(60);
/// When one that was due and not to be had is asked for again; each time later,
/// up to [`LOOK`].
const RETRY: Duration = Duration::from_secs(2);
/// How long what is revoked is gathered for one list.
const GATHER: Duration = Duration::from_secs(1);
/// How long a peer may take to hand one out.
const PATIENCE: Duration = Duration::from_secs(5);

/// The lists that this node holds.
pub struct Lists {
    held: Mutex<BTreeMap<Serial, Arc<Held>>>,
    changes: watch::Sender<()>,
}

/// One list, as it was signed and as it was read.
#[derive(Debug)]
pub struct Held {
    /// In DER.
    pub der: Bytes,
    /// What it says.
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
    pub fn of(&self, issuer: &Serial) -> Option<Arc<Held>> {
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
    pub fn warnings(&self, state: &State, now_ms: u64) -> Vec<String> {
        let used = state.issuers.values().filter(|i| is_used(i, now_ms));
        used.filter_map(|issuer| {
            let held = self.of(&issuer.certificate.serial)?;
            warning(&held, &state.name_of(issuer.node), now_ms)
        })
        .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Serial, Arc<Held>>> {
        self.held.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Whether anybody may still ask what an issuer revoked.
fn is_used(issuer: &Listed, now_ms: u64) -> bool {
    issuer.revoked.is_none() && issuer.certificate.not_after_ms > now_ms
}

/// Whether a list is to be made or fetched anew: it lacks what was revoked, is
/// half over, or was made by a clock that was ahead. One that says more is that
/// of a node whose ledger is ahead.
fn is_due(held: Option<&Held>, revoked: &BTreeMap<Serial, u64>, now_ms: u64) -> bool {
    held.is_none_or(|held| {
        let begin_ms = held.list.this_update_ms;
        let made_ms = begin_ms.saturating_add(limits::BACKDATE_S * 1000);
        let lacks = |serial: &Serial| !held.list.revoked.contains_key(serial);
        revoked.keys().any(lacks) || now_ms >= made_ms.saturating_add(RENEW_MS) || now_ms < begin_ms
    })
}

fn warning(held: &Held, node: &str, now_ms: u64) -> Option<String> {
    (!held.list.holds_at(now_ms)).then(|| {
        format!(
            "the revocation list of an issuer of {node} has ended: programs that check it refuse \
             certificates of that issuer; start {node}, or issue them anew"
        )
    })
}

/// Keeps the lists up to date for as long as the agent runs.
pub async fn run(inner: Arc<Inner>) {
    let mut states = inner.ledger.subscribe();
    let clock = inner.host.clock.clone();
    let (mut pause, mut turn) = (RETRY, 0);
    loop {
        let state = states.borrow_and_update().clone();
        turn += 1;
        pause = if round(&inner, &state, turn).await {
            LOOK
        } else {
            (pause * 2).min(LOOK)
        };
        clock.sleep(GATHER).await;
        let next = clock.now() + pause;
        loop {
            tokio::select! {
                changed = states.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if is_news(&state, &states.borrow_and_update()) {
                        states.mark_changed();
                        pause = RETRY;
                        break;
                    }
                }
                () = clock.sleep(next.saturating_sub(clock.now())) => break,
            }
        }
    }
}

fn is_news(before: &State, now: &State) -> bool {
    before.revoked != now.revoked
        || before.revoked_keys != now.revoked_keys
        || before.issuers != now.issuers
}

/// Looks at all of them; whether none is left that is due.
async fn round(inner: &Inner, state: &State, turn: usize) -> bool {
    let now_ms = inner.now_ms();
    let revocations = state.revocations();
    let none = BTreeMap::new();
    let mut all = true;
    for issuer in state.issuers.values() {
        let serial = issuer.certificate.serial;
        if !is_used(issuer, now_ms) {
            drop_list(inner, &serial).await;
            continue;
        }
        let revoked = revocations.get(&serial).unwrap_or(&none);
        let held = inner.lists.of(&serial);
        if !is_due(held.as_deref(), revoked, now_ms) {
            continue;
        }
        let above = held.map_or(0, |held| held.list.number);
        let new = if issuer.node == inner.me {
            sign(inner, issuer, revoked, above, now_ms).await
        } else {
            fetch(inner, issuer, above, now_ms, turn).await
        };
        match new {
            Some(new) => keep(inner, serial, new).await,
            None => all = false,
        }
    }
    // Also where an issuer came or went.
    inner.lists.changes.send_replace(());
    all
}

/// Makes the next list of an issuer of this node. Its number follows the clock,
/// so that it rises also where the last list was lost with the disk.
async fn sign(
    inner: &Inner,
    listed: &Listed,
    revoked: &BTreeMap<Serial, u64>,
    above: u64,
    now_ms: u64,
) -> Option<Held> {
    let spki = &listed.certificate.spki;
    let held = match keys::issuers(&inner.host).await {
        Ok(held) => held,
        Err(error) => {
            tracing::warn!(%error, "the keys of this node's issuers can't be read");
            return None;
        }
    };
    let Some(key) = held.into_iter().find(|key| key.spki() == *spki) else {
        tracing::debug!(issuer = %listed.certificate.serial, "its key is not here: it signs no list");
        return None;
    };
    let plan = ListPlan {
        number: (above + 1).max(now_ms / 1000),
        now_ms,
        revoked: revoked.clone(),
    };
    let made = Issuer::new(key, listed.certificate.der().to_vec())
        .and_then(|issuer| issuer.sign_list(&plan, &*inner.host.keys));
    let made = made.map(|der| Held {
        list: RevocationList::parse(&der).expect("it was read after it was made"),
        der: der.into(),
    });
    match made {
        Ok(held) => Some(held),
        Err(error) => {
            tracing::error!(%error, "a revocation list can't be made");
            None
        }
    }
}

/// Asks the node that signs an issuer's lists for a newer one; while it can't be
/// reached, one other peer after the other.
async fn fetch(
    inner: &Inner,
    listed: &Listed,
    above: u64,
    now_ms: u64,
    turn: usize,
) -> Option<Held> {
    let connected = inner.transport.connected();
    let others: Vec<NodeId> = connected.iter().map(|peer| peer.node).collect();
    let peer = if others.contains(&listed.node) {
        listed.node
    } else {
        *others.get(turn % others.len().max(1))?
    };
    let query = RevocationsQuery {
        issuer: listed.certificate.serial,
        above,
    };
    let call = inner
        .transport
        .call(peer, method::REVOCATIONS, codec::encode(&query), PATIENCE);
    // A peer that is older, busy or gone is no news: it is asked again.
    let der = call.await.ok().filter(|der| !der.is_empty())?;
    match accept(inner, listed, &der) {
        Ok(held) if held.list.number > above && held.list.holds_at(now_ms) => Some(held),
        Ok(_) => None,
        Err(error) => {
            let peer = inner.ledger.state().name_of(peer);
            tracing::warn!(%peer, %error, "a revocation list is refused");
            None
        }
    }
}

/// Checks a list from outside.
fn accept(
    inner: &Inner,
    listed: &Listed,
    der: &[u8],
) -> Result<Held, innermesh_proto::certificate::RevocationListError> {
    let list = RevocationList::parse(der)?;
    list.check(&listed.certificate, &*inner.host.keys)?;
    let der = Bytes::copy_from_slice(der);
    Ok(Held { der, list })
}

/// Writes a list down and hands it out from now on. A disk that fails keeps no
/// revocation from anybody: the number doesn't hang from the file.
async fn keep(inner: &Inner, issuer: Serial, held: Held) {
    let written = inner.host.disk.replace(&file(&issuer), &held.der).await;
    if let Err(error) = written {
        tracing::warn!(%error, "a revocation list can't be kept on disk");
    }
    let (number, revoked) = (held.list.number, held.list.revoked.len());
    tracing::info!(%issuer, number, revoked, "a new revocation list");
    inner.lists.lock().insert(issuer, Arc::new(held));
}

async fn drop_list(inner: &Inner, issuer: &Serial) {
    let gone = inner.lists.lock().remove(issuer);
    if gone.is_some()
        && let Err(error) = inner.host.disk.remove(&file(issuer)).await
    {
        tracing::debug!(%error, "an old revocation list can't be removed");
    }
}

/// What was held at the last stop, as far as it is right.
pub async fn load(inner: &Inner) {
    let disk = &inner.host.disk;
    let state = inner.ledger.state();
    let files = disk.list(Path::new(FOLDER)).await.unwrap_or_default();
    for path in files {
        let serial = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        let issuer = serial.and_then(|serial: Serial| state.issuers.get(&serial));
        let bytes = disk.read(&path).await.ok().flatten().unwrap_or_default();
        let read = issuer.and_then(|issuer| accept(inner, issuer, &bytes).ok());
        match (read, serial) {
            (Some(held), Some(serial)) => {
                inner.lists.lock().insert(serial, Arc::new(held));
            }
            _ => {
                // Damaged, or of an issuer that is forgotten: it is had anew.
                let _ = disk.remove(&path).await;
            }
        }
    }
}

fn file(issuer: &Serial) -> PathBuf {
    Path::new(FOLDER).join(format!("{issuer}.crl"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ca::testing::{NOW, issuer, root},
        host::keys::SystemKeys,
    };

    const HOUR: u64 = 3600 * 1000;

    fn revoked(serials: &[u8]) -> BTreeMap<Serial, u64> {
        serials.iter().map(|n| (Serial([*n; 16]), NOW)).collect()
    }

    fn held(serials: &[u8]) -> Held {
        let plan = ListPlan {
            number: 1,
            now_ms: NOW,
            revoked: revoked(serials),
        };
        let der = issuer(&root(), NOW).sign_list(&plan, &SystemKeys).unwrap();
        Held {
            list: RevocationList::parse(&der).unwrap(),
            der: der.into(),
        }
    }

    #[test]
    fn a_list_is_due_when_it_lacks_something_or_is_half_over_or_is_of_tomorrow() {
        let list = held(&[1, 2]);
        assert!(is_due(None, &revoked(&[]), NOW));
        assert!(!is_due(Some(&list), &revoked(&[1, 2]), NOW));
        assert!(!is_due(Some(&list), &revoked(&[1]), NOW), "it says more");
        assert!(is_due(Some(&list), &revoked(&[1, 3]), NOW));
        let at = |hours: u64| is_due(Some(&list), &revoked(&[1, 2]), NOW + hours * HOUR);
        assert!(!at(11) && at(12) && at(30));
        assert!(is_due(Some(&list), &revoked(&[1, 2]), NOW - 2 * HOUR));
    }

    #[test]
    fn the_end_of_a_list_is_told_with_what_to_do() {
        let list = held(&[]);
        assert_eq!(warning(&list, "alpha", NOW + 23 * HOUR), None);
        let told = warning(&list, "alpha", NOW + 24 * HOUR).unwrap();
        assert!(
            told.contains("has ended") && told.contains("start alpha"),
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
        lists.lock().insert(serial, Arc::new(list));
        assert_eq!(ask(0), der);
        assert!(ask(1).is_empty() && ask(u64::MAX).is_empty());
    }
}
