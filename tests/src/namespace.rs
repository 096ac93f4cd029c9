//! The namespaces that are a host of the laboratory.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sched::{CloneFlags, setns};

use crate::{
    process::{Process, run},
    wait::{ensure, wait_for},
};

/// Runs `work` on a thread of its own in a network: what it opens stays there.
///
/// # Errors
/// The operating system's.
pub fn inside<T: Send + 'static>(
    network: File,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let thread = std::thread::spawn(move || {
        setns(&network, CloneFlags::CLONE_NEWNET)?;
        work()
    });
    thread.join().expect("the work doesn't panic")
}

/// A network and a mount namespace, held by a process that waits.
#[derive(Debug)]
pub struct Namespace {
    holder: Process,
}

impl Namespace {
    /// # Errors
    /// Why this machine can have none.
    pub fn new(name: &str, directory: &Path) -> Result<Self, String> {
        let words = ["unshare", "--net", "--mount", "sleep", "infinity"];
        let log = directory.join(format!("{name}.namespace.log"));
        let mut holder =
            Process::start(name, None, &words, &[], &log).map_err(|e| format!("unshare: {e}"))?;
        let ready = || {
            if holder.ended().is_some() {
                return Ok(false);
            }
            let program = fs::read_link(format!("/proc/{}/exe", holder.id())).unwrap_or_default();
            let name = program
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            // Some systems have one program for all the small ones.
            ensure(
                name == "sleep" || name.contains("busybox") || name.contains("coreutils"),
                name,
            )
            .map(|()| true)
        };
        if wait_for("a namespace", Duration::from_secs(10), ready) {
            Ok(Self { holder })
        } else {
            Err(format!(
                "no network namespaces here: {}",
                holder.log().trim()
            ))
        }
    }

    /// The process that holds it.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Tells its network from others.
    pub fn inode(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/ns/net", self.pid())).unwrap_or_default()
    }

    /// Runs a script of the laboratory's own.
    ///
    /// # Panics
    /// When it fails: that is a fault and no reason to skip a test.
    pub fn shell(&self, script: &str, arguments: &[&str]) {
        let words = ["sh", "-euc", script, "sh"];
        let _ = run(self.pid(), &[&words, arguments].concat(), &[]).ok();
    }
}
