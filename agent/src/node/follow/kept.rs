//! Writes down what the ledger can be fetched with again, where its files are
//! damaged.

use std::time::Duration;

use innermesh_proto::crypto::PublicKey;

use crate::{
    enroll::kept::Kept,
    host::{Host, Mono},
    ledger::Ledger,
};

/// How often at most it is written down how far the ledger has come here.
const KEPT: Duration = Duration::from_secs(600);

/// Writes down what the ledger can be fetched with again, where its files are
/// damaged: at once when that changes, and now and then how far it has come.
pub(crate) struct KeptWriter {
    host: Host,
    ledger: Ledger,
    key: PublicKey,
    kept: Option<Kept>,
    next: Mono,
}

impl KeptWriter {
    pub fn new(host: &Host, ledger: &Ledger, key: PublicKey) -> Self {
        Self {
            host: host.clone(),
            ledger: ledger.clone(),
            key,
            kept: None,
            next: Mono::ZERO,
        }
    }

    /// Writes it where that is due.
    pub async fn keep(&mut self) {
        let ledger = &self.ledger;
        // What was kept before the damage says more.
        if ledger.was_damaged() && ledger.behind().is_some() {
            return;
        }
        let Some(mut now) = Kept::of(ledger.genesis(), &ledger.state(), &self.key) else {
            return;
        };
        // What isn't on this disk yet is nothing that it had.
        now.position = *ledger.durable().borrow();
        let time = self.host.clock.now();
        let is_due = match &self.kept {
            None => true,
            Some(kept) => kept.differs(&now) || (*kept != now && time >= self.next),
        };
        if !is_due {
            return;
        }
        match now.store(&*self.host.disk).await {
            Ok(()) => (self.kept, self.next) = (Some(now), time + KEPT),
            Err(error) => tracing::warn!(%error, "this node's own standing can't be written down"),
        }
    }
}
