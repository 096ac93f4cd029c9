//! Where things lie on this machine, and who asks.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{AccessFlags, Uid, User, access, getegid, geteuid},
};
use serde::{Deserialize, Serialize};

use super::super::super::failure::Failure;

/// Where administration tools lie, which the PATH of ordinary users lacks on
/// Debian and SUSE.
const ADMINISTRATION: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The machine whose stores are looked for.
#[derive(Debug, Clone)]
pub struct Machine {
    /// What `/` is; elsewhere in tests only.
    pub root: PathBuf,
    /// Where programs are looked for, in order.
    pub path: Vec<PathBuf>,
    /// JAVA_HOME.
    pub java_home: Option<PathBuf>,
    /// Whether this process may write the system's files.
    pub is_root: bool,
    /// Whose browsers they are.
    pub caller: Caller,
}

/// Who asks; under sudo, who ran sudo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// User and group.
    pub owner: Owner,
    /// The home folder.
    pub home: PathBuf,
}

/// Whose files they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// The user's id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
}

/// What stands between this process and a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Barrier {
    /// It belongs to another user.
    Rights,
    /// Anything else, in words.
    Other(String),
}

impl Machine {
    /// This one.
    pub fn this() -> Result<Self, Failure> {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
        let mut path: Vec<PathBuf> = variable("PATH")
            .map(|path| env::split_paths(&path).collect())
            .unwrap_or_default();
        path.extend(ADMINISTRATION.map(PathBuf::from));
        Ok(Self {
            root: "/".into(),
            // A relative one means another program in another folder.
            path: path.into_iter().filter(|p| p.is_absolute()).collect(),
            java_home: variable("JAVA_HOME").map(PathBuf::from),
            is_root: geteuid().is_root(),
            caller: caller()?,
        })
    }

    /// The place of an absolute `path`.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The program of this name.
    pub fn find(&self, program: impl AsRef<OsStr>) -> Option<PathBuf> {
        let program = Path::new(program.as_ref());
        let places = self.path.iter().map(|folder| folder.join(program));
        places.into_iter().find(|file| is_program(file))
    }
}

/// Whether a file can be run.
pub fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// What keeps this process from writing `path`, or from making it.
pub fn barrier(path: &Path) -> Option<Barrier> {
    let there = path.ancestors().find(|place| place.exists())?;
    match access(there, AccessFlags::W_OK) {
        Ok(()) => None,
        Err(Errno::EACCES | Errno::EPERM) => Some(Barrier::Rights),
        Err(errno) => Some(Barrier::Other(format!(
            "{} can't be written: {}",
            there.display(),
            errno.desc()
        ))),
    }
}

fn caller() -> Result<Caller, Failure> {
    let own = geteuid();
    let sudo = env::var("SUDO_UID").ok().filter(|_| own.is_root());
    let Some(sudo) = sudo else {
        let home = env::var_os("HOME").map(PathBuf::from);
        let home = home.filter(|home| home.is_absolute());
        let home = match home {
            Some(home) => home,
            None => user(own)?.dir,
        };
        let owner = Owner {
            uid: own.as_raw(),
            gid: getegid().as_raw(),
        };
        return Ok(Caller { owner, home });
    };
    let uid = sudo
        .parse()
        .map_err(|_| Failure::failed(format!("SUDO_UID is \"{sudo}\", which is no user id")))?;
    let user = user(Uid::from_raw(uid))?;
    Ok(Caller {
        owner: Owner {
            uid,
            gid: user.gid.as_raw(),
        },
        home: user.dir,
    })
}

fn user(uid: Uid) -> Result<User, Failure> {
    match User::from_uid(uid) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(Failure::failed(format!(
            "this machine knows no user with the id {uid}; set HOME, and leave SUDO_UID unset"
        ))),
        Err(errno) => Err(Failure::failed(format!(
            "the user with the id {uid} can't be looked up: {}",
            errno.desc()
        ))),
    }
}
