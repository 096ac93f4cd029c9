//! The issuers' revocation lists on this node: it signs those of its own
//! issuers, takes those of others from the nodes that hold their keys (or from
//! any peer, while such a node is off), and keeps the last good one of each. What
//! is on one the ledger says; a signature says that it is the issuer's.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use innermesh_proto::{
    certificate::{RevocationList, RevocationListError, Serial},
    codec,
    id::NodeId,
    ledger::{State, state::Issuer as Listed},
    limits,
    message::RevocationsQuery,
    rpc::method,
};

use crate::{
    ca::{Issuer, revocations::ListPlan},
    host::{Host, key_files as keys},
    ledger::{Ledger, client::Client},
    node::shared::{
        handles::Handles,
        revocation_lists::{Lists, SignedList, is_used},
    },
    quic::Transport,
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
/// Of so many questions for a list one goes to the node that signs it, connected or not.
const ASKS_ISSUER: usize = 3;

/// Keeps this node's revocation lists up to date.
pub(crate) struct CrlKeeper {
    host: Host,
    me: NodeId,
    ledger: Ledger,
    client: Client,
    transport: Transport,
    lists: Arc<Lists>,
}

impl CrlKeeper {
    pub fn new(node: &Handles, lists: Arc<Lists>) -> Self {
        Self {
            host: node.host.clone(),
            me: node.me,
            ledger: node.ledger.clone(),
            client: node.client.clone(),
            transport: node.transport.clone(),
            lists,
        }
    }
}

/// Whether a list is to be made or fetched anew: it lacks what was revoked, is
/// half over, or was made by a clock that was ahead. One that says more is that
/// of a node whose ledger is ahead.
fn is_due(held: Option<&SignedList>, revoked: &BTreeMap<Serial, u64>, now_ms: u64) -> bool {
    held.is_none_or(|held| {
        let begin_ms = held.list.this_update_ms;
        let made_ms = begin_ms.saturating_add(limits::BACKDATE_S * 1000);
        let lacks = |serial: &Serial| !held.list.revoked.contains_key(serial);
        revoked.keys().any(lacks) || now_ms >= made_ms.saturating_add(RENEW_MS) || now_ms < begin_ms
    })
}

impl CrlKeeper {
    /// Keeps the lists up to date for as long as the agent runs.
    pub async fn run(self) {
        let mut states = self.ledger.subscribe();
        let clock = self.host.clock.clone();
        let (mut pause, mut turn) = (RETRY, 0);
        loop {
            let state = states.borrow_and_update().clone();
            turn += 1;
            pause = if self.round(&state, turn).await {
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

    /// Looks at all of them; whether none is left that is due.
    async fn round(&self, state: &State, turn: usize) -> bool {
        let now_ms = self.client.now_ms();
        let revocations = state.revocations();
        let none = BTreeMap::new();
        let mut all = true;
        for issuer in state.issuers.values() {
            let serial = issuer.certificate.serial;
            if !is_used(issuer, now_ms) {
                self.drop_list(&serial).await;
                continue;
            }
            let revoked = revocations.get(&serial).unwrap_or(&none);
            let held = self.lists.of(&serial);
            if !is_due(held.as_deref(), revoked, now_ms) {
                continue;
            }
            let above = held.map_or(0, |held| held.list.number);
            let new = if issuer.node == self.me {
                self.sign(issuer, revoked, above, now_ms).await
            } else {
                self.fetch(issuer, above, now_ms, turn).await
            };
            match new {
                Some(new) => self.keep(serial, new).await,
                None => all = false,
            }
        }
        // Also where an issuer came or went.
        self.lists.note_change();
        all
    }

    /// Makes the next list of an issuer of this node. Its number follows the clock,
    /// so that it rises also where the last list was lost with the disk.
    async fn sign(
        &self,
        listed: &Listed,
        revoked: &BTreeMap<Serial, u64>,
        above: u64,
        now_ms: u64,
    ) -> Option<SignedList> {
        let spki = &listed.certificate.spki;
        let held = match keys::issuers(&self.host).await {
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
            .and_then(|issuer| issuer.sign_list(&plan, &*self.host.keys));
        let made = made.map(|der| SignedList {
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
        &self,
        listed: &Listed,
        above: u64,
        now_ms: u64,
        turn: usize,
    ) -> Option<SignedList> {
        let connected = self.transport.connected();
        let others: Vec<NodeId> = connected.iter().map(|peer| peer.node).collect();
        // Mostly who is connected has it; now and then the issuer's node itself is asked.
        let asks_issuer = others.contains(&listed.node) || turn % ASKS_ISSUER == ASKS_ISSUER - 1;
        let peer = if asks_issuer {
            listed.node
        } else {
            *others.get(turn % others.len().max(1))?
        };
        let query = RevocationsQuery {
            issuer: listed.certificate.serial,
            above,
        };
        let call = self
            .transport
            .call(peer, method::REVOCATIONS, codec::encode(&query), PATIENCE);
        // A peer that is older, busy or gone is no news: it is asked again.
        let der = call.await.ok().filter(|der| !der.is_empty())?;
        match self.accept(listed, &der) {
            Ok(held) if held.list.number > above && held.list.holds_at(now_ms) => Some(held),
            Ok(_) => None,
            Err(error) => {
                let peer = self.ledger.state().name_of(peer);
                tracing::warn!(%peer, %error, "a revocation list is refused");
                None
            }
        }
    }

    /// Checks a list from outside.
    fn accept(&self, listed: &Listed, der: &[u8]) -> Result<SignedList, RevocationListError> {
        let list = RevocationList::parse(der)?;
        list.check(&listed.certificate, &*self.host.keys)?;
        let der = Bytes::copy_from_slice(der);
        Ok(SignedList { der, list })
    }

    /// Writes a list down and hands it out from now on. A disk that fails keeps no
    /// revocation from anybody: the number doesn't hang from the file.
    async fn keep(&self, issuer: Serial, held: SignedList) {
        let written = self.host.disk.replace(&file(&issuer), &held.der).await;
        if let Err(error) = written {
            tracing::warn!(%error, "a revocation list can't be kept on disk");
        }
        let (number, revoked) = (held.list.number, held.list.revoked.len());
        tracing::info!(%issuer, number, revoked, "a new revocation list");
        self.lists.insert(issuer, held);
    }

    async fn drop_list(&self, issuer: &Serial) {
        if self.lists.remove(issuer)
            && let Err(error) = self.host.disk.remove(&file(issuer)).await
        {
            tracing::debug!(%error, "an old revocation list can't be removed");
        }
    }

    /// What was held at the last stop, as far as it is right.
    pub async fn load(&self) {
        let disk = &self.host.disk;
        let state = self.ledger.state();
        let files = disk.list(Path::new(FOLDER)).await.unwrap_or_default();
        for path in files {
            let serial = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            let issuer = serial.and_then(|serial: Serial| state.issuers.get(&serial));
            let bytes = disk.read(&path).await.ok().flatten().unwrap_or_default();
            let read = issuer.and_then(|issuer| self.accept(issuer, &bytes).ok());
            match (read, serial) {
                (Some(held), Some(serial)) => {
                    self.lists.insert(serial, held);
                }
                _ => {
                    // Damaged, or of an issuer that is forgotten: it is fetched again.
                    let _ = disk.remove(&path).await;
                }
            }
        }
    }
}

fn is_news(before: &State, now: &State) -> bool {
    before.revoked != now.revoked
        || before.revoked_keys != now.revoked_keys
        || before.issuers != now.issuers
}

fn file(issuer: &Serial) -> PathBuf {
    Path::new(FOLDER).join(format!("{issuer}.crl"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ca::testing::NOW,
        node::shared::revocation_lists::tests::{HOUR, held, revoked},
    };

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
}
