//! A DNS service on real sockets, and dig that asks it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use innermesh_host::{
    Clock, Mono, Presence,
    listen::{Class, Sources},
    system,
    tasks::Tasks,
};
use innermesh_proto::{
    name::Label,
    zone::{InstanceRecord, NodeRecords, Protocol, ServiceRecords, ServiceState, Zone, ZoneInput},
};
use innermesh_serve::dns::{Dns, DnsServer, Served, Source, Surroundings};
use tokio::process::Command;

/// Stands still but for what a test adds; waits are real.
#[derive(Default)]
pub struct TestClock {
    now_s: AtomicU64,
}

impl TestClock {
    pub fn advance(&self, seconds: u64) {
        self.now_s.fetch_add(seconds, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Mono {
        Duration::from_secs(self.now_s.load(Ordering::SeqCst))
    }
    fn wall_ms(&self) -> u64 {
        1_000_000_000_000
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

pub fn label(s: &str) -> Label {
    s.parse().unwrap()
}

/// A view that everybody may see.
pub fn internal(input: &ZoneInput) -> Served {
    Served {
        zone: Arc::new(Zone::build(input)),
        lan: None,
        sources: Arc::new(|_: IpAddr| Source::Internal),
    }
}

pub fn instance(node: &str, address: &str, port: u16) -> InstanceRecord {
    InstanceRecord {
        node: label(node),
        addresses: vec![address.parse().unwrap()],
        port,
        protocol: Protocol::Tcp,
        service_type: None,
        live: true,
        healthy: true,
    }
}

pub fn node(addresses: &[&str]) -> NodeRecords {
    NodeRecords {
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        live: true,
        ..NodeRecords::default()
    }
}

/// Two nodes, `web` on both, and `crowd` on very many addresses.
pub fn input(domain: &str) -> ZoneInput {
    let known = |instances| ServiceRecords {
        state: ServiceState::Known,
        instances,
        wildcard: false,
    };
    let crowd = (0..200)
        .map(|n| instance("a", &format!("10.77.9.{n}"), 80))
        .collect();
    ZoneInput {
        domain: domain.parse().unwrap(),
        ipv4: "10.77.0.0/16".parse().unwrap(),
        ula: "fd00:1:2::/48".parse().unwrap(),
        serial: 7,
        loading: false,
        nodes: [
            (label("a"), node(&["10.77.0.1", "fd00:1:2::a"])),
            (label("b"), node(&["10.77.0.2"])),
        ]
        .into(),
        services: [
            (
                label("web"),
                known(vec![
                    instance("a", "10.77.0.1", 80),
                    instance("b", "10.77.0.2", 81),
                ]),
            ),
            (label("crowd"), known(crowd)),
        ]
        .into(),
        records: Default::default(),
        ttls: Default::default(),
        member_aliases: Default::default(),
        devices: Default::default(),
        front: None,
        withheld: Default::default(),
    }
}

/// What the world outside says: its overlay is another.
pub fn outside() -> ZoneInput {
    ZoneInput {
        ipv4: "10.99.0.0/16".parse().unwrap(),
        ula: "fd00:9:9::/48".parse().unwrap(),
        nodes: [
            (label("www"), node(&["192.0.2.80"])),
            (
                label("evil"),
                node(&["10.77.0.1", "::ffff:10.77.0.1", "fd00:1:2::a"]),
            ),
            (label("half"), node(&["10.77.0.1", "192.0.2.81"])),
        ]
        .into(),
        services: [(
            label("crowd"),
            ServiceRecords {
                state: ServiceState::Known,
                instances: (0..200)
                    .map(|n| instance("www", &format!("192.0.2.{n}"), 80))
                    .collect(),
                wildcard: false,
            },
        )]
        .into(),
        ..input("outside.org")
    }
}

pub struct Bench {
    pub dns: Arc<Dns>,
    pub clock: Arc<TestClock>,
    pub server: DnsServer,
    /// Questions that reached it.
    pub asked: Arc<AtomicUsize>,
}

impl Bench {
    /// A service whose strangers are at 127.0.0.2.
    pub fn start(input: &ZoneInput) -> Self {
        let clock = Arc::new(TestClock::default());
        let zone = Zone::build(input);
        let first = zone.clone();
        let dns = Dns::new(
            clock.clone(),
            Tasks::default(),
            || first,
            input.ipv4,
            input.ula,
        );
        let dns = Arc::new(dns);
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let sources = move |source: IpAddr| {
            counter.fetch_add(1, Ordering::SeqCst);
            if source == IpAddr::from([127, 0, 0, 2]) {
                Source::Stranger
            } else {
                Source::Internal
            }
        };
        dns.publish(|| Served {
            zone: Arc::new(zone),
            lan: None,
            sources: Arc::new(sources),
        });
        let listen = [SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)];
        let server =
            DnsServer::start(dns.clone(), &around(&clock), &listen, Presence::Present).unwrap();
        Self {
            dns,
            clock,
            server,
            asked,
        }
    }

    /// A service that forwards to another.
    pub fn forwarding() -> (Self, Self) {
        let upstream = Self::start(&outside());
        let bench = Self::start(&input("lab.internal"));
        bench.dns.set_upstreams(&[upstream.address()], &[]);
        (bench, upstream)
    }

    pub fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    /// What dig prints.
    pub async fn dig(&self, question: &str) -> String {
        self.dig_at(self.address(), question).await
    }

    /// As [`Bench::dig`], at another address.
    pub async fn dig_at(&self, address: SocketAddr, question: &str) -> String {
        let output = Command::new("dig")
            .arg(format!("@{}", address.ip()))
            .args(["-p", &address.port().to_string(), "+tries=1", "+timeout=5"])
            .args(question.split(' '))
            .output()
            .await
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The data of the answer, sorted.
    pub async fn short(&self, question: &str) -> Vec<String> {
        let text = self.dig(&format!("{question} +short")).await;
        let mut lines: Vec<String> = text.lines().map(String::from).collect();
        lines.sort();
        lines
    }

    /// The response code.
    pub async fn status(&self, question: &str) -> String {
        let text = self.dig(question).await;
        let status = text
            .split("status: ")
            .nth(1)
            .and_then(|rest| rest.split(',').next());
        status
            .unwrap_or_else(|| panic!("no answer: {text}"))
            .to_string()
    }
}

/// Nobody is known: each address is a source of its own.
fn others() -> Arc<dyn Sources> {
    Arc::new(|_: IpAddr| Class::Other)
}

/// Real sockets, on which all are strangers.
pub fn around(clock: &Arc<TestClock>) -> Surroundings {
    Surroundings {
        clock: clock.clone(),
        net: system::network(),
        tasks: Tasks::default(),
        sources: others(),
        room: Surroundings::room(clock.clone()),
    }
}
