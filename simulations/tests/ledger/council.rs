//! A roster of several: it grows, decides, loses its leader and gets another,
//! and all come to the same ledger.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use innermesh_agent::{
    ca::{Root, recovery},
    enroll::{self, InitOptions},
    host::{Clock, Disk, disk::SystemDisk, key_files as keys, keys::NodeKey, state_folder},
    ledger::{
        self, Ledger, PeerSender, ProposeError,
        raft::{Body, Message},
    },
};
use innermesh_proto::{
    codec,
    crypto::{Hash, Purpose, Sealed, Sign, Signature},
    id::NodeId,
    ledger::{
        Author, Content, Grant, Outcome, Position, Refusal, Request, RequestId, SignedGenesis,
        request::{Join, Promote},
    },
    message::{Batches, Endorse},
    name::NamePattern,
    rpc::method,
};
use simulations::{Machine, World, mesh::DOMAIN, random::Random, world::START_MS};

/// What the machines hear each other over.
#[derive(Clone, Default)]
struct Air(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    ledgers: BTreeMap<NodeId, Ledger>,
    silent: BTreeSet<NodeId>,
}

impl Air {
    fn ledger(&self, node: NodeId) -> Option<Ledger> {
        let state = self.0.lock().unwrap();
        let heard = !state.silent.contains(&node);
        state.ledgers.get(&node).filter(|_| heard).cloned()
    }

    fn all(&self) -> Vec<(NodeId, Ledger)> {
        let state = self.0.lock().unwrap();
        let all = state.ledgers.iter();
        all.map(|(node, ledger)| (*node, ledger.clone())).collect()
    }

    /// As pushes and fetches do: everybody gets what anybody has.
    async fn spread(self) {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let all = self.all();
            let indices = all.iter().map(|(_, ledger)| ledger.state().position.index);
            let most = indices.max().unwrap_or_default();
            for (node, ledger) in &all {
                let from = ledger.durable().borrow().index + 1;
                if from > most || self.ledger(*node).is_none() {
                    continue;
                }
                for (_, source) in &all {
                    let batches = source.range(from, 1 << 20).await.unwrap();
                    let _ = ledger.take(batches).await;
                }
            }
        }
    }
}

struct Voice(Air, NodeId);

impl PeerSender for Voice {
    fn tell(&self, to: NodeId, method: u16, body: Vec<u8>) {
        let Self(air, from) = self;
        let (air, from) = (air.clone(), *from);
        if air.ledger(from).is_none() {
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let Some(ledger) = air.ledger(to) else { return };
            match method {
                method::RAFT => ledger.hear_raft(from, &body),
                method::ENDORSE => ledger.hear_endorsement(from, &body),
                method::BATCHES => {
                    let pushed: Batches = codec::decode(&body, 1 << 22).unwrap();
                    let _ = ledger.take(pushed.batches).await;
                }
                _ => panic!("method {method}"),
            }
        });
    }
}

struct Node {
    machine: Machine,
    key: Arc<dyn NodeKey>,
}

impl Node {
    fn id(&self) -> NodeId {
        self.key.public().node_id()
    }

    async fn start(&self, air: &Air) -> Ledger {
        let host = &self.machine.host;
        let ledger = Ledger::open(host, self.key.clone()).await.unwrap();
        ledger.connect(Arc::new(Voice(air.clone(), self.id())));
        let mut state = air.0.lock().unwrap();
        state.ledgers.insert(self.id(), ledger.clone());
        ledger
    }
}

struct Council {
    air: Air,
    /// Real folders in place of simulated disks, if it is to be measured.
    real: Option<tempfile::TempDir>,
    nodes: Vec<Node>,
    root: Root,
    genesis: SignedGenesis,
    requests: u64,
    world: World,
}

/// The machine, with its files in a real folder if there is one.
fn placed(mut machine: Machine, real: &Option<tempfile::TempDir>) -> Machine {
    if let Some(real) = real {
        let folder = tempfile::tempdir_in(real.path()).unwrap().keep();
        machine.host.disk = Arc::new(SystemDisk::new(folder));
    }
    machine
}

impl Council {
    async fn new(seed: u64) -> Self {
        Self::on(seed, None).await
    }

    async fn on(seed: u64, real: Option<tempfile::TempDir>) -> Self {
        let mut world = World::new(seed);
        let machine = placed(world.machine("one"), &real);
        let options = InitOptions {
            domain: DOMAIN.parse().unwrap(),
            name: "one".parse().unwrap(),
            ipv4: None,
            interface: "im0".into(),
            rules: machine.rules,
        };
        let report = enroll::init(&machine.host, options).await.unwrap();
        let path = state_folder::RECOVERY.as_ref();
        let sealed = machine.host.disk.read(path).await.unwrap().unwrap();
        let sealed = String::from_utf8(sealed).unwrap();
        let root = recovery::open(&sealed, &report.passphrase, &*machine.host.keys).unwrap();
        let key = keys::require_identity(&machine.host).await.unwrap();
        let air = Air::default();
        let founder = Node { machine, key };
        let genesis = founder.start(&air).await.genesis().clone();
        tokio::spawn(air.clone().spread());
        Self {
            air,
            real,
            nodes: vec![founder],
            root,
            genesis,
            requests: 0,
            world,
        }
    }

    fn request(&mut self, by: &dyn Sign, author: Author, content: &Content) -> Sealed {
        self.requests += 1;
        let id = RequestId(u128::from(self.requests).to_le_bytes());
        let mesh = self.air.all()[0].1.state().mesh;
        Request::seal(by, mesh, id, author, START_MS + 900_000, content)
    }

    /// Has it decided by whoever leads, as the client does.
    async fn decide(&self, request: Sealed) -> Outcome {
        for _ in 0..400 {
            for (node, ledger) in self.air.all() {
                if self.air.ledger(node).is_none() {
                    continue;
                }
                let asked = ledger.propose(request.clone());
                match tokio::time::timeout(Duration::from_secs(5), asked).await {
                    Ok(Ok(outcome)) => return outcome,
                    Ok(Err(ProposeError::NotLeader(_) | ProposeError::Full)) | Err(_) => {}
                    Ok(Err(error)) => panic!("{error}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("nobody decides: {:#?}", self.seen());
    }

    async fn claim(&mut self, name: &str) {
        let key = self.nodes[0].key.clone();
        let author = Author::Node(self.nodes[0].id());
        let content = Content::Claim(name.parse().unwrap());
        let request = self.request(&*key, author, &content);
        let outcome = self.decide(request).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{name}: {outcome:?}");
    }

    /// Makes another machine a member, and then a CA node.
    async fn add(&mut self, name: &str) {
        let founder = self.nodes[0].key.clone();
        let inviter = self.nodes[0].id();
        let machine = placed(self.world.machine(name), &self.real);
        let host = machine.host.clone();
        let key = keys::identity_or_new(&host).await.unwrap();
        let mesh = self.air.all()[0].1.state().mesh;
        let token = host.keys.generate_ed25519();
        let grant = Grant {
            mesh,
            token: token.public(),
            inviter,
            roles: BTreeSet::new(),
            names: BTreeSet::from([NamePattern::any()]),
            routes: BTreeSet::new(),
            addresses: BTreeSet::new(),
            uses: 1,
            expires_ms: START_MS + 3_600_000,
            position: Position {
                index: 0,
                hash: self.genesis.position().hash,
            },
        };
        let exporter = [1; 32];
        let possession = Join::possession_message(&mesh, &token.public(), &exporter);
        let join = Join {
            node: key.public(),
            name: name.parse().unwrap(),
            exporter,
            grant: Sealed::new(&*founder, Purpose::Grant, &mesh, &grant),
            possession: key.sign(&possession),
        };
        let author = Author::Token(token.public());
        let content = Content::Join(Box::new(join));
        let request = self.request(&*token, author, &content);
        let outcome = self.decide(request).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");

        let issuer = host.keys.generate_p256();
        keys::store_issuer(&host, &*issuer).await.unwrap();
        let der = self.root.issuer(&issuer.spki(), START_MS, &*host.keys);
        Ledger::create(&host, &self.genesis).await.unwrap();
        let node = Node { machine, key };
        node.start(&self.air).await;
        let promote = Content::Promote(Promote {
            node: node.id(),
            issuers: vec![der.unwrap()],
        });
        let request = self.request(&*founder, Author::Node(inviter), &promote);
        let outcome = self.decide(request).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        self.nodes.push(node);
    }

    async fn until(&self, what: &str, so: impl Fn(&[(NodeId, Ledger)]) -> bool) {
        for _ in 0..3000 {
            let all = self.air.all();
            if so(&all) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:#?}", self.seen());
    }

    fn seen(&self) -> Vec<(NodeId, Position, usize, ledger::RaftStatus)> {
        let all = self.air.all();
        let seen = all.iter().map(|(node, ledger)| {
            let state = ledger.state();
            let council = ledger.raft_status().borrow().clone();
            (*node, state.position, state.roster.len(), council)
        });
        seen.collect()
    }

    async fn roster(&self, size: usize) {
        self.until(&format!("a roster of {size}"), |all| {
            let mut all = all.iter();
            all.all(|(_, ledger)| ledger.state().roster.len() == size)
        })
        .await;
    }

    async fn agree(&self) {
        self.until("all are at one place", |all| {
            let first = all[0].1.state();
            let mut all = all.iter();
            all.all(|(_, ledger)| *ledger.state() == *first)
        })
        .await;
    }

    /// Takes a machine's power away, for a while.
    async fn crash(&mut self, at: usize, long: Duration) {
        let node = self.nodes[at].id();
        self.air.0.lock().unwrap().ledgers.remove(&node);
        self.nodes[at].machine.crash().await;
        tokio::time::sleep(long).await;
        self.nodes[at].start(&self.air).await;
    }

    /// Has a claim decided, or not within a while.
    async fn try_claim(&mut self, name: &str) -> bool {
        let key = self.nodes[0].key.clone();
        let author = Author::Node(self.nodes[0].id());
        let content = Content::Claim(name.parse().unwrap());
        let request = self.request(&*key, author, &content);
        let patience = Duration::from_secs(8);
        let decided = tokio::time::timeout(patience, self.decide(request)).await;
        matches!(decided, Ok(Outcome::Done(_)))
    }

    fn leader(&self) -> Option<NodeId> {
        let all = self.air.all();
        let mut heard = all
            .iter()
            .filter(|(node, _)| self.air.ledger(*node).is_some());
        let leads = |ledger: &Ledger| ledger.raft_status().borrow().leads;
        heard
            .find(|(_, ledger)| leads(ledger))
            .map(|(node, _)| *node)
    }
}

#[tokio::test(start_paused = true)]
async fn a_roster_grows_and_outlives_its_leader() {
    let mut council = Council::new(1).await;
    council.claim("a").await;
    council.add("two").await;
    council.claim("b").await;
    council.add("three").await;
    council.roster(3).await;
    council.claim("c").await;
    council.agree().await;

    let first = council.leader().expect("a leader");
    let at = council.nodes.iter().position(|node| node.id() == first);
    let at = at.expect("one of them");
    council.air.0.lock().unwrap().ledgers.remove(&first);
    council.nodes[at].machine.crash().await;
    let clock = council.nodes[0].machine.clock.clone();
    let begun = clock.now();
    council.claim("d").await;
    let took = clock.now() - begun;
    assert!(took < Duration::from_secs(5), "failover took {took:?}");

    council.nodes[at].start(&council.air).await;
    council.claim("e").await;
    council.agree().await;

    council.add("four").await;
    council.add("five").await;
    council.roster(5).await;
    council.claim("f").await;
    council.agree().await;
    let all = council.air.all();
    let votes = |ledger: &Ledger| ledger.raft_status().borrow().votes;
    assert!(all.iter().all(|(_, ledger)| votes(ledger)));
}

#[tokio::test(start_paused = true)]
async fn leadership_goes_round_and_a_minority_decides_nothing() {
    let mut council = Council::new(2).await;
    council.add("two").await;
    council.add("three").await;
    council.roster(3).await;
    for (_, ledger) in council.air.all() {
        ledger.set_term(Duration::from_secs(30));
    }
    let mut leaders = BTreeSet::new();
    for n in 0..40 {
        council.claim(&format!("n{n}")).await;
        leaders.extend(council.leader());
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(leaders.len(), 3, "{leaders:?}");
    council.agree().await;

    let others = council.nodes.iter().skip(1).map(Node::id);
    let others: Vec<NodeId> = others.collect();
    council.air.0.lock().unwrap().silent.extend(&others);
    let key = council.nodes[0].key.clone();
    let author = Author::Node(council.nodes[0].id());
    let content = Content::Claim("alone".parse().unwrap());
    let request = council.request(&*key, author, &content);
    let ledger = council.air.ledger(council.nodes[0].id()).unwrap();
    for _ in 0..10 {
        let asked = ledger.propose(request.clone());
        let answer = tokio::time::timeout(Duration::from_secs(5), asked).await;
        assert!(!matches!(answer, Ok(Ok(_))), "{answer:?}");
    }
    council.air.0.lock().unwrap().silent.clear();
    let outcome = council.decide(request).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    council.agree().await;
}

/// A claim by the member at a place.
fn claim_by(council: &mut Council, at: usize, name: &str) -> Sealed {
    let key = council.nodes[at].key.clone();
    let author = Author::Node(council.nodes[at].id());
    council.request(&*key, author, &Content::Claim(name.parse().unwrap()))
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_answered_and_written_nowhere_in_the_ledger() {
    let mut council = Council::new(8).await;
    council.claim("taken").await;
    for size in [1, 3] {
        if size == 3 {
            council.add("two").await;
            council.add("three").await;
            council.roster(3).await;
        }
        let founder = council.nodes[0].id();
        let before = council.air.all()[0].1.state().position;
        for n in 0..20 {
            let key = council.nodes[0].key.clone();
            let share = Content::Release(format!("unknown{n}").parse().unwrap());
            let request = council.request(&*key, Author::Node(founder), &share);
            let outcome = council.decide(request).await;
            assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        }
        assert_eq!(council.air.all()[0].1.state().position, before);
    }
    // One beside what is written waits for that.
    let leader = council.leader().expect("a leader");
    let leader = council.air.ledger(leader).unwrap();
    let (good, bad) = (
        claim_by(&mut council, 0, "good"),
        claim_by(&mut council, 1, "taken"),
    );
    let (good, bad) = tokio::join!(leader.propose(good), leader.propose(bad));
    assert!(matches!(good, Ok(Outcome::Done(_))), "{good:?}");
    assert!(matches!(bad, Ok(Outcome::Refused(_))), "{bad:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_refuses_nothing() {
    let mut council = Council::new(10).await;
    council.add("two").await;
    council.add("three").await;
    council.roster(3).await;
    council.claim("taken").await;
    council.agree().await;
    let deposed = council.leader().expect("a leader");
    let ledger = council.air.ledger(deposed).unwrap();
    let request = claim_by(&mut council, 1, "taken");
    let refused = ledger.propose(request.clone()).await;
    assert!(matches!(refused, Ok(Outcome::Refused(_))), "{refused:?}");

    council.air.0.lock().unwrap().silent.insert(deposed);
    // It still leads, as far as it knows, and would refuse it again.
    assert!(ledger.raft_status().borrow().leads);
    let asked = ledger.propose(request.clone());
    let key = council.nodes[0].key.clone();
    let release = Content::Release("taken".parse().unwrap());
    let release = council.request(&*key, Author::Node(council.nodes[0].id()), &release);
    let (asked, outcome) = tokio::join!(asked, council.decide(release));
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    assert!(
        matches!(asked, Err(ProposeError::NotLeader(_))),
        "{asked:?}"
    );
    let outcome = council.decide(request).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    council.air.0.lock().unwrap().silent.clear();
    council.agree().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_member_that_does_not_vote_says_of_the_voters_log_is_not_read() {
    let mut council = Council::new(14).await;
    council.add("two").await;
    council.add("three").await;
    council.roster(3).await;
    council.claim("before").await;
    let leader = council.leader().expect("a leader");
    let ledger = council.air.ledger(leader).unwrap();
    let stranger = NodeId([9; 16]);
    let message = Message {
        from: 77,
        to: 1,
        term: 5,
        body: Body::TimeoutNow,
    };
    let endorse = Endorse {
        index: 1,
        header: Hash::of(b"nobody's"),
        signature: Signature::from_bytes(&[0; 64]),
        wanting: true,
    };
    let (message, endorse) = (message.encode(), codec::encode(&endorse));
    let request = claim_by(&mut council, 0, "meanwhile");
    // More at once than may wait for the writer.
    for _ in 0..5000 {
        ledger.hear_raft(stranger, &message);
        ledger.hear_endorsement(stranger, &endorse);
    }
    let outcome = ledger.propose(request).await;
    assert!(matches!(outcome, Ok(Outcome::Done(_))), "{outcome:?}");
}

/// Has so many claims by the member at a place decided one after the other, as
/// far as its budget goes; gives how many were, and how long to wait then.
async fn claim_all(council: &mut Council, at: usize, most: usize) -> (usize, Duration) {
    for n in 0..most {
        let request = claim_by(council, at, &format!("of{at}-{n}"));
        let leader = council.leader().expect("a leader");
        let by = Some(council.nodes[at].id());
        let leader = council.air.ledger(leader).unwrap();
        match leader.propose_by(by, request, false).await {
            Ok(Outcome::Done(_) | Outcome::Refused(Refusal::TooManyNames)) => {}
            Err(ProposeError::Spent(wait)) => return (n, wait),
            other => panic!("{other:?}"),
        }
    }
    panic!("{most} claims passed");
}

#[tokio::test(start_paused = true)]
async fn an_author_without_end_is_told_to_wait_and_nobody_else_is() {
    let mut council = Council::new(11).await;
    council.add("two").await;
    let (passed, wait) = claim_all(&mut council, 1, 1000).await;
    assert!(passed > 100, "{passed}");
    let (founder, mad) = (council.nodes[0].id(), council.nodes[1].id());
    let ledger = council.air.ledger(founder).unwrap();
    let spenders = ledger.spenders().await;
    assert!(spenders.leads);
    let nodes: Vec<NodeId> = spenders.nodes.iter().map(|(node, _)| *node).collect();
    assert_eq!(nodes, [mad]);

    council.claim("other").await;
    // What takes something away has a budget of its own.
    let key = council.nodes[1].key.clone();
    let release = Content::Release("of1-0".parse().unwrap());
    let release = council.request(&*key, Author::Node(mad), &release);
    let outcome = council.decide(release).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    // Who waits as it is told is taken again.
    tokio::time::sleep(wait).await;
    let claim = claim_by(&mut council, 1, "of1-0");
    let outcome = ledger.propose(claim).await;
    assert!(matches!(outcome, Ok(Outcome::Done(_))), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_spends_another_s_budget() {
    let mut council = Council::new(12).await;
    council.add("two").await;
    let (founder, mad) = (council.nodes[0].id(), council.nodes[1].id());
    let ledger = council.air.ledger(founder).unwrap();
    let key = council.nodes[1].key.clone();
    for n in 0..1000 {
        let claim = Content::Claim(format!("forged{n}").parse().unwrap());
        let request = council.request(&*key, Author::Node(founder), &claim);
        let outcome = ledger.propose_by(Some(mad), request, n % 2 == 0).await;
        assert_eq!(outcome, Ok(Outcome::Refused(Refusal::Signature)));
    }
    assert_eq!(ledger.spenders().await.nodes, []);
    for n in 0..100 {
        council.claim(&format!("n{n}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_stays_through_crashes_torn_writes_and_silence() {
    for seed in 10..22 {
        let mut random = Random::new(seed);
        let mut council = Council::new(seed).await;
        council.add("two").await;
        council.add("three").await;
        council.roster(3).await;
        let mut kept = Vec::new();
        for round in 0..25 {
            let at = random.below(3) as usize;
            let node = council.nodes[at].id();
            let pause = Duration::from_millis(random.below(4000));
            match random.below(5) {
                0 => council.crash(at, pause).await,
                1 => {
                    // In the middle of whatever it writes next.
                    let writes = 1 + random.below(6);
                    council.nodes[at].machine.disk.stop_after(writes);
                    let name = format!("torn-{round}");
                    if council.try_claim(&name).await {
                        kept.push(name);
                    }
                    council.crash(at, pause).await;
                }
                2 => {
                    council.air.0.lock().unwrap().silent.insert(node);
                }
                3 => council.air.0.lock().unwrap().silent.clear(),
                _ => {}
            }
            let name = format!("n-{round}");
            if council.try_claim(&name).await {
                kept.push(name);
            }
        }
        council.air.0.lock().unwrap().silent.clear();
        council.claim("last").await;
        council.agree().await;
        assert!(kept.len() > 5, "seed {seed}: {kept:?}");
        let state = council.air.all()[0].1.state();
        for name in kept {
            let label = name.parse().unwrap();
            assert!(state.names.contains_key(&label), "seed {seed}: {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_clock_is_far_ahead_leaves_it_to_others() {
    let mut council = Council::new(3).await;
    council.add("two").await;
    council.add("three").await;
    council.roster(3).await;
    council.claim("before").await;
    let leader = council.leader().expect("a leader");
    let ahead = council.nodes.iter().find(|node| node.id() == leader);
    ahead.unwrap().machine.clock.jump(5 * 60 * 1000);
    council.claim("after").await;
    council.agree().await;
    assert_ne!(council.leader(), Some(leader));
    let state = council.air.all()[0].1.state();
    assert!(
        state.stamp_ms < START_MS + 600_000,
        "ledger time went along"
    );
}

#[tokio::test(start_paused = true)]
async fn a_voter_with_a_damaged_or_lost_log_does_not_vote() {
    for lost in [false, true] {
        let mut council = Council::new(4).await;
        council.add("two").await;
        council.add("three").await;
        council.roster(3).await;
        council.claim("a").await;
        council.agree().await;
        let node = council.nodes[2].id();
        council.air.0.lock().unwrap().ledgers.remove(&node);
        council.nodes[2].machine.crash().await;
        let disk = &council.nodes[2].machine.disk;
        if lost {
            disk.remove("raft.log".as_ref()).await.unwrap()
        } else {
            disk.flip("raft.log", 30)
        }
        let ledger = council.nodes[2].start(&council.air).await;
        council.claim("b").await;
        council.agree().await;
        let told = ledger.raft_status().borrow().clone();
        assert!(!told.votes, "{told:?}");
        let why = told.disabled.expect("a reason").to_string();
        assert!(why.contains("promote"), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_voter_whose_state_is_older_than_what_it_did_does_not_vote() {
    let mut council = Council::new(5).await;
    let alone = council.air.ledger(council.nodes[0].id()).unwrap();
    alone.roll_back().await;
    council.claim("alone").await;
    council.add("two").await;
    council.add("three").await;
    council.roster(3).await;
    council.claim("a").await;
    let leader = council.leader().expect("a leader");
    council.air.ledger(leader).unwrap().roll_back().await;
    council.claim("b").await;
    council.agree().await;
    assert_ne!(council.leader(), Some(leader));
    let at = council.nodes.iter().position(|node| node.id() == leader);
    let at = at.unwrap();
    for name in ["c", "d"] {
        council.claim(name).await;
        council.agree().await;
        let ledger = council.air.ledger(leader).unwrap();
        let told = ledger.raft_status().borrow().clone();
        assert!(!told.votes && told.disabled.is_some(), "{name}: {told:?}");
        // A restart doesn't make it know more.
        council.air.0.lock().unwrap().ledgers.remove(&leader);
        council.nodes[at].machine.crash().await;
        council.nodes[at].start(&council.air).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_nearly_full_has_room_for_what_takes_something_away() {
    let mut council = Council::new(6).await;
    council.claim("kept").await;
    council.nodes[0].machine.disk.set_free(Some(1 << 20));
    // It looks now and then.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let key = council.nodes[0].key.clone();
    let author = Author::Node(council.nodes[0].id());
    let ledger = council.air.ledger(council.nodes[0].id()).unwrap();
    let claim = Content::Claim("more".parse().unwrap());
    let claim = council.request(&*key, author, &claim);
    let refused = ledger.propose(claim.clone()).await;
    assert_eq!(refused, Err(ProposeError::Full));
    let release = Content::Release("kept".parse().unwrap());
    let release = council.request(&*key, author, &release);
    let outcome = ledger.propose(release).await;
    assert!(matches!(outcome, Ok(Outcome::Done(_))), "{outcome:?}");
    council.nodes[0].machine.disk.set_free(None);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let outcome = ledger.propose(claim).await;
    assert!(matches!(outcome, Ok(Outcome::Done(_))), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_disk_is_nearly_full_hands_over_to_one_that_has_room() {
    let mut council = Council::new(7).await;
    council.add("two").await;
    council.add("three").await;
    council.roster(3).await;
    council.claim("before").await;
    let leader = council.leader().expect("a leader");
    let tight = council.nodes.iter().find(|node| node.id() == leader);
    tight.unwrap().machine.disk.set_free(Some(1 << 20));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_ne!(council.leader(), Some(leader));
    council.claim("after").await;
    // Where nobody has room somebody leads all the same.
    for node in &council.nodes {
        node.machine.disk.set_free(Some(1 << 20));
    }
    tokio::time::sleep(Duration::from_secs(200)).await;
    let key = council.nodes[0].key.clone();
    let author = Author::Node(council.nodes[0].id());
    let release = Content::Release("before".parse().unwrap());
    let release = council.request(&*key, author, &release);
    let outcome = council.decide(release).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

/// How long a claim takes on real files: `cargo test -p simulations --release
/// --test ledger -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn a_commit_takes_so_long() {
    let folder = tempfile::tempdir_in(std::env::var("MEASURE_DIR").unwrap_or("/var/tmp".into()));
    let mut council = Council::on(5, Some(folder.unwrap())).await;
    for size in [1, 3] {
        if size == 3 {
            council.add("two").await;
            council.add("three").await;
            council.roster(3).await;
        }
        let mut times = Vec::new();
        for n in 0..100 {
            let clock = council.nodes[0].machine.clock.clone();
            let begun = clock.now();
            council.claim(&format!("m-{size}-{n}")).await;
            times.push(clock.now() - begun);
        }
        times.sort();
        println!(
            "roster of {size}: median {:?}, ninetieth percentile {:?}",
            times[50], times[90]
        );
    }
}
