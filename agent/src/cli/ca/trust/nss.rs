//! NSS databases: those of Chromium and its kin, and one in each Firefox
//! profile, kept by `certutil`.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use nix::unistd::geteuid;

use super::{
    anchor::Anchor,
    machine::{self, Barrier, Machine, Owner},
    program::{Call, ProgramError},
    store::{Held, Kind, Store, StoreError},
};
use crate::ca::pem;

/// Chromium's databases, below the home folder: its own, the snap's, and the
/// one in each Flatpak, `*` being any one name.
const CHROMIUM: [&str; 3] = [
    ".pki/nssdb",
    "snap/*/current/.pki/nssdb",
    ".var/app/*/.pki/nssdb",
];
/// Firefox's profiles: its own (before and from 147 on), the snap's, the
/// Flatpak's.
const FIREFOX: [&str; 5] = [
    ".mozilla/firefox/*",
    ".config/mozilla/firefox/*",
    "snap/firefox/common/.mozilla/firefox/*",
    ".var/app/org.mozilla.firefox/.mozilla/firefox/*",
    ".var/app/org.mozilla.firefox/config/mozilla/firefox/*",
];
/// The file that makes a folder a database.
pub const DATABASE: &str = "cert9.db";
/// Most databases that are looked at.
pub const DATABASES: usize = 64;
/// Most names of a database that are looked at.
const NAMES: usize = 2_000;

/// One database.
pub struct Nss {
    kind: Kind,
    folder: PathBuf,
    certutil: Option<PathBuf>,
    advice: String,
    /// Whom `certutil` runs as, where that is somebody else.
    owner: Option<Owner>,
}

impl Nss {
    /// The caller's databases. What lies among them and belongs to somebody
    /// else is left out: a link in a home must lead to no other.
    pub fn find(machine: &Machine) -> Vec<Self> {
        let patterns = CHROMIUM.iter().map(|p| (Kind::Chromium, p));
        let patterns = patterns.chain(FIREFOX.iter().map(|p| (Kind::Firefox, p)));
        let owner = machine.caller.owner;
        let folders = patterns.flat_map(|(kind, pattern)| {
            let found = matching(&machine.caller.home, pattern);
            found.into_iter().map(move |folder| (kind, folder))
        });
        let own = folders.filter(|(_, folder)| {
            fs::metadata(folder.join(DATABASE)).is_ok_and(|m| m.uid() == owner.uid)
        });
        own.take(DATABASES)
            .map(|(kind, folder)| Self::new(kind, folder, owner, machine))
            .collect()
    }

    /// The database in `folder`, which belongs to `owner`.
    pub fn new(kind: Kind, folder: PathBuf, owner: Owner, machine: &Machine) -> Self {
        Self {
            kind,
            folder,
            certutil: machine.find("certutil"),
            advice: advice(machine),
            owner: Some(owner).filter(|owner| owner.uid != geteuid().as_raw()),
        }
    }

    /// `certutil` on this database.
    async fn certutil(&self, arguments: &[&str], input: &str) -> Result<String, StoreError> {
        let program = self.certutil.as_deref().ok_or_else(|| StoreError::NoTool {
            program: "certutil",
            advice: self.advice.clone(),
        })?;
        let mut database = std::ffi::OsString::from("sql:");
        database.push(&self.folder);
        // An empty password, so that it never waits for one on the terminal.
        let call = Call::new(program)
            .with(arguments)
            .with(&["-f", "/dev/null"]);
        let call = call.with(&["-d"]).with(&[&database]);
        let call = call.input(input).owner(self.owner);
        call.run().await.map_err(|error| match error {
            ProgramError::Failed(_, why) if why.contains("SEC_ERROR_BAD_PASSWORD") => {
                StoreError::Files(
                    "it has a password, which only its browser may ask for: import what \
                     `agent ca root` prints in the browser's settings, under Certificates"
                        .into(),
                )
            }
            error => error.into(),
        })
    }
}

#[async_trait]
impl Store for Nss {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn place(&self, _: &Anchor) -> String {
        self.folder.display().to_string()
    }

    fn barrier(&self, _: &Anchor) -> Option<Barrier> {
        match self.owner {
            // Only root can become another, and then asks nobody.
            Some(_) if geteuid().is_root() => None,
            Some(_) => Some(Barrier::Rights),
            None => machine::barrier(&self.folder)
                .or_else(|| machine::barrier(&self.folder.join(DATABASE))),
        }
    }

    async fn held(&self) -> Result<Vec<Held>, StoreError> {
        let list = self.certutil(&["-L"], "").await?;
        let mut held = Vec::new();
        for (name, trusted) in rows(&list).take(NAMES) {
            let text = self.certutil(&["-L", "-a", "-n", &name], "").await?;
            // A name stands for all certificates of its subject.
            held.extend(pem::bundle(&text).into_iter().map(|der| Held {
                name: name.clone(),
                der,
                trusted,
            }));
        }
        Ok(held)
    }

    async fn add(&self, anchor: &Anchor) -> Result<(), StoreError> {
        let name = anchor.name();
        let arguments = ["-A", "-a", "-t", "C,,", "-n", &name];
        self.certutil(&arguments, &anchor.pem()).await?;
        Ok(())
    }

    async fn remove(&self, anchor: &Anchor) -> Result<(), StoreError> {
        let name = anchor.name();
        let list = self.certutil(&["-L"], "").await?;
        if rows(&list).any(|(there, _)| there == name) {
            self.certutil(&["-D", "-n", &name], "").await?;
        }
        Ok(())
    }
}

/// Names and whether servers are believed by them, of what `certutil -L`
/// prints: each name, which may have spaces, and its three flags.
fn rows(list: &str) -> impl Iterator<Item = (String, bool)> {
    list.lines().filter_map(|line| {
        let (name, flags) = line.trim_end().rsplit_once(' ')?;
        let mut parts = flags.split(',');
        let (servers, rest) = (parts.next()?, parts.count());
        let name = name.trim();
        (rest == 2 && !name.is_empty() && !flags.contains('/'))
            .then(|| (name.to_string(), servers.contains('C')))
    })
}

/// The folders below `base` that fit a pattern, in order.
fn matching(base: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut places = vec![base.to_owned()];
    for part in pattern.split('/') {
        let below = |place: &PathBuf| match part {
            "*" => folders(place),
            part => vec![place.join(part)],
        };
        places = places.iter().flat_map(below).collect();
    }
    places
}

fn folders(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

/// How `certutil` is had here.
fn advice(machine: &Machine) -> String {
    let ways = [
        ("apt-get", "apt install libnss3-tools"),
        ("dnf", "dnf install nss-tools"),
        ("zypper", "zypper install mozilla-nss-tools"),
        ("pacman", "pacman -S nss"),
        ("apk", "apk add nss-tools"),
    ];
    let way = ways.iter().find(|(tool, _)| machine.find(tool).is_some());
    way.map_or(ways[1].1, |(_, way)| way).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_flags_are_read_and_headers_are_none() {
        let list = "\nCertificate Nickname                          Trust Attributes\n\
                    \x20                                     SSL,S/MIME,JAR/XPI\n\n\
                    My own CA - Me, Inc                           CT,C,C\n\
                    DigiCert Intermediate                         ,,   \n";
        let expected = [
            ("My own CA - Me, Inc".to_string(), true),
            ("DigiCert Intermediate".to_string(), false),
        ];
        assert_eq!(rows(list).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn profiles_are_found_wherever_firefox_and_chromium_keep_them() {
        let home = tempfile::tempdir().unwrap();
        let places = [
            ".pki/nssdb",
            "snap/chromium/current/.pki/nssdb",
            ".var/app/org.chromium.Chromium/.pki/nssdb",
            ".mozilla/firefox/a.default",
            ".config/mozilla/firefox/b.default",
            "snap/firefox/common/.mozilla/firefox/c.default",
            ".var/app/org.mozilla.firefox/.mozilla/firefox/d.default",
        ];
        let at = |place: &str| home.path().join(place);
        for place in places {
            fs::create_dir_all(at(place)).unwrap();
            fs::write(at(place).join(DATABASE), "").unwrap();
        }
        fs::create_dir_all(at(".mozilla/firefox/Crash Reports")).unwrap();
        let uid = fs::metadata(at(places[0])).unwrap().uid();
        let mut machine = Machine::this().unwrap();
        machine.caller.home = home.path().to_owned();
        machine.caller.owner = Owner { uid, gid: 0 };
        let found = |machine: &Machine| -> Vec<PathBuf> {
            Nss::find(machine)
                .into_iter()
                .map(|nss| nss.folder)
                .collect()
        };
        assert_eq!(found(&machine), places.map(at));
        // Somebody else's are left alone.
        machine.caller.owner = Owner {
            uid: uid + 1,
            gid: 0,
        };
        assert!(found(&machine).is_empty());
    }
}
