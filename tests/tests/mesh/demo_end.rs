//! `agent demo` as an ordinary user, and that nothing of it stays, however it ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use innermesh_tests::{
    agent::{PATIENCE, program},
    skip, wait_for,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};

#[test]
fn the_demo_needs_no_root() {
    let Some(demo) = Demo::new("user") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("agent");
    fs::copy(program(), &copy).unwrap();
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let namespaces = ["unshare", "--user", "--map-root-user", "--net", "true"];
    let permitted = Command::new("setpriv").args(user).args(namespaces).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        return skip("user namespaces aren't permitted");
    }
    // Some systems let only root open /dev/net/tun, which the demo then says:
    // here it has one that is open to all, as Debian's is.
    let devices = folder.path().join("devices");
    fs::create_dir(&devices).unwrap();
    let script = "set -e; mount -t tmpfs tmpfs \"$1\"; mknod -m 0666 \"$1/tun\" c 10 200; \
         mount --bind \"$1/tun\" /dev/net/tun; shift; exec setpriv \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(&devices).args(user).arg(copy);
    let output = demo.arguments(command).arg("--check").output().unwrap();
    demo.shows_all(&output);
    demo.is_gone();
}

#[test]
fn a_demo_that_is_killed_takes_its_hosts_with_it() {
    let Some(demo) = Demo::new("killed") else {
        return;
    };
    let mut child = demo.started();
    assert!(demo.processes().len() > 4, "the stage and its hosts run");
    child.kill().unwrap();
    child.wait().unwrap();
    demo.is_gone();
}

#[test]
fn a_demo_that_is_interrupted_ends_in_order() {
    let Some(demo) = Demo::new("interrupted") else {
        return;
    };
    let mut child = demo.started();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    // It hadn't shown all there is, so this is no success.
    assert_eq!(child.wait().unwrap().code(), Some(1));
    demo.is_gone();
}

/// Marks the processes of one test.
const MARK: &str = "INNERMESH_TEST_DEMO";

struct Demo {
    mark: String,
}

impl Demo {
    /// `None`, said aloud, where this machine can't have one.
    fn new(test: &str) -> Option<Self> {
        if !geteuid().is_root() {
            skip("needs root, to become another user and to see all processes");
            return None;
        }
        if !Path::new("/dev/net/tun").exists() {
            skip("there is no /dev/net/tun");
            return None;
        }
        let mark = format!("{test}-{}", std::process::id());
        Some(Self { mark })
    }

    fn command(&self, program: &Path) -> Command {
        self.arguments(Command::new(program))
    }

    fn arguments(&self, mut command: Command) -> Command {
        command
            .arg("demo")
            .env(MARK, &self.mark)
            .stdin(Stdio::null());
        command
    }

    /// One whose hosts are up.
    fn started(&self) -> Child {
        let mut child = self
            .command(program())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let mut output = BufReader::new(output);
        let mut seen = String::new();
        while !seen.contains("maple  192.0.2.13") {
            let read = output.read_line(&mut seen).unwrap();
            assert!(read > 0, "the demo ended: {seen}");
        }
        child.stdout = Some(output.into_inner());
        child
    }

    fn shows_all(&self, output: &Output) {
        let printed = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{printed}{errors}");
        for part in [
            "from `agent join` to the first ping",
            "maple# getent hosts photos.demo.internal",
            "maple# curl --silent --show-error --cacert root.pem https://photos.demo.internal/",
            "maple# ping -c 3 birch.demo.internal",
            "maple# agent status",
            "All of it works",
        ] {
            assert!(printed.contains(part), "{part:?} in {printed}");
        }
    }

    /// Waits until nothing of it is left: the kernel ends the processes of a
    /// namespace one after another.
    fn is_gone(&self) {
        wait_for("the end of all processes", PATIENCE, || {
            match self.processes() {
                left if left.is_empty() => Ok(()),
                left => Err(left.join(", ")),
            }
        });
        assert!(!Path::new("/run/innermesh-demo").exists());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains("innermesh-demo"), "{mounts}");
        for interface in ["cable", "birch", "cedar", "maple"] {
            assert!(!Path::new("/sys/class/net").join(interface).exists());
        }
    }

    /// The processes that run for it.
    fn processes(&self) -> Vec<String> {
        let mark = format!("{MARK}={}", self.mark);
        let all = fs::read_dir("/proc").unwrap().flatten();
        let marked = all.filter(|entry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.split(|b| *b == 0).any(|v| v == mark.as_bytes())
        });
        let command = |path: &Path| fs::read_to_string(path.join("cmdline")).unwrap_or_default();
        marked
            .map(|entry| command(&entry.path()).replace('\0', " "))
            .collect()
    }
}
