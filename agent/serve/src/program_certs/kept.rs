//! What is kept of a renewal across restarts: what its user wishes, and how it
//! went.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use innermesh_proto::{certificate::is_dns_name, crypto::Hash, limits};
use serde::{Deserialize, Serialize};

use super::EXEC_BYTES;
use innermesh_control::renewals::{RenewalWish, WhichRenewal};
use innermesh_host::outside::{Access, SetPlace};

/// The folder of renewals, below the state folder.
pub const FOLDER: &str = "renewals";
/// Least time between two renewals that `renew_before` may lead to, in seconds.
const LEAST_S: u64 = 3600;
const DAY_S: u64 = 24 * 3600;
/// Permission bits that a key's files may have: nobody but the owner, or the
/// group too, for reading.
pub const MODES: [u32; 4] = [0o600, 0o640, 0o400, 0o440];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// As it was asked for.
    pub wish: RenewalWish,
    /// Id of the user who did, whom commands run as.
    pub uid: u32,
    /// Drawn once, so that a mesh doesn't renew all at once.
    pub jitter: u16,
    /// Serial number of the certificate that was in the files when they were
    /// last looked at.
    pub serial: String,
    /// When that ends, in milliseconds since 1970.
    pub not_after_ms: u64,
    /// Attempts that failed in a row.
    pub failures: u32,
    /// The last of these.
    pub failure: Option<Failure>,
    /// Whether the command is yet to be run.
    pub exec_pending: bool,
    /// How often in a row that failed.
    pub exec_failures: u32,
    /// The last of these.
    pub exec_failure: Option<Failure>,
}

/// What failed, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// In milliseconds since 1970.
    pub at_ms: u64,
    pub why: String,
}

/// What is wrong with a wish. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// No names, too many, or one that is none.
    #[error("a certificate has 1 to {max} host names", max = limits::CERTIFICATE_NAMES)]
    Names,
    /// Days out of bounds.
    #[error("a certificate is good for 1 to {max} days", max = limits::LEAF_DAYS)]
    Days,
    /// A folder that depends on where one is, or a stem that leads elsewhere.
    #[error("the files need an absolute folder and a plain name")]
    Place,
    /// Permissions that are too wide, or useless.
    #[error("a key's files have mode 600, 640, 400 or 440")]
    Mode,
    /// Too long before the end.
    #[error(
        "a certificate of {0} days can be renewed at most {1} hours before its end, or it would \
         be renewed all the time"
    )]
    Before(u32, u64),
    /// A command that is too long, or has a zero byte in it.
    #[error("a command has 1 to {EXEC_BYTES} bytes")]
    Exec,
}

impl Kept {
    /// The place of its files.
    pub fn place(&self) -> SetPlace {
        place(&self.wish)
    }

    /// Who may read its key.
    pub fn access(&self) -> Access {
        access(&self.wish)
    }

    /// Its names, as the ledger is asked for them.
    pub fn names(&self) -> BTreeSet<String> {
        self.wish.names.iter().cloned().collect()
    }

    /// How long before the end it is renewed, in milliseconds.
    pub fn before_ms(&self) -> Option<u64> {
        self.wish.renew_before_s.map(|s| s.saturating_mul(1000))
    }

    /// Whether it is meant.
    pub fn is(&self, which: &WhichRenewal) -> bool {
        let lower = which.name.to_ascii_lowercase();
        let name = lower.trim_end_matches('.');
        let named = self.wish.stem == stem(name) || self.wish.names.iter().any(|n| n == name);
        named
            && which
                .folder
                .as_ref()
                .is_none_or(|folder| *folder == self.wish.folder)
    }

    /// The file that it is kept in, below the state folder.
    pub fn file(&self) -> PathBuf {
        file(&self.place())
    }
}

/// The stem of the files of a name as it was typed.
pub fn stem(typed: &str) -> String {
    // A star is awkward in a file's name.
    typed
        .to_ascii_lowercase()
        .trim_end_matches('.')
        .replace('*', "_")
}

/// The place of a wish's files.
pub fn place(wish: &RenewalWish) -> SetPlace {
    SetPlace {
        folder: wish.folder.clone(),
        stem: wish.stem.clone(),
    }
}

/// Who may read its key.
pub fn access(wish: &RenewalWish) -> Access {
    Access {
        mode: wish.mode,
        uid: wish.owner,
        gid: wish.group,
    }
}

/// The file that the renewal of this place is kept in: two folders may hold
/// certificates of one name.
pub fn file(place: &SetPlace) -> PathBuf {
    let hash = Hash::of(place.folder.as_os_str().as_encoded_bytes()).to_string();
    let short: String = hash.chars().take(16).collect();
    // Names have up to 253 bytes and file names up to 255.
    let stem: String = place.stem.chars().take(200).collect();
    let whole = Hash::of(place.stem.as_bytes()).to_string();
    let whole: String = whole.chars().take(8).collect();
    Path::new(FOLDER).join(format!("{stem}@{short}{whole}.toml"))
}

/// Whether a wish makes sense.
///
/// # Errors
/// [`WishError`].
pub fn check(wish: &RenewalWish) -> Result<(), WishError> {
    let names: BTreeSet<&String> = wish.names.iter().collect();
    if !(1..=limits::CERTIFICATE_NAMES).contains(&names.len())
        || names.len() != wish.names.len()
        || !names.iter().all(|name| is_dns_name(name))
    {
        return Err(WishError::Names);
    }
    if !(1..=limits::LEAF_DAYS).contains(&wish.days) {
        return Err(WishError::Days);
    }
    check_place(&place(wish))?;
    if !MODES.contains(&wish.mode) {
        return Err(WishError::Mode);
    }
    let most_s = u64::from(wish.days) * DAY_S - LEAST_S;
    if wish.renew_before_s.is_some_and(|s| s == 0 || s > most_s) {
        return Err(WishError::Before(wish.days, most_s / 3600));
    }
    let fine = |line: &String| (1..=EXEC_BYTES).contains(&line.len()) && !line.contains('\0');
    if wish.exec.as_ref().is_none_or(fine) {
        Ok(())
    } else {
        Err(WishError::Exec)
    }
}

/// Whether files can be kept there.
///
/// # Errors
/// [`WishError::Place`].
pub fn check_place(place: &SetPlace) -> Result<(), WishError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    let is_good = place.folder.is_absolute()
        && !place.stem.starts_with('.')
        && (1..=240).contains(&place.stem.len())
        && place.stem.chars().all(plain);
    if is_good {
        Ok(())
    } else {
        Err(WishError::Place)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn wish() -> RenewalWish {
        RenewalWish {
            names: vec!["photos.in.example.org".into()],
            days: 90,
            folder: "/etc/innermesh/certs".into(),
            stem: "photos".into(),
            owner: None,
            group: Some(5),
            mode: 0o640,
            new_key: false,
            renew_before_s: None,
            exec: Some("systemctl reload nginx".into()),
            exec_now: true,
        }
    }

    pub(crate) fn kept() -> Kept {
        Kept {
            wish: wish(),
            uid: 0,
            jitter: 7,
            serial: "0a".into(),
            not_after_ms: 90 * 86_400_000,
            failures: 0,
            failure: None,
            exec_pending: false,
            exec_failures: 0,
            exec_failure: None,
        }
    }

    #[test]
    fn what_is_kept_survives_being_written() {
        let mut kept = kept();
        kept.failure = Some(Failure {
            at_ms: 1,
            why: "no leader".into(),
        });
        let text = toml::to_string(&kept).unwrap();
        assert_eq!(toml::from_str::<Kept>(&text).unwrap(), kept);
    }

    #[test]
    fn two_places_are_kept_in_two_files_and_a_long_name_in_one() {
        let at = |folder: &str, stem: &str| {
            file(&SetPlace {
                folder: folder.into(),
                stem: stem.into(),
            })
        };
        assert_ne!(at("/a", "photos"), at("/b", "photos"));
        let (long, longer) = ("a".repeat(230), "a".repeat(240));
        assert_ne!(at("/a", &long), at("/a", &longer));
        let name = at("/a", &longer).file_name().unwrap().len();
        assert!(name + ".new".len() <= 255, "{name}");
    }

    #[test]
    fn a_renewal_is_found_by_what_was_typed_and_by_each_full_name() {
        let kept = kept();
        let is = |name: &str, folder: Option<&str>| {
            kept.is(&WhichRenewal {
                name: name.into(),
                folder: folder.map(PathBuf::from),
            })
        };
        for name in ["photos", "Photos", "photos.in.example.org."] {
            assert!(is(name, None), "{name}");
        }
        assert!(is("photos", Some("/etc/innermesh/certs")));
        assert!(!is("photos", Some("/elsewhere")));
        assert!(!is("wiki", None));
    }

    #[test]
    fn a_wish_that_makes_no_sense_is_refused() {
        assert_eq!(check(&wish()), Ok(()));
        let with = |change: fn(&mut RenewalWish)| {
            let mut wish = wish();
            change(&mut wish);
            check(&wish).err()
        };
        assert_eq!(with(|w| w.names.clear()), Some(WishError::Names));
        assert_eq!(with(|w| w.names.push("a b".into())), Some(WishError::Names));
        assert_eq!(with(|w| w.days = 0), Some(WishError::Days));
        assert_eq!(with(|w| w.folder = "certs".into()), Some(WishError::Place));
        for stem in ["../x", "", ".x", "a/b", "a@2"] {
            let mut wish = wish();
            wish.stem = stem.into();
            assert_eq!(check(&wish), Err(WishError::Place), "{stem}");
        }
        assert_eq!(with(|w| w.mode = 0o644), Some(WishError::Mode));
        assert_eq!(with(|w| w.exec = Some("a\0".into())), Some(WishError::Exec));
        assert_eq!(
            with(|w| w.renew_before_s = Some(90 * DAY_S)),
            Some(WishError::Before(90, 2159))
        );
        assert_eq!(with(|w| w.renew_before_s = Some(89 * DAY_S)), None);
    }
}
