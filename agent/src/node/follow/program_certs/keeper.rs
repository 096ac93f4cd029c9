//! Keeps how the renewal of each certificate stands, and notes what came of it.

use std::time::Duration;

use innermesh_proto::id::NodeId;

use crate::{
    host::{Host, outside::SetPlace},
    ledger::Ledger,
    node::{
        follow::program_certs::{
            entries::ProgramCerts,
            errors::{BlockedError, FailedError, RenewalStoreError},
            seen_files::SeenFiles,
        },
        shared::{certify::Certifier, handles::Handles},
    },
    program_certs::{
        due,
        kept::{Failure, Kept},
    },
};

/// Least time between two renewals of one certificate, in which a CA node that
/// goes may hand the lead over; it doubles as long as the next one is due at
/// once, as with a clock that is far ahead.
const SETTLE: Duration = Duration::from_secs(600);
const SETTLE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Renews the certificates of this host's programs.
pub(crate) struct CertKeeper {
    pub host: Host,
    pub me: NodeId,
    pub ledger: Ledger,
    pub certifier: Certifier,
    pub certs: ProgramCerts,
}

impl CertKeeper {
    pub fn new(node: &Handles, certs: ProgramCerts) -> Self {
        Self {
            host: node.host.clone(),
            me: node.me,
            ledger: node.ledger.clone(),
            certifier: Certifier::new(node),
            certs,
        }
    }

    /// Notes that nothing helps until somebody does something.
    pub fn block(&self, place: &SetPlace, why: &BlockedError) {
        let why = why.to_string();
        let at_ms = self.host.clock.wall_ms();
        let news = self.certs.with(place, |entry| {
            let known = entry.blocked.as_ref().is_some_and(|known| known.why == why);
            if !known {
                entry.blocked = Some(Failure {
                    at_ms,
                    why: why.clone(),
                });
            }
            !known
        });
        if news == Some(true) {
            tracing::warn!(name = %place.stem, why, "a certificate can't be renewed");
        }
    }

    /// Notes that it is to be tried again.
    pub async fn fail(&self, place: &SetPlace, why: &FailedError) {
        let why = why.to_string();
        tracing::warn!(name = %place.stem, why, "a certificate could not be renewed; trying again");
        let (now, at_ms) = (self.host.clock.now(), self.host.clock.wall_ms());
        let kept = self.certs.with(place, |entry| {
            let kept = &mut entry.kept;
            kept.failures = kept.failures.saturating_add(1);
            kept.failure = Some(Failure { at_ms, why });
            entry.not_before = now + due::pause(kept.failures, kept.jitter);
            kept.clone()
        });
        self.keep(kept).await;
    }

    /// Notes what is in the files now.
    pub async fn succeed(&self, place: &SetPlace, looked: &SeenFiles) {
        let (now, wall_ms) = (self.host.clock.now(), self.host.clock.wall_ms());
        let kept = self.certs.with(place, |entry| {
            let kept = &mut entry.kept;
            (kept.failures, kept.failure, entry.blocked) = (0, None, None);
            kept.serial = looked.found.leaf.serial.to_string();
            kept.not_after_ms = looked.found.leaf.not_after_ms;
            kept.exec_pending = kept.wish.exec.is_some();
            kept.exec_failures = 0;
            entry.exec_not_before = now;
            (entry.key, entry.leaving_since_ms) = (None, None);
            entry.due_ms = Some(looked.due_ms);
            let settle = SETTLE.saturating_mul(1 << entry.again.min(8));
            entry.not_before = now + settle.min(SETTLE_MAX);
            entry.again = if wall_ms >= looked.due_ms {
                entry.again.saturating_add(1)
            } else {
                0
            };
            kept.clone()
        });
        tracing::info!(
            name = %place.stem,
            serial = %looked.found.leaf.serial,
            "a certificate was renewed"
        );
        self.keep(kept).await;
        self.certs.wake.notify_one();
    }

    /// Writes down how a renewal stands. What is lost is found again in the files.
    pub async fn keep(&self, kept: Option<Kept>) {
        let Some(kept) = kept else { return };
        if let Err(error) = self.store(&kept).await {
            tracing::warn!(%error, name = %kept.wish.stem, "how a renewal stands can't be kept");
        }
    }

    /// Writes down how a renewal stands.
    ///
    /// # Errors
    /// [`RenewalStoreError`]; what was there before stands.
    pub async fn store(&self, kept: &Kept) -> Result<(), RenewalStoreError> {
        let text = toml::to_string(kept)?;
        let file = kept.file();
        Ok(self.host.disk.replace(&file, text.as_bytes()).await?)
    }
}
