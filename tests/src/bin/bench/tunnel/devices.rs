//! Devices between two hosts: the agents' own, and wireguard-go's.

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use innermesh_tests::{Host, Lab, Process, wait_for};

use crate::{idle::processor_ticks, mesh::Mesh};

/// A tunnel between both hosts of a laboratory.
pub struct Device<'lab> {
    pub hosts: [&'lab Host; 2],
    /// Of the second host, inside.
    pub address: String,
    /// Those whose processor time and memory count.
    processes: Vec<u32>,
    _mesh: Option<Mesh<'lab>>,
}

impl<'lab> Device<'lab> {
    /// The agents' tunnel.
    pub fn of_agents(lab: &'lab Lab, mut mesh: Mesh<'lab>) -> Result<Self, String> {
        let address = mesh.agents[0].overlay_ipv4("node1");
        let mut processes = Vec::new();
        for agent in &mut mesh.agents {
            processes.push(agent.process().ok_or("an agent doesn't run")?.id());
        }
        let device = Self {
            hosts: [&lab.hosts[0], &lab.hosts[1]],
            address,
            processes,
            _mesh: Some(mesh),
        };
        device.wait();
        Ok(device)
    }

    /// The way from one host to an address of another, through a process between them.
    pub fn through(hosts: [&'lab Host; 2], address: &str, process: u32) -> Self {
        let device = Self {
            hosts,
            address: address.to_owned(),
            processes: vec![process],
            _mesh: None,
        };
        device.wait();
        device
    }

    fn wait(&self) {
        wait_for("a ping through the tunnel", Duration::from_secs(30), || {
            let words = ["ping", "-c", "1", "-W", "1", &self.address];
            self.hosts[0].run(&words).result()
        });
    }

    /// Their processor time so far, in seconds.
    pub fn cpu_s(&self) -> Result<f64, String> {
        let mut ticks = 0;
        for id in &self.processes {
            ticks += processor_ticks(*id)?;
        }
        Ok(ticks as f64 / 100.0)
    }

    /// Memory of the greater end.
    pub fn resident_mib(&self) -> Result<f64, String> {
        let mut most: f64 = 0.0;
        for id in &self.processes {
            let path = format!("/proc/{id}/status");
            let status = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            most = most.max(kib.unwrap_or(0.0) / 1024.0);
        }
        Ok(most)
    }
}

/// wireguard-go, on as many hosts as are asked for.
pub struct WireGuardGo {
    processes: Vec<Process>,
    program: String,
}

/// A device of wireguard-go's.
pub struct Made {
    pub key_file: String,
    pub public: String,
    pub process: u32,
}

/// A peer, as `wg set` takes it.
pub struct PeerOf<'a> {
    pub public: &'a str,
    pub endpoint: Option<SocketAddr>,
    pub allowed: &'a str,
}

impl WireGuardGo {
    pub const PORT: u16 = 51999;
    pub const INTERFACE: &'static str = "wgo0";

    /// The program is `INNERMESH_WIREGUARD_GO`, or what the path has.
    pub fn new() -> Self {
        let program = std::env::var("INNERMESH_WIREGUARD_GO");
        Self {
            processes: Vec::new(),
            program: program.unwrap_or_else(|_| "wireguard-go".to_owned()),
        }
    }

    /// Starts it on both hosts of a laboratory; gives the tunnel between them.
    pub fn between<'lab>(&mut self, lab: &'lab Lab, mtu: u32) -> Result<Device<'lab>, String> {
        let [one, other] = [&lab.hosts[0], &lab.hosts[1]];
        let made = [
            self.run_on(one, Self::INTERFACE)?,
            self.run_on(other, Self::INTERFACE)?,
        ];
        for (host, own, there, theirs) in [
            (one, &made[0], other, &made[1]),
            (other, &made[1], one, &made[0]),
        ] {
            let peer = PeerOf {
                public: &theirs.public,
                endpoint: Some((there.ipv4, Self::PORT).into()),
                allowed: &format!("{}/32", inside(there)),
            };
            set(host, own, &peer)?;
            bring_up(host, Self::INTERFACE, &format!("{}/24", inside(host)), mtu)?;
        }
        let device = Device {
            hosts: [one, other],
            address: inside(other),
            processes: made.iter().map(|made| made.process).collect(),
            _mesh: None,
        };
        device.wait();
        Ok(device)
    }

    /// Starts it on a host, with a key of its own.
    pub fn run_on(&mut self, host: &Host, interface: &str) -> Result<Made, String> {
        let name = format!("wireguard-go-{interface}");
        let process = host.start(&name, &[&self.program, "-f", interface], &[]);
        let id = process.id();
        self.processes.push(process);
        wait_for("wireguard-go", Duration::from_secs(10), || {
            host.run(&["wg", "show", interface]).result()
        });
        let private = host.run(&["wg", "genkey"]).result()?;
        let path = host.directory.join(format!("{interface}.key"));
        fs::write(&path, &private).map_err(|e| e.to_string())?;
        let public = format!("wg pubkey <{}", path.display());
        let public = host.run(&["sh", "-c", &public]).result()?;
        Ok(Made {
            key_file: path.display().to_string(),
            public: public.trim().to_owned(),
            process: id,
        })
    }

    /// What it says of itself.
    pub fn version(&self) -> String {
        let told = Command::new(&self.program)
            .arg("--version")
            .stderr(Stdio::null())
            .output();
        let told = told.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let first = told.unwrap_or_default();
        let first = first.lines().next().unwrap_or_default().to_owned();
        format!("{} ({first})", self.program)
    }
}

/// Gives the device on a host its key, port and a peer.
pub fn set(host: &Host, own: &Made, peer: &PeerOf<'_>) -> Result<(), String> {
    let port = WireGuardGo::PORT.to_string();
    let endpoint = peer.endpoint.map(|endpoint| endpoint.to_string());
    let mut words = vec![
        "wg",
        "set",
        WireGuardGo::INTERFACE,
        "private-key",
        &own.key_file,
        "listen-port",
        &port,
        "peer",
        peer.public,
        "allowed-ips",
        peer.allowed,
    ];
    if let Some(endpoint) = &endpoint {
        words.extend(["endpoint", endpoint]);
    }
    host.run(&words).result().map(drop)
}

/// Gives an interface its address and brings it up.
pub fn bring_up(host: &Host, interface: &str, address: &str, mtu: u32) -> Result<(), String> {
    let mtu = mtu.to_string();
    for words in [
        &["ip", "address", "add", address, "dev", interface][..],
        &["ip", "link", "set", interface, "mtu", &mtu, "up"],
    ] {
        host.run(words).result()?;
    }
    Ok(())
}

fn inside(host: &Host) -> String {
    format!("198.18.7.{}", host.index + 1)
}
