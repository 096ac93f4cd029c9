//! The root's key, for the moments in which a command needs it: read from the
//! recovery file in this process, and handed to nobody.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use innermesh_proto::{certificate::Certificate, id::MeshId, name::MeshDomain};

use super::{failure::Failure, paths::Paths, terminal::Terminal};
use crate::{
    ca::{Root, recovery},
    host::{keys::SystemKeys, state_folder::RECOVERY},
    ledger::file::{self as ledger, FileError, LEDGER},
};

/// The environment variable that holds the passphrase, for scripts.
const PASSPHRASE: &str = "INNERMESH_ROOT_PASSPHRASE";
/// Longest recovery file that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

/// Where the root's key is.
#[derive(Debug, Clone, clap::Args)]
pub struct RootKey {
    /// The root's recovery file, as `agent init` wrote it.
    ///
    /// Its passphrase is asked for, or taken from INNERMESH_ROOT_PASSPHRASE.
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
}

impl RootKey {
    /// In this file, if one is given.
    pub fn at(file: Option<PathBuf>) -> Self {
        Self { root_key: file }
    }

    /// The root of the mesh with this id (in hexadecimal), read from the file
    /// that was given; else from the one that is still where `init` wrote it,
    /// if the person agrees.
    pub fn open(&self, paths: &Paths, mesh: &str) -> Result<Root, Failure> {
        let file = match &self.root_key {
            Some(file) => file.clone(),
            None => in_place(paths)?,
        };
        let text = read(&file)?;
        let root = decrypt(&text, &file)?;
        check_mesh(&root, mesh, &file)?;
        Ok(root)
    }
}

/// What this machine's own copy of the ledger says of its mesh, whether or not
/// the agent runs.
pub struct Mesh {
    /// Its id, in hexadecimal.
    pub id: String,
    /// Its domain.
    pub domain: MeshDomain,
    /// Its root certificate, in DER.
    pub root: Vec<u8>,
}

impl Mesh {
    /// The mesh that this machine is in.
    pub fn of(paths: &Paths) -> Result<Self, Failure> {
        let file = paths.state.join(LEDGER);
        let bytes = fs::read(&file).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::failed(FileError::Absent),
            _ => Failure::failed(format!(
                "{} can't be read: {error}; run this as root, or as the agent's user",
                file.display()
            )),
        })?;
        let loaded = ledger::parse(bytes).map_err(Failure::failed)?;
        let genesis = loaded.genesis.peek().map_err(Failure::failed)?;
        let root = Certificate::parse(&genesis.root).map_err(Failure::failed)?;
        Ok(Self {
            id: MeshId::of_root(&root.spki).to_string(),
            domain: genesis.domain,
            root: genesis.root,
        })
    }
}

/// The recovery file where `init` writes it.
pub fn place(paths: &Paths) -> PathBuf {
    paths.state.join(RECOVERY)
}

fn in_place(paths: &Paths) -> Result<PathBuf, Failure> {
    let file = place(paths);
    let give = "give the root's recovery file with --root-key FILE";
    match fs::metadata(&file) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::usage(format!(
                "{give}: `agent init` wrote it on the first machine, and it isn't on this one"
            )));
        }
        Err(error) => {
            return Err(Failure::failed(format!(
                "{} can't be read: {error}; run this as root, or {give}",
                file.display()
            )));
        }
    }
    let Some(mut terminal) = Terminal::open() else {
        return Err(Failure::usage(format!(
            "{give}; that of this machine is {}",
            file.display()
        )));
    };
    let question = format!("use the recovery file {}?", file.display());
    if terminal.confirm(&question)? {
        Ok(file)
    } else {
        Err(Failure::failed(give))
    }
}

/// The text of a recovery file.
pub fn read(file: &Path) -> Result<String, Failure> {
    let failed =
        |error: io::Error| Failure::failed(format!("{} can't be read: {error}", file.display()));
    let mut text = String::new();
    let opened = File::open(file).map_err(failed)?;
    let read = opened.take(LONGEST).read_to_string(&mut text);
    read.map_err(failed)?;
    Ok(text)
}

/// The root in the text of the recovery file; asks for the passphrase.
pub fn decrypt(text: &str, file: &Path) -> Result<Root, Failure> {
    let failed =
        |error: recovery::RecoveryError| Failure::failed(format!("{}: {error}", file.display()));
    // What is no recovery file needs no passphrase.
    recovery::certificate(text).map_err(failed)?;
    let passphrase = match std::env::var(PASSPHRASE) {
        Ok(passphrase) => passphrase,
        Err(_) => {
            let mut terminal = Terminal::open().ok_or_else(|| {
                Failure::usage(format!(
                    "there is no terminal to ask for the passphrase on; set {PASSPHRASE}"
                ))
            })?;
            terminal.secret(&format!("passphrase of {}: ", file.display()))?
        }
    };
    recovery::open(text, &passphrase, &SystemKeys).map_err(failed)
}

/// Whether the root is that of the mesh with this id (in hexadecimal).
pub fn check_mesh(root: &Root, mesh: &str, file: &Path) -> Result<(), Failure> {
    if root.mesh().to_string() == mesh {
        Ok(())
    } else {
        Err(Failure::failed(format!(
            "{} belongs to another mesh ({}), not to this machine's ({mesh})",
            file.display(),
            root.mesh()
        )))
    }
}
