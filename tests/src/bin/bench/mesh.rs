//! A mesh of agents, one on each host of a laboratory.

use std::{net::UdpSocket, path::Path, time::Duration, time::Instant};

use innermesh_agent::control::{Client, node::StatusRequest};
use innermesh_tests::{Agent, Lab, dns, wait::ensure, wait_for};
use serde_json::Value;

use crate::observe::{Dns, Observer, until_all};

/// A mesh, its first node the seed and the only CA node.
pub struct Mesh<'lab> {
    pub agents: Vec<Agent<'lab>>,
    sockets: Vec<UdpSocket>,
    asked: u16,
}

impl<'lab> Mesh<'lab> {
    /// Starts all; `config` is each one's configuration.
    pub fn start(lab: &'lab Lab, config: &str) -> Result<Self, String> {
        Self::start_with_root(lab, config).map(|(mesh, _)| mesh)
    }

    /// As [`Mesh::start`]; tells also what `init` told.
    pub fn start_with_root(lab: &'lab Lab, config: &str) -> Result<(Self, Value), String> {
        Self::start_by(lab, config, None)
    }

    /// As [`Mesh::start_with_root`], where all run another program.
    pub fn start_by(
        lab: &'lab Lab,
        config: &str,
        program: Option<&Path>,
    ) -> Result<(Self, Value), String> {
        let mut agents = Vec::new();
        for host in &lab.hosts {
            let mut agent = Agent::with_config(host, &format!("node{}", host.index), config);
            agent.use_program(program);
            agents.push(agent);
        }
        let size = agents.len();
        let Some((first, rest)) = agents.split_first_mut() else {
            return Err("no agents".into());
        };
        let told = first.init();
        if !rest.is_empty() {
            let token = first.invite(&["--uses", &rest.len().to_string()]);
            for agent in rest {
                agent.join_with(first, &token);
            }
        }
        let mut mesh = Self {
            agents,
            sockets: Vec::new(),
            asked: 0,
        };
        for agent in &mesh.agents {
            agent.wait_nodes(size);
        }
        mesh.connect()?;
        Ok((mesh, told))
    }

    /// Opens a socket to each agent's DNS, on its own host.
    pub fn connect(&mut self) -> Result<(), String> {
        self.sockets.clear();
        for agent in &self.agents {
            let socket = agent.host.udp_to(agent.dns()).map_err(|e| e.to_string())?;
            socket.set_nonblocking(true).map_err(|e| e.to_string())?;
            self.sockets.push(socket);
        }
        Ok(())
    }

    /// To the DNS of the agent with this index.
    pub fn socket(&self, index: usize) -> &UdpSocket {
        &self.sockets[index]
    }

    /// Waits until the DNS of all of `watchers` answers for `name` as wanted;
    /// returns how long after `since`.
    pub fn until(
        &mut self,
        name: &str,
        watchers: impl IntoIterator<Item = usize>,
        since: Instant,
        within: Duration,
        wanted: &dyn Fn(&dns::Answer) -> bool,
    ) -> Result<Duration, String> {
        self.asked = self.asked.wrapping_add(1);
        let mut observers: Vec<Box<dyn Observer + '_>> = Vec::new();
        for index in watchers {
            let (name, socket) = (name.to_owned(), &self.sockets[index]);
            observers.push(Box::new(Dns {
                socket,
                name,
                id: self.asked,
                wanted,
            }));
        }
        until_all(&mut observers, since, within).map_err(|e| format!("{name}: {e}"))
    }

    /// Waits until all of `members` know each other to live; they may be
    /// fewer than the mesh. They are asked in this process: on a host that is busy
    /// the command line's start would be most of what is measured.
    pub fn until_meshed(&self, members: &[usize], since: Instant) -> Result<Duration, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        for &index in members {
            let agent = &self.agents[index];
            let client = Client::new(&agent.socket());
            wait_for(
                &format!("{} to see all", agent.name),
                Duration::from_secs(300),
                || {
                    let status = runtime.block_on(client.ask(&StatusRequest {}));
                    let status = status.map_err(|e| e.to_string())?;
                    let live = status.nodes.iter().filter(|node| node.live).count();
                    ensure(live >= members.len(), format!("{live} live"))
                },
            );
        }
        Ok(since.elapsed())
    }
}
