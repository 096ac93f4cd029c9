//! Docker itself on a host of the laboratory.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{Finished, Host, Process, agent::PATIENCE, installed, skip, wait_for};

/// The address of the default bridge.
pub const BRIDGE: &str = "172.31.1.1";
/// The image that [`Docker::start`] makes: busybox, and a page in `/www`.
pub const IMAGE: &str = "box";

/// A dockerd in the network of one host. Its containers end with it.
pub struct Docker<'lab> {
    host: &'lab Host,
    folder: PathBuf,
    daemon: Option<Process>,
}

impl<'lab> Docker<'lab> {
    /// `None` where this machine can't have one, after saying why.
    ///
    /// # Panics
    /// When it fails in another way.
    #[must_use]
    pub fn start(host: &'lab Host) -> Option<Self> {
        if !installed(&["dockerd", "docker", "iptables", "busybox"]) {
            return None;
        }
        let folder = host.directory.join("docker");
        fs::create_dir_all(&folder).expect("a folder of the laboratory");
        fs::write(folder.join("daemon.json"), "{}\n").expect("a file of the laboratory");
        let mut docker = Self {
            host,
            folder,
            daemon: None,
        };
        docker.launch();
        if let Some(log) = docker.has_ended() {
            skip(format!("dockerd doesn't run here: {log}"));
            return None;
        }
        docker.import(IMAGE, &[]);
        Some(docker)
    }

    /// Starts the daemon, with its configuration as it stands now.
    ///
    /// # Panics
    /// When it neither answers nor ends.
    pub fn launch(&mut self) {
        let script = r#"
            mkdir -p "$0/data" "$0/exec" "$0/image/bin" "$0/image/www"
            cp "$(command -v busybox)" "$0/image/bin/busybox"
            for applet in $(busybox --list); do
                [ "$applet" = busybox ] || ln -sf busybox "$0/image/bin/$applet"
            done
            echo hello >"$0/image/www/index.html"
            rm -f "$0/dockerd.pid"
            mount --bind "$1" /etc/resolv.conf
            mount -t tmpfs none /run
            mkdir -p /run/docker /run/netns
            exec dockerd --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/dockerd.pid" \
                -H "unix://$0/docker.sock" --config-file "$0/daemon.json" --bip "$2/24""#;
        let network = format!("--net={}", self.host.network_path());
        let resolv_conf = self.host.directory.join("resolv.conf");
        // The host of the laboratory has a /sys of its own without control
        // groups, so that only its network is entered.
        let words = [
            "nsenter",
            &network,
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-euc",
            script,
            &self.folder.to_string_lossy(),
            &resolv_conf.to_string_lossy(),
            BRIDGE,
        ];
        let log = self.host.directory.join("dockerd.log");
        let daemon = Process::start("dockerd", None, &words, &[], &log).expect("nsenter");
        self.daemon = Some(daemon);
        wait_for("dockerd", PATIENCE, || {
            if self.has_ended().is_some() {
                return Ok(());
            }
            self.run(&["info"]).result().map(drop)
        });
    }

    /// Its log, where it ended by itself.
    fn has_ended(&mut self) -> Option<String> {
        let daemon = self.daemon.as_mut()?;
        daemon.ended().map(|_| daemon.log())
    }

    /// Ends the daemon as systemd does.
    ///
    /// # Panics
    /// When it doesn't end.
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(Signal::SIGTERM);
            let _ = daemon.wait(Duration::from_secs(30));
        }
    }

    /// An image with busybox, a page in `/www`, and what `docker import --change`
    /// takes.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn import(&self, name: &str, changes: &[&str]) {
        let changes: Vec<String> = changes.iter().map(|it| format!("-c '{it}'")).collect();
        let import = format!(
            "tar -C {} -c . | docker -H {} import {} - {name}",
            self.folder.join("image").display(),
            self.url(),
            changes.join(" "),
        );
        let _ = self.host.run(&["sh", "-euc", &import]).ok();
    }

    /// Where the daemon is asked.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    /// As the command line takes it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The daemon's configuration.
    #[must_use]
    pub fn daemon_json(&self) -> PathBuf {
        self.folder.join("daemon.json")
    }

    /// A configuration of the agent that reads its labels. The socket needn't be there.
    #[must_use]
    pub fn agent_config(host: &Host) -> String {
        let socket = Path::new("docker/docker.sock");
        let socket = host.directory.join(socket);
        format!("[docker]\nsocket = \"{}\"\n", socket.display())
    }

    pub fn run(&self, arguments: &[&str]) -> Finished {
        let url = self.url();
        self.host
            .run(&[&["docker", "-H", &url], arguments].concat())
    }

    /// What a container of its own says before it ends.
    ///
    /// # Errors
    /// What it said otherwise.
    pub fn in_container(&self, options: &[&str], command: &[&str]) -> Result<String, String> {
        let words = [&["run", "--rm"], options, &[IMAGE, "/bin/busybox"], command].concat();
        self.run(&words).result()
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        if self.daemon.is_none() {
            return;
        }
        let all = self.run(&["ps", "-aq"]).stdout;
        for id in all.split_whitespace() {
            let _ = self.run(&["rm", "-f", id]);
        }
        if !std::thread::panicking() {
            self.stop();
        }
    }
}
