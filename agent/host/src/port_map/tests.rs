//! A keeper and a router of our own, on a clock that jumps.

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_proto::crypto::Hash;
use ipnet::IpNet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::timeout,
};

use super::{Gateway, Keeper, MapError, Mappings, Protocol, Refusal};
use crate::{Clock, Host, Mono, Network, Stream, system};

const PORTS: [u16; 2] = [51820, 51819];

/// What a router does by one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Nothing,
    Refuse(u8),
    Map,
}

struct Router {
    gateway: Option<Gateway>,
    pcp: Does,
    nat_pmp: Does,
    upnp: Does,
    external: Ipv4Addr,
    /// Added to the port that is suggested.
    shift: u16,
    lifetime: u32,
    clock: Arc<dyn Clock>,
    /// The router's own time, and when that was.
    epoch: (u32, Mono),
    /// By the outer port: the inner.
    mapped: BTreeMap<u16, u16>,
    /// Other hosts' outer ports.
    taken: Vec<u16>,
    /// What came, without what the answers were.
    asked: Vec<String>,
}

impl Router {
    fn epoch(&self) -> u32 {
        let (then, at) = self.epoch;
        then + (self.clock.now() - at).as_secs() as u32
    }

    fn map(&mut self, inner: u16, suggested: u16, seconds: u32) -> (u16, u32) {
        self.mapped.retain(|_, to| *to != inner);
        if seconds == 0 {
            return (0, 0);
        }
        let outer = suggested.wrapping_add(self.shift);
        self.mapped.insert(outer, inner);
        (outer, self.lifetime.min(seconds))
    }

    fn pcp(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut answer = packet.to_vec();
        answer[1] |= 0x80;
        answer[8..12].copy_from_slice(&self.epoch().to_be_bytes());
        answer[12..24].fill(0);
        if let Does::Refuse(code) = self.pcp {
            answer[3] = code;
        } else if packet[1] == 1 {
            let [inner, outer] = [40, 42].map(|at| number(packet, at));
            let seconds = number(packet, 6).into();
            let (outer, seconds) = self.map(inner, outer, seconds);
            answer[4..8].copy_from_slice(&seconds.to_be_bytes());
            answer[42..44].copy_from_slice(&outer.to_be_bytes());
            answer[44..60].copy_from_slice(&self.external.to_ipv6_mapped().octets());
        }
        answer
    }

    fn nat_pmp(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut answer = vec![0, packet[1] | 0x80, 0, 0];
        answer.extend(self.epoch().to_be_bytes());
        match (self.nat_pmp, packet[1]) {
            (Does::Refuse(code), _) => answer[3] = code,
            (_, 0) => answer.extend(self.external.octets()),
            _ => {
                let [inner, outer] = [4, 6].map(|at| number(packet, at));
                let (outer, seconds) = self.map(inner, outer, number(packet, 10).into());
                answer.extend(inner.to_be_bytes());
                answer.extend(outer.to_be_bytes());
                answer.extend(seconds.to_be_bytes());
            }
        }
        answer
    }

    /// As routers of the first version are: with ports that others may have.
    fn page(&mut self, request: &str) -> String {
        let between = |name: &str| {
            let rest = request.split_once(&format!("<{name}>"))?.1;
            rest.split_once('<').map(|(text, _)| text.to_owned())
        };
        let port = |name: &str| between(name).and_then(|it| it.parse().ok()).unwrap_or(0);
        let outer: u16 = port("NewExternalPort");
        let fault = |code: u16| format!("<errorCode>{code}</errorCode>");
        if request.starts_with("GET") {
            return "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1\
                    </serviceType><controlURL>/control</controlURL></service>"
                .into();
        }
        if let Does::Refuse(code) = self.upnp {
            return fault(code.into());
        }
        if request.contains("#GetExternalIPAddress") {
            let ip = self.external;
            return format!("<NewExternalIPAddress>{ip}</NewExternalIPAddress>");
        }
        if request.contains("#AddPortMapping") {
            let seconds: u16 = port("NewLeaseDuration");
            if seconds > 0 {
                return fault(725);
            }
            if self.taken.contains(&outer) {
                return fault(718);
            }
            self.mapped.insert(outer, port("NewInternalPort"));
            return "<ok/>".into();
        }
        let Some(inner) = self.mapped.get(&outer).copied() else {
            return fault(714);
        };
        if request.contains("#DeletePortMapping") {
            self.mapped.remove(&outer);
        }
        format!(
            "<NewInternalClient>192.168.1.7</NewInternalClient><NewInternalPort>{inner}\
             </NewInternalPort>"
        )
    }
}

fn number(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

#[derive(Clone)]
struct Net(Arc<Mutex<Router>>);

impl Net {
    fn lock(&self) -> MutexGuard<'_, Router> {
        self.0.lock().unwrap()
    }

    fn answer(&self, packets: &[(SocketAddrV4, Vec<u8>)]) -> Option<Vec<u8>> {
        let (to, packet) = &packets[0];
        let mut router = self.lock();
        let (what, does) = match (to.port(), packet[0]) {
            (1900, _) => ("search", router.upnp),
            (_, 2) if packet[1] == 0 => ("announce", router.pcp),
            (_, 2) => ("pcp", router.pcp),
            _ if packet[1] == 0 => ("address", router.nat_pmp),
            _ => ("nat-pmp", router.nat_pmp),
        };
        router.asked.push(what.into());
        if does == Does::Nothing {
            return None;
        }
        Some(match what {
            "search" => {
                b"HTTP/1.1 200 OK\r\nLocation: http://192.168.1.1:5000/root.xml\r\n\r\n".into()
            }
            "announce" | "pcp" => router.pcp(packet),
            _ => router.nat_pmp(packet),
        })
    }
}

#[async_trait]
impl Network for Net {
    async fn gateway(&self) -> Option<Gateway> {
        self.lock().gateway
    }

    async fn ask_router(
        &self,
        _: &Gateway,
        packets: &[(SocketAddrV4, Vec<u8>)],
    ) -> io::Result<Vec<u8>> {
        match self.answer(packets) {
            Some(answer) => Ok(answer),
            None => std::future::pending().await,
        }
    }

    async fn connect(&self, _: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let net = self.clone();
        tokio::spawn(async move {
            let mut request = vec![0; 8192];
            let length = far.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let body = net.lock().page(&request);
            let answer = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
            far.write_all(answer.as_bytes()).await.unwrap();
        });
        Ok(Box::new(near))
    }

    fn quic_socket(&self, _: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(quinn::TokioRuntime)
    }

    fn messages(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }

    async fn local_addresses(&self) -> Vec<(String, IpAddr)> {
        Vec::new()
    }

    async fn clash(&self, _: IpNet, _: &str) -> Option<String> {
        None
    }

    async fn upstream_resolvers(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn probe_tcp(&self, _: SocketAddr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn probe_http(&self, _: SocketAddr, _: &str, _: &str) -> io::Result<u16> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A keeper at work.
struct Stage {
    net: Net,
    keeper: Arc<Keeper>,
    told: watch::Receiver<Mappings>,
}

impl Stage {
    fn new(does: [Does; 3]) -> Self {
        let [pcp, nat_pmp, upnp] = does;
        let host = system::host(PathBuf::new());
        let net = Net(Arc::new(Mutex::new(Router {
            gateway: Some(Gateway {
                router: Ipv4Addr::new(192, 168, 1, 1),
                own: Ipv4Addr::new(192, 168, 1, 7),
            }),
            pcp,
            nat_pmp,
            upnp,
            external: Ipv4Addr::new(203, 0, 113, 7),
            shift: 0,
            lifetime: 7200,
            clock: host.clock.clone(),
            epoch: (9000, Mono::ZERO),
            mapped: BTreeMap::new(),
            taken: Vec::new(),
            asked: Vec::new(),
        })));
        let host = Host {
            net: Arc::new(net.clone()),
            ..host
        };
        let told = watch::Sender::default();
        let keeper = Arc::new(Keeper::new(&host, Hash([7; 32]), told.clone()));
        let running = keeper.clone();
        tokio::spawn(async move { running.run(&PORTS).await });
        Self {
            net,
            keeper,
            told: told.subscribe(),
        }
    }

    /// Waits for what is told; time jumps to whatever is next.
    async fn until(&mut self, within_s: u64, is_it: impl FnMut(&Mappings) -> bool) -> Mappings {
        let waiting = self.told.wait_for(is_it);
        let told = timeout(Duration::from_secs(within_s), waiting).await;
        told.expect("in time").expect("it runs").clone()
    }

    async fn mapped(&mut self, within_s: u64, at: [&str; 2]) -> Mappings {
        let at = at.map(|at| at.parse::<SocketAddrV4>().unwrap());
        let is_it = |told: &Mappings| told.ports.iter().map(|it| it.external).eq(at);
        self.until(within_s, is_it).await
    }
}

const USUAL: [&str; 2] = ["203.0.113.7:51820", "203.0.113.7:51819"];

#[tokio::test(start_paused = true)]
async fn the_best_protocol_that_maps_is_used() {
    use Does::{Map, Nothing, Refuse};
    for (does, protocol) in [
        ([Map, Map, Map], Protocol::Pcp),
        ([Nothing, Map, Map], Protocol::NatPmp),
        // As a router that has it switched off, and one with another version.
        ([Refuse(2), Map, Map], Protocol::NatPmp),
        ([Refuse(1), Map, Nothing], Protocol::NatPmp),
        ([Nothing, Nothing, Map], Protocol::Upnp),
        ([Refuse(2), Refuse(2), Map], Protocol::Upnp),
    ] {
        let mut stage = Stage::new(does);
        let told = stage.mapped(60, USUAL).await;
        assert_eq!(told.protocol, Some(protocol), "{does:?}");
        assert_eq!(
            stage.net.lock().mapped,
            BTreeMap::from(PORTS.map(|port| (port, port)))
        );
        stage.keeper.end().await;
        assert!(stage.net.lock().mapped.is_empty(), "{does:?}");
        assert_eq!(*stage.told.borrow(), Mappings::default());
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_are_told_and_seldom_asked_for_again() {
    let mut stage = Stage::new([Does::Refuse(2), Does::Nothing, Does::Refuse(250)]);
    let told = stage
        .until(60, |told| told.next.is_some() && !told.why.is_empty())
        .await;
    let refused = MapError::Refused(Protocol::Pcp, Refusal::NotAuthorized);
    assert_eq!(told.why[..2], [refused, MapError::Silent(Protocol::NatPmp)]);
    assert!(
        told.why[2].to_string().contains("its error 250"),
        "{told:?}"
    );
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    let asked = stage
        .net
        .lock()
        .asked
        .iter()
        .filter(|it| *it == "pcp")
        .count();
    // Two ports each time: at first, after 30 s and so on, and each half hour.
    assert!((100..=110).contains(&asked), "{asked}");
    stage.net.lock().pcp = Does::Map;
    stage.mapped(1900, USUAL).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_renewal_changes_is_told() {
    let mut stage = Stage::new([Does::Map, Does::Nothing, Does::Nothing]);
    stage.mapped(60, USUAL).await;
    stage.net.lock().shift = 3;
    stage
        .mapped(3700, ["203.0.113.7:51823", "203.0.113.7:51822"])
        .await;
    // What it has now is what it would like to keep.
    stage.net.lock().shift = 0;
    tokio::time::sleep(Duration::from_secs(3700)).await;
    assert!(stage.net.lock().mapped.contains_key(&51823));
    stage.net.lock().external = Ipv4Addr::new(100, 64, 0, 9);
    stage
        .mapped(3700, ["100.64.0.9:51823", "100.64.0.9:51822"])
        .await;
    // No line: nothing of it is announced.
    stage.net.lock().external = Ipv4Addr::UNSPECIFIED;
    let told = stage.until(3700, |told| told.ports.is_empty()).await;
    assert_eq!(
        told.why[0],
        MapError::Refused(Protocol::Pcp, Refusal::NoNetwork)
    );
}

#[tokio::test(start_paused = true)]
async fn a_router_that_began_anew_maps_again_within_minutes() {
    for does in [
        [Does::Map, Does::Nothing, Does::Nothing],
        [Does::Nothing, Does::Map, Does::Nothing],
        [Does::Nothing, Does::Nothing, Does::Map],
    ] {
        let mut stage = Stage::new(does);
        stage.mapped(60, USUAL).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        {
            let mut router = stage.net.lock();
            router.epoch = (0, router.clock.now());
            router.mapped.clear();
        }
        tokio::time::sleep(Duration::from_secs(140)).await;
        assert_eq!(stage.net.lock().mapped.len(), 2, "{does:?}");
        // And not again and again.
        let before = stage.net.lock().asked.len();
        tokio::time::sleep(Duration::from_secs(600)).await;
        let asked = stage.net.lock().asked.len() - before;
        assert!(asked <= 6, "{does:?} {asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_router_is_believed_to_the_end_of_what_it_gave() {
    let mut stage = Stage::new([Does::Map, Does::Nothing, Does::Nothing]);
    stage.mapped(60, USUAL).await;
    stage.net.lock().pcp = Does::Nothing;
    tokio::time::sleep(Duration::from_secs(7000)).await;
    assert_eq!(stage.told.borrow().ports.len(), 2);
    stage.until(300, |told| told.ports.is_empty()).await;
    stage.net.lock().pcp = Does::Map;
    stage.mapped(1000, USUAL).await;
}

#[tokio::test(start_paused = true)]
async fn another_network_begins_anew() {
    let mut stage = Stage::new([Does::Map, Does::Nothing, Does::Nothing]);
    stage.mapped(60, USUAL).await;
    let gateway = stage.net.lock().gateway.take();
    stage.until(20, |told| *told == Mappings::default()).await;
    stage.net.lock().gateway = gateway.map(|gateway| Gateway {
        own: Ipv4Addr::new(192, 168, 1, 8),
        ..gateway
    });
    stage.mapped(20, USUAL).await;
}

/// UPnP has this host choose the outer port, and some routers know no leases.
#[tokio::test(start_paused = true)]
async fn a_port_that_another_host_has_is_left_to_it() {
    let mut stage = Stage::new([Does::Nothing, Does::Nothing, Does::Map]);
    stage.net.lock().taken = vec![51820];
    let told = stage.until(60, |told| told.ports.len() == 2).await;
    assert_ne!(told.ports[0].external.port(), 51820);
    assert_eq!(
        (told.ports[1].external.port(), told.ports[1].until),
        (51819, None)
    );
    // What another host has by now stays where it leads.
    stage.net.lock().mapped.insert(51819, 4);
    stage.keeper.end().await;
    assert_eq!(stage.net.lock().mapped, BTreeMap::from([(51819, 4)]));
}

#[tokio::test(start_paused = true)]
async fn an_end_in_the_middle_of_a_question_leaves_nothing() {
    for wait in 0..20 {
        let stage = Stage::new([Does::Refuse(2), Does::Map, Does::Map]);
        for _ in 0..wait {
            tokio::task::yield_now().await;
        }
        stage.keeper.end().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(stage.net.lock().mapped.is_empty(), "{wait}");
    }
}
