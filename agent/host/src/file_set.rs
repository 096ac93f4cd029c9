//! Sets of files that change in one step. The files of a set lie in a hidden
//! folder of their own, a generation; what programs open are links:
//!
//! ```text
//! photos.key -> .photos/photos.key
//! photos.crt -> .photos/photos.crt
//! .photos    -> .photos@2
//! ```
//!
//! A new generation is written and synced, and then `.photos` is renamed to
//! lead there. The folder is no link itself, and everything is opened from its
//! descriptor without following links: it may belong to another user than this
//! process.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat, renameat},
    sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat},
    unistd::{
        AccessFlags, Gid, Uid, UnlinkatFlags, faccessat, fchown, fsync, geteuid, symlinkat,
        unlinkat,
    },
};

use super::set::{Access, SET_FILE_BYTES, SetError, SetFile, SetPlace};

/// How many generations a crash after the other may leave behind.
const GENERATIONS: u64 = 1000;

/// As [`super::outside::Outside::read`].
pub fn read(place: &SetPlace) -> Result<BTreeMap<String, Vec<u8>>, SetError> {
    let Some(folder) = Folder::open(place)? else {
        return Ok(BTreeMap::new());
    };
    let suffixes = folder.suffixes()?;
    // Links that lead nowhere are what is left of a set.
    let Some(current) = folder.current()? else {
        return Ok(BTreeMap::new());
    };
    let failed = |error: io::Error| folder.error(&current, error);
    let generation = open_folder(&folder.fd, &current).map_err(failed)?;
    let mut files = BTreeMap::new();
    for suffix in suffixes {
        let name = format!("{}{suffix}", place.stem);
        match read_file(&generation, &name) {
            Ok(content) => {
                files.insert(suffix, content);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(folder.error(&name, error)),
        }
    }
    Ok(files)
}

/// As [`super::outside::Outside::check`].
pub fn check(place: &SetPlace) -> Result<(), SetError> {
    let folder = Folder::open(place)?
        .ok_or_else(|| SetError::Io(place.folder.clone(), io::ErrorKind::NotFound.into()))?;
    folder.suffixes()?;
    folder.current()?;
    let access = faccessat(
        &folder.fd,
        ".",
        AccessFlags::W_OK | AccessFlags::X_OK,
        AtFlags::AT_EACCESS,
    );
    access.map_err(|errno| SetError::Io(place.folder.clone(), errno.into()))
}

/// As [`super::outside::Outside::replace`].
pub fn replace(place: &SetPlace, files: &[SetFile]) -> Result<(), SetError> {
    let at_folder = |error| SetError::Io(place.folder.clone(), error);
    // Where a link leads nothing is made.
    Folder::open(place)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&place.folder)
        .map_err(at_folder)?;
    let folder = Folder::open(place)?.ok_or_else(|| at_folder(io::ErrorKind::NotFound.into()))?;
    let linked = folder.suffixes()?;
    folder.current()?;
    let new = folder.generation(files)?;
    // Before there is a set they lead nowhere.
    let missing = files.iter().filter(|file| {
        let mut linked = linked.iter();
        !linked.any(|suffix| suffix == file.suffix)
    });
    for file in missing {
        let name = format!("{}{}", place.stem, file.suffix);
        let target = format!("{}/{name}", folder.link());
        if let Err(errno) = symlinkat(target.as_str(), &folder.fd, name.as_str()) {
            folder.remove(&new);
            return Err(folder.error(&name, errno.into()));
        }
    }
    if let Err(error) = folder.lead_to(&new) {
        folder.remove(&new);
        return Err(folder.error(&folder.link(), error));
    }
    for old in folder.generations() {
        if old != new {
            folder.remove(&old);
        }
    }
    Ok(())
}

/// One file of a folder, `None` where there is none.
pub fn get(folder: &Path, name: &OsStr) -> Result<Option<Vec<u8>>, SetError> {
    let Some(fd) = open_place(folder)? else {
        return Ok(None);
    };
    let path = || folder.join(name);
    match read_file(&fd, name) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
            Err(SetError::Foreign(path()))
        }
        Err(error) => Err(SetError::Io(path(), error)),
    }
}

/// Writes one ordinary file that everybody may read: under a temporary name,
/// synced, renamed, the folder synced.
pub fn put(folder: &Path, name: &OsStr, content: &[u8]) -> Result<(), SetError> {
    let failed = |error: io::Error| SetError::Io(folder.join(name), error);
    let fd = open_place(folder)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    put_in(&fd, name, content).map_err(failed)
}

fn put_in(fd: &OwnedFd, name: &OsStr, content: &[u8]) -> io::Result<()> {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push("@new");
    unlink(fd, &temporary)?;
    let access = Access {
        mode: 0o644,
        uid: None,
        gid: None,
    };
    write_file(fd, &temporary, content, access)?;
    renameat(fd, temporary.as_os_str(), fd, name)?;
    Ok(fsync(fd)?)
}

/// Opens a folder that is no link; `None` where there is nothing.
fn open_place(folder: &Path) -> Result<Option<OwnedFd>, SetError> {
    // With a slash behind it a link would be followed.
    let plain: PathBuf = folder.components().collect();
    match openat(AT_FDCWD, &plain, FOLDER | OFlag::O_NOFOLLOW, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT) => Ok(None),
        // Of a link it is either, by the kernel's version.
        Err(Errno::ENOTDIR | Errno::ELOOP) if plain.is_symlink() => {
            Err(SetError::Link(folder.to_owned()))
        }
        Err(errno) => Err(SetError::Io(folder.to_owned(), errno.into())),
    }
}

const FOLDER: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

struct Folder<'a> {
    place: &'a SetPlace,
    fd: OwnedFd,
}

impl<'a> Folder<'a> {
    /// `None` where there is none.
    fn open(place: &'a SetPlace) -> Result<Option<Self>, SetError> {
        let fd = open_place(&place.folder)?;
        Ok(fd.map(|fd| Self { place, fd }))
    }

    fn error(&self, name: &str, error: io::Error) -> SetError {
        SetError::Io(self.place.folder.join(name), error)
    }

    fn link(&self) -> String {
        format!(".{}", self.place.stem)
    }

    /// Which generation the set is; `None` where there is none.
    fn current(&self) -> Result<Option<String>, SetError> {
        let link = self.link();
        let foreign = || SetError::Foreign(self.place.folder.join(&link));
        match readlinkat(&self.fd, link.as_str()) {
            Ok(target) => match target.to_str() {
                Some(name) if self.number(name).is_some() => {
                    Ok(self.is_folder(name).then(|| name.to_owned()))
                }
                _ => Err(foreign()),
            },
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::EINVAL) => Err(foreign()),
            Err(errno) => Err(self.error(&link, errno.into())),
        }
    }

    /// The number of a generation, if `name` is one of this set's.
    fn number(&self, name: &str) -> Option<u64> {
        let rest = name.strip_prefix(&self.link())?.strip_prefix('@')?;
        rest.parse().ok()
    }

    fn is_folder(&self, name: &str) -> bool {
        let stat = fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let kind = |stat: FileStat| stat.st_mode & SFlag::S_IFMT.bits();
        stat.is_ok_and(|stat| kind(stat) == SFlag::S_IFDIR.bits())
    }

    /// The suffixes of the set's links.
    fn suffixes(&self) -> Result<Vec<String>, SetError> {
        let mut found = Vec::new();
        for suffix in SUFFIXES {
            let name = format!("{}{suffix}", self.place.stem);
            let foreign = || SetError::Foreign(self.place.folder.join(&name));
            match readlinkat(&self.fd, name.as_str()) {
                Ok(target) if target == OsStr::new(&format!("{}/{name}", self.link())) => {
                    found.push(suffix.to_owned());
                }
                Ok(_) | Err(Errno::EINVAL) => return Err(foreign()),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(self.error(&name, errno.into())),
            }
        }
        Ok(found)
    }

    fn generations(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.place.folder).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| self.number(name).is_some()).collect()
    }

    /// Writes a new generation and syncs it.
    fn generation(&self, files: &[SetFile]) -> Result<String, SetError> {
        let numbers = self.generations();
        let last = numbers.iter().filter_map(|name| self.number(name)).max();
        let first = last.map_or(1, |number| number.saturating_add(1));
        let mut made = None;
        for number in first..first.saturating_add(GENERATIONS) {
            let name = format!("{}@{number}", self.link());
            match mkdirat(&self.fd, name.as_str(), Mode::S_IRWXU) {
                Ok(()) => {
                    made = Some(name);
                    break;
                }
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(SetError::Io(self.place.folder.clone(), errno.into())),
            }
        }
        let name = made.ok_or_else(|| {
            SetError::Io(
                self.place.folder.clone(),
                io::ErrorKind::AlreadyExists.into(),
            )
        })?;
        match self.fill(&name, files) {
            Ok(()) => Ok(name),
            Err((file, error)) => {
                self.remove(&name);
                Err(SetError::Io(self.place.file(&file), error))
            }
        }
    }

    fn fill(&self, name: &str, files: &[SetFile]) -> Result<(), (String, io::Error)> {
        let whole = |error: io::Error| (String::new(), error);
        let generation = open_folder(&self.fd, name).map_err(whole)?;
        let stat = fstat(&generation).map_err(|errno| whole(errno.into()))?;
        // Somebody may have put another in its place.
        if stat.st_uid != geteuid().as_raw() {
            return Err(whole(io::ErrorKind::PermissionDenied.into()));
        }
        for file in files {
            let name = OsString::from(format!("{}{}", self.place.stem, file.suffix));
            write_file(&generation, &name, &file.content, file.access)
                .map_err(|error| (file.suffix.to_owned(), error))?;
        }
        let open = Mode::from_bits_truncate(0o755);
        let synced = fchmod(&generation, open)
            .and_then(|()| fsync(&generation))
            .and_then(|()| fsync(&self.fd));
        synced.map_err(|errno| whole(errno.into()))
    }

    /// Has the set be this generation.
    fn lead_to(&self, generation: &str) -> io::Result<()> {
        let link = self.link();
        let temporary = format!("{link}@new");
        unlink(&self.fd, OsStr::new(&temporary))?;
        symlinkat(generation, &self.fd, temporary.as_str())?;
        renameat(&self.fd, temporary.as_str(), &self.fd, link.as_str())?;
        Ok(fsync(&self.fd)?)
    }

    /// Removes what a generation may hold, as far as that goes: one that stays
    /// is tried again with the next set.
    fn remove(&self, generation: &str) {
        if let Ok(fd) = open_folder(&self.fd, generation) {
            for suffix in SUFFIXES {
                let name = format!("{}{suffix}", self.place.stem);
                let _ = unlinkat(&fd, name.as_str(), UnlinkatFlags::NoRemoveDir);
            }
        }
        let _ = unlinkat(&self.fd, generation, UnlinkatFlags::RemoveDir);
    }
}

/// Every suffix that a set may have.
const SUFFIXES: [&str; 4] = [".key", ".crt", ".chain.crt", ".pem"];

fn open_folder(fd: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    Ok(openat(fd, name, FOLDER | OFlag::O_NOFOLLOW, Mode::empty())?)
}

fn read_file(fd: &OwnedFd, name: impl AsRef<OsStr>) -> io::Result<Vec<u8>> {
    // A pipe in its place must not make this wait.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(fd, name.as_ref(), flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut content = Vec::new();
    file.take(SET_FILE_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > SET_FILE_BYTES {
        Err(io::Error::other(format!(
            "larger than {SET_FILE_BYTES} bytes"
        )))
    } else {
        Ok(content)
    }
}

/// A file that has its owner and its mode before it has any content.
fn write_file(fd: &OwnedFd, name: &OsStr, content: &[u8], access: Access) -> io::Result<()> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    // While it is empty, and while it is ours: who gave it away needs a
    // privilege more to change its mode.
    fchmod(&file, Mode::from_bits_truncate(access.mode))?;
    if access.uid.is_some() || access.gid.is_some() {
        fchown(
            &file,
            access.uid.map(Uid::from_raw),
            access.gid.map(Gid::from_raw),
        )?;
    }
    file.write_all(content)?;
    file.sync_all()
}

fn unlink(fd: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(fd, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn place(folder: &Path) -> SetPlace {
        SetPlace {
            folder: folder.join("certs"),
            stem: "photos".into(),
        }
    }

    fn set(word: &str) -> Vec<SetFile> {
        let file = |suffix, mode| SetFile {
            suffix,
            content: format!("{word}{suffix}").into_bytes(),
            access: Access {
                mode,
                uid: None,
                gid: None,
            },
        };
        vec![file(".key", 0o600), file(".crt", 0o644)]
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_set_is_replaced_as_a_whole_and_leaves_nothing_behind() {
        let scratch = tempfile::tempdir().unwrap();
        let place = place(scratch.path());
        assert!(read(&place).unwrap().is_empty());
        for word in ["one", "two", "three"] {
            replace(&place, &set(word)).unwrap();
            let files = read(&place).unwrap();
            assert_eq!(files[".key"], format!("{word}.key").into_bytes());
            let opened = fs::read_to_string(place.file(".crt")).unwrap();
            assert_eq!(opened, format!("{word}.crt"));
            assert_eq!(names(&place.folder).len(), 4, "{:?}", names(&place.folder));
        }
        let mode = |suffix| fs::metadata(place.file(suffix)).unwrap().mode() & 0o777;
        assert_eq!((mode(".key"), mode(".crt")), (0o600, 0o644));
    }

    #[test]
    fn what_a_crash_left_is_no_part_of_the_set_and_goes_with_the_next() {
        let scratch = tempfile::tempdir().unwrap();
        let place = place(scratch.path());
        replace(&place, &set("one")).unwrap();
        // Before the link was renamed, and in the middle of a file.
        fs::create_dir(place.folder.join(".photos@2")).unwrap();
        fs::write(place.folder.join(".photos@2/photos.key"), "tw").unwrap();
        symlink(".photos@2", place.folder.join(".photos@new")).unwrap();
        assert_eq!(read(&place).unwrap()[".key"], b"one.key");
        assert_eq!(fs::read(place.file(".key")).unwrap(), b"one.key");
        replace(&place, &set("three")).unwrap();
        assert_eq!(
            names(&place.folder),
            [".photos", ".photos@3", "photos.crt", "photos.key"]
        );
    }

    #[test]
    fn what_somebody_else_made_is_told_and_never_touched() {
        let scratch = tempfile::tempdir().unwrap();
        let place = place(scratch.path());
        replace(&place, &set("one")).unwrap();
        fs::remove_file(place.file(".crt")).unwrap();
        fs::write(place.file(".crt"), "mine").unwrap();
        let foreign = |done: Result<(), SetError>| match done {
            Err(SetError::Foreign(path)) => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(foreign(replace(&place, &set("two"))), place.file(".crt"));
        assert_eq!(foreign(check(&place)), place.file(".crt"));
        assert_eq!(foreign(read(&place).map(|_| ())), place.file(".crt"));
        assert_eq!(fs::read(place.file(".crt")).unwrap(), b"mine");
        assert_eq!(fs::read(place.file(".key")).unwrap(), b"one.key");
        // Nor is a link followed that leads elsewhere.
        let elsewhere = scratch.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::remove_file(place.file(".crt")).unwrap();
        fs::remove_file(place.folder.join(".photos")).unwrap();
        symlink(&elsewhere, place.folder.join(".photos")).unwrap();
        foreign(replace(&place, &set("two")));
        assert!(names(&elsewhere).is_empty());
    }

    #[test]
    fn a_folder_that_is_a_link_is_refused_and_nothing_is_written_where_it_leads() {
        let scratch = tempfile::tempdir().unwrap();
        let real = SetPlace {
            folder: scratch.path().join("real"),
            stem: "photos".into(),
        };
        replace(&real, &set("one")).unwrap();
        symlink(&real.folder, scratch.path().join("certs")).unwrap();
        let before = names(&real.folder);
        for folder in ["certs", "certs/", "certs/."] {
            let place = SetPlace {
                folder: scratch.path().join(folder),
                stem: "photos".into(),
            };
            let link = |done: Result<(), SetError>| match done {
                Err(SetError::Link(path)) => path,
                other => panic!("{folder}: {other:?}"),
            };
            assert_eq!(link(replace(&place, &set("two"))), place.folder);
            link(check(&place));
            link(read(&place).map(|_| ()));
            link(put(&place.folder, OsStr::new("ca.crt"), b"root"));
        }
        assert_eq!(names(&real.folder), before);
        // Nor is a folder made where one leads to nothing.
        let nowhere = scratch.path().join("nowhere");
        fs::remove_file(scratch.path().join("certs")).unwrap();
        symlink(&nowhere, scratch.path().join("certs")).unwrap();
        assert!(replace(&place(scratch.path()), &set("two")).is_err());
        assert!(!nowhere.exists());
    }

    #[test]
    fn links_that_were_removed_are_made_again() {
        let scratch = tempfile::tempdir().unwrap();
        let place = place(scratch.path());
        replace(&place, &set("one")).unwrap();
        fs::remove_file(place.file(".crt")).unwrap();
        fs::remove_file(place.file(".key")).unwrap();
        assert!(read(&place).unwrap().is_empty());
        replace(&place, &set("two")).unwrap();
        assert_eq!(fs::read(place.file(".crt")).unwrap(), b"two.crt");
    }

    #[test]
    fn a_name_that_begins_like_another_has_a_set_of_its_own() {
        let scratch = tempfile::tempdir().unwrap();
        let one = place(scratch.path());
        let two = SetPlace {
            stem: "photos.alpha".into(),
            ..one.clone()
        };
        replace(&one, &set("one")).unwrap();
        replace(&two, &set("two")).unwrap();
        replace(&one, &set("three")).unwrap();
        assert_eq!(read(&two).unwrap()[".crt"], b"two.crt");
        assert_eq!(fs::read(two.file(".crt")).unwrap(), b"two.crt");
    }

    #[test]
    fn a_folder_that_is_gone_or_closed_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let place = place(scratch.path());
        assert!(check(&place).is_err());
        replace(&place, &set("one")).unwrap();
        check(&place).unwrap();
        if !geteuid().is_root() {
            // Root may write everywhere.
            fs::set_permissions(&place.folder, fs::Permissions::from_mode(0o500)).unwrap();
            assert!(check(&place).is_err());
            assert!(replace(&place, &set("two")).is_err());
            assert_eq!(read(&place).unwrap()[".key"], b"one.key");
        }
    }

    #[test]
    fn a_file_goes_to_its_owner_and_was_never_wider_before() {
        if !geteuid().is_root() {
            innermesh_skip::skip("only root gives files away");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let place = place(scratch.path());
        let mut files = set("one");
        files[0].access = Access {
            mode: 0o640,
            uid: Some(0),
            gid: Some(12345),
        };
        replace(&place, &files).unwrap();
        let stat = fs::metadata(place.file(".key")).unwrap();
        assert_eq!(
            (stat.uid(), stat.gid(), stat.mode() & 0o777),
            (0, 12345, 0o640)
        );
    }
}
