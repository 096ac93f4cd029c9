//! What agents rely on of a transport, over QUIC on simulated UDP and over
//! simulated messages: one suite for both.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use innermesh_agent::{
    ca::{Issuer, Root, random_serial},
    host::keys::NodeKey,
    quic::{
        CallError, Caller, DialError, Handler, Membership, MembershipCheck, PeerEvent, Settings,
        Transport,
    },
    tls::{Chain, MeshTls},
};
use innermesh_proto::{
    certificate::{LeafKind, LeafPlan},
    crypto::PublicKey,
    id::NodeId,
    limits,
    rpc::{Failure, method},
};
use simulations::{
    Machine, World, clock,
    net::link::Link,
    schedule::Profile,
    world::{PORT, START_MS},
};
use tokio::{sync::broadcast, time::Instant};

/// Answers its body.
const ECHO: u16 = 100;
/// Waits as many milliseconds as the body says in text.
const WAIT: u16 = 101;

const SECOND: Duration = Duration::from_secs(1);
const PROFILES: [Profile; 2] = [Profile::Wire, Profile::Message];

/// A mesh of transports without agents.
struct Mesh {
    world: World,
    root: Root,
    issuer: Issuer,
    ledger: Arc<Ledger>,
}

#[derive(Default)]
struct Ledger(Mutex<BTreeMap<PublicKey, Membership>>);

/// A machine with a certificate, and the transport on it.
struct Node {
    machine: Machine,
    key: Arc<dyn NodeKey>,
    chain: Chain,
    /// Mesh time as it has it.
    stamp: Arc<AtomicU64>,
    transport: Transport,
    events: broadcast::Receiver<PeerEvent>,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    notices: Mutex<Vec<(Instant, Vec<u8>)>>,
    callers: Mutex<Vec<Caller>>,
}

impl Mesh {
    fn new(profile: Profile) -> Self {
        let mut world = World::of(1, profile);
        let keys = world.machine("ca").host.keys;
        let (domain, v4) = ("lab.internal".parse(), "10.77.0.0/16".parse());
        let (domain, v4) = (domain.unwrap(), v4.unwrap());
        let root = Root::generate(keys.generate_p256(), &domain, v4, START_MS, &*keys).unwrap();
        let key = keys.generate_p256();
        let der = root.issuer(&key.spki(), START_MS, &*keys).unwrap();
        Self {
            world,
            root,
            issuer: Issuer::new(key, der).unwrap(),
            ledger: Arc::default(),
        }
    }

    fn node(&mut self, name: &str, membership: Membership) -> Node {
        let machine = self.world.machine(name);
        let keys = machine.host.keys.clone();
        let key = keys.generate_ed25519();
        let plan = LeafPlan {
            kind: LeafKind::Membership,
            dns: [format!("{name}.lab.internal")].into(),
            ips: ["10.77.3.4".parse().unwrap()].into(),
            spki: key.public().spki().to_vec(),
            common_name: Some(key.public().node_id().to_string()),
            days: limits::MEMBERSHIP_DAYS,
            stamp_ms: START_MS,
        };
        let leaf = self
            .issuer
            .sign_leaf(&plan, random_serial(&*keys), &*keys)
            .unwrap();
        let chain = Chain {
            leaf,
            issuer: self.issuer.der().to_vec(),
            root: self.root.der().to_vec(),
        };
        self.ledger.set(&*key, membership);
        let stamp = Arc::new(AtomicU64::new(START_MS));
        let (transport, heard) = open(&machine, &key, &chain, &stamp, &self.ledger);
        Node {
            events: transport.events(),
            machine,
            key,
            chain,
            stamp,
            transport,
            heard,
        }
    }

    fn member(&mut self, name: &str) -> Node {
        self.node(name, Membership::Member)
    }

    /// Two members that are connected.
    async fn pair(&mut self) -> (Node, Node) {
        let (a, b) = (self.member("a"), self.member("b"));
        assert_eq!(a.transport.dial(b.address(), None).await, Ok(b.id()));
        until(|| b.transport.is_connected(a.id())).await;
        (a, b)
    }

    /// A transport that shows nothing, as a joiner's.
    fn joiner(&mut self) -> Transport {
        let host = self.world.machine("joiner").host;
        let stamp = Arc::new(AtomicU64::new(0));
        let tls = MeshTls::joining(self.root.mesh(), stamp, host.keys.clone());
        let settings = Settings {
            me: host.keys.generate_ed25519().public().node_id(),
            listen: "[::]:0".parse().unwrap(),
            server: None,
            client: tls.client().unwrap(),
            membership: self.ledger.clone(),
            open_to_strangers: Default::default(),
        };
        Transport::open(&host, settings).unwrap()
    }

    fn cut(&self, from: &Node, to: &Node) {
        self.world.wire.cut(from.machine.place, to.machine.place);
    }
}

fn open(
    machine: &Machine,
    key: &Arc<dyn NodeKey>,
    chain: &Chain,
    stamp: &Arc<AtomicU64>,
    ledger: &Arc<Ledger>,
) -> (Transport, Arc<Heard>) {
    let keys = machine.host.keys.clone();
    let tls = MeshTls::member(chain, key.clone(), stamp.clone(), keys).unwrap();
    let settings = Settings {
        me: key.public().node_id(),
        listen: SocketAddr::from(([0u16; 8], PORT)),
        server: Some(tls.server().unwrap()),
        client: tls.client().unwrap(),
        membership: ledger.clone(),
        open_to_strangers: [method::JOIN].into(),
    };
    let transport = Transport::open(&machine.host, settings).unwrap();
    let heard = Arc::new(Heard::default());
    transport.serve(heard.clone());
    (transport, heard)
}

impl Ledger {
    fn set(&self, key: &dyn NodeKey, membership: Membership) {
        self.0.lock().unwrap().insert(key.public(), membership);
    }
}

impl MembershipCheck for Ledger {
    fn check(&self, key: &PublicKey) -> Membership {
        let ledger = self.0.lock().unwrap();
        ledger.get(key).copied().unwrap_or(Membership::Unknown)
    }
}

#[async_trait]
impl Handler for Heard {
    async fn call(&self, caller: &Caller, method: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        self.callers.lock().unwrap().push(caller.clone());
        if method == WAIT {
            let ms = String::from_utf8_lossy(&body).parse().unwrap();
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        Ok(body)
    }

    async fn notice(&self, _: &Caller, _: u16, body: Vec<u8>) {
        self.notices.lock().unwrap().push((clock::now(), body));
    }
}

impl Node {
    fn id(&self) -> NodeId {
        self.key.public().node_id()
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.machine.address, PORT)
    }

    async fn ask(&self, to: NodeId, body: &str, patience: Duration) -> Result<Vec<u8>, CallError> {
        let body = body.as_bytes().to_vec();
        self.transport.call(to, ECHO, body, patience).await
    }

    /// The events so far.
    fn news(&mut self) -> Vec<PeerEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// Its power fails and it starts again.
    async fn restart(&mut self, ledger: &Arc<Ledger>) {
        self.machine.crash().await;
        let opened = open(&self.machine, &self.key, &self.chain, &self.stamp, ledger);
        (self.transport, self.heard) = opened;
        self.events = self.transport.events();
    }
}

/// Waits until something holds; gives how long that took.
async fn until(holds: impl Fn() -> bool) -> Duration {
    let start = clock::now();
    while !holds() {
        assert!(clock::now() < start + 60 * SECOND, "it doesn't come to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    clock::now() - start
}

#[tokio::test(start_paused = true)]
async fn a_dial_takes_two_round_trips_and_both_ends_hear_of_it() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let (mut a, mut b) = (mesh.member("a"), mesh.member("b"));
        let begin = clock::now();
        assert_eq!(
            a.transport.dial(b.address(), Some(b.id())).await,
            Ok(b.id())
        );
        let took = (clock::now() - begin).as_millis();
        assert!((20..=30).contains(&took), "{profile}: {took} ms");
        until(|| b.transport.is_connected(a.id())).await;
        assert_eq!(a.news(), [PeerEvent::Up(b.id())]);
        assert_eq!(b.news(), [PeerEvent::Up(a.id())]);
        assert_eq!(a.ask(b.id(), "x", SECOND).await, Ok(b"x".to_vec()));
        assert_eq!(b.ask(a.id(), "y", SECOND).await, Ok(b"y".to_vec()));
        let wrong = a.transport.dial(b.address(), Some(a.id())).await;
        assert_eq!(wrong, Err(DialError::WrongNode(b.id())), "{profile}");
        let nobody = SocketAddr::new(b.machine.address, PORT + 1);
        let unheard = a.transport.dial(nobody, None).await;
        assert_eq!(unheard, Err(DialError::Timeout), "{profile}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_dials_at_once_leave_one_connection_that_both_use() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let (a, b) = (mesh.member("a"), mesh.member("b"));
        let (there, back) = tokio::join!(
            a.transport.dial(b.address(), None),
            b.transport.dial(a.address(), None)
        );
        assert_eq!((there, back), (Ok(b.id()), Ok(a.id())), "{profile}");
        assert!(a.ask(b.id(), "", SECOND).await.is_ok(), "{profile}");
        assert!(b.ask(a.id(), "", SECOND).await.is_ok(), "{profile}");
        until(|| a.transport.link_count() == 1 && b.transport.link_count() == 1).await;
        let by_a = a.transport.connected()[0].dialed_by_us;
        let by_b = b.transport.connected()[0].dialed_by_us;
        assert_ne!(by_a, by_b, "{profile}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_link_delays_what_is_said_and_then_ends_the_connection() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let (mut a, mut b) = mesh.pair().await;
        mesh.cut(&a, &b);
        let begin = clock::now();
        let (answer, ()) = tokio::join!(a.ask(b.id(), "", 10 * SECOND), async {
            tokio::time::sleep(2 * SECOND).await;
            mesh.world.wire.heal();
        });
        assert!(answer.is_ok(), "{profile}");
        let took = clock::now() - begin;
        assert!(
            (2 * SECOND..8 * SECOND).contains(&took),
            "{profile}: {took:?}"
        );
        a.news();
        b.news();

        mesh.cut(&a, &b);
        mesh.cut(&b, &a);
        let asked = a.ask(b.id(), "", 60 * SECOND).await;
        assert!(
            matches!(asked, Err(CallError::Lost(_))),
            "{profile}: {asked:?}"
        );
        until(|| !a.transport.is_connected(b.id()) && !b.transport.is_connected(a.id())).await;
        assert_eq!(a.news(), [PeerEvent::Down(b.id())], "{profile}");
        assert_eq!(b.news(), [PeerEvent::Down(a.id())], "{profile}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_way_that_is_cut_in_one_direction_ends_both_ends() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let (a, b) = mesh.pair().await;
        mesh.cut(&a, &b);
        let took = until(|| {
            a.transport.notify(b.id(), 1, Vec::new());
            !a.transport.is_connected(b.id()) && !b.transport.is_connected(a.id())
        })
        .await;
        assert!(
            (10 * SECOND..35 * SECOND).contains(&took),
            "{profile}: {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_noticed_after_a_while_and_a_restart_at_once() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let (mut a, mut b) = mesh.pair().await;
        a.news();
        b.restart(&mesh.ledger).await;
        assert!(
            a.transport.is_connected(b.id()),
            "{profile}: nobody told it"
        );
        assert_eq!(b.transport.dial(a.address(), None).await, Ok(a.id()));
        let news = [PeerEvent::Down(b.id()), PeerEvent::Up(b.id())];
        assert_eq!(a.news(), news, "{profile}");
        assert!(a.ask(b.id(), "", SECOND).await.is_ok(), "{profile}");

        b.machine.crash().await;
        let took = until(|| !a.transport.is_connected(b.id())).await;
        assert!(
            (10 * SECOND..25 * SECOND).contains(&took),
            "{profile}: {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_stops_says_so_after_all_else() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let (mut a, b) = mesh.pair().await;
        a.news();
        assert!(b.transport.notify(a.id(), ECHO, b"last words".to_vec()));
        b.transport.close().await;
        until(|| !a.transport.is_connected(b.id())).await;
        assert_eq!(a.heard.notices.lock().unwrap().len(), 1, "{profile}");
        assert_eq!(a.news(), [PeerEvent::Down(b.id())], "{profile}");
        let gone = a.ask(b.id(), "", SECOND).await;
        assert_eq!(gone, Err(CallError::NotConnected(b.id())), "{profile}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_that_is_told_arrives_once_on_a_bad_network() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let (a, b) = mesh.pair().await;
        let fates = Arc::new(Mutex::new(BTreeMap::<_, u32>::new()));
        let seen = fates.clone();
        mesh.world.wire.observe(Box::new(move |passing| {
            *seen.lock().unwrap().entry(passing.fate.name()).or_default() += 1;
        }));
        mesh.world.wire.set_usual(Link {
            loss: 0.3,
            duplicate: 0.1,
            reorder: 0.1,
            jitter_ms: 20,
            ..Link::default()
        });
        for number in 0..200u8 {
            assert!(a.transport.notify(b.id(), ECHO, vec![number]), "{profile}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        until(|| b.heard.notices.lock().unwrap().len() >= 200).await;
        tokio::time::sleep(5 * SECOND).await;
        let notices = b.heard.notices.lock().unwrap();
        let mut bodies: Vec<u8> = notices.iter().map(|(_, body)| body[0]).collect();
        let in_order = bodies.is_sorted();
        bodies.sort_unstable();
        assert_eq!(bodies, (0..200).collect::<Vec<u8>>(), "{profile}");
        assert!(!in_order, "{profile}: what is late holds up nothing else");
        let fates = fates.lock().unwrap();
        for fate in ["sent", "lost", "duplicated", "reordered"] {
            assert!(fates.contains_key(fate), "{profile}: {fates:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_may_call_what_is_open_for_a_while() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let seed = mesh.member("seed");
        let joiner = mesh.joiner();
        let channel = joiner
            .dial_unregistered(seed.address(), None)
            .await
            .unwrap();
        assert_eq!(channel.peer_key(), Some(seed.key.public()));
        assert_eq!(channel.peer_chain()[2], mesh.root.der());
        let joined = channel.call(method::JOIN, b"me".to_vec(), SECOND).await;
        assert_eq!(joined, Ok(b"me".to_vec()), "{profile}");
        {
            let callers = seed.heard.callers.lock().unwrap();
            assert_eq!((callers[0].node, callers[0].key), (None, None));
            assert_eq!(callers[0].exporter, channel.exporter(), "{profile}");
        }
        for shut in [method::PING, ECHO] {
            let refused = channel.call(shut, Vec::new(), SECOND).await;
            assert_eq!(refused, Err(Failure::NotMember.into()), "{profile}");
        }
        let large = vec![0; limits::STRANGER_RPC_BYTES];
        let refused = channel.call(method::JOIN, large, SECOND).await;
        assert!(matches!(refused, Err(CallError::TooLong(_))), "{profile}");
        let long = until(|| seed.transport.link_count() == 0).await.as_millis() as u64;
        assert!((limits::STRANGER_MS - 2000..=limits::STRANGER_MS).contains(&long));
        assert_eq!(seed.transport.counters().strangers_expired, 1, "{profile}");
        let late = channel.call(method::JOIN, Vec::new(), SECOND).await;
        assert!(
            matches!(late, Err(CallError::Lost(_))),
            "{profile}: {late:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_ledger_is_asked_anew_about_those_who_are_connected() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let a = mesh.member("a");
        let b = mesh.node("b", Membership::Unknown);
        assert_eq!(b.transport.dial(a.address(), None).await, Ok(a.id()));
        assert!(b.transport.is_connected(a.id()));
        assert!(!a.transport.is_connected(b.id()), "{profile}");
        mesh.ledger.set(&*b.key, Membership::Member);
        a.transport.review();
        assert!(a.transport.is_connected(b.id()), "{profile}");
        mesh.ledger.set(&*b.key, Membership::Revoked);
        a.transport.review();
        until(|| !a.transport.is_connected(b.id()) && !b.transport.is_connected(a.id())).await;
        let again = b.transport.dial(a.address(), None).await;
        assert_eq!(again, Err(DialError::Evicted), "{profile}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ended_certificate_is_refused_and_none_is_a_strangers() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let (a, b) = (mesh.member("a"), mesh.member("b"));
        let year_ms = 365 * 24 * 3600 * 1000;
        b.stamp.fetch_add(year_ms, Ordering::Relaxed);
        let refused = a.transport.dial(b.address(), None).await;
        assert_eq!(refused, Err(DialError::Expired), "{profile}");
        let keys = a.machine.host.keys.clone();
        let tls = MeshTls::member(&a.chain, a.key.clone(), a.stamp.clone(), keys).unwrap();
        let bare = tls.client_without_certificate().unwrap();
        let channel = a.transport.dial_unregistered(b.address(), Some(bare)).await;
        let renewed = channel
            .unwrap()
            .call(method::JOIN, Vec::new(), SECOND)
            .await;
        assert!(renewed.is_ok(), "{profile}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_have_deadlines_and_a_peer_so_many_at_once() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let (a, b) = mesh.pair().await;
        let wait = |ms: &str, patience| {
            let body = ms.as_bytes().to_vec();
            a.transport.call(b.id(), WAIT, body, patience)
        };
        let begin = clock::now();
        let late = wait("5000", SECOND).await;
        let told = Err(CallError::Failed(Failure::DeadlineExceeded));
        assert!(
            late == Err(CallError::Deadline) || late == told,
            "{profile}"
        );
        assert!(clock::now() - begin <= SECOND + SECOND / 10, "{profile}");

        let many = (0..limits::CALLS_PER_PEER + 8).map(|_| wait("3000", 4 * SECOND));
        let answers = futures_util::future::join_all(many).await;
        let answered = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(answered, limits::CALLS_PER_PEER, "{profile}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_a_queue_holds_is_not_taken() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let (a, b) = mesh.pair().await;
        mesh.cut(&a, &b);
        let told = (0..1000).filter(|_| a.transport.notify(b.id(), ECHO, vec![0; 10]));
        let told = told.count();
        let most = limits::NOTICE_QUEUE + limits::STREAMS_PER_PEER as usize;
        assert!(
            (limits::NOTICE_QUEUE..=most).contains(&told),
            "{profile}: {told}"
        );
        mesh.world.wire.heal();
        until(|| b.heard.notices.lock().unwrap().len() == told).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_stands_still_hears_all_later() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let (a, b) = mesh.pair().await;
        let begin = clock::now();
        b.machine.still(3 * SECOND, false);
        assert!(a.transport.notify(b.id(), ECHO, Vec::new()));
        until(|| !b.heard.notices.lock().unwrap().is_empty()).await;
        let (at, _) = b.heard.notices.lock().unwrap()[0];
        assert!(at >= begin + 3 * SECOND, "{profile}");
        assert!(a.ask(b.id(), "", SECOND).await.is_ok(), "{profile}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_dialed_is_followed_to_another_address() {
    for profile in PROFILES {
        let mut mesh = Mesh::new(profile);
        let (mut a, b) = mesh.pair().await;
        a.machine.roam();
        assert!(a.ask(b.id(), "", 5 * SECOND).await.is_ok(), "{profile}");
        until(|| b.transport.paths()[&a.id()] == a.address()).await;
        assert!(b.ask(a.id(), "", 5 * SECOND).await.is_ok(), "{profile}");
    }
}

#[test]
fn a_seed_decides_when_each_message_arrives() {
    let arrivals = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut mesh = Mesh::new(Profile::Message);
            let (a, b) = mesh.pair().await;
            let begin = clock::now();
            mesh.world.wire.set_usual(Link {
                loss: 0.3,
                jitter_ms: 20,
                ..Link::default()
            });
            for number in 0..100 {
                a.transport.notify(b.id(), ECHO, vec![number]);
            }
            until(|| b.heard.notices.lock().unwrap().len() == 100).await;
            let notices = b.heard.notices.lock().unwrap();
            let arrivals = notices.iter().map(|(at, body)| (*at - begin, body[0]));
            arrivals.collect::<Vec<_>>()
        })
    };
    assert_eq!(arrivals(), arrivals());
}
