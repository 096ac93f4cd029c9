//! One host of the demo: a process that holds a network, a mount and a host
//! name of its own, and commands that run there.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    unistd::sethostname,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{
    error::{DemoError, Tried},
    fit, lifeline,
};

/// All files of the demo, in memory.
pub const FOLDER: &str = "/run/innermesh-demo";
/// Lines of each agent's log that a failure shows.
const LOG_LINES: usize = 25;
/// How long a holder may take to start.
const START: Duration = Duration::from_secs(30);

/// A host.
pub struct Host {
    /// Its name.
    pub name: &'static str,
    /// Its address on the cable.
    pub address: IpAddr,
    /// Its holder's process id as the user's shell sees it.
    pub pid: u32,
    holder: Child,
    daemons: Mutex<Vec<(String, Child)>>,
}

impl Host {
    /// Makes one, on no cable yet.
    ///
    /// # Errors
    /// [`DemoError`].
    pub async fn start(
        name: &'static str,
        address: IpAddr,
        program: &Path,
    ) -> Result<Self, DemoError> {
        prepare(name).tried(format!("making the files of {name}"))?;
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--uts"])
            .arg(program)
            .args(["demo", "host", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .tried("unshare")?;
        let output = holder
            .stdout
            .take()
            .ok_or_else(|| io::Error::from(ErrorKind::BrokenPipe));
        let mut lines = BufReader::new(output.tried("unshare")?).lines();
        let starting = || format!("starting {name}");
        let line = timeout(START, lines.next_line()).await.tried(starting())?;
        let line = line.tried(starting())?;
        let pid = line.and_then(|line| line.parse().ok());
        let pid = pid.ok_or_else(|| DemoError::Step(format!("making the namespaces of {name}")))?;
        Ok(Self {
            name,
            address,
            pid,
            holder,
            daemons: Mutex::default(),
        })
    }

    /// Its holder's process id within the stage.
    pub fn inner_pid(&self) -> u32 {
        self.holder.id().unwrap_or_default()
    }

    /// Where its files are; its agent's `--dir` too.
    pub fn folder(&self) -> PathBuf {
        folder(self.name)
    }

    /// A command that runs there, in its folder. It ends when it is dropped.
    pub fn command<S: AsRef<std::ffi::OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "-t",
                &self.pid.to_string(),
                "-n",
                "-m",
                "-u",
                "--",
                "env",
                "-C",
            ])
            .arg(self.folder())
            .args(words)
            .env("PATH", path())
            .env("INNERMESH_DIR", self.folder())
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Starts a program that goes on running for as long as the host is there;
    /// what it says goes to its log.
    ///
    /// # Errors
    /// [`DemoError::System`].
    pub fn daemon(&self, typed: &str) -> Result<(), DemoError> {
        let start = || {
            let log = self.folder().join(LOG);
            let log = File::options().append(true).create(true).open(log)?;
            let mut command = self.command(typed.split(' '));
            command.stdout(log.try_clone()?).stderr(log).spawn()
        };
        let daemon = start().tried(typed)?;
        self.daemons().push((typed.to_owned(), daemon));
        Ok(())
    }

    /// Which of those programs has ended, and how: none should.
    pub fn ended(&self) -> Option<String> {
        self.daemons().iter_mut().find_map(|(typed, daemon)| {
            let status = daemon.try_wait().ok()??;
            Some(format!("`{typed}` ended: {status}"))
        })
    }

    fn daemons(&self) -> MutexGuard<'_, Vec<(String, Child)>> {
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of what its programs said.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder().join(LOG)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        lines[from..].join("\n")
    }

    /// Makes `resolver` the host's.
    ///
    /// # Errors
    /// The operating system's.
    pub fn use_resolver(&self, resolver: IpAddr, domain: &str) -> io::Result<()> {
        // Written in place: the file is mounted over the machine's.
        let text = format!("search {domain}\nnameserver {resolver}\noptions timeout:2\n");
        fs::write(self.folder().join(RESOLVER), text)
    }

    /// A program that is a shell on this host.
    pub fn shell(&self) -> PathBuf {
        self.folder().join(SHELL)
    }
}

const LOG: &str = "agent.log";
const RESOLVER: &str = "resolv.conf";
const SHELL: &str = "shell";

fn folder(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// The demo's own `agent` first, then what the machine has.
fn path() -> String {
    format!("{FOLDER}/bin:{}", fit::path().to_string_lossy())
}

fn prepare(name: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder(name);
    fs::create_dir(&folder)?;
    // Until its agent runs it has no resolver at all.
    fs::write(folder.join(RESOLVER), "")?;
    // The sockets of WireGuard devices are named by the interface.
    let config = format!("[tunnel]\ninterface = \"im-{name}\"\n");
    fs::write(folder.join("config.toml"), config)?;
    let shell = format!(
        "#!/bin/sh\n# A shell on {name}.\ncd '{folder}'\nexport INNERMESH_DIR='{folder}' PATH='{path}' HOME='{folder}' \
         PS1='{name}# '\nexec \"${{SHELL:-/bin/sh}}\"\n",
        folder = folder.display(),
        path = path(),
    );
    fs::write(folder.join(SHELL), shell)?;
    fs::set_permissions(folder.join(SHELL), fs::Permissions::from_mode(0o755))
}

/// `agent demo host NAME`, started in its namespaces: makes them the host's,
/// says its process id, and holds them until the stage ends.
///
/// # Errors
/// [`DemoError::System`].
pub async fn hold(name: &str) -> Result<(), DemoError> {
    sethostname(name).tried("setting the host name")?;
    let sockets = Path::new("/run/wireguard");
    fs::create_dir_all(sockets).tried("making /run/wireguard")?;
    let none: Option<&str> = None;
    mount(
        Some("tmpfs"),
        sockets,
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .tried("mounting /run/wireguard")?;
    let resolver = folder(name).join(RESOLVER);
    mount(
        Some(&resolver),
        "/etc/resolv.conf",
        none,
        MsFlags::MS_BIND,
        none,
    )
    .tried("mounting /etc/resolv.conf")?;
    // /proc is still the machine's, so this is the id that the user's shell knows.
    let pid = fs::read_link("/proc/self").tried("reading /proc/self")?;
    println!("{}", pid.display());
    lifeline::ends().await.tried("waiting for the stage")
}
