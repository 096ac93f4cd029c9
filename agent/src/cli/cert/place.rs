//! Where a certificate's files go: folders that aren't there yet, and whether the
//! agent, which may see less of this host, could renew it there.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::super::failure::Failure;
use crate::{
    control::{
        Client, ClientError, ErrorCode,
        renewals::{RenewalCheckRequest, RenewalWish},
    },
    host::{identity::FileIdentity, outside::SetPlace},
};

/// Folders that were made for a certificate, and go again unless it is issued.
pub struct NewFolders(Vec<PathBuf>);

impl NewFolders {
    /// Makes a folder and those above it.
    ///
    /// # Errors
    /// The operating system's; nothing is left behind.
    pub fn make(folder: &Path) -> Result<Self, Failure> {
        let missing: Vec<&Path> = folder
            .ancestors()
            .take_while(|path| fs::symlink_metadata(path).is_err())
            .collect();
        let mut made = Self(Vec::new());
        for path in missing.into_iter().rev() {
            match DirBuilder::new().mode(0o755).create(path) {
                Ok(()) => made.0.push(path.to_owned()),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(Failure::failed(format!(
                        "{} can't be made: {error}; nothing was issued",
                        path.display()
                    )));
                }
            }
        }
        Ok(made)
    }

    /// Keeps them.
    pub fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for NewFolders {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // One that somebody uses by now stays.
            let _ = fs::remove_dir(path);
        }
    }
}

/// Asks the agent whether it could renew a certificate there; gives what was asked
/// for the same files before.
///
/// # Errors
/// Why it couldn't. Nothing was issued.
pub async fn agent_may_renew(
    client: &Client,
    place: &SetPlace,
) -> Result<Option<RenewalWish>, Failure> {
    let seen = FileIdentity::of(&place.folder).map_err(Failure::failed)?;
    let Some(seen) = seen else {
        return Ok(None);
    };
    let request = RenewalCheckRequest {
        folder: place.folder.clone(),
        stem: place.stem.clone(),
        seen,
    };
    match client.ask(&request).await {
        Ok(checked) => Ok(checked.earlier),
        // An agent that was started before this program was updated.
        Err(ClientError::Refused(error)) if error.code == ErrorCode::NotFound => Ok(None),
        Err(ClientError::Refused(error)) if error.code == ErrorCode::Refused => {
            Err(Failure::failed(format!(
                "the agent could not renew this certificate: {error}. Nothing was issued; \
                 `--no-renew` has one made once, without renewal"
            )))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_were_made_in_vain_go_again_and_others_stay() {
        let scratch = tempfile::tempdir().unwrap();
        let there = scratch.path().join("there");
        fs::create_dir(&there).unwrap();
        let folder = there.join("a/b");
        drop(NewFolders::make(&folder).unwrap());
        assert!(there.is_dir() && !there.join("a").exists());
        NewFolders::make(&folder).unwrap().keep();
        assert!(folder.is_dir());
        drop(NewFolders::make(&folder).unwrap());
        assert!(folder.is_dir(), "it was there before");
        fs::write(there.join("file"), "").unwrap();
        assert!(NewFolders::make(&there.join("file/x/y")).is_err());
    }
}
