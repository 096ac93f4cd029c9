//! The certificates that this machine's programs use, renewed in time: by short
//! looks at wall time and never by one long timer, so that a machine that slept
//! recovers by itself (S19). The files are looked at each time; what stands in
//! them is what is renewed.

mod attempt;
mod commands;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::Notify;

use self::attempt::{Looked, Trouble};
use crate::node::Inner;
use crate::node::refusals::{invalid, refused};
use crate::{
    control::{
        ControlError, ErrorCode,
        certificates::CertRow,
        renewals::{RenewNowRequest, RenewalRow, RenewalWish, WhichRenewal},
    },
    host::{Disk, Mono, keys::CaKey, outside::SetPlace},
    renewal::{
        RENEWALS, due,
        kept::{self, Failure, Kept},
        told,
    },
};

/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_secs(60);
/// Least time between two renewals of one certificate, in which a CA node that
/// goes may hand the lead over; it doubles as long as the next one is due at
/// once, as with a clock that is far ahead.
const SETTLE: Duration = Duration::from_secs(600);
const SETTLE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The renewals of this node.
pub struct Renewals {
    entries: Mutex<BTreeMap<SetPlace, Entry>>,
    /// Files that are no renewals, and why.
    damaged: BTreeMap<PathBuf, String>,
    /// Held while files are looked at and changed: one at a time.
    working: tokio::sync::Mutex<()>,
    wake: Notify,
}

struct Entry {
    kept: Kept,
    /// When it is due by wall time, once that is known.
    due_ms: Option<u64>,
    /// Why it can't be renewed until somebody mends it.
    blocked: Option<Failure>,
    /// When it may be tried next.
    not_before: Mono,
    /// When its command may be run next.
    exec_not_before: Mono,
    /// How often it was due again at once.
    again: u32,
    /// Since when its issuer is known to go, by wall time.
    loose_since_ms: Option<u64>,
    /// Made for a renewal that isn't done yet.
    key: Option<Arc<dyn CaKey>>,
}

impl Entry {
    fn new(kept: Kept) -> Self {
        Self {
            kept,
            due_ms: None,
            blocked: None,
            not_before: Mono::ZERO,
            exec_not_before: Mono::ZERO,
            again: 0,
            loose_since_ms: None,
            key: None,
        }
    }

    /// With what keeps it from being renewed now as the last failure.
    fn told(&self) -> Kept {
        let mut kept = self.kept.clone();
        kept.failure = self.blocked.clone().or(kept.failure);
        kept
    }

    fn row(&self, now: Mono, wall_ms: u64) -> RenewalRow {
        let pause_ms = u64::try_from(self.not_before.saturating_sub(now).as_millis());
        let tried_ms = wall_ms.saturating_add(pause_ms.unwrap_or(u64::MAX));
        let next_ms = self.due_ms.map(|due_ms| due_ms.max(tried_ms));
        told::row(&self.told(), next_ms.filter(|_| self.blocked.is_none()))
    }
}

impl Renewals {
    /// Those that are kept on the disk. One that can't be read is left out and
    /// told.
    pub async fn load(disk: &dyn Disk) -> std::io::Result<Self> {
        let mut entries = BTreeMap::new();
        let mut damaged = BTreeMap::new();
        for file in disk.list(Path::new(kept::FOLDER)).await? {
            if file.extension().is_none_or(|ending| ending != "toml") {
                continue;
            }
            let bytes = disk.read(&file).await?.unwrap_or_default();
            match parse(&bytes) {
                Ok(kept) => {
                    entries.insert(kept.place(), Entry::new(kept));
                }
                Err(why) => {
                    damaged.insert(disk.root().join(file), why);
                }
            }
        }
        Ok(Self {
            entries: Mutex::new(entries),
            damaged,
            working: tokio::sync::Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// What a person should do something about.
    pub fn warnings(&self, wall_ms: u64) -> Vec<String> {
        let damaged = self.damaged.iter().map(|(file, why)| {
            format!(
                "the renewal in {} is left out: {why}; remove the file, and `agent cert issue` again",
                file.display()
            )
        });
        let entries = self.entries();
        let told = entries.values().flat_map(|entry| {
            let blocked = entry.blocked.is_some();
            told::warnings(wall_ms, &entry.told(), entry.due_ms, blocked)
        });
        damaged.chain(told).collect()
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<SetPlace, Entry>> {
        self.entries.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn places(&self) -> Vec<SetPlace> {
        self.entries().keys().cloned().collect()
    }

    fn with<T>(&self, place: &SetPlace, f: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.entries().get_mut(place).map(f)
    }

    /// The one that is meant.
    fn find(&self, which: &WhichRenewal) -> Result<SetPlace, ControlError> {
        let entries = self.entries();
        let mut meant = entries.values().filter(|entry| entry.kept.is(which));
        match (meant.next(), meant.next()) {
            (Some(entry), None) => Ok(entry.kept.place()),
            (Some(one), Some(other)) => Err(invalid(format!(
                "{} is renewed in {} and in {}; say which with --out",
                which.name,
                one.kept.wish.folder.display(),
                other.kept.wish.folder.display()
            ))),
            (None, _) => Err(ControlError::new(
                ErrorCode::NotFound,
                format!(
                    "this machine renews no certificate {}; `agent cert list` shows those it does",
                    which.name
                ),
            )),
        }
    }
}

/// What a file of a renewal says.
fn parse(bytes: &[u8]) -> Result<Kept, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let kept: Kept = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    kept::check(&kept.wish).map_err(|error| error.to_string())?;
    Ok(kept)
}

/// Renews in time, for as long as the agent runs.
pub async fn run(inner: Arc<Inner>) {
    let clock = inner.host.clock.clone();
    loop {
        for place in inner.renewals.places() {
            let _working = inner.renewals.working.lock().await;
            look(&inner, &place).await;
        }
        commands::run_due(&inner).await;
        let now = clock.now();
        let pause = {
            let entries = inner.renewals.entries();
            let soon = entries
                .values()
                .flat_map(|entry| [entry.not_before, entry.exec_not_before])
                .filter(|at| *at > now);
            soon.min().map_or(LOOK, |at| LOOK.min(at - now))
        };
        tokio::select! {
            () = inner.renewals.wake.notified() => {}
            () = clock.sleep(pause) => {}
        }
    }
}

/// Looks at one, and renews it when it is due.
async fn look(inner: &Inner, place: &SetPlace) {
    let Some(looked) = attempt::look(inner, place).await else {
        return;
    };
    let now = inner.host.clock.now();
    let is_due = inner.host.clock.wall_ms() >= looked.due_ms;
    let may = inner.renewals.with(place, |entry| now >= entry.not_before);
    if !is_due || may != Some(true) {
        return;
    }
    match attempt::renew(inner, place, looked, false).await {
        Ok(()) => {}
        Err(Trouble::Blocked(why)) => block(inner, place, why),
        Err(Trouble::Failed(why)) => fail(inner, place, why).await,
    }
}

/// Notes that nothing helps until somebody does something.
fn block(inner: &Inner, place: &SetPlace, why: String) {
    let at_ms = inner.host.clock.wall_ms();
    let news = inner.renewals.with(place, |entry| {
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
async fn fail(inner: &Inner, place: &SetPlace, why: String) {
    tracing::warn!(name = %place.stem, why, "a certificate could not be renewed; trying again");
    let (now, at_ms) = (inner.host.clock.now(), inner.host.clock.wall_ms());
    let kept = inner.renewals.with(place, |entry| {
        let kept = &mut entry.kept;
        kept.failures = kept.failures.saturating_add(1);
        kept.failure = Some(Failure { at_ms, why });
        entry.not_before = now + due::pause(kept.failures, kept.jitter);
        kept.clone()
    });
    keep(inner, kept).await;
}

/// Notes what is in the files now.
async fn succeed(inner: &Inner, place: &SetPlace, looked: &Looked) {
    let (now, wall_ms) = (inner.host.clock.now(), inner.host.clock.wall_ms());
    let kept = inner.renewals.with(place, |entry| {
        let kept = &mut entry.kept;
        (kept.failures, kept.failure, entry.blocked) = (0, None, None);
        kept.serial = looked.found.leaf.serial.to_string();
        kept.not_after_ms = looked.found.leaf.not_after_ms;
        kept.exec_pending = kept.wish.exec.is_some();
        kept.exec_failures = 0;
        entry.exec_not_before = now;
        (entry.key, entry.loose_since_ms) = (None, None);
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
    keep(inner, kept).await;
    inner.renewals.wake.notify_one();
}

/// Writes down how a renewal stands. What is lost is found again in the files.
async fn keep(inner: &Inner, kept: Option<Kept>) {
    let Some(kept) = kept else { return };
    if let Err(error) = store(inner, &kept).await {
        tracing::warn!(%error, name = %kept.wish.stem, "how a renewal stands can't be kept");
    }
}

async fn store(inner: &Inner, kept: &Kept) -> Result<(), String> {
    let text = toml::to_string(kept).map_err(|error| error.to_string())?;
    let written = inner.host.disk.replace(&kept.file(), text.as_bytes()).await;
    written.map_err(|error| error.to_string())
}

/// Answers [`RenewalAddRequest`](crate::control::renewals::RenewalAddRequest).
pub async fn add(inner: &Inner, wish: RenewalWish, uid: u32) -> Result<RenewalRow, ControlError> {
    kept::check(&wish).map_err(invalid)?;
    let renewals = &inner.renewals;
    let _working = renewals.working.lock().await;
    let place = kept::place(&wish);
    let mut jitter = [0; 2];
    inner.host.keys.random(&mut jitter);
    let exec_pending = wish.exec.is_some() && wish.exec_now;
    let kept = Kept {
        wish,
        uid,
        jitter: u16::from_le_bytes(jitter),
        serial: String::new(),
        not_after_ms: 0,
        failures: 0,
        failure: None,
        exec_pending,
        exec_failures: 0,
        exec_failure: None,
    };
    {
        let entries = renewals.entries();
        if entries.len() >= RENEWALS && !entries.contains_key(&place) {
            return Err(invalid(format!(
                "this machine renews {RENEWALS} certificates, and no more; end one with `agent cert rm`"
            )));
        }
    }
    let stored = store(inner, &kept).await;
    stored.map_err(|why| {
        let why = format!("the renewal can't be kept: {why}");
        ControlError::new(ErrorCode::Internal, why)
    })?;
    renewals.entries().insert(place.clone(), Entry::new(kept));
    let looked = attempt::look(inner, &place).await;
    let kept = renewals.with(&place, |entry| {
        if let Some(looked) = &looked {
            entry.kept.serial = looked.found.leaf.serial.to_string();
            entry.kept.not_after_ms = looked.found.leaf.not_after_ms;
        }
        entry.kept.clone()
    });
    keep(inner, kept).await;
    renewals.wake.notify_one();
    row(inner, &place)
}

/// Answers [`RenewNowRequest`](crate::control::renewals::RenewNowRequest).
pub async fn now(inner: &Inner, request: RenewNowRequest) -> Result<RenewalRow, ControlError> {
    let renewals = &inner.renewals;
    let place = renewals.find(&request.which)?;
    let _working = renewals.working.lock().await;
    let done = match attempt::look(inner, &place).await {
        Some(looked) => attempt::renew(inner, &place, looked, request.new_key).await,
        None => Ok(()),
    };
    if let Err(Trouble::Blocked(why) | Trouble::Failed(why)) = done {
        return Err(refused(why));
    }
    let blocked = renewals.with(&place, |entry| entry.blocked.clone());
    match blocked.flatten() {
        Some(failure) => Err(refused(failure.why)),
        None => row(inner, &place),
    }
}

/// Answers [`RenewalRmRequest`](crate::control::renewals::RenewalRmRequest).
pub async fn remove(inner: &Inner, which: WhichRenewal) -> Result<RenewalRow, ControlError> {
    let renewals = &inner.renewals;
    let place = renewals.find(&which)?;
    let _working = renewals.working.lock().await;
    let row = row(inner, &place)?;
    let removed = inner.host.disk.remove(&kept::file(&place)).await;
    removed.map_err(|error| ControlError::new(ErrorCode::Internal, error))?;
    renewals.entries().remove(&place);
    Ok(row)
}

fn row(inner: &Inner, place: &SetPlace) -> Result<RenewalRow, ControlError> {
    let (now, wall_ms) = (inner.host.clock.now(), inner.host.clock.wall_ms());
    let row = inner.renewals.with(place, |entry| entry.row(now, wall_ms));
    row.ok_or_else(|| ControlError::new(ErrorCode::NotFound, "it was removed meanwhile"))
}

/// Says of each certificate of this node's by which renewal it is followed,
/// and of each renewal whose certificate the ledger doesn't know.
pub fn join(inner: &Inner, rows: &mut Vec<CertRow>) {
    let (now, wall_ms) = (inner.host.clock.now(), inner.host.clock.wall_ms());
    let entries = inner.renewals.entries();
    let node = inner.ledger.state().name_of(inner.me);
    for entry in entries.values() {
        let renewal = entry.row(now, wall_ms);
        let known = rows
            .iter_mut()
            .find(|row| row.serial == renewal.serial && row.renewal.is_none());
        match known {
            Some(row) => row.renewal = Some(renewal),
            None => rows.push(CertRow {
                serial: renewal.serial.clone(),
                names: renewal.names.clone(),
                node: node.clone(),
                not_before: renewal.not_after,
                not_after: renewal.not_after,
                kind: crate::control::certificates::CertKind::Service,
                revoked: false,
                renewal: Some(renewal),
            }),
        }
    }
}
