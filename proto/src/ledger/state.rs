//! What follows from the ledger so far. Its maps share what successive states
//! have in common: a clone costs about a microsecond, however much the
//! ledger holds.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::{
    extension::Extension,
    outcome::{Outcome, RequestKey},
    position::Position,
    record::UserRecord,
    request::{Author, HoldId, RequestId, Role},
};
use crate::{
    certificate::{KeptCertificate, Serial},
    crypto::{Hash, PublicKey},
    id::{MeshId, NodeId},
    limits,
    map::Map,
    name::{Label, MeshDomain, NamePattern},
    zone::DomainName,
};

/// Everything that the ledger says, up to [`State::position`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub mesh: MeshId,
    /// The domain of its names.
    pub domain: MeshDomain,
    /// The IPv4 overlay.
    pub ipv4: Ipv4Net,
    pub root: KeptCertificate,
    /// The newest batch.
    pub position: Position,
    /// Ledger time, in milliseconds since 1970.
    pub stamp_ms: u64,
    /// Number of the roster in force.
    pub epoch: u32,
    /// Who decides.
    pub roster: BTreeSet<NodeId>,
    /// Keys of the roster: a batch is proved by them also while one of its
    /// nodes is no member any more.
    pub(super) roster_keys: BTreeMap<NodeId, PublicKey>,
    /// The CA nodes, those of the roster and those that wait for a place in
    /// it, with the number by which Raft knows each. A number is never given
    /// twice.
    pub voters: BTreeMap<NodeId, u64>,
    /// The number of the next CA node.
    pub(super) next_voter: u64,
    /// Who belongs to the mesh.
    pub members: Map<NodeId, Member>,
    /// Whose address is whose; `members` the other way round.
    pub(super) addresses: Map<Ipv4Addr, NodeId>,
    /// Who holds which name; one namespace for nodes and services.
    pub names: Map<Label, Name>,
    /// How many names each member holds.
    pub(super) name_counts: Map<NodeId, u32>,
    /// Tokens that were used and haven't expired.
    pub tokens: Map<PublicKey, TokenUse>,
    /// Issuer certificates by their serials.
    pub issuers: Map<Serial, Issuer>,
    /// Every certificate that was issued and hasn't been over for long.
    pub certificates: Map<Serial, Issued>,
    /// Certificates that were revoked; S17: kept until they are over.
    pub revoked: Map<Serial, Revocation>,
    /// Hashes of SubjectPublicKeyInfos that were revoked, and until when a
    /// certificate for such a key could be valid, in milliseconds since 1970.
    pub revoked_keys: Map<Hash, u64>,
    /// Who was evicted, and the index of the batch that did it. These keys
    /// never come back.
    pub evicted: Map<NodeId, u64>,
    /// Evictions that wait for a second admin: whose, by whom, and when that
    /// was said, in milliseconds of ledger time.
    pub(super) proposals: Map<(NodeId, NodeId), u64>,
    /// When nodes were evicted within the last hour, in milliseconds of
    /// ledger time.
    pub(super) evictions: Vec<u64>,
    /// Who let each admin in, also those that are gone.
    pub(super) inviters: Map<NodeId, NodeId>,
    /// Holds that were decided, and the index of the batch that did it.
    pub(super) decided: Map<(NodeId, HoldId), u64>,
    /// Users' DNS records by name.
    pub records: Map<DomainName, Vec<UserRecord>>,
    /// How many records there are.
    pub(super) record_count: u32,
    /// Number of the last recovery from a lost roster.
    pub recovery: u32,
    /// Requests that were applied and haven't expired.
    pub(super) requests: Map<RequestKey, (u64, Outcome)>,
    /// The rules in force.
    #[serde(skip)]
    pub rules: u32,
    /// What only newer rules than the first keep; empty under rules 0.
    #[serde(skip)]
    pub(super) extension: Extension,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its key; its id is the hash of it.
    pub key: PublicKey,
    pub name: Label,
    /// Its overlay addresses.
    pub ipv4: Ipv4Addr,
    /// As `ipv4`; it follows from mesh and key.
    pub ipv6: Ipv6Addr,
    /// What it may do.
    pub roles: BTreeSet<Role>,
    /// Names that it may be granted.
    pub names: BTreeSet<NamePattern>,
    /// Networks that it may bring.
    pub routes: BTreeSet<IpNet>,
    /// Who let it in; the founder was there first.
    pub invited_by: Option<NodeId>,
    /// Index of the batch that made it a member.
    pub joined: u64,
    /// When that was, in milliseconds of ledger time.
    pub joined_ms: u64,
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
    Service,
    /// Users' records at it or below it, and nothing else.
    Records,
    /// A device without an agent; from rules 4 on.
    Device,
}

/// How far a token is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// How many joined by it.
    pub uses: u32,
    /// When it can be forgotten, in milliseconds of ledger time.
    pub expires_ms: u64,
}

/// What a CA node signs leaf certificates with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// The CA node whose it is.
    pub node: NodeId,
    /// The root-signed certificate.
    pub certificate: KeptCertificate,
    /// Index of the batch that revoked it.
    pub revoked: Option<u64>,
}

/// One certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The node that it was issued to.
    pub owner: NodeId,
    /// The issuer that signed it.
    pub issuer: Serial,
    /// Names in it, rising.
    pub names: Vec<String>,
    /// Hash of its SubjectPublicKeyInfo.
    pub key_hash: Hash,
    /// Ends of its life, in milliseconds since 1970.
    pub not_before_ms: u64,
    /// As `not_before_ms`.
    pub not_after_ms: u64,
    /// The certificate, DER; empty once nobody asks for it any more. A
    /// member's newest membership certificate is always there.
    pub der: Box<[u8]>,
}

/// What is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Hash of the certificate's SubjectPublicKeyInfo.
    pub key_hash: Hash,
    /// When it was revoked, in milliseconds of ledger time.
    pub at_ms: u64,
    /// When the certificate ends, in milliseconds since 1970.
    pub not_after_ms: u64,
}

impl State {
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

    /// What a person calls a node: its name; once it is no member, the one that
    /// it had for as long as its certificate is kept, and then its id.
    pub fn name_of(&self, node: NodeId) -> String {
        if let Some(member) = self.members.get(&node) {
            return member.name.to_string();
        }
        // A node's id is the beginning of its key's hash.
        let mut issued = self.certificates.values();
        let membership =
            issued.find(|issued| issued.owner == node && issued.key_hash.0.starts_with(&node.0));
        match membership.and_then(|issued| issued.names.first()) {
            Some(name) => format!("{} (gone)", name.split('.').next().unwrap_or(name)),
            None => node.to_string(),
        }
    }

    /// The names in a certificate; of one that gave way to a newer one for the
    /// same key and names, those of that one.
    pub fn names_in<'s>(&'s self, issued: &'s Issued) -> &'s [String] {
        if !issued.is_superseded() {
            return &issued.names;
        }
        let mut others = self.certificates.values();
        let newer = others.find(|other| {
            other.key_hash == issued.key_hash
                && other.owner == issued.owner
                && !other.is_superseded()
        });
        newer.map(|newer| &newer.names[..]).unwrap_or_default()
    }

    /// The issuers of a CA node, in no particular order.
    pub fn issuers_of(&self, node: NodeId) -> impl Iterator<Item = &Issuer> {
        self.issuers
            .values()
            .filter(move |issuer| issuer.node == node)
    }

    /// The certificate of the issuer that signed `issued`.
    pub fn issuer_of(&self, issued: &Issued) -> Option<&KeptCertificate> {
        let issuer = self.issuers.get(&issued.issuer)?;
        Some(&issuer.certificate)
    }

    /// Whether `node` has an issuer that it may sign with now.
    pub fn can_issue(&self, node: NodeId) -> bool {
        self.can_issue_at(node, self.stamp_ms)
    }

    /// As [`State::can_issue`], at another time, in milliseconds since 1970.
    pub fn can_issue_at(&self, node: NodeId, ms: u64) -> bool {
        self.is_voter(node)
            && self
                .issuers_of(node)
                .any(|issuer| issuer.revoked.is_none() && issuer.certificate.is_valid_at(ms))
    }

    /// Whether a certificate was revoked: by its serial, by its key, or with
    /// its issuer.
    pub fn is_revoked(&self, serial: &Serial, issued: &Issued) -> bool {
        let issuer = self.issuers.get(&issued.issuer);
        self.revoked.contains_key(serial)
            || self.revoked_keys.contains_key(&issued.key_hash)
            || issuer.is_none_or(|issuer| issuer.revoked.is_some())
    }

    /// The certificates of each issuer that were revoked by their serials or
    /// their keys, and when, in milliseconds of ledger time: what its revocation
    /// list is to hold.
    pub fn revocations(&self) -> BTreeMap<Serial, BTreeMap<Serial, u64>> {
        let mut keys: BTreeMap<Hash, u64> = BTreeMap::new();
        for revocation in self.revoked.values() {
            let at_ms = keys.entry(revocation.key_hash).or_insert(u64::MAX);
            *at_ms = revocation.at_ms.min(*at_ms);
        }
        let at = |serial: &Serial, issued: &Issued| {
            let by_serial = self.revoked.get(serial).map(|revocation| revocation.at_ms);
            // What the key was revoked with may be forgotten; then all of the
            // certificate's life counts.
            let by_key = || {
                let when = keys.get(&issued.key_hash).copied();
                let revoked = self.revoked_keys.contains_key(&issued.key_hash);
                revoked.then(|| when.unwrap_or(issued.not_before_ms))
            };
            by_serial.or_else(by_key)
        };
        let mut lists: BTreeMap<Serial, BTreeMap<Serial, u64>> = BTreeMap::new();
        for (serial, issued) in self.certificates.iter() {
            if let Some(at_ms) = at(serial, issued) {
                let list = lists.entry(issued.issuer).or_default();
                list.insert(*serial, at_ms);
            }
        }
        lists
    }

    /// Members whose membership certificate was revoked, by its serial or with
    /// its issuer: they are members still, and should renew.
    pub fn due_for_renewal(&self) -> impl Iterator<Item = NodeId> {
        self.members.iter().filter_map(|(node, member)| {
            let serial = member.certificate?;
            let issued = self.certificates.get(&serial)?;
            self.is_revoked(&serial, issued).then_some(*node)
        })
    }

    /// Evictions that wait for a second admin: whose, and by whom.
    pub fn proposed_evictions(&self) -> impl Iterator<Item = (NodeId, NodeId)> {
        let since = self.stamp_ms.saturating_sub(limits::EVICTION_AGREEMENT_MS);
        self.proposals
            .iter()
            .filter(move |(_, at_ms)| **at_ms >= since)
            .map(|((node, by), _)| (*node, *by))
    }

    /// Whether the ledger decided an admin's hold, either way: then it is in
    /// force no more.
    pub fn is_decided(&self, author: NodeId, hold: HoldId) -> bool {
        self.decided.contains_key(&(author, hold))
    }

    /// Whether what is kept twice for speed says the same; a test of this
    /// program's own work.
    pub fn agrees_with_itself(&self) -> bool {
        let mut held: BTreeMap<NodeId, u32> = BTreeMap::new();
        for name in self.names.values() {
            *held.entry(name.owner).or_default() += 1;
        }
        let records: usize = self.records.values().map(Vec::len).sum();
        let addresses = self.members.iter();
        let addresses: BTreeMap<Ipv4Addr, NodeId> = addresses
            .map(|(node, member)| (member.ipv4, *node))
            .collect();
        self.name_counts.iter().eq(held.iter())
            && self.addresses.iter().eq(addresses.iter())
            && records == self.record_count as usize
            && self.shares_agree()
            && self.tunnel_keys_agree()
            && self.access_agrees()
            && self.publications_agree()
            && self.salts_agree()
            && self.roster_keys.keys().eq(self.roster.iter())
            && self
                .roster
                .iter()
                .all(|node| self.voters.contains_key(node))
            && self.voters.values().all(|number| *number < self.next_voter)
    }

    /// Moves ledger time on, and forgets what is over by then.
    pub(super) fn advance(&mut self, stamp_ms: u64) {
        let before_ms = self.stamp_ms;
        self.stamp_ms = before_ms.max(stamp_ms);
        let stamp_ms = self.stamp_ms;
        // Now and then only: it looks at all of them. An expired request is
        // refused in any case.
        if before_ms / limits::FORGET_MS != stamp_ms / limits::FORGET_MS {
            let expired =
                |(_, (expires_ms, _)): &(&RequestKey, &(u64, Outcome))| *expires_ms < stamp_ms;
            let gone: Vec<RequestKey> = self
                .requests
                .iter()
                .filter(expired)
                .map(|(key, _)| *key)
                .collect();
            for key in gone {
                self.requests.remove(&key);
                self.uncount_request(key.0);
            }
            self.tokens.retain(|_, used| used.expires_ms >= stamp_ms);
            self.uncount_invites();
            let since = stamp_ms.saturating_sub(limits::EVICTION_AGREEMENT_MS);
            self.proposals.retain(|_, at_ms| *at_ms >= since);
            self.forget_role_proposals(since);
            self.expire_devices();
        }
        if before_ms / limits::COMPACT_MS != stamp_ms / limits::COMPACT_MS {
            self.compact();
        }
    }
}
