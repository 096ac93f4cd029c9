//! What the agent does to its host beyond the state folder: sets of files that
//! other programs read, and the commands that tell those programs of news.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use rustls::pki_types::CertificateDer;

use super::{command, disk::blocking, file_set, identity::FileIdentity};
pub use super::{
    command::{CommandError, End, UserCommand},
    set::{Access, SET_FILE_BYTES, SetError, SetFile, SetPlace},
};

/// Files outside the state folder, and commands.
#[async_trait]
pub trait Outside: Send + Sync {
    /// The files of a set, by suffix; none where there is no set.
    ///
    /// # Errors
    /// [`SetError::Foreign`] when somebody put a file of their own in the place
    /// of one.
    async fn read(&self, place: &SetPlace) -> Result<BTreeMap<String, Vec<u8>>, SetError>;
    /// Which folder a path leads to, as this program sees it; `None` where there is
    /// nothing.
    ///
    /// # Errors
    /// The operating system's.
    async fn identity(&self, folder: &Path) -> io::Result<Option<FileIdentity>>;
    /// Whether the set can be replaced; changes nothing.
    ///
    /// # Errors
    /// Why not; also that the folder isn't there.
    async fn check(&self, place: &SetPlace) -> Result<(), SetError>;
    /// Replaces all files of a set in one step: whoever opens them sees the old
    /// set or the new one, also after a crash. Makes the folder where there is
    /// none.
    ///
    /// # Errors
    /// The old set stands.
    async fn replace(&self, place: &SetPlace, files: Vec<SetFile>) -> Result<(), SetError>;
    /// Writes a file that several sets have in common, unless it is there.
    ///
    /// # Errors
    /// [`SetError::Foreign`] when it is there with other content.
    async fn share(&self, file: &Path, content: &[u8]) -> Result<(), SetError>;
    /// The certificates that this host trusts. Reads files.
    fn roots(&self) -> Vec<CertificateDer<'static>> {
        Vec::new()
    }
    /// Runs a command to its end.
    ///
    /// # Errors
    /// [`CommandError`].
    async fn run(&self, command: &UserCommand) -> Result<(), CommandError>;
}

/// The real ones.
pub struct SystemOutside;

#[async_trait]
impl Outside for SystemOutside {
    async fn read(&self, place: &SetPlace) -> Result<BTreeMap<String, Vec<u8>>, SetError> {
        let place = place.clone();
        off_thread(move || file_set::read(&place)).await
    }

    async fn identity(&self, folder: &Path) -> io::Result<Option<FileIdentity>> {
        let folder = folder.to_owned();
        blocking(move || FileIdentity::of(&folder)).await
    }

    async fn check(&self, place: &SetPlace) -> Result<(), SetError> {
        let place = place.clone();
        off_thread(move || file_set::check(&place)).await
    }

    async fn replace(&self, place: &SetPlace, files: Vec<SetFile>) -> Result<(), SetError> {
        let place = place.clone();
        off_thread(move || file_set::replace(&place, &files)).await
    }

    async fn share(&self, file: &Path, content: &[u8]) -> Result<(), SetError> {
        let (file, content) = (file.to_owned(), content.to_vec());
        off_thread(move || share(&file, &content)).await
    }

    fn roots(&self) -> Vec<CertificateDer<'static>> {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "some roots of this host can't be read");
        }
        loaded.certs
    }

    async fn run(&self, command: &UserCommand) -> Result<(), CommandError> {
        command::run(command).await
    }
}

fn share(path: &Path, content: &[u8]) -> Result<(), SetError> {
    let failed = |error| SetError::Io(path.to_owned(), error);
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default();
    match file_set::get(folder, name)? {
        Some(there) if there == content => return Ok(()),
        Some(_) => return Err(SetError::Foreign(path.to_owned())),
        None => {}
    }
    fs::create_dir_all(folder).map_err(failed)?;
    file_set::put(folder, name, content)
}

async fn off_thread<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, SetError> + Send + 'static,
) -> Result<T, SetError> {
    blocking(move || Ok(f()))
        .await
        .unwrap_or_else(|error| Err(SetError::Io(PathBuf::new(), error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shared_file_is_written_once_and_another_s_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("certs/ca.crt");
        SystemOutside.share(&file, b"root").await.unwrap();
        SystemOutside.share(&file, b"root").await.unwrap();
        let refused = SystemOutside.share(&file, b"other").await;
        assert!(matches!(refused, Err(SetError::Foreign(_))));
        assert_eq!(fs::read(&file).unwrap(), b"root");
        // Nor is one read by a link, nor by a folder that is one.
        let link = folder.path().join("certs/linked.crt");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let refused = SystemOutside.share(&link, b"root").await;
        assert!(matches!(refused, Err(SetError::Foreign(_))), "{refused:?}");
        let other = folder.path().join("other");
        std::os::unix::fs::symlink(folder.path().join("certs"), &other).unwrap();
        let refused = SystemOutside.share(&other.join("new.crt"), b"root").await;
        assert!(matches!(refused, Err(SetError::Link(_))), "{refused:?}");
        assert!(!folder.path().join("certs/new.crt").exists());
    }
}
