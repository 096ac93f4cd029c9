//! Waits until the files of a folder may have changed (inotify(7)). The folder
//! needn't be there yet, and may come, go or be replaced.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{sleep, timeout},
};

/// Until nothing more happens: a program that saves a file makes, renames and
/// removes several.
const SETTLE: Duration = Duration::from_millis(50);
/// How long it may go on to change before it is told all the same.
const SETTLE_AT_MOST: Duration = Duration::from_millis(500);
/// How often to look where the kernel tells nothing.
const LOOK: Duration = Duration::from_secs(10);

/// A file that is being written isn't news, one that was closed is. Links come
/// whole, and are told by `IN_CREATE` alone.
const FILES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);
/// What makes the folder another one, as seen from the one above.
const ABOVE: AddWatchFlags = AddWatchFlags::IN_MOVED_TO
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_ONLYDIR);

/// Watches one folder.
pub struct FolderWatch {
    folder: PathBuf,
    /// `None` where this process can't have one; it is looked again and again then.
    inotify: Option<AsyncFd<Descriptor>>,
    above: Option<WatchDescriptor>,
    files: Option<WatchDescriptor>,
    /// What was read and isn't told yet: whoever waits may give up meanwhile.
    has_changed: bool,
}

/// Inotify's, as tokio wants it.
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl FolderWatch {
    /// Watches from now on. Must be called within a tokio runtime.
    pub fn new(folder: &Path) -> Self {
        let inotify = open();
        if let Err(error) = &inotify {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "the folder can't be watched; it is looked at every 10 s");
        }
        let mut watch = Self {
            folder: folder.to_owned(),
            inotify: inotify.ok(),
            above: None,
            files: None,
            has_changed: false,
        };
        watch.aim();
        watch
    }

    /// Until a file of the folder was written, renamed or removed, or the folder
    /// itself came or went, and nothing more happened for a moment. It may be told
    /// without a change.
    pub async fn changed(&mut self) {
        if self.inotify.is_none() || self.above.is_none() && self.files.is_none() {
            sleep(LOOK).await;
            return self.aim();
        }
        while !self.has_changed {
            self.listen().await;
        }
        let settled = async { while timeout(SETTLE, self.listen()).await.is_ok() {} };
        let _ = timeout(SETTLE_AT_MOST, settled).await;
        self.has_changed = false;
    }

    /// Takes what the kernel tells, once it tells something.
    async fn listen(&mut self) {
        let Some(inotify) = &self.inotify else {
            return std::future::pending().await;
        };
        let told = inotify.async_io(Interest::READABLE, |it| Ok(it.0.read_events()?));
        match told.await {
            Ok(events) => self.take(&events),
            Err(error) => {
                tracing::warn!(%error, "a folder can't be watched any more");
                self.inotify = None;
                self.has_changed = true;
            }
        }
    }

    fn take(&mut self, events: &[InotifyEvent]) {
        self.has_changed |= events.iter().any(|event| self.is_of_a_file(event));
        if events.iter().any(|event| self.is_of_the_folder(event)) {
            self.aim();
            self.has_changed = true;
        }
    }

    fn is_of_the_folder(&self, event: &InotifyEvent) -> bool {
        let gone = AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF;
        let is_above = Some(event.wd) == self.above;
        let is_own = is_above || Some(event.wd) == self.files;
        let name = self.folder.file_name().map(OsString::from);
        event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
            || is_own && event.mask.intersects(gone)
            || is_above && event.name == name
    }

    fn is_of_a_file(&self, event: &InotifyEvent) -> bool {
        if Some(event.wd) != self.files {
            return false;
        }
        let is_new = event.mask.contains(AddWatchFlags::IN_CREATE);
        let Some(name) = &event.name else { return true };
        !is_new || self.folder.join(name).is_symlink()
    }

    /// Watches the folder that is there now, and the one above it.
    fn aim(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        let inotify = &inotify.get_ref().0;
        let above = self.folder.parent().filter(|it| !it.as_os_str().is_empty());
        let above = above.unwrap_or(Path::new("."));
        self.above = inotify.add_watch(above, ABOVE).ok();
        // An old one leads to a folder that was moved away.
        let before = self.files.take();
        self.files = inotify.add_watch(&self.folder, FILES).ok();
        if let Some(before) = before.filter(|it| Some(*it) != self.files) {
            // It is gone with its folder, mostly.
            let _ = inotify.rm_watch(before);
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; this descriptor is owned and stays the same"
)]
fn open() -> io::Result<AsyncFd<Descriptor>> {
    let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
    let inotify = Descriptor(Inotify::init(flags)?);
    AsyncFd::with_interest(inotify, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::errno::Errno;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn told(watch: &mut FolderWatch, what: &str) {
        timeout(PATIENCE, watch.changed())
            .await
            .unwrap_or_else(|_| panic!("{what} was not told"));
    }

    /// Whether nothing waits to be told: what was done before is in the queue.
    fn is_quiet(watch: &mut FolderWatch) -> bool {
        loop {
            let inotify = &watch.inotify.as_ref().unwrap().get_ref().0;
            match inotify.read_events() {
                Ok(events) => watch.take(&events),
                Err(Errno::EAGAIN) => return !watch.has_changed,
                Err(errno) => panic!("{errno}"),
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_closed_renamed_linked_or_removed_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut watch = FolderWatch::new(folder.path());
        fs::write(at("a.toml"), "x").unwrap();
        told(&mut watch, "a file").await;
        fs::write(at("b.new"), "x").unwrap();
        fs::rename(at("b.new"), at("b.toml")).unwrap();
        told(&mut watch, "a rename").await;
        std::os::unix::fs::symlink("a.toml", at("c.toml")).unwrap();
        told(&mut watch, "a link").await;
        fs::remove_file(at("a.toml")).unwrap();
        told(&mut watch, "a removal").await;
        assert!(is_quiet(&mut watch));
    }

    #[tokio::test]
    async fn a_file_is_told_once_it_is_closed_and_not_while_it_is_written() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let mut watch = FolderWatch::new(folder.path());
        let mut file = fs::File::create(folder.path().join("a.toml")).unwrap();
        file.write_all(b"port = 80").unwrap();
        assert!(is_quiet(&mut watch));
        drop(file);
        told(&mut watch, "the file").await;
    }

    #[tokio::test]
    async fn the_folder_may_come_go_and_be_replaced() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("services.d");
        let mut watch = FolderWatch::new(&folder);
        fs::write(above.path().join("other"), "x").unwrap();
        assert!(is_quiet(&mut watch));
        fs::create_dir(&folder).unwrap();
        told(&mut watch, "the folder").await;
        fs::write(folder.join("a.toml"), "x").unwrap();
        told(&mut watch, "a file").await;
        fs::create_dir(above.path().join("next")).unwrap();
        fs::write(above.path().join("next/b.toml"), "x").unwrap();
        fs::rename(&folder, above.path().join("old")).unwrap();
        fs::rename(above.path().join("next"), &folder).unwrap();
        told(&mut watch, "another folder").await;
        fs::write(above.path().join("old/a.toml"), "y").unwrap();
        assert!(is_quiet(&mut watch));
        fs::write(folder.join("b.toml"), "y").unwrap();
        told(&mut watch, "a file of the other folder").await;
        fs::remove_dir_all(&folder).unwrap();
        told(&mut watch, "its end").await;
        fs::create_dir(&folder).unwrap();
        told(&mut watch, "its return").await;
        fs::write(folder.join("c.toml"), "x").unwrap();
        told(&mut watch, "a file again").await;
    }
}
