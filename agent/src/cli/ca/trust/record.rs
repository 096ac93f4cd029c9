//! What was installed, so that exactly that can be undone: a file in the state
//! folder, or, for who can't write there, in the user's own.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use super::{
    super::super::{failure::Failure, files, paths::Paths},
    anchor::Anchor,
    machine::{Machine, Owner},
    store::Kind,
};
use crate::host::{
    Disk,
    disk::{SystemDisk, read_limited},
};

/// The file's name.
const FILE: &str = "trust.json";
/// Held while stores are changed.
const LOCK: &str = "trust.lock";
/// What this build writes and reads.
const VERSION: u32 = 1;
/// Largest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// The record, with the right to change it until it is dropped.
pub struct Record {
    disk: SystemDisk,
    folder: PathBuf,
    content: Content,
    _lock: Box<dyn Send + Sync>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    version: u32,
    installed: Vec<Entry>,
}

/// One root in one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose store it is.
    pub kind: Kind,
    /// Where, as [`super::store::Store::place`] says.
    pub place: String,
    /// Whose file it is, where that is a user's.
    pub owner: Option<Owner>,
    /// The root, as PEM text.
    pub root: String,
}

impl Entry {
    /// The root.
    pub fn anchor(&self, record: &Record) -> Result<Anchor, Failure> {
        Anchor::from_pem(&self.root).map_err(|error| damaged(&record.file(), error))
    }
}

impl Record {
    /// The one that this process may change, made where there is none.
    pub fn open(paths: &Paths, machine: &Machine) -> Result<Self, Failure> {
        let folder = folder(paths, machine);
        if folder == paths.state && !folder.exists() {
            files::state_folder(&folder).map_err(Failure::failed)?;
        }
        Self::at(folder)
    }

    /// The one that this process may change, if there is any.
    pub fn existing(paths: &Paths, machine: &Machine) -> Result<Option<Self>, Failure> {
        let folder = folder(paths, machine);
        let there = folder.join(FILE).exists();
        there.then(|| Self::at(folder)).transpose()
    }

    /// The one in this folder.
    pub fn at(folder: PathBuf) -> Result<Self, Failure> {
        let failed = |e: io::Error| {
            let folder = folder.display();
            Failure::failed(format!(
                "{folder} can't be used, so nothing was changed: {e}"
            ))
        };
        fs::create_dir_all(&folder).map_err(failed)?;
        let disk = SystemDisk::new(folder.clone());
        let lock = disk
            .lock(Path::new(LOCK))
            .map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => Failure::failed(
                    "another `agent ca trust` is at work; try again when it is done",
                ),
                _ => failed(error),
            })?;
        Ok(Self {
            content: read(&folder.join(FILE))?,
            disk,
            folder,
            _lock: lock,
        })
    }

    /// What stands in it.
    pub fn entries(&self) -> &[Entry] {
        &self.content.installed
    }

    /// Whether the same root was put into the system's store from here, whose
    /// tool may put it into Java's as well.
    pub fn feeds(&self, entry: &Entry) -> bool {
        let same = |other: &Entry| other.kind.is_system() && other.root == entry.root;
        entry.kind == Kind::Java && self.content.installed.iter().any(same)
    }

    /// Notes what is about to be installed.
    pub async fn note(&mut self, entry: Entry) -> Result<(), Failure> {
        if !self.content.installed.contains(&entry) {
            self.content.installed.push(entry);
            self.save().await?;
        }
        Ok(())
    }

    /// Strikes out what isn't there any more.
    pub async fn strike(&mut self, entry: &Entry) -> Result<(), Failure> {
        self.content.installed.retain(|other| other != entry);
        self.save().await
    }

    /// Where it is.
    pub fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// An empty one is no file at all.
    async fn save(&self) -> Result<(), Failure> {
        let cannot = |e: io::Error| {
            Failure::failed(format!("{} can't be written: {e}", self.file().display()))
        };
        if self.content.installed.is_empty() {
            return self.disk.remove(Path::new(FILE)).await.map_err(cannot);
        }
        let text = serde_json::to_string_pretty(&self.content).map_err(Failure::failed)? + "\n";
        let written = self.disk.replace(Path::new(FILE), text.as_bytes()).await;
        written.map_err(cannot)
    }
}

/// A record that isn't this process's to undo.
pub enum Elsewhere {
    /// Another user's, who installed something.
    Filled(String),
    /// Root's, which can't be seen.
    Unseen(String),
}

/// The record that [`Record::existing`] leaves out, and how it is undone.
pub fn elsewhere(paths: &Paths, machine: &Machine) -> Option<Elsewhere> {
    let used = folder(paths, machine);
    let own = own_folder(machine);
    let command = format!("agent{} ca trust uninstall", paths.option());
    if used != own {
        // Only looked at: root has no business in what a user may have put
        // anything in for.
        let filled = own.join(FILE).exists();
        return filled.then(|| {
            let how = format!("what was installed without sudo is undone by `{command}`");
            Elsewhere::Filled(format!("{how}, without it"))
        });
    }
    match fs::metadata(paths.state.join(FILE)) {
        Ok(_) => Some(Elsewhere::Filled(format!(
            "what was installed with sudo is undone by `sudo {command}`"
        ))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(Elsewhere::Unseen(format!(
            "if anything was installed with sudo, `sudo {command}` undoes that"
        ))),
    }
}

/// The entries that can be read, for who only looks.
pub fn look(paths: &Paths, machine: &Machine) -> Vec<Entry> {
    let own = (!machine.is_root).then(|| own_folder(machine));
    let mut found = Vec::new();
    for folder in std::iter::once(paths.state.clone()).chain(own) {
        if let Ok(content) = read(&folder.join(FILE)) {
            found.extend(content.installed);
        }
    }
    found
}

/// The state folder, where it is this process's to write in.
fn folder(paths: &Paths, machine: &Machine) -> PathBuf {
    let writable = access(&paths.state, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    if machine.is_root || writable {
        paths.state.clone()
    } else {
        own_folder(machine)
    }
}

/// The user's own (XDG Base Directory Specification).
fn own_folder(machine: &Machine) -> PathBuf {
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.filter(|path| path.is_absolute() && !machine.is_root);
    let state = state.unwrap_or_else(|| machine.caller.home.join(".local/state"));
    state.join("innermesh")
}

fn read(file: &Path) -> Result<Content, Failure> {
    let bytes = match read_limited(file, LONGEST) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Content {
                version: VERSION,
                installed: Vec::new(),
            });
        }
        Err(e) => {
            let file = file.display();
            return Err(Failure::failed(format!("{file} can't be read: {e}")));
        }
    };
    let content: Content = serde_json::from_slice(&bytes).map_err(|e| damaged(file, e))?;
    match content.version {
        VERSION => Ok(content),
        other => Err(damaged(file, format!("its version is {other}"))),
    }
}

fn damaged(file: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::failed(format!(
        "{} isn't understood ({why}), and nothing was changed; restore it, or move it away, \
         after which `agent ca trust uninstall` knows nothing of what was installed",
        file.display()
    ))
}
