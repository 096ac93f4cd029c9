//! Ledgers without agents: a founder that decides alone, and others that are
//! given what it decided.

#![allow(dead_code, reason = "each test uses some of it")]

use std::{collections::BTreeSet, sync::Arc};

use innermesh_agent::{
    ca::{Root, recovery},
    enroll::{self, InitOptions},
    host::{Disk, key_files as keys, keys::NodeKey, state_folder::RECOVERY},
    ledger::{Ledger, ProposeError},
};
use innermesh_proto::{
    codec,
    crypto::{Purpose, Sealed, Sign},
    id::NodeId,
    ledger::{
        Author, Batch, Content, Grant, Outcome, Recovery, Request, RequestId, SignedRecovery,
        request::{Evict, Join},
    },
    name::NamePattern,
};
use simulations::{Machine, World, mesh::DOMAIN, world::START_MS};

pub struct Node {
    pub machine: Machine,
    pub key: Arc<dyn NodeKey>,
    pub ledger: Ledger,
}

impl Node {
    pub fn id(&self) -> NodeId {
        self.key.public().node_id()
    }

    /// All batches that it holds.
    pub async fn batches(&self) -> Vec<Batch> {
        self.ledger.range(1, 1 << 22).await.unwrap()
    }

    pub async fn restart(&mut self) {
        self.machine.crash().await;
        self.ledger = Ledger::open(&self.machine.host, self.key.clone())
            .await
            .unwrap();
    }
}

/// A founder that decides alone, a survivor, one that follows, and one that is
/// to be evicted.
pub struct Mesh {
    pub root: Root,
    pub founder: Node,
    pub others: Vec<Node>,
    pub requests: u32,
}

impl Mesh {
    pub async fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let machine = world.machine("one");
        let options = InitOptions {
            domain: DOMAIN.parse().unwrap(),
            name: "one".parse().unwrap(),
            ipv4: None,
            interface: "im0".into(),
            rules: machine.rules,
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

    pub async fn decide(&mut self, by: &dyn Sign, author: Author, content: &Content) -> Outcome {
        loop {
            let request = self.sealed(by, author, content);
            match self.founder.ledger.propose(request).await {
                // No faster than one author may.
                Err(ProposeError::Spent(wait)) => tokio::time::sleep(wait).await,
                decided => return decided.unwrap(),
            }
        }
    }

    /// A request of the founder's that nobody was asked yet.
    pub fn request(&mut self, content: &Content) -> Sealed {
        let key = self.founder.key.clone();
        self.sealed(&*key, Author::Node(self.founder.id()), content)
    }

    fn sealed(&mut self, by: &dyn Sign, author: Author, content: &Content) -> Sealed {
        self.requests += 1;
        let id = RequestId(u128::from(self.requests).to_le_bytes());
        let mesh = self.founder.ledger.state().mesh;
        let now_ms = self.founder.machine.host.clock.wall_ms();
        Request::seal(by, mesh, id, author, now_ms + 500_000, content)
    }

    pub async fn ask(&mut self, content: Content) {
        let key = self.founder.key.clone();
        let author = Author::Node(self.founder.id());
        let outcome = self.decide(&*key, author, &content).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    pub async fn join(&mut self, name: &str, key: &dyn NodeKey) {
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
            addresses: BTreeSet::new(),
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
    pub async fn spread(&self, to: &[usize]) {
        let batches = self.founder.batches().await;
        for node in to {
            let ledger = &self.others[*node].ledger;
            ledger.take(batches.clone()).await.unwrap();
        }
    }

    /// What `root` signs so that this node goes on alone.
    pub async fn signed(&self, node: usize, number: u32, root: &Root) -> SignedRecovery {
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
            issuers: if state.can_issue(node.id()) {
                Vec::new()
            } else {
                keys.offered.iter().take(1).map(issuer).collect()
            },
        };
        let bytes = codec::encode(&recovery);
        let message = Purpose::Recovery.message(&state.mesh, &bytes);
        let signature = root.sign(&message).unwrap();
        SignedRecovery { bytes, signature }
    }

    /// Has a node that decides alone give the founder a name.
    pub async fn claim_at(&mut self, node: usize, name: &str) {
        self.requests += 1;
        let ledger = &self.others[node].ledger;
        let request = Request::seal(
            &*self.founder.key,
            ledger.state().mesh,
            RequestId(u128::from(self.requests).to_le_bytes()),
            Author::Node(self.founder.id()),
            START_MS + 500_000,
            &Content::Claim(name.parse().unwrap()),
        );
        let outcome = ledger.propose(request).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    pub fn evict_four(&self) -> Content {
        Content::Evict(Evict {
            node: self.others[2].id(),
            hold: None,
            root: None,
        })
    }

    /// The survivor is behind what the other follower holds: a name, and that
    /// four was evicted. Both know of the recovery's batch then.
    pub async fn lose(&mut self) -> Batch {
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
