//! Reads the configuration, and makes sure of the state folder.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use innermesh_proto::limits;
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    unistd::{AccessFlags, Gid, Uid, faccessat, fchown},
};

use super::paths::Paths;
use crate::{
    config::{self, Config, ConfigError},
    services::Spec,
};

/// Why the configuration or the state folder can't be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file says something wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file or folder can't be read.
    #[error("{0} can't be read: {1}")]
    Read(PathBuf, io::Error),
    /// A file can't be written. It is as it was.
    #[error("{0} can't be written: {1}")]
    Write(PathBuf, io::Error),
    /// The state folder can't be made.
    #[error("{0} can't be made: {1}; run this as root, or give a --dir of your own")]
    Make(PathBuf, io::Error),
    /// Something else is there.
    #[error("{0} is not a folder; move it away")]
    NotAFolder(PathBuf),
    /// Others may look into it.
    #[error(
        "{path} holds private keys and is open to other users (mode {mode:o}): `chmod 700 {path}`",
        path = .0.display(), mode = .1
    )]
    Open(PathBuf, u32),
    /// This user may not even look whether it is there.
    #[error("{0} may not be looked into by this user; run this as root, with sudo")]
    Closed(PathBuf),
    /// It isn't ours.
    #[error("{}", owner_text(path, *owner, *own))]
    Owner {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        own: u32,
    },
}

/// Nobody is told to give root's keys to another user.
fn owner_text(path: &Path, owner: u32, own: u32) -> String {
    let path = path.display();
    match (owner, own) {
        (0, _) => format!("{path} belongs to root; run this as root, with sudo"),
        (_, 0) => format!(
            "{path} belongs to user id {owner}, and this runs as root: run it as that user, or \
             `chown -R root: {path}`"
        ),
        _ => format!(
            "{path} belongs to user id {owner}, and this runs as {own}: run it as that user"
        ),
    }
}

/// Whether this user may use the state folder, also one that isn't there yet: asked
/// before ports and files are looked at, of which another user sees only a part.
/// Changes nothing.
///
/// # Errors
/// Why not.
pub fn may_use(path: &Path) -> Result<(), FilesError> {
    match fs::metadata(path) {
        Ok(there) => is_ours(path, &there),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(FilesError::Closed(path.to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = path.ancestors().find(|above| above.exists());
            let above = above.unwrap_or(Path::new("/"));
            let may = AccessFlags::W_OK | AccessFlags::X_OK;
            faccessat(AT_FDCWD, above, may, AtFlags::AT_EACCESS)
                .map_err(|errno| FilesError::Make(path.to_owned(), errno.into()))
        }
        Err(error) => Err(FilesError::Read(path.to_owned(), error)),
    }
}

/// The configuration with its services; the default where there is no file.
pub fn configuration(paths: &Paths) -> Result<Config, FilesError> {
    let mut config = without_services(paths)?;
    let mut all = Vec::new();
    for (file, service) in services(&paths.services)? {
        all.push((file, service?));
    }
    config.services = config::merge_services(all)?;
    Ok(config)
}

/// What each file of `services.d` describes; nothing where there is no such folder.
pub fn services(folder: &Path) -> Result<ReadServices, FilesError> {
    let mut all = BTreeMap::new();
    for file in service_files(folder)? {
        let service = match read(&file) {
            // It is gone by now, or a link that leads nowhere.
            Ok(None) => continue,
            Ok(Some(bytes)) => config::parse_service(&bytes, &file).map_err(FilesError::from),
            Err(error) => Err(error),
        };
        all.insert(file, service);
    }
    Ok(all)
}

/// The files of `services.d`, with the reason where one can't be used.
type ReadServices = BTreeMap<PathBuf, Result<Spec, FilesError>>;

/// The configuration without its services; the default where there is no file.
pub fn without_services(paths: &Paths) -> Result<Config, FilesError> {
    let mut config = config_file(&paths.config)?.unwrap_or_default();
    if let Some(file) = &config.sinkhole.page {
        config.sinkhole.own_page = Some(denied_page(file)?);
    }
    Ok(config)
}

/// What strangers get on a sinkhole.
fn denied_page(file: &Path) -> Result<Vec<u8>, FilesError> {
    let failed = |error| FilesError::Read(file.to_owned(), error);
    let mut page = Vec::new();
    let most = limits::SINKHOLE_PAGE_BYTES;
    let opened = File::open(file).map_err(failed)?;
    let bound = most as u64 + 1;
    opened.take(bound).read_to_end(&mut page).map_err(failed)?;
    if page.is_empty() || page.len() > most {
        let bytes = io::Error::other(format!("it must have 1 to {most} bytes"));
        return Err(failed(bytes));
    }
    Ok(page)
}

/// A configuration without services; `None` where there is no file.
pub fn config_file(file: &Path) -> Result<Option<Config>, FilesError> {
    let Some(bytes) = read(file)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|_| ConfigError {
        file: file.to_owned(),
        line: None,
        message: "it is not UTF-8".into(),
    })?;
    Ok(Some(Config::parse(&text, file)?))
}

/// Makes sure that the state folder is there and that only this user can look
/// into it.
pub fn state_folder(path: &Path) -> Result<(), FilesError> {
    let make = |e| FilesError::Make(path.to_owned(), e);
    if !path.exists() {
        if let Some(parent) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(make)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(make(e)),
            _ => {}
        }
    }
    let there = fs::metadata(path).map_err(|e| FilesError::Read(path.to_owned(), e))?;
    is_ours(path, &there)
}

fn is_ours(path: &Path, there: &Metadata) -> Result<(), FilesError> {
    let own = nix::unistd::geteuid().as_raw();
    if !there.is_dir() {
        Err(FilesError::NotAFolder(path.to_owned()))
    } else if there.uid() != own {
        Err(FilesError::Owner {
            path: path.to_owned(),
            owner: there.uid(),
            own,
        })
    } else if there.mode() & 0o077 != 0 {
        Err(FilesError::Open(path.to_owned(), there.mode() & 0o777))
    } else {
        Ok(())
    }
}

/// The files of a folder whose names end in `.toml`, in order; hidden ones are
/// editors' own.
fn service_files(folder: &Path) -> Result<Vec<PathBuf>, FilesError> {
    let failed = |e| FilesError::Read(folder.to_owned(), e);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Replaces the content of a file that another program reads, in one step; it keeps
/// its mode and owner. Makes file and folder where there are none. A link stays one.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FilesError> {
    let failed = |e| FilesError::Write(path.to_owned(), e);
    let file = match fs::canonicalize(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(e) => return Err(failed(e)),
    };
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(file.file_name().unwrap_or_default());
    beside.push(format!(".{}", std::process::id()));
    let beside = folder.join(beside);
    let written = put_beside(&beside, fs::metadata(&file).ok(), bytes)
        .and_then(|()| fs::rename(&beside, &file))
        .and_then(|()| File::open(folder)?.sync_all());
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        failed(error)
    })
}

fn put_beside(beside: &Path, old: Option<Metadata>, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(beside)?;
    file.write_all(bytes)?;
    if let Some(old) = &old {
        let (user, group) = (Uid::from_raw(old.uid()), Gid::from_raw(old.gid()));
        fchown(&file, Some(user), Some(group))?;
    }
    let mode = old.map_or(0o644, |old| old.mode() & 0o777);
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// A file; `None` when it isn't there.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FilesError> {
    let failed = |e| FilesError::Read(path.to_owned(), e);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut bytes = Vec::new();
    file.take(limits::CONFIG_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limits::CONFIG_BYTES {
        let most = limits::CONFIG_BYTES;
        return Err(failed(io::Error::other(format!(
            "longer than {most} bytes"
        ))));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn paths() -> (tempfile::TempDir, Paths) {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(folder.path().join("mesh"))).unwrap();
        (folder, paths)
    }

    #[test]
    fn without_files_the_configuration_is_the_default() {
        let (_folder, paths) = paths();
        assert_eq!(configuration(&paths).unwrap(), Config::default());
    }

    #[test]
    fn services_are_read_in_order_and_a_wrong_file_is_named() {
        let (_folder, paths) = paths();
        fs::create_dir_all(&paths.services).unwrap();
        fs::write(paths.services.join("b.toml"), "name = 'wiki'\nport = 80").unwrap();
        fs::write(paths.services.join("a.toml"), "name = 'web'\nport = 81").unwrap();
        fs::write(paths.services.join("notes.txt"), "no service").unwrap();
        let names = |config: Config| -> Vec<String> {
            config.services.iter().map(|s| s.name.to_string()).collect()
        };
        assert_eq!(names(configuration(&paths).unwrap()), ["web", "wiki"]);
        fs::write(paths.services.join("c.toml"), "name = 'x'").unwrap();
        let error = configuration(&paths).unwrap_err().to_string();
        assert!(error.contains("services.d/c.toml"), "{error}");
        assert!(error.contains("port"), "{error}");
    }

    #[test]
    fn a_configuration_that_never_ends_is_not_read_to_its_end() {
        let (_folder, mut paths) = paths();
        paths.config = "/dev/zero".into();
        let error = configuration(&paths).unwrap_err().to_string();
        assert!(error.contains("longer than"), "{error}");
    }

    #[test]
    fn a_new_state_folder_is_private_and_an_open_one_is_refused() {
        let (_folder, paths) = paths();
        state_folder(&paths.state).unwrap();
        let mode = fs::metadata(&paths.state).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        state_folder(&paths.state).unwrap();
        fs::set_permissions(&paths.state, fs::Permissions::from_mode(0o750)).unwrap();
        let error = state_folder(&paths.state).unwrap_err().to_string();
        assert!(error.contains("mode 750"), "{error}");
        assert!(error.contains("`chmod 700 "), "{error}");
    }

    #[test]
    fn whoever_may_not_use_the_folder_is_told_before_anything_else() {
        let (_folder, paths) = paths();
        may_use(&paths.state).unwrap();
        assert!(!paths.state.exists(), "nothing is made");
        state_folder(&paths.state).unwrap();
        may_use(&paths.state).unwrap();
        let told = owner_text(Path::new("/x"), 0, 1000);
        assert_eq!(told, "/x belongs to root; run this as root, with sudo");
        assert!(!owner_text(Path::new("/x"), 7, 1000).contains("chown"));
        assert!(owner_text(Path::new("/x"), 7, 0).contains("chown -R root: /x"));
        if !nix::unistd::geteuid().is_root() {
            let none = may_use(Path::new("/proc/1/none")).unwrap_err();
            assert!(none.to_string().contains("root"), "{none}");
        }
    }

    #[test]
    fn a_file_in_place_of_the_state_folder_is_refused() {
        let (_folder, paths) = paths();
        fs::create_dir_all(paths.state.parent().unwrap()).unwrap();
        fs::write(&paths.state, "").unwrap();
        let error = state_folder(&paths.state);
        assert!(matches!(error, Err(FilesError::NotAFolder(_))), "{error:?}");
    }
}
