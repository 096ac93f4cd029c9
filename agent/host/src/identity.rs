//! Which file or folder a path leads to, told so that two programs can compare.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use serde::{Deserialize, Serialize};

/// A file or folder of this host: whoever sees another one at the same path has
/// other mounts, or it was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileIdentity {
    /// The file system (`st_dev`).
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
}

impl FileIdentity {
    /// What `path` leads to; `None` where there is nothing.
    ///
    /// # Errors
    /// The operating system's.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(stat) => Ok(Some(Self {
                device: stat.dev(),
                inode: stat.ino(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_made_anew_is_another_one() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("certs");
        assert_eq!(FileIdentity::of(&path).unwrap(), None);
        fs::create_dir(&path).unwrap();
        let first = FileIdentity::of(&path).unwrap();
        assert!(first.is_some());
        assert_eq!(FileIdentity::of(&path).unwrap(), first);
        // While the first one is still there, the other has an inode of its own.
        fs::rename(&path, scratch.path().join("old")).unwrap();
        fs::create_dir(&path).unwrap();
        assert_ne!(FileIdentity::of(&path).unwrap(), first);
    }
}
