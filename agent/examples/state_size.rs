//! How large the state of the largest mesh is: `state_size [MEMBERS [DAYS]]`.
//! Every member has names, and certificates that were issued within so many days,
//! all by the rules. It prints the size of the snapshot, which every node must be
//! able to read at its start.

#![allow(
    clippy::disallowed_methods,
    reason = "a program of its own, on the real clock"
)]

use std::{collections::BTreeSet, env, sync::Arc, time::Instant};

use innermesh_agent::{
    ca::{self, Issuer},
    enroll::{self, InitOptions},
    host::{
        Host, key_files as keys,
        keys::{Keys, NodeKey, SystemKeys},
        system,
    },
    ledger::loading,
};
use innermesh_proto::{
    crypto::{Purpose, Sealed, Sign},
    id::NodeId,
    ledger::{
        Author, Content, Decision, Draft, Entry, Grant, Outcome, RULES, Request, RequestId,
        Snapshot, State,
        request::{Certify, Join},
    },
    limits,
    name::NamePattern,
};

/// What each member has beside its own name.
const NAMES: usize = 8;
/// Certificates of each, for a name of its own each.
const CERTIFICATES: usize = 4;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// A mesh with one CA node, without its disk.
struct Mesh {
    state: State,
    draft: Option<Draft>,
    issuer: Issuer,
    founder: Arc<dyn NodeKey>,
    now_ms: u64,
}

struct Member {
    key: Arc<dyn NodeKey>,
    number: usize,
}

impl Mesh {
    async fn new(host: &Host, begin_ms: u64) -> Self {
        let options = InitOptions {
            domain: "lab.internal".parse().expect("a domain"),
            name: "one".parse().expect("a name"),
            ipv4: Some("10.64.0.0/16".parse().expect("a network")),
            interface: "im0".into(),
            rules: RULES,
        };
        enroll::init(host, options).await.expect("a new mesh");
        let founder = keys::require_identity(host).await.expect("a node's key");
        let key = keys::issuers(host).await.expect("keys").remove(0);
        let genesis = loading::load(&*host.disk).await.expect("a ledger").genesis;
        let state = State::genesis(&genesis, &SystemKeys).expect("a genesis");
        let (_, issuer) = state.issuers.iter().next().expect("an issuer");
        let der = issuer.certificate.der().to_vec();
        Self {
            issuer: Issuer::new(key, der).expect("the founder's issuer"),
            now_ms: begin_ms.max(state.stamp_ms),
            state,
            draft: None,
            founder,
        }
    }

    /// Has a request decided, in the batch under way.
    fn ask(&mut self, by: &dyn Sign, author: Author, content: &Content) {
        let mut id = [0; 16];
        SystemKeys.random(&mut id);
        let expires_ms = self.now_ms + limits::REQUEST_LIFETIME_MS / 2;
        let request = Request::seal(
            by,
            self.state.mesh,
            RequestId(id),
            author,
            expires_ms,
            content,
        );
        let now_ms = self.now_ms;
        if self.draft.as_ref().is_some_and(|draft| !draft.has_room()) {
            self.finish();
        }
        let state = &self.state;
        let draft = self.draft.get_or_insert_with(|| state.draft(now_ms));
        let attachment = match draft.decide(&request, &SystemKeys) {
            Ok(Decision::Certificate(plan)) => {
                let serial = ca::random_serial(&SystemKeys);
                let signed = self.issuer.sign_leaf(&plan, serial, &SystemKeys);
                signed.expect("a certificate")
            }
            Ok(_) => Vec::new(),
            Err(refusal) => panic!("{content:?}: {refusal}"),
        };
        let entry = Entry {
            request,
            attachment,
        };
        let outcome = draft.add(entry, &SystemKeys);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    fn finish(&mut self) {
        if let Some(draft) = self.draft.take() {
            self.state = draft.finish().0;
        }
    }

    fn pass(&mut self, ms: u64) {
        self.finish();
        self.now_ms += ms;
    }

    /// A token for as many as one may admit.
    fn token(&self) -> (Arc<dyn NodeKey>, Sealed) {
        let token = SystemKeys.generate_ed25519();
        let grant = Grant {
            mesh: self.state.mesh,
            token: token.public(),
            inviter: self.founder.public().node_id(),
            roles: BTreeSet::new(),
            names: BTreeSet::from([NamePattern::any()]),
            routes: BTreeSet::new(),
            addresses: BTreeSet::new(),
            uses: limits::TOKEN_USES,
            expires_ms: self.now_ms + DAY_MS,
            position: self.state.position,
        };
        let grant = Sealed::new(&*self.founder, Purpose::Grant, &self.state.mesh, &grant);
        (token, grant)
    }

    fn join(&mut self, number: usize, (token, grant): &(Arc<dyn NodeKey>, Sealed)) -> Member {
        let key = SystemKeys.generate_ed25519();
        let exporter = [1; 32];
        let message = Join::possession_message(&self.state.mesh, &token.public(), &exporter);
        let join = Join {
            node: key.public(),
            name: format!("machine-{number}").parse().expect("a name"),
            exporter,
            grant: grant.clone(),
            possession: key.sign(&message),
        };
        let author = Author::Token(token.public());
        self.ask(&**token, author, &Content::Join(Box::new(join)));
        Member { key, number }
    }

    fn certify(&mut self, member: &Member, which: usize) {
        let domain = self.state.domain.clone();
        let certify = Certify {
            spki: SystemKeys.generate_p256().spki(),
            names: [format!("{}.{domain}", member.name(which))].into(),
            days: 90,
        };
        self.ask(&*member.key, member.author(), &Content::Certify(certify));
    }
}

impl Member {
    fn author(&self) -> Author {
        Author::Node(self.id())
    }

    fn id(&self) -> NodeId {
        self.key.public().node_id()
    }

    fn name(&self, which: usize) -> String {
        format!("service-{which}-{}", self.number)
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = env::args().skip(1);
    let mut number = |otherwise: usize| {
        let given = arguments.next();
        given.map_or(otherwise, |text| text.parse().expect("a number"))
    };
    let (members, days) = (number(limits::MEMBERS), number(7) as u64);
    let folder = tempfile::tempdir().expect("a folder");
    let host = system::host(folder.path().to_owned());
    let mut mesh = Mesh::new(&host, host.clock.wall_ms()).await;
    let begun = Instant::now();

    let mut all = Vec::new();
    let mut token = mesh.token();
    for number in 1..members {
        if number.is_multiple_of(limits::TOKEN_USES as usize) {
            token = mesh.token();
        }
        all.push(mesh.join(number, &token));
    }
    for member in &all {
        for which in 0..NAMES {
            let name = member.name(which).parse().expect("a name");
            mesh.ask(&*member.key, member.author(), &Content::Claim(name));
        }
    }
    // Requests are remembered for minutes only.
    mesh.pass(limits::REQUEST_LIFETIME_MS + limits::FORGET_MS);
    let step_ms = days * DAY_MS / CERTIFICATES as u64;
    for which in 0..CERTIFICATES {
        for member in &all {
            mesh.certify(member, which);
        }
        mesh.pass(step_ms);
    }
    mesh.finish();
    let state = &mesh.state;
    let whole = state.certificates.iter();
    let whole = whole.filter(|(_, issued)| !issued.der.is_empty()).count();
    let bytes = Snapshot::of(state).bytes.len();
    println!(
        "{} members, {} names, {} certificates ({whole} whole), issued within {days} days: \
         a snapshot of {:.1} MiB, {:.1} % of what the rules allow ({:.1} s)",
        state.members.len(),
        state.names.len(),
        state.certificates.iter().count(),
        bytes as f64 / f64::from(1 << 20),
        bytes as f64 * 100.0 / limits::STATE_BYTES as f64,
        begun.elapsed().as_secs_f64()
    );
    assert!(bytes as u64 <= limits::STATE_BYTES, "{bytes} bytes");
}
