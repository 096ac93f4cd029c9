//! What follows from the ledger so far, and how the next batch changes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{
    batch::{Batch, Entry, Genesis, Header, Position, STATE_HASH_INTERVAL, SignedGenesis},
    request::{Author, RequestId, Role},
    rules::{self, Decision, Effect, Outcome, Refusal, RequestKey},
};
use crate::{
    certificate::{self, Certificate, CertificateError, LeafPlan, Serial},
    codec::{self, CodecError},
    crypto::{Hash, PublicKey, Purpose, Sealed, Sign, Verify},
    id::{MeshId, NodeId},
    limits,
    name::{Label, MeshDomain, NamePattern},
};

/// Everything that the ledger says, up to [`State::position`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The mesh.
    pub mesh: MeshId,
    /// The domain of its names.
    pub domain: MeshDomain,
    /// The IPv4 overlay.
    pub ipv4: Ipv4Net,
    /// The root certificate, DER.
    pub root: Vec<u8>,
    /// The newest batch.
    pub position: Position,
    /// Ledger time, in milliseconds since 1970.
    pub stamp_ms: u64,
    /// Number of the roster in force.
    pub epoch: u32,
    /// Who decides.
    pub roster: BTreeSet<NodeId>,
    /// Who belongs to the mesh.
    pub members: BTreeMap<NodeId, Member>,
    /// Who holds which name; one namespace for nodes and services.
    pub names: BTreeMap<Label, Name>,
    /// Tokens that were used and haven't expired.
    pub tokens: BTreeMap<PublicKey, TokenUse>,
    /// Issuer certificates (DER) by CA node.
    pub issuers: BTreeMap<NodeId, Vec<u8>>,
    /// Every certificate that was issued.
    pub certificates: BTreeMap<Serial, Issued>,
    /// Requests that were applied and haven't expired.
    requests: BTreeMap<RequestKey, (u64, Outcome)>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its key; its id is the hash of it.
    pub key: PublicKey,
    /// Its name.
    pub name: Label,
    /// Its overlay addresses.
    pub ipv4: Ipv4Addr,
    /// As `ipv4`; it follows from mesh and key.
    pub ipv6: Ipv6Addr,
    /// What it may do.
    pub roles: BTreeSet<Role>,
    /// Names that it may be granted.
    pub names: BTreeSet<NamePattern>,
    /// Whose token it joined by; the founder has none.
    pub invited_by: Option<NodeId>,
    /// Index of the batch that made it a member.
    pub joined: u64,
    /// Its newest membership certificate.
    pub certificate: Option<Serial>,
}

/// A name in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// What bears it.
    pub kind: NameKind,
    /// The node that it belongs to.
    pub owner: NodeId,
    /// Other nodes that may run instances of it.
    pub shared: BTreeSet<NodeId>,
    /// Index of the batch that granted it.
    pub since: u64,
}

/// What bears a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameKind {
    /// A machine.
    Node,
    /// A service.
    Service,
}

/// How far a token is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// How many joined by it.
    pub uses: u32,
    /// When it can be forgotten, in milliseconds of ledger time.
    pub expires_ms: u64,
}

/// One certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The node that it was issued to.
    pub owner: NodeId,
    /// The CA node whose issuer signed it.
    pub issuer: NodeId,
    /// Names in it.
    pub names: BTreeSet<String>,
    /// Hash of its SubjectPublicKeyInfo.
    pub key_hash: Hash,
    /// Ends of its life, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// As `not_before_ms`.
    pub not_after_ms: u64,
    /// The certificate, DER.
    pub der: Vec<u8>,
}

/// Why a genesis isn't one. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not an encoding of a genesis.
    #[error("the genesis is malformed: {0}")]
    Codec(#[from] CodecError),
    /// Not signed by its own root.
    #[error("the genesis is not signed by the mesh's root")]
    Signature,
    /// The root or the issuer is not what it must be.
    #[error("a certificate of the genesis is not right: {0}")]
    Certificate(#[from] CertificateError),
    /// The first node's certificate is not what it must be.
    #[error("the first node's certificate is not right: {0}")]
    Membership(String),
    /// The IPv4 overlay has no room for a node.
    #[error(
        "the overlay {0} has no room; it must be a /16 to /22 within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
    )]
    Overlay(Ipv4Net),
}

impl Genesis {
    /// The first node, as the genesis makes it.
    ///
    /// # Errors
    /// [`GenesisError::Overlay`] when it gets no address.
    pub fn founder_member(&self, mesh: &MeshId) -> Result<Member, GenesisError> {
        let node = self.founder.node_id();
        let ipv4 = rules::free_ipv4(self.ipv4, &BTreeSet::new(), node)
            .ok_or(GenesisError::Overlay(self.ipv4))?;
        Ok(Member {
            key: self.founder,
            name: self.name.clone(),
            ipv4,
            ipv6: node.ipv6(mesh),
            roles: BTreeSet::from([Role::Admin, Role::Ca]),
            names: BTreeSet::from([NamePattern::any()]),
            invited_by: None,
            joined: 0,
            certificate: None,
        })
    }

    /// What the first node's membership certificate must say.
    ///
    /// # Errors
    /// As [`Genesis::founder_member`].
    pub fn membership_plan(&self, mesh: &MeshId) -> Result<LeafPlan, GenesisError> {
        let member = self.founder_member(mesh)?;
        Ok(rules::membership_plan(&self.domain, &member, self.stamp_ms))
    }
}

/// Why a batch is not the next one. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not an encoding of a batch.
    #[error("the batch is malformed: {0}")]
    Codec(#[from] CodecError),
    /// More entries or bytes than a batch may have.
    #[error("the batch is larger than a batch may be")]
    TooLarge,
    /// For another mesh or another epoch.
    #[error("the batch is of another mesh or epoch")]
    Foreign,
    /// Not the successor of the position here.
    #[error("the batch has index {got}, and {expected} is next")]
    Index {
        /// The batch's.
        got: u64,
        /// The one that is next here.
        expected: u64,
    },
    /// It follows another batch than the one held here: two histories exist.
    #[error("the batch with index {0} follows another history than the one held here")]
    Fork(u64),
    /// Its entries are not those that the header names.
    #[error("the batch's entries are not those of its header")]
    Entries,
    /// Its stamp is below the one before.
    #[error("the batch is stamped before its predecessor")]
    Stamp,
    /// Not signed by a majority of the roster.
    #[error("the batch is not proved by a majority of the roster")]
    Proof,
    /// The state after it has another hash than its header says.
    #[error("the state after batch {0} is not the one that the roster signed")]
    State(u64),
}

impl State {
    /// The state that a genesis starts with, after checking all of it.
    ///
    /// # Errors
    /// [`GenesisError`].
    pub fn genesis(signed: &SignedGenesis, verify: &dyn Verify) -> Result<Self, GenesisError> {
        let genesis: Genesis = signed.peek()?;
        let root = Certificate::parse(&genesis.root)?;
        let mesh = MeshId::of_root(&root.spki);
        let message = Purpose::Genesis.message(&mesh, &signed.bytes);
        if !verify.p256(&root.spki, &message, &signed.signature) {
            return Err(GenesisError::Signature);
        }
        let (domain, ipv4) = (&genesis.domain, genesis.ipv4);
        certificate::check_root(&root, domain, ipv4, mesh.ula(), verify)?;
        let issuer = Certificate::parse(&genesis.issuer)?;
        certificate::check_issuer(&issuer, &root, verify)?;

        let founder = genesis.founder.node_id();
        let plan = genesis.membership_plan(&mesh)?;
        let membership = genesis.membership.clone();
        let mut state = Self {
            mesh,
            position: signed.position(),
            stamp_ms: genesis.stamp_ms,
            epoch: 0,
            roster: BTreeSet::from([founder]),
            members: BTreeMap::new(),
            names: BTreeMap::new(),
            tokens: BTreeMap::new(),
            issuers: BTreeMap::from([(founder, genesis.issuer.clone())]),
            certificates: BTreeMap::new(),
            requests: BTreeMap::new(),
            domain: genesis.domain.clone(),
            ipv4: genesis.ipv4,
            root: genesis.root.clone(),
        };
        state.admit(founder, genesis.founder_member(&mesh)?);
        let serial = state
            .take_leaf(&plan, founder, &membership, verify)
            .map_err(|error| GenesisError::Membership(error.to_string()))?;
        state.set_membership(founder, serial);
        Ok(state)
    }

    /// The state after `batch`, and what became of each of its entries.
    ///
    /// # Errors
    /// [`BatchError`]; this state stands.
    pub fn next(
        &self,
        batch: &Batch,
        verify: &dyn Verify,
    ) -> Result<(Self, Vec<Outcome>), BatchError> {
        let header = self.check_header(batch, verify)?;
        let mut draft = self.draft(header.stamp_ms);
        let outcomes = batch
            .entries
            .iter()
            .map(|entry| draft.add(entry.clone(), verify))
            .collect();
        if header
            .state
            .is_some_and(|hash| hash != draft.hash_at(header.index))
        {
            return Err(BatchError::State(header.index));
        }
        let mut state = draft.state;
        state.position = batch.position()?;
        Ok((state, outcomes))
    }

    fn check_header(&self, batch: &Batch, verify: &dyn Verify) -> Result<Header, BatchError> {
        let sizes = || batch.entries.iter().map(Entry::size);
        if batch.entries.len() > limits::BATCH_ENTRIES
            || sizes().any(|size| size > limits::ENTRY_BYTES)
            || sizes().sum::<usize>() > limits::BATCH_ENTRY_BYTES
        {
            return Err(BatchError::TooLarge);
        }
        let header = batch.read_header()?;
        if header.mesh != self.mesh || header.epoch != self.epoch {
            return Err(BatchError::Foreign);
        }
        let expected = self.position.index + 1;
        if header.index != expected {
            return Err(BatchError::Index {
                got: header.index,
                expected,
            });
        }
        // What isn't the roster's is no part of a proof: whoever passes a batch
        // on could make it longer than anybody can store.
        let by_roster = batch.proof.keys().all(|node| self.roster.contains(node));
        if !by_roster || !batch.is_proved_by(&self.mesh, self.roster_keys().into_iter(), verify) {
            return Err(BatchError::Proof);
        }
        if header.previous != self.position.hash {
            return Err(BatchError::Fork(header.index));
        }
        if header.entries != Batch::entries_hash(&batch.entries) {
            return Err(BatchError::Entries);
        }
        if header.stamp_ms < self.stamp_ms {
            return Err(BatchError::Stamp);
        }
        Ok(header)
    }

    fn roster_keys(&self) -> Vec<(NodeId, &PublicKey)> {
        self.roster
            .iter()
            .filter_map(|node| Some((*node, &self.members.get(node)?.key)))
            .collect()
    }

    /// Starts the next batch at `stamp_ms`, or at this state's stamp if that is later.
    pub fn draft(&self, stamp_ms: u64) -> Draft {
        let mut state = self.clone();
        state.stamp_ms = state.stamp_ms.max(stamp_ms);
        state.forget_expired();
        Draft {
            state,
            entries: Vec::new(),
            bytes: 0,
            previous: self.position,
        }
    }

    /// What became of an author's request, as long as it is remembered.
    pub fn outcome_of(&self, author: Author, id: RequestId) -> Option<&Outcome> {
        self.requests.get(&(author, id)).map(|(_, outcome)| outcome)
    }

    /// The member that holds `key`.
    pub fn member_by_key(&self, key: &PublicKey) -> Option<(NodeId, &Member)> {
        let node = key.node_id();
        let member = self.members.get(&node)?;
        (member.key == *key).then_some((node, member))
    }

    /// The member with this name.
    pub fn member_by_name(&self, name: &Label) -> Option<(NodeId, &Member)> {
        let held = self.names.get(name)?;
        let member = self.members.get(&held.owner)?;
        (held.kind == NameKind::Node).then_some((held.owner, member))
    }

    fn forget_expired(&mut self) {
        let stamp_ms = self.stamp_ms;
        self.requests
            .retain(|_, (expires_ms, _)| *expires_ms >= stamp_ms);
        self.tokens.retain(|_, used| used.expires_ms >= stamp_ms);
    }

    fn admit(&mut self, node: NodeId, member: Member) {
        self.names.insert(
            member.name.clone(),
            Name {
                kind: NameKind::Node,
                owner: node,
                shared: BTreeSet::new(),
                since: member.joined,
            },
        );
        self.members.insert(node, member);
    }

    fn set_membership(&mut self, node: NodeId, serial: Serial) {
        if let Some(member) = self.members.get_mut(&node) {
            member.certificate = Some(serial);
        }
    }

    /// Takes an issued certificate in, after checking it against its plan.
    fn take_leaf(
        &mut self,
        plan: &LeafPlan,
        owner: NodeId,
        der: &[u8],
        verify: &dyn Verify,
    ) -> Result<Serial, LeafError> {
        let leaf = Certificate::parse(der)?;
        let (issuer_node, issuer) = self
            .issuers
            .iter()
            .filter(|(node, _)| self.roster.contains(node))
            .filter_map(|(node, der)| Some((*node, Certificate::parse(der).ok()?)))
            .find(|(_, issuer)| leaf.is_signed_by(&issuer.spki, verify))
            .ok_or(LeafError::Issuer)?;
        certificate::check_leaf(&leaf, plan, &issuer, verify)?;
        // S15: no serial is used twice.
        if self.certificates.contains_key(&leaf.serial) {
            return Err(LeafError::Serial);
        }
        let serial = leaf.serial;
        self.certificates.insert(
            serial,
            Issued {
                owner,
                issuer: issuer_node,
                names: leaf.dns,
                key_hash: leaf.key_hash,
                not_before_ms: leaf.not_before_ms,
                not_after_ms: leaf.not_after_ms,
                der: der.to_vec(),
            },
        );
        Ok(serial)
    }
}

/// Why an attached certificate was not taken.
#[derive(Debug, thiserror::Error)]
enum LeafError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("no issuer of the roster signed it")]
    Issuer,
    #[error("its serial was used before")]
    Serial,
}

/// A batch in the making: the leader's, and every node's while it applies one.
pub struct Draft {
    state: State,
    entries: Vec<Entry>,
    bytes: usize,
    previous: Position,
}

impl Draft {
    /// The state with all entries so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the batch has room for one more entry, however large.
    pub fn has_room(&self) -> bool {
        self.entries.len() < limits::BATCH_ENTRIES
            && self.bytes + limits::ENTRY_BYTES <= limits::BATCH_ENTRY_BYTES
    }

    /// What the request needs before it can be added.
    ///
    /// # Errors
    /// The [`Refusal`] that it would meet.
    pub fn decide(&self, request: &Sealed, verify: &dyn Verify) -> Result<Decision, Refusal> {
        let ruling = rules::rule(&self.state, request, self.state.stamp_ms, verify).1;
        Ok(match ruling? {
            Effect::Repeat(outcome) => Decision::Repeat(outcome),
            Effect::Join(join) => Decision::Certificate(join.plan),
            Effect::Renew(plan, _) | Effect::Certify(plan, _) => Decision::Certificate(plan),
            Effect::Nothing | Effect::Claim(..) | Effect::Share(_) | Effect::Release(_) => {
                Decision::Plain
            }
        })
    }

    /// Applies one entry. A refusal changes nothing and is recorded.
    pub fn add(&mut self, entry: Entry, verify: &dyn Verify) -> Outcome {
        let index = self.previous.index + 1;
        let (key, ruling) = rules::rule(&self.state, &entry.request, self.state.stamp_ms, verify);
        let outcome = match ruling {
            Err(refusal) => Outcome::Refused(refusal),
            Ok(effect) => self
                .take(effect, &entry.attachment, index, verify)
                .unwrap_or_else(Outcome::Refused),
        };
        if let Some((key, expires_ms)) = key {
            self.state
                .requests
                .entry(key)
                .or_insert((expires_ms, outcome.clone()));
        }
        self.bytes += entry.size();
        self.entries.push(entry);
        outcome
    }

    fn take(
        &mut self,
        effect: Effect,
        attachment: &[u8],
        index: u64,
        verify: &dyn Verify,
    ) -> Result<Outcome, Refusal> {
        let state = &mut self.state;
        let refuse = |error: LeafError| Refusal::Certificate(error.to_string());
        match effect {
            Effect::Repeat(outcome) => return Ok(outcome),
            Effect::Nothing => {}
            Effect::Join(join) => {
                let node = join.member.key.node_id();
                let serial = state
                    .take_leaf(&join.plan, node, attachment, verify)
                    .map_err(refuse)?;
                state.admit(node, join.member);
                state.set_membership(node, serial);
                let used = state.tokens.entry(join.token).or_insert(TokenUse {
                    uses: 0,
                    expires_ms: join.token_expires_ms,
                });
                used.uses += 1;
                // Two grants for one token's key: its uses are counted for as
                // long as either could be spent.
                used.expires_ms = used.expires_ms.max(join.token_expires_ms);
            }
            Effect::Renew(plan, node) => {
                let serial = state
                    .take_leaf(&plan, node, attachment, verify)
                    .map_err(refuse)?;
                state.set_membership(node, serial);
            }
            Effect::Claim(name, owner) => {
                state.names.insert(
                    name,
                    Name {
                        kind: NameKind::Service,
                        owner,
                        shared: BTreeSet::new(),
                        since: index,
                    },
                );
            }
            Effect::Share(share) => {
                if let Some(held) = state.names.get_mut(&share.name) {
                    held.shared.insert(share.with);
                }
            }
            Effect::Release(name) => {
                state.names.remove(&name);
            }
            Effect::Certify(plan, node) => {
                state
                    .take_leaf(&plan, node, attachment, verify)
                    .map_err(refuse)?;
            }
        }
        Ok(Outcome::Done(index))
    }

    /// Ends the batch: signs it with the roster member's `key`, and gives the
    /// state after it.
    pub fn finish(self, key: &dyn Sign) -> (State, Batch) {
        let mut header = Header {
            mesh: self.state.mesh,
            epoch: self.state.epoch,
            index: self.previous.index + 1,
            previous: self.previous.hash,
            entries: Batch::entries_hash(&self.entries),
            stamp_ms: self.state.stamp_ms,
            state: None,
        };
        if header.index.is_multiple_of(STATE_HASH_INTERVAL) {
            header.state = Some(self.hash_at(header.index));
        }
        let batch = Batch::sign(&header, self.entries, key);
        let position = Position {
            index: header.index,
            hash: Hash::of(&batch.header),
        };
        let mut state = self.state;
        state.position = position;
        (state, batch)
    }

    /// The hash of the state after batch `index`. The header can't contain a
    /// hash of itself, so the position is left out of what is hashed.
    fn hash_at(&self, index: u64) -> Hash {
        let mut state = self.state.clone();
        state.position = Position {
            index,
            hash: self.previous.hash,
        };
        Hash::of(&codec::encode(&state))
    }
}
