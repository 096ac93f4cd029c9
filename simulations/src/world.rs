//! A world: hosts on one network, everything in them from one seed.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use innermesh_agent::{
    dns::{AnswerScope, TlsChoice},
    host::{Host, resolver::Unmanaged, tasks::Tasks},
    node::{AgentConfig, LaneSettings},
    overlay::RecordedOverlay,
    tunnel::{BackendChoice, DEFAULT_MTU},
};
use innermesh_proto::{
    filter::{FilterPlan, HostNetworks, Lan},
    ledger::RULES,
    tunnel::{TunnelKey, TunnelPlan},
};
use ipnet::IpNet;

use crate::{
    clock::{self, SimClock},
    disk::SimDisk,
    keys::{SimKeys, Verified},
    net::{self, HostId, Wire},
    outside::SimOutside,
    profile::Profile,
    random::Random,
    tunnel::{INTERFACE, SimTunnels},
    violation::Seen,
};

/// When a world begins, in milliseconds since 1970: in January 2027.
pub const START_MS: u64 = 1_800_000_000_000;
/// The port of the simulated agents.
pub const PORT: u16 = 51819;

pub struct World {
    seed: u64,
    /// The network.
    pub wire: Wire,
    verified: Verified,
    machines: u32,
    carries: bool,
}

/// One machine in a world.
pub struct Machine {
    /// Its name, which other machines can resolve.
    pub name: String,
    pub address: IpAddr,
    /// Its place in the network.
    pub place: HostId,
    /// What its agent is given.
    pub host: Host,
    /// Its state folder.
    pub disk: SimDisk,
    /// Its files outside the state folder, and its programs.
    pub outside: SimOutside,
    pub clock: Arc<SimClock>,
    /// The newest rules of the ledger that its build knows.
    pub rules: u32,
    tunnels: SimTunnels,
    overlay: RecordedOverlay,
    wire: Wire,
    /// Places it has been at.
    stays: u32,
}

impl World {
    /// An empty world whose agents talk by UDP. Time in it is tokio's, which
    /// the caller has paused.
    pub fn new(seed: u64) -> Self {
        Self::of(seed, Profile::Wire)
    }

    /// An empty world whose agents talk as `profile` says.
    pub fn of(seed: u64, profile: Profile) -> Self {
        Self {
            seed,
            wire: Wire::new(seed, profile),
            verified: Verified::default(),
            machines: 0,
            carries: false,
        }
    }

    /// Has the tunnels of machines that are added from now on carry packets.
    pub fn carry_packets(&mut self) {
        self.carries = true;
    }

    /// Adds a machine.
    pub fn machine(&mut self, name: &str) -> Machine {
        self.machines += 1;
        let address = net::address(self.machines);
        let disk = SimDisk::torn(Random::named(self.seed, name));
        let overlay = RecordedOverlay::default();
        let mut tunnels = SimTunnels::behind(overlay.clone());
        let outside = SimOutside::default();
        let clock = Arc::new(SimClock::new(START_MS));
        let place = self.wire.plug(name, &[address]);
        if self.carries {
            let seed = Random::named(self.seed, &format!("{name}'s tunnel")).bits();
            tunnels = tunnels.carrying(self.wire.network(place), seed);
        }
        self.wire.set_tunnels(place, tunnels.clone());
        Machine {
            name: name.into(),
            address,
            place,
            host: Host {
                clock: clock.clone(),
                keys: Arc::new(SimKeys::new(self.seed, name, self.verified.clone())),
                net: self.wire.network(place),
                disk: Arc::new(disk.clone()),
                outside: Arc::new(outside.clone()),
                tunnels: Arc::new(tunnels.clone()),
                overlay: Arc::new(overlay.clone()),
                resolver: Arc::new(Unmanaged::because("this host is simulated")),
                tasks: Tasks::default(),
            },
            disk,
            outside,
            clock,
            rules: RULES,
            tunnels,
            overlay,
            wire: self.wire.clone(),
            stays: 1,
        }
    }
}

impl Machine {
    /// Takes its power away: what runs ends where it stands, and what wasn't
    /// synced is gone. An agent can be started on it again.
    pub async fn crash(&mut self) {
        self.wire.unplug(self.place);
        self.tunnels.end();
        self.host.tasks.end().await;
        self.disk.crash();
        self.overlay.forget();
        self.host.tasks = Tasks::default();
    }

    /// Moves it to an address where nobody was before.
    pub fn roam(&mut self) {
        let to = net::elsewhere(self.address, self.stays);
        self.stays += 1;
        self.wire.roam(self.place, self.address, to);
        self.address = to;
    }

    /// Has it stand still for a while; its monotonic clock too when it is
    /// `asleep`.
    pub fn still(&self, long: Duration, asleep: bool) {
        let until = clock::now() + long;
        self.wire.still(self.place, until);
        self.clock.still(until, asleep);
    }

    /// Has a program on it send datagrams together to one of its UDP services, from
    /// `source`.
    ///
    /// # Errors
    /// Where nobody answers there.
    pub fn ask(
        &self,
        source: IpAddr,
        to: SocketAddr,
        datagrams: &[Vec<u8>],
    ) -> io::Result<net::Asked> {
        self.wire.ask(self.place, source, to, datagrams)
    }

    /// The configuration of its agent.
    pub fn config(&self) -> AgentConfig {
        AgentConfig {
            listen: vec![SocketAddr::from(([0u16; 8], PORT))],
            advertise: Vec::new(),
            port_mapping: false,
            interface: INTERFACE.into(),
            tunnel_port: 51820,
            tunnel_port_is_fixed: false,
            tunnel_endpoint: None,
            mtu: DEFAULT_MTU,
            backend: BackendChoice::Auto,
            offloads: true,
            dns_listen: Vec::new(),
            dns_upstream: Vec::new(),
            dns_tls: TlsChoice::Auto,
            dns_https: Some(8443),
            dns_answer: AnswerScope::All,
            dns_lan: Vec::new(),
            sinkhole_listen: Vec::new(),
            sinkhole_page: Vec::new(),
            sinkhole_dns: Vec::new(),
            dns_fall_through: Vec::new(),
            dns_forward: BTreeMap::new(),
            acme_port: innermesh_agent::acme::PORT,
            acme_listen: Vec::new(),
            local_sources: Vec::new(),
            containers_reach_mesh: true,
            manage_resolver: true,
            page_listen: Vec::new(),
            page_port: 7480,
            page_lan: false,
            lane: LaneSettings::default(),
            ca_term: Duration::from_secs(6 * 3600),
            known_rules: self.rules,
            docker_socket: None,
            services: Vec::new(),
        }
    }

    /// What its tunnel was last told to be; empty before the agent runs.
    pub fn tunnel_plan(&self) -> Arc<TunnelPlan> {
        self.tunnels.plan()
    }

    /// By what its overlay is closed to other networks; `None` while packets
    /// aren't both filtered and routed by one plan.
    pub fn filter_plan(&self) -> Option<FilterPlan> {
        self.overlay.plan()
    }

    /// Somebody without an agent makes a handshake with it; whether they are let in.
    pub fn shake(&self, key: TunnelKey, from: SocketAddr) -> bool {
        self.tunnels.shake(key, from)
    }

    /// Somebody takes a peer out of its tunnel's device.
    pub fn lose_peer(&self, key: TunnelKey) {
        self.tunnels.lose(key);
    }

    /// How long ago somebody made the newest handshake.
    pub fn handshake(&self, key: &TunnelKey) -> Option<Duration> {
        self.tunnels.handshake(key)
    }

    /// Has one of its interfaces lead to this network from now on, or none.
    pub fn stands_in(&self, net: Option<IpNet>) {
        let links = net.map(|net| Lan {
            interface: "eth0".to_owned().try_into().expect("an interface"),
            net,
        });
        self.overlay.set_networks(HostNetworks {
            links: links.into_iter().collect(),
            ..HostNetworks::default()
        });
    }

    /// Puts a packet with this number into its tunnel.
    pub fn send_packet(&self, from: Ipv4Addr, to: Ipv4Addr, number: u64) {
        self.tunnels.send(from, to, number);
    }

    /// What came out of its tunnel since the last call: from whom, and its number.
    pub fn packets(&self) -> VecDeque<(Ipv4Addr, u64)> {
        self.tunnels.delivered()
    }

    /// The first datagram of its tunnel that went where it must not.
    pub fn tunnel_sent_wrong(&self) -> Option<Seen> {
        self.tunnels.sent_wrong()
    }

    /// When its tunnel had an address that others could reach, if it ever did.
    pub fn tunnel_open(&self) -> Option<String> {
        self.tunnels.open_to_others()
    }

    /// When two peers of its tunnel had one address, if they ever did.
    pub fn tunnel_overlap(&self) -> Option<String> {
        self.tunnels.overlap()
    }
}
