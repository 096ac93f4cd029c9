//! A roster that is lost, and what the root puts in its place: whoever held
//! more goes back, keeps out whom that had evicted, and forgets nothing of it
//! by a crash; nobody but the root can bring that about.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use innermesh_agent::{
    ca::{Root, recovery},
    enroll::{self, InitOptions, init::RECOVERY, keys},
    host::{Disk, keys::NodeKey},
    ledger::{Ledger, TakeError},
};
use innermesh_proto::{
    codec,
    crypto::{Purpose, Sealed, Sign},
    id::NodeId,
    ledger::{
        Author, Batch, BatchError, Content, Grant, Outcome, Recovery, Request, RequestId,
        SignedRecovery,
        request::{Evict, Join},
    },
    name::NamePattern,
};
use simulations::{Machine, World, mesh::DOMAIN, world::START_MS};

struct Node {
    machine: Machine,
    key: Arc<dyn NodeKey>,
    ledger: Ledger,
}

impl Node {
    fn id(&self) -> NodeId {
        self.key.public().node_id()
    }

    /// All batches that it holds.
    async fn batches(&self) -> Vec<Batch> {
        self.ledger.range(1, 1 << 22).await.unwrap()
    }

    async fn restart(&mut self) {
        self.machine.crash().await;
        self.ledger = Ledger::open(&self.machine.host, self.key.clone())
            .await
            .unwrap();
    }
}

/// A founder that decides alone, a survivor, one that follows, and one that is
/// to be evicted.
struct Mesh {
    root: Root,
    founder: Node,
    others: Vec<Node>,
    requests: u8,
}

impl Mesh {
    async fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let machine = world.machine("one");
        let options = InitOptions {
            domain: DOMAIN.parse().unwrap(),
            name: "one".parse().unwrap(),
            ipv4: None,
            interface: "im0".into(),
        };
        let report = enroll::init(&machine.host, options).await.unwrap();
        let sealed = machine.disk.read(RECOVERY.as_ref()).await.unwrap().unwrap();
        let sealed = String::from_utf8(sealed).unwrap();
        let root = recovery::open(&sealed, &report.passphrase, &*machine.host.keys).unwrap();
        let key = keys::require_identity(&machine.host).await.unwrap();
        let ledger = Ledger::open(&machine.host, key.clone()).await.unwrap();
        let mut mesh = Self {
            root,
            founder: Node {
                machine,
                key,
                ledger,
            },
            others: Vec::new(),
            requests: 0,
        };
        for name in ["two", "three", "four"] {
            let machine = world.machine(name);
            let host = machine.host.clone();
            let key = keys::identity_or_new(&host).await.unwrap();
            mesh.join(name, &*key).await;
            let genesis = mesh.founder.ledger.genesis().clone();
            Ledger::create(&host, &genesis).await.unwrap();
            let ledger = Ledger::open(&host, key.clone()).await.unwrap();
            mesh.others.push(Node {
                machine,
                key,
                ledger,
            });
        }
        mesh
    }

    async fn decide(&mut self, by: &dyn Sign, author: Author, content: &Content) -> Outcome {
        self.requests += 1;
        let ledger = &self.founder.ledger;
        let id = RequestId([self.requests; 16]);
        let mesh = ledger.state().mesh;
        let request = Request::seal(by, mesh, id, author, START_MS + 500_000, content);
        ledger.propose(request).await.unwrap()
    }

    async fn ask(&mut self, content: Content) {
        let key = self.founder.key.clone();
        let author = Author::Node(self.founder.id());
        let outcome = self.decide(&*key, author, &content).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    async fn join(&mut self, name: &str, key: &dyn NodeKey) {
        let host = &self.founder.machine.host;
        let state = self.founder.ledger.state();
        let token = host.keys.generate_ed25519();
        let grant = Grant {
            mesh: state.mesh,
            token: token.public(),
            inviter: self.founder.id(),
            roles: BTreeSet::new(),
            names: BTreeSet::from([NamePattern::any()]),
            routes: BTreeSet::new(),
            uses: 1,
            expires_ms: START_MS + 3_600_000,
            position: state.position,
        };
        let exporter = [1; 32];
        let possession = Join::possession_message(&state.mesh, &token.public(), &exporter);
        let join = Join {
            node: key.public(),
            name: name.parse().unwrap(),
            exporter,
            grant: Sealed::new(&*self.founder.key, Purpose::Grant, &state.mesh, &grant),
            possession: key.sign(&possession),
        };
        let author = Author::Token(token.public());
        let content = Content::Join(Box::new(join));
        let outcome = self.decide(&*token, author, &content).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    /// Gives all that the founder decided to these.
    async fn spread(&self, to: &[usize]) {
        let batches = self.founder.batches().await;
        for node in to {
            let ledger = &self.others[*node].ledger;
            ledger.take(batches.clone()).await.unwrap();
        }
    }

    /// What `root` signs so that this node goes on alone.
    async fn signed(&self, node: usize, number: u32, root: &Root) -> SignedRecovery {
        let node = &self.others[node];
        let state = node.ledger.state();
        let keys = node.ledger.issuer_keys().await.unwrap();
        let issuer = |spki: &Vec<u8>| {
            let keys = &*node.machine.host.keys;
            (node.id(), root.issuer(spki, START_MS, keys).unwrap())
        };
        let recovery = Recovery {
            mesh: state.mesh,
            number,
            position: state.position,
            roster: [node.key.public()].into(),
            issuers: match state.can_issue(node.id()) {
                true => Vec::new(),
                false => keys.offered.iter().take(1).map(issuer).collect(),
            },
        };
        let bytes = codec::encode(&recovery);
        let message = Purpose::Recovery.message(&state.mesh, &bytes);
        let signature = root.sign(&message).unwrap();
        SignedRecovery { bytes, signature }
    }

    fn evict_four(&self) -> Content {
        Content::Evict(Evict {
            node: self.others[2].id(),
            hold: None,
            root: None,
        })
    }

    /// The survivor is behind what the other follower holds: a name, and that
    /// four was evicted. Both know of the recovery's batch then.
    async fn lose(&mut self) -> Batch {
        self.spread(&[0, 1]).await;
        self.ask(Content::Claim("photos".parse().unwrap())).await;
        self.ask(self.evict_four()).await;
        self.spread(&[1]).await;
        let signed = self.signed(0, 1, &self.root).await;
        let survivor = &self.others[0].ledger;
        survivor.recover(signed).await.unwrap();
        survivor.recoveries_from(0).await.unwrap().remove(0)
    }
}

#[tokio::test(start_paused = true)]
async fn who_held_more_goes_back_and_keeps_out_whom_that_evicted() {
    let mut mesh = Mesh::new(1).await;
    let batch = mesh.lose().await;
    let (four, roster) = (mesh.others[2].id(), BTreeSet::from([mesh.others[0].id()]));
    let follower = &mut mesh.others[1];
    let before = follower.ledger.state().position.index;
    follower.ledger.take(vec![batch.clone()]).await.unwrap();
    for _ in 0..2 {
        let state = follower.ledger.state();
        assert_eq!((state.recovery, &state.roster), (1, &roster));
        assert!(state.position.index < before);
        assert!(state.members.contains_key(&four) && state.names.len() == 4);
        assert_eq!(follower.ledger.kept_out(), [four].into());
        let lost = follower.ledger.lost();
        assert_eq!((lost[0].to, lost[0].entries), (before, 2));
        let copy = follower.machine.disk.read(lost[0].copy().as_ref()).await;
        let copy = innermesh_agent::ledger::file::parse(copy.unwrap().unwrap()).unwrap();
        assert_eq!(copy.batches.len() as u64, before);
        follower.restart().await;
    }
    // Once more, and nothing happens.
    follower.ledger.take(vec![batch]).await.unwrap();
    assert_eq!(follower.ledger.lost().len(), 1);

    // The new roster goes on, and may decide about four again.
    let survivor = &mesh.others[0];
    let request = Request::seal(
        &*mesh.founder.key,
        survivor.ledger.state().mesh,
        RequestId([99; 16]),
        Author::Node(mesh.founder.id()),
        START_MS + 500_000,
        &mesh.evict_four(),
    );
    let outcome = survivor.ledger.propose(request).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    let batches = survivor.batches().await;
    mesh.others[1].ledger.take(batches).await.unwrap();
    assert_eq!(
        *mesh.others[1].ledger.state(),
        *mesh.others[0].ledger.state()
    );
    assert!(mesh.others[1].ledger.kept_out().is_empty());
    // And one that was in the lost roster.
    let batches = mesh.others[0].batches().await;
    let recovery = batches.iter().position(|batch| {
        let header = batch.read_header().unwrap();
        header.recovery.is_some()
    });
    let from = recovery.unwrap();
    mesh.founder
        .ledger
        .take(batches[from..].to_vec())
        .await
        .unwrap();
    assert_eq!(*mesh.founder.ledger.state(), *mesh.others[0].ledger.state());
    let told = mesh.founder.ledger.council().borrow().clone();
    assert!(!told.votes && !told.leads, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn only_the_root_can_take_a_ledger_back() {
    let mut mesh = Mesh::new(2).await;
    let batch = mesh.lose().await;
    let before = mesh.others[1].ledger.state();
    let survivor = mesh.others[0].ledger.state();

    // Signed by somebody else's root, or for a place that isn't here.
    let foreign = Mesh::new(3).await.root;
    let mut header = batch.read_header().unwrap();
    let signed = header.recovery.clone().unwrap();
    let mut recovery: Recovery = codec::decode(&signed.bytes, 8192).unwrap();
    let mut forged = Vec::new();
    for (number, hash) in [(7, recovery.position.hash), (8, survivor.position.hash)] {
        (recovery.number, recovery.position.hash) = (number, hash);
        let bytes = codec::encode(&recovery);
        let message = Purpose::Recovery.message(&survivor.mesh, &bytes);
        let root = if number == 7 { &foreign } else { &mesh.root };
        let signature = root.sign(&message).unwrap();
        header.recovery = Some(SignedRecovery { bytes, signature });
        let mut other = Batch::unproved(&header, Vec::new());
        let (node, signature) = other.endorse(&survivor.mesh, &*mesh.others[0].key);
        other.proof.insert(node, signature);
        forged.push(other);
    }
    // By the root, and nobody of the new roster signed it.
    let mut unproved = batch.clone();
    unproved.proof.clear();
    forged.push(unproved);
    for batch in forged {
        let refused = mesh.others[1].ledger.take(vec![batch]).await;
        assert!(matches!(refused, Err(TakeError::Batch(_))), "{refused:?}");
        assert_eq!(*mesh.others[1].ledger.state(), *before);
    }
    assert!(mesh.others[1].ledger.lost().is_empty());
    // Nor does the survivor take what isn't for it.
    let signed = mesh.signed(1, 2, &mesh.root).await;
    let refused = mesh.others[0].ledger.recover(signed).await;
    assert_eq!(refused, Err(TakeError::Batch(BatchError::Recovery)));
}

#[tokio::test(start_paused = true)]
async fn the_highest_recovery_wins_and_two_of_one_number_are_told() {
    let mut mesh = Mesh::new(4).await;
    let first = mesh.lose().await;
    // Somebody recovers on the other machine too, from further on.
    let signed = mesh.signed(1, 1, &mesh.root).await;
    mesh.others[1].ledger.recover(signed).await.unwrap();
    let refused = mesh.others[1].ledger.take(vec![first.clone()]).await;
    let index = first.position().unwrap().index;
    assert_eq!(refused, Err(TakeError::Batch(BatchError::Fork(index))));
    // Again where it is to go on, with a higher number.
    let signed = mesh.signed(0, 2, &mesh.root).await;
    mesh.others[0].ledger.recover(signed).await.unwrap();
    let led = mesh.others[0].ledger.recoveries_from(1).await.unwrap();
    assert_eq!(led.len(), 2);
    mesh.others[1].ledger.take(led).await.unwrap();
    assert_eq!(
        *mesh.others[1].ledger.state(),
        *mesh.others[0].ledger.state()
    );
    assert_eq!(mesh.others[1].ledger.state().recovery, 2);
    // What is over by then leads nobody back.
    let other = mesh.others[0].ledger.state();
    let _ = mesh.others[0].ledger.take(vec![first]).await;
    assert_eq!(*mesh.others[0].ledger.state(), *other);
}

#[tokio::test(start_paused = true)]
async fn a_crash_on_the_way_back_loses_nothing_of_it() {
    let mut crashes = 0;
    for writes in 0..12 {
        let mut mesh = Mesh::new(5).await;
        let batch = mesh.lose().await;
        let four = mesh.others[2].id();
        let wanted = mesh.others[0].ledger.state();
        let follower = &mut mesh.others[1];
        follower.machine.disk.stop_after(writes);
        let taken = follower.ledger.take(vec![batch.clone()]);
        let taken = tokio::time::timeout(Duration::from_secs(5), taken).await;
        crashes += usize::from(taken.is_err());
        follower.machine.disk.stop_never();
        follower.restart().await;
        follower.ledger.take(vec![batch]).await.unwrap();
        assert_eq!(*follower.ledger.state(), *wanted, "after {writes} writes");
        assert_eq!(follower.ledger.kept_out(), [four].into(), "{writes}");
    }
    assert!(crashes > 3, "{crashes}");
}
