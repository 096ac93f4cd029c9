//! S36: one admin alone, or with those that it made admins within a day, takes no
//! admin and no CA node out, nor its role, in whatever order it asks. Its own
//! reading of who asked for what, without the ledger's rules.

use std::collections::{BTreeMap, BTreeSet};

use innermesh_proto::{
    id::NodeId,
    ledger::{
        Author, Batch, Content, Grant, Request, Role, State,
        request::{Join, RoleChange},
    },
    limits,
};

use crate::violation::Seen;

/// For how long a word counts.
const HOUR_MS: u64 = 3600 * 1000;
/// For how long an admin speaks for whoever made it one.
const DAY_MS: u64 = 24 * HOUR_MS;

/// Who is an admin or a CA node, and what was asked against whom.
#[derive(Default)]
pub struct Admins {
    /// Up to which batch, and after which recovery by the root.
    read: (u32, u64),
    /// Whether all batches since the roles were compared were read.
    gap: bool,
    roles: BTreeMap<NodeId, BTreeSet<Role>>,
    /// Who ever made whom an admin.
    makers: BTreeMap<NodeId, BTreeSet<NodeId>>,
    since_ms: BTreeMap<NodeId, u64>,
    /// Against whom, by whom and when.
    words: BTreeMap<NodeId, Vec<(NodeId, u64)>>,
    /// Who went by its own word or the root's.
    agreed: BTreeSet<NodeId>,
}

impl Admins {
    /// Reads a batch, once for all nodes, and compares the roles once the state
    /// is as new as what was read.
    ///
    /// # Errors
    /// S36.
    pub fn take(&mut self, state: &State, batch: &Batch) -> Result<(), Seen> {
        let Ok(header) = batch.read_header() else {
            return Ok(());
        };
        let place = (state.recovery, header.index);
        if place > self.read {
            // What the root gave away isn't for admins to agree to.
            self.gap |= place != (self.read.0, self.read.1 + 1) || header.recovery.is_some();
            self.read = place;
            for entry in &batch.entries {
                self.note(&entry.request.bytes, header.stamp_ms);
            }
        }
        if self.read == (state.recovery, state.position.index) {
            return self.compare(state);
        }
        Ok(())
    }

    fn note(&mut self, request: &[u8], stamp_ms: u64) -> Option<()> {
        let request: Request =
            innermesh_proto::codec::decode(request, limits::POLICY_REQUEST_BYTES).ok()?;
        let content = Content::decode(request.kind, &request.content)?;
        let author = match (request.author, &content) {
            (Author::Token(_), Content::Join(join)) => return self.joins(join, stamp_ms),
            (Author::Token(_), Content::KeyedJoin(keyed)) => {
                return self.joins(&keyed.join, stamp_ms);
            }
            (Author::Token(_), _) => return None,
            (Author::Node(author), _) => author,
        };
        match content {
            Content::Admit(admit) if admit.roles.contains(&Role::Admin) => {
                self.made(admit.node.node_id(), Some(author), stamp_ms);
            }
            Content::KeyedAdmit(keyed) if keyed.admit.roles.contains(&Role::Admin) => {
                self.made(keyed.admit.node.node_id(), Some(author), stamp_ms);
            }
            Content::GiveRole(RoleChange {
                node,
                role: Role::Admin,
                root,
            }) if root.is_some() || self.is_admin(author) => {
                let maker = root.is_none().then_some(author);
                self.made(node, maker, stamp_ms);
            }
            Content::TakeRole(change) => {
                self.word(change.node, author, change.root.is_some(), stamp_ms);
            }
            Content::Evict(evict) => {
                self.word(evict.node, author, evict.root.is_some(), stamp_ms);
            }
            Content::Demote(node) => self.word(node, author, false, stamp_ms),
            Content::Leave => {
                self.agreed.insert(author);
            }
            _ => {}
        }
        Some(())
    }

    fn joins(&mut self, join: &Join, stamp_ms: u64) -> Option<()> {
        let grant = Grant::peek(&join.grant).ok()?;
        if grant.roles.contains(&Role::Admin) {
            self.made(join.node.node_id(), Some(grant.inviter), stamp_ms);
        }
        Some(())
    }

    fn made(&mut self, node: NodeId, maker: Option<NodeId>, stamp_ms: u64) {
        if self.is_admin(node) {
            return;
        }
        self.roles.entry(node).or_default().insert(Role::Admin);
        self.since_ms.insert(node, stamp_ms);
        let makers = self.makers.entry(node).or_default();
        match maker {
            Some(maker) => {
                makers.insert(maker);
            }
            // The root speaks for it.
            None => makers.clear(),
        }
    }

    fn word(&mut self, node: NodeId, author: NodeId, by_root: bool, stamp_ms: u64) {
        if by_root || author == node {
            self.agreed.insert(node);
        } else if self.is_admin(author) {
            self.words.entry(node).or_default().push((author, stamp_ms));
        }
    }

    fn is_admin(&self, node: NodeId) -> bool {
        let roles = self.roles.get(&node);
        roles.is_some_and(|roles| roles.contains(&Role::Admin))
    }

    /// Whoever lost a role lost it by its own word, the root's, or two persons'.
    fn compare(&mut self, state: &State) -> Result<(), Seen> {
        let now: BTreeMap<NodeId, BTreeSet<Role>> = state
            .members
            .iter()
            .map(|(node, member)| {
                let roles = member.roles.iter().copied();
                let roles = roles.filter(|role| matches!(role, Role::Admin | Role::Ca));
                (*node, roles.collect())
            })
            .collect();
        let before = std::mem::replace(&mut self.roles, now);
        let gap = std::mem::take(&mut self.gap);
        let agreed = std::mem::take(&mut self.agreed);
        if gap || state.rules < 2 {
            return Ok(());
        }
        for (node, roles) in &before {
            let left = self.roles.get(node).cloned().unwrap_or_default();
            let lost: Vec<String> = roles.difference(&left).map(ToString::to_string).collect();
            if lost.is_empty() || agreed.contains(node) || self.two_agree(*node, state.stamp_ms) {
                continue;
            }
            let by = self.words.get(node).cloned().unwrap_or_default();
            let by: BTreeSet<NodeId> = by.into_iter().map(|(by, _)| by).collect();
            let words = format!(
                "{node} lost the role {} by {by:?} alone",
                lost.join(" and ")
            );
            return Err(("S36", words));
        }
        Ok(())
    }

    fn two_agree(&self, node: NodeId, now_ms: u64) -> bool {
        let all = self.words.get(&node).map(Vec::as_slice).unwrap_or_default();
        let of_two = |(first, first_ms): &(NodeId, u64), (second, second_ms): &(NodeId, u64)| {
            let (firsts, seconds) = (
                self.speakers(*first, now_ms),
                self.speakers(*second, now_ms),
            );
            let apart = |one: &NodeId| {
                let mut seconds = seconds.iter();
                seconds.all(|second| one != second && !self.came_by(*second, *one))
            };
            first != second
                && first_ms <= second_ms
                && second_ms - first_ms <= HOUR_MS
                && !self.came_by(*second, *first)
                && !firsts.is_empty()
                && !seconds.is_empty()
                && firsts.iter().all(apart)
        };
        all.iter()
            .any(|first| all.iter().any(|second| of_two(first, second)))
    }

    /// Who speaks when an admin does.
    fn speakers(&self, admin: NodeId, now_ms: u64) -> BTreeSet<NodeId> {
        let is_new = |node: &NodeId| {
            let since = self.since_ms.get(node);
            since.is_some_and(|since| now_ms < since + DAY_MS)
                && self
                    .makers
                    .get(node)
                    .is_some_and(|makers| !makers.is_empty())
        };
        let mut all = BTreeSet::from([admin]);
        let mut seen = BTreeSet::new();
        while let Some(new) = all.iter().copied().find(is_new) {
            all.remove(&new);
            seen.insert(new);
            let makers = self.makers.get(&new).into_iter().flatten();
            all.extend(makers.filter(|maker| !seen.contains(maker)));
        }
        all
    }

    /// Whether a node was made an admin by another, at any remove.
    fn came_by(&self, node: NodeId, by: NodeId) -> bool {
        let mut open = vec![node];
        let mut seen = BTreeSet::new();
        while let Some(at) = open.pop() {
            for maker in self.makers.get(&at).into_iter().flatten() {
                if *maker == by {
                    return true;
                }
                if seen.insert(*maker) {
                    open.push(*maker);
                }
            }
        }
        false
    }
}
