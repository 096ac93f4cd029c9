//! The ledger as people read it: who did what, when, and by whose authority.

use std::{collections::BTreeSet, fmt};

pub use super::kinds::KINDS;
use super::{
    access_phrases::{access_done, access_wish},
    batch::{Batch, Entry, Genesis, Header},
    chain::BatchError,
    kinds::kind,
    outcome::Outcome,
    phrases::{admitted, by_root, count, list, record, with_addresses, with_roles},
    refusal::Refusal,
    request::{Author, Content, Evict, Grant, Join, RemoveRecord, Request, RoleChange, Withdraw},
    state::State,
    utc::Utc,
};
use crate::{certificate::Certificate, crypto::Verify, id::NodeId};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// The batch that it stands in.
    pub index: u64,
    /// When, in milliseconds of ledger time.
    pub stamp_ms: u64,
    /// Whether it was refused, so that nothing changed.
    pub refused: bool,
    /// What kind of thing it is, of [`KINDS`].
    pub kind: &'static str,
    /// By whose authority; the name of a member, if one asked.
    pub who: Option<String>,
    /// Names of all machines that it is about, `who` too.
    pub nodes: BTreeSet<String>,
    /// What happened, without a stop at the end and without characters that
    /// a terminal would obey.
    pub text: String,
}

impl fmt::Display for AuditEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{} {}", Utc(self.stamp_ms), self.index, self.text)
    }
}

impl Genesis {
    /// How the ledger began.
    pub fn describe(&self) -> AuditEvent {
        let name = self.name.to_string();
        AuditEvent {
            index: 0,
            stamp_ms: self.stamp_ms,
            refused: false,
            kind: "founded",
            who: None,
            text: format!("the root founded the mesh {} with {name}", self.domain),
            nodes: [name].into(),
        }
    }
}

impl State {
    /// As [`State::apply`], and what happened, entry by entry. A batch that
    /// only moves ledger time on, or gives members their places, says nothing.
    ///
    /// # Errors
    /// As [`State::apply`].
    pub fn describe(
        &self,
        batch: &Batch,
        verify: &dyn Verify,
    ) -> Result<(Self, Vec<AuditEvent>), BatchError> {
        let (after, outcomes) = self.apply(batch, verify)?;
        let header = batch.read_header()?;
        let teller = Describer {
            before: self,
            after: &after,
            header: &header,
        };
        let sentences = teller.tell(batch, &outcomes);
        Ok((after, sentences))
    }
}

struct Describer<'s> {
    before: &'s State,
    after: &'s State,
    header: &'s Header,
}

impl Describer<'_> {
    fn tell(&self, batch: &Batch, outcomes: &[Outcome]) -> Vec<AuditEvent> {
        let mut sentences: Vec<AuditEvent> = batch
            .entries
            .iter()
            .zip(outcomes)
            .map(|(entry, outcome)| self.entry(entry, outcome))
            .collect();
        if self.header.recovery.is_some() {
            let text = format!(
                "the root gave the ledger a new roster: {} (recovery {})",
                self.nodes(&self.after.roster),
                self.after.recovery
            );
            let roster = self.after.roster.iter();
            sentences.push(AuditEvent {
                nodes: roster.map(|node| self.node(*node)).collect(),
                ..self.event("recover", text)
            });
        }
        sentences
    }

    fn event(&self, kind: &'static str, text: String) -> AuditEvent {
        AuditEvent {
            index: self.header.index,
            stamp_ms: self.header.stamp_ms,
            refused: false,
            kind,
            who: None,
            nodes: BTreeSet::new(),
            text: text.chars().filter(|c| !c.is_control()).collect(),
        }
    }

    fn entry(&self, entry: &Entry, outcome: &Outcome) -> AuditEvent {
        let refused = matches!(outcome, Outcome::Refused(_));
        let Ok(request) = Request::peek(&entry.request) else {
            let text = "something that is no request was refused".into();
            return AuditEvent {
                refused,
                ..self.event("unknown", text)
            };
        };
        let (who, author) = match request.author {
            Author::Node(node) => (self.node(node), Some(self.node(node))),
            Author::Token(_) => ("the holder of a token".into(), None),
        };
        let content = Content::decode(request.kind, &request.content);
        let (kind, concerned) = match &content {
            Some(content) => (kind(content), self.concerned(content)),
            None => ("unknown", Vec::new()),
        };
        let text = match content {
            Some(content) => self.became(&who, &content, entry, outcome),
            None => format!(
                "{who} asked for something that this version doesn't know (kind {})",
                request.kind
            ),
        };
        AuditEvent {
            refused,
            nodes: author.iter().cloned().chain(concerned).collect(),
            who: author,
            ..self.event(kind, text)
        }
    }

    fn became(&self, who: &str, content: &Content, entry: &Entry, outcome: &Outcome) -> String {
        match outcome {
            Outcome::Refused(refusal) => self.refusal(who, content, refusal),
            Outcome::Done(index) | Outcome::Waiting(index) if *index != self.header.index => {
                format!("{who} sent again what batch {index} had decided")
            }
            Outcome::Waiting(_) => {
                format!(
                    "{who} asked to {}; a second admin is awaited",
                    self.wish(content)
                )
            }
            Outcome::Done(_) => self.done(who, content, entry),
        }
    }

    /// Whom a request is about, beside its author.
    fn concerned(&self, content: &Content) -> Vec<String> {
        match content {
            Content::Join(join) => self.joining(join),
            Content::KeyedJoin(keyed) => self.joining(&keyed.join),
            Content::Admit(admit) => vec![admit.name.to_string()],
            Content::KeyedAdmit(keyed) => vec![keyed.admit.name.to_string()],
            Content::Share(share) | Content::Unshare(share) => vec![self.node(share.with)],
            Content::Promote(promote) => vec![self.node(promote.node)],
            Content::Demote(node) => vec![self.node(*node)],
            Content::Roster(change) => change.voters.iter().map(|node| self.node(*node)).collect(),
            Content::Evict(evict) => vec![self.node(evict.node)],
            Content::GiveRole(change) | Content::TakeRole(change) => vec![self.node(change.node)],
            Content::Withdraw(withdraw) => vec![self.node(withdraw.node)],
            Content::Unhold(unhold) => vec![self.node(unhold.author)],
            Content::AddDevice(add) => vec![self.node(add.owner)],
            Content::AddRoute(change) | Content::RemoveRoute(change) => {
                vec![self.node(change.gateway)]
            }
            Content::Publish(publish) => vec![self.node(publish.at.on)],
            Content::Unpublish(at) => vec![self.node(at.on)],
            Content::PublishKey(set) => vec![self.node(set.on)],
            Content::Revoke(serial) => {
                let issued = self.before.certificates.get(serial);
                issued
                    .map(|issued| self.node(issued.owner))
                    .into_iter()
                    .collect()
            }
            Content::Renew
            | Content::Policy(_)
            | Content::Claim(_)
            | Content::Release(_)
            | Content::Certify(_)
            | Content::Leave
            | Content::AddRecord(_)
            | Content::RemoveRecords(_)
            | Content::RemoveRecord(_)
            | Content::Rules(_)
            | Content::RevokeInvite(_)
            | Content::ChangeDevice(_)
            | Content::RemoveDevice(_)
            | Content::TunnelKey(_) => Vec::new(),
        }
    }

    fn joining(&self, join: &Join) -> Vec<String> {
        let grant = Grant::peek(&join.grant).ok();
        let inviter = grant.map(|grant| self.node(grant.inviter));
        inviter.into_iter().chain([join.name.to_string()]).collect()
    }

    fn refusal(&self, who: &str, content: &Content, refusal: &Refusal) -> String {
        format!("{who} asked to {}; refused: {refusal}", self.wish(content))
    }

    /// What is asked, behind "asked to".
    fn wish(&self, content: &Content) -> String {
        match content {
            Content::Join(join) => format!("join as {}", join.name),
            Content::KeyedJoin(keyed) => format!("join as {}", keyed.join.name),
            Content::TunnelKey(key) => format!("have the WireGuard key {key}"),
            Content::Admit(admit) => format!("let {} in", admit.name),
            Content::KeyedAdmit(keyed) => format!("let {} in", keyed.admit.name),
            Content::Renew => "renew its membership".into(),
            Content::Claim(name) => format!("have the name {name}"),
            Content::Share(share) => {
                format!("share {} with {}", share.name, self.node(share.with))
            }
            Content::Unshare(share) => {
                format!(
                    "share {} with {} no longer",
                    share.name,
                    self.node(share.with)
                )
            }
            Content::Release(name) => format!("give the name {name} back"),
            Content::Certify(certify) => {
                format!("have a certificate for {}", list(certify.names.iter()))
            }
            Content::Promote(promote) => {
                format!("make {} a CA node", self.node(promote.node))
            }
            Content::Demote(node) => format!("make {} an ordinary member", self.node(*node)),
            Content::Roster(change) => {
                format!("make {} the roster", self.nodes(&change.voters))
            }
            Content::Leave => "leave".into(),
            Content::Evict(evict) => format!("evict {}", self.node(evict.node)),
            Content::GiveRole(change) => {
                format!("give {} the role {}", self.node(change.node), change.role)
            }
            Content::TakeRole(change) => {
                format!(
                    "take the role {} from {}",
                    change.role,
                    self.node(change.node)
                )
            }
            Content::Withdraw(withdraw) => format!("withdraw {}", self.withdrawn(withdraw)),
            Content::RevokeInvite(revoke) => format!("revoke the invite {}", revoke.id()),
            Content::Unhold(unhold) => {
                format!("let a hold of {} go", self.node(unhold.author))
            }
            Content::Revoke(serial) => format!("revoke the certificate {serial}"),
            Content::AddRecord(add) => format!("add the record {}", record(&add.name, &add.data)),
            Content::RemoveRecords(remove) => format!(
                "remove the {} records of {}",
                crate::zone::RecordType(remove.rtype),
                remove.name
            ),
            Content::RemoveRecord(RemoveRecord { name, data }) => {
                format!("remove the record {}", record(name, data))
            }
            Content::Rules(rules) => format!("raise the rules to {rules}"),
            Content::AddDevice(_)
            | Content::ChangeDevice(_)
            | Content::RemoveDevice(_)
            | Content::AddRoute(_)
            | Content::RemoveRoute(_)
            | Content::Policy(_)
            | Content::Publish(_)
            | Content::Unpublish(_)
            | Content::PublishKey(_) => access_wish(self.before, content),
        }
    }

    fn done(&self, who: &str, content: &Content, entry: &Entry) -> String {
        match content {
            Content::Join(join) => self.joined(join),
            Content::KeyedJoin(keyed) => self.joined(&keyed.join),
            Content::TunnelKey(key) => format!("{who} has the WireGuard key {key} from now on"),
            Content::Admit(admit) => admitted(who, admit),
            Content::KeyedAdmit(keyed) => admitted(who, &keyed.admit),
            Content::Renew => {
                format!("{who} renewed its membership{}", self.issued(entry))
            }
            Content::Claim(name) => format!("{who} got the name {name}"),
            Content::Share(share) => {
                format!("{who} shared {} with {}", share.name, self.node(share.with))
            }
            Content::Unshare(share) => format!(
                "{who} shares {} with {} no longer",
                share.name,
                self.node(share.with)
            ),
            Content::Release(name) => format!("{who} gave the name {name} back"),
            Content::Certify(certify) => format!(
                "{who} got a certificate for {}{}",
                list(certify.names.iter()),
                self.issued(entry)
            ),
            Content::Promote(promote) if self.before.is_voter(promote.node) => format!(
                "{who} gave {} {} more, signed by the root",
                self.node(promote.node),
                count(promote.issuers.len(), "issuer")
            ),
            Content::Promote(promote) => format!(
                "{who} made {} a CA node, by {} that the root signed",
                self.node(promote.node),
                count(promote.issuers.len(), "issuer")
            ),
            Content::Demote(node) => {
                format!("{who} made {} an ordinary member", self.node(*node))
            }
            Content::Roster(change) => format!(
                "{who} brought the roster to {}; epoch {} ended",
                self.nodes(&change.voters),
                self.header.epoch
            ),
            Content::Leave => format!("{who} left"),
            Content::Evict(evict) => self.evicted(who, evict),
            Content::GiveRole(change) => format!(
                "{who} gave {} the role {}{}",
                self.node(change.node),
                change.role,
                by_root(change)
            ),
            Content::TakeRole(change) => self.taken(who, change),
            Content::Withdraw(withdraw) => format!("{who} withdrew {}", self.withdrawn(withdraw)),
            Content::RevokeInvite(revoke) => format!("{who} revoked the invite {}", revoke.id()),
            Content::Unhold(unhold) => {
                format!("{who} let a hold of {} go", self.node(unhold.author))
            }
            Content::Revoke(serial) => {
                let issued = self.before.certificates.get(serial);
                let names = issued.map(|issued| format!(" for {}", list(issued.names.iter())));
                let names = names.unwrap_or_default();
                format!("{who} revoked the certificate {serial}{names}")
            }
            Content::AddRecord(add) => {
                format!("{who} added the record {}", record(&add.name, &add.data))
            }
            Content::RemoveRecords(remove) => format!(
                "{who} removed the {} records of {}",
                crate::zone::RecordType(remove.rtype),
                remove.name
            ),
            Content::RemoveRecord(RemoveRecord { name, data }) => {
                format!("{who} removed the record {}", record(name, data))
            }
            Content::Rules(rules) => {
                format!("{who} raised the rules to {rules}, which all CA nodes know")
            }
            Content::AddDevice(_)
            | Content::ChangeDevice(_)
            | Content::RemoveDevice(_)
            | Content::AddRoute(_)
            | Content::RemoveRoute(_)
            | Content::Policy(_)
            | Content::Publish(_)
            | Content::Unpublish(_)
            | Content::PublishKey(_) => access_done(who, self.before, content),
        }
    }

    fn joined(&self, join: &Join) -> String {
        let grant = Grant::peek(&join.grant).ok();
        let inviter = grant.as_ref().map(|grant| self.node(grant.inviter));
        let addresses = grant.as_ref().map(|grant| with_addresses(&grant.addresses));
        let roles = grant.as_ref().map(|grant| with_roles(&grant.roles));
        format!(
            "{} joined{}{}, by an invite of {}",
            join.name,
            roles.unwrap_or_default(),
            addresses.unwrap_or_default(),
            inviter.unwrap_or_else(|| "nobody known".into())
        )
    }

    fn evicted(&self, who: &str, evict: &Evict) -> String {
        let node = self.node(evict.node);
        if evict.root.is_some() {
            return format!("{who} evicted {node}, by the root's signature");
        }
        let others = self.before.proposals_against(evict.node);
        let others = self.had_asked(who, others);
        format!("{who} evicted {node}{others}")
    }

    fn taken(&self, who: &str, change: &RoleChange) -> String {
        let RoleChange { node, role, .. } = *change;
        let name = self.node(node);
        if name == who {
            return format!("{who} gave up the role {role}");
        }
        let others = self.before.role_proposals(node, role);
        let others = self.had_asked(who, others);
        let root = by_root(change);
        format!("{who} took the role {role} from {name}{root}{others}")
    }

    /// Which admins had asked for the same, beside `who`.
    fn had_asked(&self, who: &str, words: impl Iterator<Item = (NodeId, u64)>) -> String {
        let others: BTreeSet<NodeId> = words.map(|(by, _)| by).collect();
        let others: Vec<String> = others.iter().map(|by| self.node(*by)).collect();
        let others: Vec<&String> = others.iter().filter(|by| *by != who).collect();
        if others.is_empty() {
            return String::new();
        }
        format!(", as {} had asked", list(others.into_iter()))
    }

    fn withdrawn(&self, withdraw: &Withdraw) -> String {
        let node = self.node(withdraw.node);
        match withdraw.role {
            Some(role) => format!("that the role {role} be taken from {node}"),
            None => format!("that {node} be evicted"),
        }
    }

    /// Which certificate an entry brought, and by whose issuer.
    fn issued(&self, entry: &Entry) -> String {
        let certificate = Certificate::parse(&entry.attachment).ok();
        let found = certificate.and_then(|certificate| {
            let issued = self.after.certificates.get(&certificate.serial)?;
            let issuer = self.after.issuers.get(&issued.issuer)?;
            let by = self.node(issuer.node);
            Some(format!(" ({}, signed by {by})", certificate.serial))
        });
        found.unwrap_or_default()
    }

    fn node(&self, node: NodeId) -> String {
        let states = [self.before, self.after];
        let member = states.iter().find_map(|state| state.members.get(&node));
        match member {
            Some(member) => member.name.to_string(),
            None => format!("the machine {node}"),
        }
    }

    fn nodes(&self, nodes: &BTreeSet<NodeId>) -> String {
        list(nodes.iter().map(|node| self.node(*node)))
    }
}
