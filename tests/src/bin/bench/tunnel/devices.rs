//! Devices between two hosts: the agents' own, and wireguard-go's.

use std::{
    fs,
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
    processes: [u32; 2],
    _mesh: Option<Mesh<'lab>>,
}

impl<'lab> Device<'lab> {
    /// The agents' tunnel.
    pub fn of_agents(lab: &'lab Lab, mut mesh: Mesh<'lab>) -> Result<Self, String> {
        let address = mesh.agents[0].overlay_ipv4("node1");
        let mut processes = [0; 2];
        for (id, agent) in processes.iter_mut().zip(&mut mesh.agents) {
            *id = agent.process().ok_or("an agent doesn't run")?.id();
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

    fn wait(&self) {
        wait_for("a ping through the tunnel", Duration::from_secs(30), || {
            let words = ["ping", "-c", "1", "-W", "1", &self.address];
            self.hosts[0].run(&words).result()
        });
    }

    /// Processor time of both ends so far, in seconds.
    pub fn cpu_s(&self) -> Result<f64, String> {
        let mut ticks = 0;
        for id in self.processes {
            ticks += processor_ticks(id)?;
        }
        Ok(ticks as f64 / 100.0)
    }

    /// Memory of the greater end.
    pub fn resident_mib(&self) -> Result<f64, String> {
        let mut most: f64 = 0.0;
        for id in self.processes {
            let path = format!("/proc/{id}/status");
            let status = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            most = most.max(kib.unwrap_or(0.0) / 1024.0);
        }
        Ok(most)
    }
}

/// wireguard-go on both hosts.
pub struct WireGuardGo<'lab> {
    lab: &'lab Lab,
    processes: Vec<Process>,
    program: String,
}

const PORT: &str = "51999";
const INTERFACE: &str = "wgo0";

impl<'lab> WireGuardGo<'lab> {
    /// Starts both; the program is `INNERMESH_WIREGUARD_GO`, or what the path has.
    pub fn start(lab: &'lab Lab, mtu: u32) -> Result<Self, String> {
        let program = std::env::var("INNERMESH_WIREGUARD_GO");
        let program = program.unwrap_or_else(|_| "wireguard-go".to_owned());
        let mut this = Self {
            lab,
            processes: Vec::new(),
            program,
        };
        let mut keys = Vec::new();
        for host in &lab.hosts {
            let words = [&this.program, "-f", INTERFACE];
            this.processes.push(host.start("wireguard-go", &words, &[]));
            let private = host.run(&["wg", "genkey"]).result()?;
            let path = host.directory.join("wireguard-go.key");
            fs::write(&path, &private).map_err(|e| e.to_string())?;
            let public = format!("wg pubkey <{}", path.display());
            let public = host.run(&["sh", "-c", &public]).result()?;
            keys.push((path.display().to_string(), public.trim().to_owned()));
        }
        for (host, other) in [(0, 1), (1, 0)] {
            let (host, peer) = (&lab.hosts[host], &lab.hosts[other]);
            let endpoint = format!("{}:{PORT}", peer.ipv4);
            let allowed = format!("{}/32", inside(peer));
            wait_for("wireguard-go", Duration::from_secs(10), || {
                let words = ["wg", "show", INTERFACE];
                host.run(&words).result()
            });
            let words = [
                "wg",
                "set",
                INTERFACE,
                "private-key",
                &keys[host.index].0,
                "listen-port",
                PORT,
                "peer",
                &keys[peer.index].1,
                "endpoint",
                &endpoint,
                "allowed-ips",
                &allowed,
            ];
            host.run(&words).result()?;
            let address = format!("{}/24", inside(host));
            let mtu = mtu.to_string();
            for words in [
                &["ip", "address", "add", &address, "dev", INTERFACE][..],
                &["ip", "link", "set", INTERFACE, "mtu", &mtu, "up"],
            ] {
                host.run(words).result()?;
            }
        }
        Ok(this)
    }

    pub fn device(&self) -> Device<'lab> {
        let device = Device {
            hosts: [&self.lab.hosts[0], &self.lab.hosts[1]],
            address: inside(&self.lab.hosts[1]),
            processes: [self.processes[0].id(), self.processes[1].id()],
            _mesh: None,
        };
        device.wait();
        device
    }

    /// What it says of itself, and what Debian calls it where that is known.
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

fn inside(host: &Host) -> String {
    format!("198.18.7.{}", host.index + 1)
}
