//! Two network namespaces joined by a cable.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use innermesh_host::tunnel::BackendChoice;

use crate::child::{Child, Peer, Plan, Settings};

/// Generous, as the machine may be busy with a build.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// UDP port of both tunnels.
pub const PORT: u16 = 51820;

/// The end with key 1, 192.0.2.1 on the cable and 10.77.0.1 in the overlay.
pub const LEFT: End = End(1);
/// As `LEFT`, with 2.
pub const RIGHT: End = End(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End(pub u8);

impl End {
    pub fn overlay_ip(self) -> String {
        format!("10.77.0.{}", self.0)
    }

    /// This end as a peer of the other.
    pub fn peer(self) -> Peer {
        Peer {
            key: self.0,
            nets: [
                format!("10.77.0.{}/32", self.0).parse().expect("a network"),
                format!("fd77::{}/128", self.0).parse().expect("a network"),
            ]
            .into(),
            endpoint: Some(([192, 0, 2, self.0], PORT).into()),
            ..Peer::default()
        }
    }

    /// This end's plan with `peers`.
    pub fn plan(self, peers: impl IntoIterator<Item = Peer>) -> Plan {
        Plan {
            addresses: [
                format!("10.77.0.{}/16", self.0).parse().expect("a network"),
                format!("fd77::{}/48", self.0).parse().expect("a network"),
            ]
            .into(),
            resolver_v4: Some("10.77.0.53".parse().expect("an address")),
            resolver_v6: Some("fd77::53".parse().expect("an address")),
            peers: peers.into_iter().collect(),
        }
    }
}

/// Removed with everything in it when dropped.
pub struct Lab {
    id: String,
    /// What its tunnels are carried by.
    pub backend: BackendChoice,
}

impl Lab {
    /// One after the other for every backend that this machine can have; what
    /// it can't is said aloud.
    pub fn each() -> impl Iterator<Item = Self> {
        let unfit = unfit().map(innermesh_skip::skip).is_some();
        [BackendChoice::Embedded, BackendChoice::Kernel]
            .into_iter()
            .filter(move |_| !unfit)
            .filter_map(|backend| {
                let lab = Self::build(backend);
                lab.map_err(innermesh_skip::leave_out).ok()
            })
    }

    pub fn with(backend: BackendChoice) -> Option<Self> {
        Self::build(backend).map_err(innermesh_skip::skip).ok()
    }

    fn build(backend: BackendChoice) -> Result<Self, String> {
        if let Some(why) = unfit() {
            return Err(why);
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            // Interface names have 15 bytes, and their sockets are shared by
            // all namespaces.
            id: format!("im{}{}", std::process::id(), letters(next)),
            backend,
        };
        for end in [LEFT, RIGHT] {
            run("ip", &["netns", "add", &lab.namespace(end)]);
        }
        let (left, right) = (lab.namespace(LEFT), lab.namespace(RIGHT));
        run(
            "ip",
            &[
                "link", "add", "cable", "netns", &left, "type", "veth", "peer", "name", "cable",
                "netns", &right,
            ],
        );
        for end in [LEFT, RIGHT] {
            let address = format!("192.0.2.{}/24", end.0);
            lab.run(end, "ip", &["address", "add", &address, "dev", "cable"]);
            lab.run(end, "ip", &["link", "set", "cable", "up"]);
            lab.run(end, "ip", &["link", "set", "lo", "up"]);
        }
        if backend == BackendChoice::Kernel && !lab.has_kernel_wireguard() {
            return Err("this kernel has no WireGuard".to_owned());
        }
        Ok(lab)
    }

    pub fn has_kernel_wireguard(&self) -> bool {
        let namespace = self.namespace(LEFT);
        let ip = |args: &[&str]| {
            let output = Command::new("ip")
                .args(["-n", &namespace, "link"])
                .args(args)
                .output();
            output.is_ok_and(|output| output.status.success())
        };
        ip(&["add", "probe", "type", "wireguard"]) && ip(&["delete", "probe"])
    }

    pub fn namespace(&self, end: End) -> String {
        format!("{}{}", self.id, end.0)
    }

    /// The name of the end's tunnel interface.
    pub fn interface(&self, end: End) -> String {
        self.namespace(end)
    }

    pub fn settings(&self, end: End) -> Settings {
        Settings {
            interface: self.interface(end),
            port: PORT,
            key: end.0,
            backend: self.backend,
            offloads: true,
        }
    }

    pub fn start(&self, end: End) -> Child {
        Child::start(&self.namespace(end), &self.settings(end)).expect("the tunnel opens")
    }

    /// Both ends with each other as peers, once a packet has gone through.
    pub fn connected(&self) -> (Child, Child) {
        let mut left = self.start(LEFT);
        let mut right = self.start(RIGHT);
        left.apply(&LEFT.plan([RIGHT.peer()]));
        right.apply(&RIGHT.plan([LEFT.peer()]));
        self.reaches(LEFT, &RIGHT.overlay_ip());
        (left, right)
    }

    /// Runs a program at that end and returns what it printed.
    pub fn run(&self, end: End, program: &str, args: &[&str]) -> String {
        let namespace = self.namespace(end);
        let mut all = vec!["netns", "exec", &namespace, program];
        all.extend(args);
        run("ip", &all)
    }

    /// Pings until an answer comes.
    pub fn reaches(&self, from: End, to: &str) {
        let started = Instant::now();
        while !self.ping(from, to) {
            assert!(started.elapsed() < DEADLINE, "no answer from {to}");
        }
    }

    /// Waits until something holds.
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < DEADLINE, "{what}");
            std::thread::yield_now();
        }
    }

    pub fn ping(&self, from: End, to: &str) -> bool {
        Command::new("ip")
            .args(["netns", "exec", &self.namespace(from)])
            .args(["ping", "-n", "-c", "1", "-W", "1", to])
            .output()
            .is_ok_and(|output| output.status.success())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for end in [LEFT, RIGHT] {
            let _ = Command::new("ip")
                .args(["netns", "delete", &self.namespace(end)])
                .output();
            // A killed child leaves its socket, which is not under test here.
            let socket = format!("/var/run/wireguard/{}.sock", self.interface(end));
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// Two letters, so that a name of a process id up to 7 digits fits.
fn letters(n: u32) -> String {
    let letter = |n: u32| char::from_digit(n % 26 + 10, 36).expect("a letter");
    [letter(n / 26), letter(n)].iter().collect()
}

fn unfit() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root, for network namespaces".to_owned());
    }
    let tun = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    if let Err(error) = tun {
        return Some(format!("/dev/net/tun: {error}"));
    }
    let programs = [
        "ip", "ping", "wg", "sysctl", "setpriv", "unshare", "prlimit",
    ];
    innermesh_skip::missing(&programs).map(|program| format!("{program} is not installed"))
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect(program);
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
