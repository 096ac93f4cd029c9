//! What is known of each certificate of a program: what was wished, and how its
//! renewal stands.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::Notify;

use crate::{
    control::{
        ControlError, ErrorCode,
        finding::{Finding, code},
        renewals::{RenewalRow, WhichRenewal},
    },
    host::{Disk, Mono, keys::CaKey, outside::SetPlace},
    node::shared::refusals::invalid,
    program_certs::{
        kept::{self, Failure, Kept},
        report,
    },
};

/// The certificates of this host's programs, and how their renewal stands.
pub(crate) struct ProgramCerts {
    entries: Mutex<BTreeMap<SetPlace, CertEntry>>,
    /// Files that are no renewals, and why.
    damaged: BTreeMap<PathBuf, String>,
    /// Held while files are looked at and changed: one at a time.
    pub working: tokio::sync::Mutex<()>,
    pub wake: Notify,
}

pub(crate) struct CertEntry {
    pub kept: Kept,
    /// When it is due by wall time, once that is known.
    pub due_ms: Option<u64>,
    /// Why it can't be renewed until somebody mends it.
    pub blocked: Option<Failure>,
    /// When it may be tried next.
    pub not_before: Mono,
    /// When its command may be run next.
    pub exec_not_before: Mono,
    /// How often it was due again at once.
    pub again: u32,
    /// Since when its issuer is known to go, by wall time.
    pub leaving_since_ms: Option<u64>,
    /// Made for a renewal that isn't done yet.
    pub key: Option<Arc<dyn CaKey>>,
}

impl CertEntry {
    pub fn new(kept: Kept) -> Self {
        Self {
            kept,
            due_ms: None,
            blocked: None,
            not_before: Mono::ZERO,
            exec_not_before: Mono::ZERO,
            again: 0,
            leaving_since_ms: None,
            key: None,
        }
    }

    /// With what keeps it from being renewed now as the last failure.
    fn told(&self) -> Kept {
        let mut kept = self.kept.clone();
        kept.failure = self.blocked.clone().or(kept.failure);
        kept
    }

    pub fn row(&self, now: Mono, wall_ms: u64) -> RenewalRow {
        let pause_ms = u64::try_from(self.not_before.saturating_sub(now).as_millis());
        let tried_ms = wall_ms.saturating_add(pause_ms.unwrap_or(u64::MAX));
        let next_ms = self.due_ms.map(|due_ms| due_ms.max(tried_ms));
        report::row(&self.told(), next_ms.filter(|_| self.blocked.is_none()))
    }
}

impl ProgramCerts {
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
                    entries.insert(kept.place(), CertEntry::new(kept));
                }
                Err(why) => {
                    damaged.insert(disk.root().join(file), why.to_string());
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
    pub fn findings(&self, wall_ms: u64) -> Vec<Finding> {
        let damaged = self.damaged.iter().map(|(file, why)| {
            Finding::warning(
                code::RENEWAL_FILE,
                format!("the renewal in {} is left out: {why}", file.display()),
                "Remove the file, and `agent cert issue` again",
            )
        });
        let entries = self.entries();
        let told = entries.values().flat_map(|entry| {
            let blocked = entry.blocked.is_some();
            report::findings(wall_ms, &entry.told(), entry.due_ms, blocked)
        });
        damaged.chain(told).collect()
    }

    pub fn entries(&self) -> MutexGuard<'_, BTreeMap<SetPlace, CertEntry>> {
        self.entries.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn places(&self) -> Vec<SetPlace> {
        self.entries().keys().cloned().collect()
    }

    pub fn with<T>(&self, place: &SetPlace, f: impl FnOnce(&mut CertEntry) -> T) -> Option<T> {
        self.entries().get_mut(place).map(f)
    }

    /// The one that is meant.
    pub fn find(&self, which: &WhichRenewal) -> Result<SetPlace, ControlError> {
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

/// Why a file is no renewal.
#[derive(Debug, thiserror::Error)]
enum ParseError {
    #[error(transparent)]
    Text(#[from] std::str::Utf8Error),
    #[error("{}", .0.message())]
    Toml(#[from] toml::de::Error),
    #[error(transparent)]
    Wish(#[from] kept::WishError),
}

/// What a file of a renewal says.
fn parse(bytes: &[u8]) -> Result<Kept, ParseError> {
    let kept: Kept = toml::from_str(std::str::from_utf8(bytes)?)?;
    kept::check(&kept.wish)?;
    Ok(kept)
}
