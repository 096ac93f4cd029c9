//! Makes a large ledger, to see what one costs: `grow STATE_FOLDER MEMBERS
//! ENTRIES DAYS`, then `agent --dir … run` in the folder above. All of it is
//! real, as it would have come about over so many days until now: members join
//! by tokens, claim and release names, get certificates and renew.

#![allow(
    clippy::disallowed_methods,
    reason = "a program of its own, on the real clock"
)]

use std::{
    collections::BTreeSet,
    env,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::future::join_all;
use innermesh_agent::{
    enroll::{self, InitOptions},
    host::{
        Clock, Host, Mono, key_files as keys,
        keys::{Keys, NodeKey, SystemKeys},
        system,
    },
    ledger::Ledger,
};
use innermesh_proto::{
    crypto::{Purpose, Sealed, Sign},
    id::MeshId,
    ledger::{
        Author, Content, Grant, Outcome, RULES, Request, RequestId,
        request::{Certify, Join},
    },
    name::NamePattern,
};

/// Requests under way at the same time: in practice most batches have one.
const TOGETHER: usize = 4;
/// Names that each member keeps.
const EACH: usize = 5;

/// The system's clock, that many milliseconds late.
struct Earlier {
    system: Arc<dyn Clock>,
    by_ms: Arc<AtomicU64>,
}

#[async_trait]
impl Clock for Earlier {
    fn now(&self) -> Mono {
        self.system.now()
    }

    fn wall_ms(&self) -> u64 {
        self.system.wall_ms() - self.by_ms.load(Ordering::Relaxed)
    }

    async fn sleep(&self, duration: Duration) {
        self.system.sleep(duration).await;
    }
}

struct Grow {
    host: Host,
    ledger: Ledger,
    mesh: MeshId,
    founder: Arc<dyn NodeKey>,
}

struct Member {
    key: Arc<dyn NodeKey>,
    spki: Vec<u8>,
    number: usize,
}

impl Grow {
    async fn ask(&self, by: &dyn Sign, author: Author, content: &Content) {
        let mut id = [0; 16];
        SystemKeys.random(&mut id);
        let expires_ms = self.host.clock.wall_ms() + 9 * 60_000;
        let request = Request::seal(by, self.mesh, RequestId(id), author, expires_ms, content);
        let outcome = self.ledger.propose(request).await.expect("decided");
        assert!(
            matches!(outcome, Outcome::Done(_)),
            "{content:?}: {outcome:?}"
        );
    }

    async fn join(&self, number: usize) -> Member {
        let key = SystemKeys.generate_ed25519();
        let token = SystemKeys.generate_ed25519();
        let grant = Grant {
            mesh: self.mesh,
            token: token.public(),
            inviter: self.founder.public().node_id(),
            roles: BTreeSet::new(),
            names: BTreeSet::from([NamePattern::any()]),
            routes: BTreeSet::new(),
            addresses: BTreeSet::new(),
            uses: 1,
            expires_ms: self.host.clock.wall_ms() + 3_600_000,
            position: self.ledger.state().position,
        };
        let exporter = [1; 32];
        let message = Join::possession_message(&self.mesh, &token.public(), &exporter);
        let join = Join {
            node: key.public(),
            name: format!("m{number}").parse().expect("a name"),
            exporter,
            grant: Sealed::new(&*self.founder, Purpose::Grant, &self.mesh, &grant),
            possession: key.sign(&message),
        };
        let author = Author::Token(token.public());
        self.ask(&*token, author, &Content::Join(Box::new(join)))
            .await;
        Member {
            key,
            spki: SystemKeys.generate_p256().spki(),
            number,
        }
    }

    /// What a member asks for in its round `round`.
    async fn round(&self, member: &Member, round: usize) {
        let name = |n: usize| format!("s{}-{n}", member.number);
        let label = |n: usize| name(n).parse().expect("a name");
        let domain = &self.ledger.state().domain;
        let content = match round {
            _ if round < EACH => Content::Claim(label(round)),
            _ => match round % 4 {
                0 => Content::Renew,
                1 => Content::Claim(label(EACH)),
                2 => Content::Certify(Certify {
                    spki: member.spki.clone(),
                    names: [format!("{}.{domain}", name(round % EACH))].into(),
                    days: 90,
                }),
                _ if self.ledger.state().names.contains_key(&label(EACH)) => {
                    Content::Release(label(EACH))
                }
                _ => Content::Renew,
            },
        };
        let author = Author::Node(member.key.public().node_id());
        self.ask(&*member.key, author, &content).await;
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().collect();
    let [_, folder, members, entries, days] = &arguments[..] else {
        eprintln!("usage: grow STATE_FOLDER MEMBERS ENTRIES DAYS");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let (members, entries, days) = (number(members), number(entries), number(days));
    let mut private = std::fs::DirBuilder::new();
    private.mode(0o700).create(folder).expect("a new folder");
    let mut host = system::host(PathBuf::from(folder));
    let late_ms = days as u64 * 86_400_000;
    let by_ms = Arc::new(AtomicU64::new(late_ms));
    host.clock = Arc::new(Earlier {
        system: host.clock.clone(),
        by_ms: by_ms.clone(),
    });
    let options = InitOptions {
        domain: "lab.internal".parse().expect("a domain"),
        name: "one".parse().expect("a name"),
        ipv4: None,
        interface: "im0".into(),
        rules: RULES,
    };
    enroll::init(&host, options).await.expect("a new mesh");
    let founder = keys::require_identity(&host).await.expect("a node's key");
    let ledger = Ledger::open(&host, founder.clone())
        .await
        .expect("a ledger");
    let grow = Grow {
        mesh: ledger.state().mesh,
        host,
        ledger,
        founder,
    };
    let begun = Instant::now();
    let mut asked = 0;
    let mut pass = |count: usize| {
        asked += count;
        let left = entries.saturating_sub(asked) as u64;
        by_ms.store(late_ms * left / entries as u64, Ordering::Relaxed);
    };
    let mut all = Vec::new();
    let numbers: Vec<usize> = (0..members).collect();
    for some in numbers.chunks(TOGETHER) {
        all.extend(join_all(some.iter().map(|number| grow.join(*number))).await);
        pass(some.len());
    }
    for round in 0..(entries / members).saturating_sub(1) {
        for some in all.chunks(TOGETHER) {
            join_all(some.iter().map(|member| grow.round(member, round))).await;
            pass(some.len());
        }
        let author = Author::Node(grow.founder.public().node_id());
        grow.ask(&*grow.founder, author, &Content::Renew).await;
    }
    let state = grow.ledger.state();
    println!(
        "{} members, {} names, {} certificates, {} batches in {:.1} s",
        state.members.len(),
        state.names.len(),
        state.certificates.iter().count(),
        state.position.index,
        begun.elapsed().as_secs_f64()
    );
}
