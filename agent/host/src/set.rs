//! Sets of files that other programs read, such as a certificate with its key.

use std::{io, path::PathBuf};

/// Largest file of a set, in bytes.
pub const SET_FILE_BYTES: u64 = 256 * 1024;

/// Where a set of files is: `FOLDER/STEM` and a suffix for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetPlace {
    /// The folder, absolute.
    pub folder: PathBuf,
    /// What the names of its files begin with.
    pub stem: String,
}

impl SetPlace {
    /// The file with this suffix.
    pub fn file(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}{suffix}", self.stem))
    }
}

/// One file of a set, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetFile {
    /// The end of its name, such as `.key`.
    pub suffix: &'static str,
    /// What it holds.
    pub content: Vec<u8>,
    /// Who may read it.
    pub access: Access,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// Its owner; who writes it where none is given.
    pub uid: Option<u32>,
    /// As `uid`, its group.
    pub gid: Option<u32>,
}

/// Why a set can't be read or written. What was there stands.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// A file of that name is there and isn't one of a set.
    #[error("{} is there already and was made by somebody else", .0.display())]
    Foreign(PathBuf),
    /// The folder is a link: whoever can change it could have files written,
    /// and another's replaced, in any place.
    #[error("{} is a link, which is not followed; give the folder that it leads to", .0.display())]
    Link(PathBuf),
    /// The operating system refuses.
    #[error("{}: {error}", .0.display(), error = .1)]
    Io(PathBuf, io::Error),
}
