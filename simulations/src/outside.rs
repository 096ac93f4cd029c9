//! A host's files outside the state folder, and its programs: sets that are
//! replaced as a whole and survive a crash, and commands that are written down.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use innermesh_agent::host::{
    identity::FileIdentity,
    outside::{CommandError, End, Outside, SetError, SetFile, SetPlace, UserCommand},
};

/// Files and programs. Clones are the same.
#[derive(Clone, Default)]
pub struct SimOutside {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    sets: BTreeMap<SetPlace, BTreeMap<String, Vec<u8>>>,
    shared: BTreeMap<PathBuf, Vec<u8>>,
    /// How often each set was replaced.
    writes: u64,
    read_only: bool,
    full: bool,
    commands: Vec<UserCommand>,
    /// The status with which commands end.
    command_status: i32,
}

impl SimOutside {
    /// The files of a set, as another program reads them.
    pub fn files(&self, place: &SetPlace) -> BTreeMap<String, Vec<u8>> {
        self.lock().sets.get(place).cloned().unwrap_or_default()
    }

    /// Replaces one file behind the agent's back.
    pub fn tamper(&self, place: &SetPlace, suffix: &str, content: &[u8]) {
        let mut state = self.lock();
        let set = state.sets.entry(place.clone()).or_default();
        set.insert(suffix.into(), content.to_vec());
    }

    /// Removes a set behind the agent's back.
    pub fn remove(&self, place: &SetPlace) {
        self.lock().sets.remove(place);
    }

    /// Refuses every change from now on, or no more.
    pub fn set_read_only(&self, read_only: bool) {
        self.lock().read_only = read_only;
    }

    /// Has every write fail from now on though it seemed possible, or no more.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// How often a set was replaced.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// The commands that were run.
    pub fn commands(&self) -> Vec<UserCommand> {
        self.lock().commands.clone()
    }

    /// Has every command end with this status from now on.
    pub fn set_command_status(&self, status: i32) {
        self.lock().command_status = status;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Outside for SimOutside {
    async fn read(&self, place: &SetPlace) -> Result<BTreeMap<String, Vec<u8>>, SetError> {
        Ok(self.files(place))
    }

    async fn identity(&self, _: &Path) -> io::Result<Option<FileIdentity>> {
        // Everything on a simulated host sees the same files.
        Ok(Some(FileIdentity {
            device: 1,
            inode: 1,
        }))
    }

    async fn check(&self, place: &SetPlace) -> Result<(), SetError> {
        if self.lock().read_only {
            Err(failed(&place.folder, io::ErrorKind::ReadOnlyFilesystem))
        } else {
            Ok(())
        }
    }

    async fn replace(&self, place: &SetPlace, files: Vec<SetFile>) -> Result<(), SetError> {
        self.check(place).await?;
        let mut state = self.lock();
        if state.full {
            return Err(failed(&place.folder, io::ErrorKind::StorageFull));
        }
        let files = files.into_iter();
        let set = files.map(|file| (file.suffix.to_owned(), file.content));
        state.sets.insert(place.clone(), set.collect());
        state.writes += 1;
        Ok(())
    }

    async fn share(&self, file: &Path, content: &[u8]) -> Result<(), SetError> {
        let mut state = self.lock();
        let there = state.shared.entry(file.to_owned());
        if there.or_insert_with(|| content.to_vec()) == content {
            Ok(())
        } else {
            Err(SetError::Foreign(file.to_owned()))
        }
    }

    async fn run(&self, command: &UserCommand) -> Result<(), CommandError> {
        let mut state = self.lock();
        state.commands.push(command.clone());
        match state.command_status {
            0 => Ok(()),
            status => Err(CommandError::Failed {
                end: End::Code(status),
                said: String::new(),
            }),
        }
    }
}

fn failed(path: &Path, kind: io::ErrorKind) -> SetError {
    SetError::Io(path.to_owned(), kind.into())
}
