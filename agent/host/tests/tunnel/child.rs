//! A process that holds one tunnel, inside a network namespace, and does what
//! it is told over its standard input.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process::{Child as Process, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use innermesh_host::tunnel::{
    Applied, BackendChoice, DEFAULT_MTU, Tunnel, TunnelSettings, generate_private_key, open,
    public_key, relayed::Relayed, routes,
};
use innermesh_proto::tunnel::{PresharedKey, TunnelKey, TunnelPeer, TunnelPlan};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::lab::DEADLINE;

const SETTINGS: &str = "INNERMESH_TEST_TUNNEL";
/// Before each answer, to tell it from what the test harness prints.
const MARK: &str = "@@ ";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub interface: String,
    pub port: u16,
    /// The private key is this byte, 32 times, clamped.
    pub key: u8,
    pub backend: BackendChoice,
    pub offloads: bool,
}

/// A plan that travels as JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    pub addresses: BTreeSet<IpNet>,
    pub resolver_v4: Option<Ipv4Addr>,
    pub resolver_v6: Option<Ipv6Addr>,
    pub peers: Vec<Peer>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Peer {
    pub key: u8,
    pub nets: BTreeSet<IpNet>,
    pub endpoint: Option<SocketAddr>,
    pub keepalive_s: Option<u16>,
    pub secret: Option<u8>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    pub key: [u8; 32],
    pub endpoint: Option<SocketAddr>,
    pub last_handshake: Option<Duration>,
    pub rx_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Apply(Plan),
    Observe,
    Down,
    Clash(IpNet, String),
    Addresses,
    ResidentKib,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Open,
    /// Why it didn't open, and whether that left an interface behind.
    Refused(String, bool),
    Failed(String),
    /// Peers added, removed and changed; addresses; routes; the interface.
    Applied([usize; 5], bool),
    Observed(String, Vec<Seen>),
    Done,
    Clash(Option<String>),
    Addresses(Vec<(String, IpAddr)>),
    ResidentKib(u64),
}

/// The public key of the private key made of `byte`.
pub fn key(byte: u8) -> TunnelKey {
    public_key(&generate_private_key([byte; 32]))
}

/// The private key of that byte, as `wg` reads it.
pub fn private_key_text(byte: u8) -> String {
    data_encoding::BASE64.encode(&generate_private_key([byte; 32]))
}

/// A running child; killed when dropped.
pub struct Child {
    process: Process,
    requests: ChildStdin,
    answers: Receiver<String>,
}

impl Child {
    /// Starts one in `namespace`; the error is what the tunnel said.
    pub fn start(namespace: &str, settings: &Settings) -> Result<Self, String> {
        Self::start_by(namespace, &[], settings)
    }

    /// As [`Child::start`], by way of another program that becomes the child.
    pub fn start_by(namespace: &str, by: &[&str], settings: &Settings) -> Result<Self, String> {
        let mut process = Command::new("ip")
            .args(["netns", "exec", namespace])
            .args(by)
            .arg(std::env::current_exe().expect("this test's path"))
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "a_child_holds_a_tunnel",
            ])
            .env(
                SETTINGS,
                serde_json::to_string(settings).expect("plain data"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip netns exec");
        let requests = process.stdin.take().expect("piped");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, answer)) = line.split_once(MARK)
                    && send.send(answer.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        let mut child = Self {
            process,
            requests,
            answers,
        };
        match child.answer() {
            Answer::Open => Ok(child),
            Answer::Refused(error, left) => {
                assert!(!left, "an interface was left behind: {error}");
                Err(error)
            }
            other => panic!("{other:?} for a start"),
        }
    }

    pub fn apply(&mut self, plan: &Plan) -> Applied {
        match self.ask(&Request::Apply(plan.clone())) {
            Answer::Applied([added, removed, changed, addresses, routes], interface) => Applied {
                peers_added: added,
                peers_removed: removed,
                peers_changed: changed,
                addresses,
                routes,
                interface,
            },
            other => panic!("{other:?} for a plan"),
        }
    }

    /// The backend, and the peers in the order of their keys.
    pub fn observe(&mut self) -> (String, Vec<Seen>) {
        match self.ask(&Request::Observe) {
            Answer::Observed(backend, peers) => (backend, peers),
            other => panic!("{other:?} for a look"),
        }
    }

    pub fn peer(&mut self, byte: u8) -> Seen {
        let (_, peers) = self.observe();
        peers
            .into_iter()
            .find(|peer| peer.key == key(byte).0)
            .expect("the peer is installed")
    }

    pub fn down(&mut self) {
        assert!(matches!(self.ask(&Request::Down), Answer::Done));
    }

    pub fn clash(&mut self, net: &str, except: &str) -> Option<String> {
        let net = net.parse().expect("a network");
        match self.ask(&Request::Clash(net, except.to_owned())) {
            Answer::Clash(clash) => clash,
            other => panic!("{other:?} for a clash"),
        }
    }

    pub fn addresses(&mut self) -> Vec<(String, IpAddr)> {
        match self.ask(&Request::Addresses) {
            Answer::Addresses(addresses) => addresses,
            other => panic!("{other:?} for addresses"),
        }
    }

    pub fn resident_kib(&mut self) -> u64 {
        match self.ask(&Request::ResidentKib) {
            Answer::ResidentKib(kib) => kib,
            other => panic!("{other:?} for memory"),
        }
    }

    /// From how many open files on the next one is refused (EMFILE); `None` for
    /// as many as usual.
    pub fn set_open_files(&self, most: Option<u32>) {
        let most = most.map_or_else(|| "1024".to_owned(), |most| most.to_string());
        let pid = self.process.id().to_string();
        let status = Command::new("prlimit")
            .args(["--pid", &pid, &format!("--nofile={most}:4096")])
            .status();
        assert!(status.expect("prlimit").success());
    }

    /// As by `kill -9`: `ip netns exec` has become the child itself.
    pub fn kill(mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }

    fn ask(&mut self, request: &Request) -> Answer {
        let request = serde_json::to_string(request).expect("plain data");
        writeln!(self.requests, "{request}").expect("the child listens");
        self.answer()
    }

    fn answer(&mut self) -> Answer {
        let line = self
            .answers
            .recv_timeout(DEADLINE)
            .expect("the child answers");
        serde_json::from_str(&line).expect("an answer")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the child process does until its standard input ends.
pub fn run() {
    let settings = std::env::var(SETTINGS).expect("started by a test of this file");
    let settings: Settings = serde_json::from_str(&settings).expect("settings");
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(serve(settings));
}

async fn serve(settings: Settings) {
    let wall_ms = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    };
    let link = Path::new("/sys/class/net").join(&settings.interface);
    let present = link.exists();
    let opened = open(
        TunnelSettings {
            interface: settings.interface,
            private_key: generate_private_key([settings.key; 32]),
            earlier_key: None,
            listen_port: settings.port,
            mtu: DEFAULT_MTU,
            backend: settings.backend,
            offloads: settings.offloads,
            relayed: Relayed::default(),
        },
        Arc::new(wall_ms),
    )
    .await;
    let tunnel = match opened {
        Ok(tunnel) => tunnel,
        Err(error) => {
            let left = link.exists() && !present;
            return reply(&Answer::Refused(error.to_string(), left));
        }
    };
    reply(&Answer::Open);
    loop {
        // Standard input blocks, and the tunnel must run meanwhile.
        let line = tokio::task::spawn_blocking(|| std::io::stdin().lines().next());
        let Ok(Some(Ok(line))) = line.await else {
            return;
        };
        let request = serde_json::from_str(&line).expect("a request");
        reply(&answer(&*tunnel, request).await);
    }
}

async fn answer(tunnel: &dyn Tunnel, request: Request) -> Answer {
    let answer = match request {
        Request::Apply(plan) => tunnel.apply(&planned(plan)).await.map(|applied| {
            let counts = [
                applied.peers_added,
                applied.peers_removed,
                applied.peers_changed,
                applied.addresses,
                applied.routes,
            ];
            Answer::Applied(counts, applied.interface)
        }),
        Request::Observe => tunnel.observe().await.map(|state| {
            let peers = state.peers.into_iter().map(|(key, peer)| Seen {
                key: key.0,
                endpoint: peer.endpoint,
                last_handshake: peer.last_handshake,
                rx_bytes: peer.rx_bytes,
            });
            Answer::Observed(state.backend.to_owned(), peers.collect())
        }),
        Request::Down => tunnel.down().await.map(|()| Answer::Done),
        Request::Clash(net, except) => routes::clashing_route(net, &except)
            .await
            .map(|clash| Answer::Clash(clash.map(|clash| clash.to_string()))),
        Request::Addresses => routes::local_addresses().await.map(Answer::Addresses),
        Request::ResidentKib => Ok(Answer::ResidentKib(resident_kib())),
    };
    answer.unwrap_or_else(|error| Answer::Failed(error.to_string()))
}

fn planned(plan: Plan) -> TunnelPlan {
    let peers = plan.peers.into_iter().map(|peer| {
        let planned = TunnelPeer {
            allowed_ips: peer.nets,
            endpoint: peer.endpoint,
            keepalive_s: peer.keepalive_s,
            preshared_key: peer.secret.map(|byte| PresharedKey([byte; 32])),
        };
        (key(peer.key), planned)
    });
    TunnelPlan {
        addresses: plan.addresses,
        resolver_v4: plan.resolver_v4,
        resolver_v6: plan.resolver_v6,
        peers: peers.collect(),
        ..TunnelPlan::default()
    }
}

fn reply(answer: &Answer) {
    println!(
        "\n{MARK}{}",
        serde_json::to_string(answer).expect("plain data")
    );
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse().ok())
        .expect("VmRSS")
}
