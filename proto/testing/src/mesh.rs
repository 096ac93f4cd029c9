//! A mesh on paper: one CA node that decides, and a follower that applies
//! every batch and must come to the same state.

use std::{collections::BTreeSet, sync::Arc};

use innermesh_ca::{Issuer, Root, random_serial};
use innermesh_host::keys::{Ed25519, Keys, SystemKeys};
use innermesh_proto::{
    codec,
    crypto::{PublicKey, Purpose, Sealed, Sign},
    id::{MeshId, NodeId},
    ledger::{
        Author, Batch, Content, Decision, Entry, Genesis, Grant, Header, Outcome, Position, RULES,
        Recovery, Refusal, Request, RequestId, Role, SignedGenesis, SignedRecovery, State,
        request::{Certify, Join, Promote, RoleChange, RootWord, RosterChange},
    },
    name::{Label, NamePattern},
};
use ipnet::Ipv4Net;

/// When the mesh is made, in milliseconds since 1970.
pub const NOW: u64 = 1_800_000_000_000;
pub const MINUTE: u64 = 60_000;
pub const DAY: u64 = 24 * 60 * MINUTE;
pub const KEYS: SystemKeys = SystemKeys;

pub struct Mesh {
    pub id: MeshId,
    pub genesis: SignedGenesis,
    pub root: Root,
    pub issuer: Issuer,
    pub founder: Arc<Ed25519>,
    /// The state after each batch, the genesis' first.
    pub states: Vec<State>,
    pub batches: Vec<Batch>,
    /// The leader's clock.
    pub now_ms: u64,
    requests: u64,
}

/// What the holder of a token has.
#[derive(Clone)]
pub struct Token {
    pub key: Arc<Ed25519>,
    pub grant: Sealed,
}

/// A machine's key, the same for the same number.
pub fn key(number: u8) -> Arc<Ed25519> {
    Arc::new(Ed25519::from_seed(&[number; 32]))
}

pub fn id(key: &dyn Sign) -> NodeId {
    key.public().node_id()
}

pub fn label(text: &str) -> Label {
    text.parse().expect("a label")
}

impl Default for Mesh {
    fn default() -> Self {
        Self::with_overlay("10.77.0.0/16")
    }
}

impl Mesh {
    pub fn new() -> Self {
        Self::default()
    }

    /// One that began before there were newer rules.
    pub fn with_rules(rules: u32) -> Self {
        Self::made("10.77.0.0/16", rules)
    }

    pub fn with_overlay(ipv4: &str) -> Self {
        Self::made(ipv4, RULES)
    }

    fn made(ipv4: &str, rules: u32) -> Self {
        let founder = key(0);
        let (genesis, issuer, root) = founded(&*founder, ipv4.parse().expect("a range"), rules);
        let state = State::genesis(&genesis, &KEYS).expect("a good genesis");
        Self {
            id: state.mesh,
            genesis,
            root,
            issuer,
            founder,
            states: vec![state],
            batches: Vec::new(),
            now_ms: NOW,
            requests: 0,
        }
    }

    pub fn state(&self) -> &State {
        self.states.last().expect("the genesis' at least")
    }

    /// A request by a member, with an id of its own.
    pub fn request(&mut self, by: &dyn Sign, content: &Content) -> Sealed {
        self.request_by(by, Author::Node(id(by)), content)
    }

    pub fn request_by(&mut self, by: &dyn Sign, author: Author, content: &Content) -> Sealed {
        self.requests += 1;
        let id = RequestId(u128::from(self.requests).to_le_bytes());
        let expires_ms = self.now_ms + 5 * MINUTE;
        Request::seal(by, self.id, id, author, expires_ms, content)
    }

    /// A token for anything, by the founder, changed by `change`.
    pub fn token(&self, number: u8, change: impl FnOnce(&mut Grant)) -> Token {
        self.token_by(&*self.founder, number, change)
    }

    pub fn token_by(
        &self,
        inviter: &dyn Sign,
        number: u8,
        change: impl FnOnce(&mut Grant),
    ) -> Token {
        self.token_with(inviter, key(number), change)
    }

    fn token_with(
        &self,
        inviter: &dyn Sign,
        key: Arc<Ed25519>,
        change: impl FnOnce(&mut Grant),
    ) -> Token {
        let mut grant = Grant {
            mesh: self.id,
            token: key.public(),
            inviter: id(inviter),
            roles: BTreeSet::new(),
            names: BTreeSet::from([NamePattern::any()]),
            routes: BTreeSet::new(),
            addresses: BTreeSet::new(),
            uses: 1,
            expires_ms: self.now_ms + 60 * MINUTE,
            position: self.state().position,
        };
        change(&mut grant);
        let grant = grant.seal(inviter);
        Token { key, grant }
    }

    pub fn join_request(&mut self, token: &Token, machine: &dyn Sign, name: &str) -> Sealed {
        let exporter = [7; 32];
        let message = Join::possession_message(&self.id, &token.key.public(), &exporter);
        let join = Join {
            node: machine.public(),
            name: label(name),
            exporter,
            grant: token.grant.clone(),
            possession: machine.sign(&message),
        };
        let author = Author::Token(token.key.public());
        self.request_by(&*token.key, author, &Content::Join(Box::new(join)))
    }

    /// Has a machine join by a token of its own.
    pub fn admit(&mut self, machine: &dyn Sign, name: &str) {
        self.admit_as(machine, name, &*key(0), |_| {});
    }

    /// Has a machine join by a token of `inviter`'s, changed by `change`.
    pub fn admit_as(
        &mut self,
        machine: &dyn Sign,
        name: &str,
        inviter: &dyn Sign,
        change: impl FnOnce(&mut Grant),
    ) {
        let mut seed = [0xee; 32];
        seed[..8].copy_from_slice(&self.requests.to_le_bytes());
        let token = self.token_with(inviter, Arc::new(Ed25519::from_seed(&seed)), change);
        let request = self.join_request(&token, machine, name);
        let outcome = self.decide(request);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    /// An issuer certificate for a fresh key.
    pub fn issuer_der(&self) -> Vec<u8> {
        let key = KEYS.generate_p256();
        let der = self.root.issuer(&key.spki(), NOW, &KEYS);
        der.expect("an issuer")
    }

    /// Has the founder make a member a CA node.
    pub fn promote(&mut self, number: u8) {
        let promote = Promote {
            node: id(&*key(number)),
            issuers: vec![self.issuer_der()],
        };
        let outcome = self.ask(&*key(0), Content::Promote(promote));
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    /// A change of a role that the root signs for `by` to ask for.
    pub fn by_root(&self, by: &dyn Sign, node: NodeId, role: Role, is_given: bool) -> RoleChange {
        let until_ms = self.now_ms + 5 * MINUTE;
        let mut change = RoleChange {
            node,
            role,
            root: None,
        };
        let number = self.state().next_root_word();
        let message = change.root_message(&self.id, &id(by), is_given, number, until_ms);
        let signature = self.root.sign(&message).expect("a signature");
        change.root = Some(RootWord {
            until_ms,
            signature,
        });
        change
    }

    /// Has the founder make a CA node an ordinary member, by the root's word.
    pub fn demote(&mut self, number: u8) {
        let founder = self.founder.clone();
        let change = self.by_root(&*founder, id(&*key(number)), Role::Ca, false);
        let outcome = self.ask(&*founder, Content::TakeRole(change));
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    /// Has the founder change the roster.
    pub fn become_roster(&mut self, numbers: &[u8]) {
        self.become_roster_by(numbers, &*key(0));
    }

    pub fn become_roster_by(&mut self, numbers: &[u8], by: &dyn Sign) {
        let voters: BTreeSet<NodeId> = numbers.iter().map(|number| id(&*key(*number))).collect();
        let change = Content::Roster(RosterChange {
            voters: voters.clone(),
        });
        let outcome = self.ask(by, change);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        assert_eq!(self.state().roster, voters);
    }

    /// The next batch with one request of the founder's, which nobody signed
    /// and nobody applied.
    pub fn unproved(&mut self, content: &Content) -> Batch {
        let request = self.request(&*key(0), content);
        let mut draft = self.state().draft(self.now_ms);
        let entry = Entry {
            request,
            attachment: Vec::new(),
        };
        let outcome = draft.add(entry, &KEYS);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        draft.finish().1
    }

    /// What the root signs where a roster is lost.
    pub fn recovery(&self, number: u32, position: Position, roster: &[u8]) -> SignedRecovery {
        self.recovery_with(number, position, roster, Vec::new())
    }

    /// As [`Mesh::recovery`], with issuers for the new roster.
    pub fn recovery_with(
        &self,
        number: u32,
        position: Position,
        roster: &[u8],
        issuers: Vec<(NodeId, Vec<u8>)>,
    ) -> SignedRecovery {
        let recovery = Recovery {
            issuers,
            mesh: self.id,
            number,
            position,
            roster: roster.iter().map(|number| key(*number).public()).collect(),
        };
        let bytes = codec::encode(&recovery);
        let message = Purpose::Recovery.message(&self.id, &bytes);
        let signature = self.root.sign(&message).expect("a signature");
        SignedRecovery { bytes, signature }
    }

    /// Asks as a member; one batch.
    pub fn ask(&mut self, by: &dyn Sign, content: Content) -> Outcome {
        let request = self.request(by, &content);
        self.decide(request)
    }

    /// One batch with one request.
    pub fn decide(&mut self, request: Sealed) -> Outcome {
        self.batch(vec![request]).remove(0)
    }

    /// Has a request refused, and checks that this changes nothing.
    pub fn assert_refused(&mut self, request: Sealed, expected: Refusal) {
        let before = facts(self.state());
        assert_eq!(self.decide(request), Outcome::Refused(expected));
        assert_eq!(facts(self.state()), before, "a refusal changes nothing");
    }

    /// Writes one batch, as the leader does but for what it wouldn't even
    /// record, and has the follower apply it. Whoever must signs it, as far as
    /// its number is a low one.
    pub fn batch(&mut self, requests: Vec<Sealed>) -> Vec<Outcome> {
        self.batch_by(requests, &(0..32).collect::<Vec<u8>>())
    }

    /// As [`Mesh::batch`], signed by those of the roster that are listed.
    pub fn batch_by(&mut self, requests: Vec<Sealed>, signers: &[u8]) -> Vec<Outcome> {
        let mut draft = self.state().draft(self.now_ms);
        let outcomes: Vec<Outcome> = requests
            .into_iter()
            .map(|request| {
                let attachment = match draft.decide(&request, &KEYS) {
                    Ok(Decision::Certificate(plan)) => self
                        .issuer
                        .sign_leaf(&plan, random_serial(&KEYS), &KEYS)
                        .expect("a good plan"),
                    _ => Vec::new(),
                };
                draft.add(
                    Entry {
                        request,
                        attachment,
                    },
                    &KEYS,
                )
            })
            .collect();
        let (state, mut batch) = draft.finish();
        let needed = self.state().proof_needed(&batch).expect("the next batch");
        for signer in signers.iter().map(|number| key(*number)) {
            if needed.signers().contains_key(&id(&*signer)) {
                let (node, signature) = batch.endorse(&self.id, &*signer);
                batch.proof.insert(node, signature);
            }
        }
        let (followed, same) = self.state().next(&batch, &KEYS).expect("the next batch");
        assert_eq!(same, outcomes);
        assert_eq!(codec::encode(&followed), codec::encode(&state));
        self.states.push(state);
        self.batches.push(batch);
        outcomes
    }
}

/// A genesis and the issuer in it.
pub fn genesis(founder: &dyn Sign, ipv4: Ipv4Net) -> (SignedGenesis, Issuer) {
    let (genesis, issuer, _) = founded(founder, ipv4, RULES);
    (genesis, issuer)
}

fn founded(founder: &dyn Sign, ipv4: Ipv4Net, rules: u32) -> (SignedGenesis, Issuer, Root) {
    let domain = "lab.internal".parse().expect("a domain");
    let root_key = KEYS.generate_p256();
    let root = Root::generate(root_key, &domain, ipv4, NOW, &KEYS).expect("a root");
    let issuer_key = KEYS.generate_p256();
    let der = root
        .issuer(&issuer_key.spki(), NOW, &KEYS)
        .expect("an issuer");
    let issuer = Issuer::new(issuer_key, der).expect("its key fits");
    let mut genesis = Genesis {
        domain,
        ipv4,
        root: root.der().to_vec(),
        founder: founder.public(),
        name: label("founder"),
        issuer: issuer.der().to_vec(),
        membership: Vec::new(),
        stamp_ms: NOW,
        rules,
    };
    if let Ok(plan) = genesis.membership_plan(&root.mesh()) {
        genesis.membership = issuer
            .sign_leaf(&plan, random_serial(&KEYS), &KEYS)
            .expect("a membership");
    }
    (sign_genesis(&genesis, &root), issuer, root)
}

/// A batch with this header that `key` alone signed.
pub fn signed(header: &Header, entries: Vec<Entry>, key: &dyn Sign) -> Batch {
    let mut batch = Batch::unproved(header, entries);
    let (node, signature) = batch.endorse(&header.mesh, key);
    batch.proof.insert(node, signature);
    batch
}

pub fn sign_genesis(genesis: &Genesis, root: &Root) -> SignedGenesis {
    let bytes = genesis.encode();
    let message = Purpose::Genesis.message(&root.mesh(), &bytes);
    let signature = root.sign(&message).expect("a signature");
    SignedGenesis { bytes, signature }
}

/// All that the ledger says, but for position, stamp and what it remembers of
/// requests.
pub fn facts(state: &State) -> Vec<u8> {
    codec::encode(&(
        &state.roster,
        &state.members,
        &state.names,
        &state.tokens,
        &state.issuers,
        &state.certificates,
        (&state.revoked, &state.revoked_keys, &state.evicted),
        &state.records,
        (&state.voters, state.epoch),
    ))
}

/// Asks for a certificate for a fresh key.
pub fn certify(names: &[&str], days: u32) -> Content {
    Content::Certify(Certify {
        spki: KEYS.generate_p256().spki(),
        names: names.iter().map(|name| name.to_string()).collect(),
        days,
    })
}

pub fn owner(state: &State, name: &str) -> Option<NodeId> {
    state.names.get(&label(name)).map(|held| held.owner)
}

/// The author of a member's requests.
pub fn author(key: PublicKey) -> Author {
    Author::Node(key.node_id())
}
