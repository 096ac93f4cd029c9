//! How the state changes: each function does one thing that was decided
//! before, and keeps what belongs together together.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    place::label_of,
    record::UserRecord,
    request::{AddRecord, HoldId, RemoveRecord, RemoveRecords, RevokeInvite, Role},
    state::{Issued, Member, Name, NameKind, Revocation, State, TokenUse},
};
use crate::{
    certificate::Serial,
    crypto::{Hash, PublicKey},
    id::NodeId,
    limits,
    name::Label,
    zone::{DomainName, RecordType},
};

/// Members.
impl State {
    pub(super) fn admit(&mut self, node: NodeId, member: Member) {
        let name = Name {
            kind: NameKind::Node,
            owner: node,
            shared: BTreeSet::new(),
            since: member.joined,
        };
        self.give_name(member.name.clone(), name);
        self.addresses.insert(member.ipv4, node);
        self.note_admission(node, &member);
        self.await_batch_after(node, member.joined);
        self.insert_member(node, member);
    }

    pub(super) fn give_name(&mut self, label: Label, name: Name) {
        let held = self.names_held_by(name.owner);
        self.name_counts.insert(name.owner, held + 1);
        self.count_name(&label, &name);
        self.names.insert(label, name);
    }

    pub(super) fn free_name(&mut self, label: &Label) {
        if let Some(name) = self.names.get(label).cloned() {
            let owner = name.owner;
            self.uncount_name(label, &name);
            match self.names_held_by(owner) {
                0 | 1 => {
                    self.name_counts.remove(&owner);
                }
                held => self.name_counts.insert(owner, held - 1),
            }
            self.names.remove(label);
        }
    }

    pub(super) fn names_held_by(&self, node: NodeId) -> u32 {
        self.name_counts.get(&node).copied().unwrap_or(0)
    }

    /// Counts one use of a token.
    pub(super) fn spend(&mut self, token: PublicKey, expires_ms: u64) {
        // Two grants for one token's key: its uses are counted for as long as
        // either could be spent.
        let before = self.tokens.get(&token);
        let used = TokenUse {
            uses: before.map_or(0, |used| used.uses) + 1,
            expires_ms: before.map_or(0, |used| used.expires_ms).max(expires_ms),
        };
        self.tokens.insert(token, used);
    }

    pub(super) fn set_membership(&mut self, node: NodeId, serial: Serial) {
        let Some(member) = self.members.get_mut(&node) else {
            return;
        };
        let earlier = member.certificate.replace(serial);
        if self.rules > 0
            && let Some(earlier) = earlier
        {
            self.shrink_certificate(earlier, false);
        }
    }

    /// Has all uses of a token be spent. It is remembered on account of whoever
    /// asked for that.
    pub(super) fn revoke_invite(&mut self, revoke: &RevokeInvite, by: NodeId) {
        let before = self.tokens.get(&revoke.token);
        let used = TokenUse {
            uses: u32::MAX,
            expires_ms: before
                .map_or(0, |used| used.expires_ms)
                .max(revoke.expires_ms),
        };
        self.tokens.insert(revoke.token, used);
        self.count_invite(by, revoke.token);
    }

    pub(super) fn membership_serials(&self) -> BTreeSet<Serial> {
        let members = self.members.values();
        members.filter_map(|member| member.certificate).collect()
    }

    /// Takes a member out with all that was its own. What an evicted one had
    /// is gone for good; of one that left its key may come back, and what others
    /// have a part in goes to them.
    pub(super) fn remove_member(&mut self, node: NodeId, index: u64, evicted: bool) {
        let Some(member) = self.members.get(&node).cloned() else {
            return;
        };
        self.take_member(node);
        self.forget_addresses(node);
        self.addresses.remove(&member.ipv4);
        self.free_tunnel_keys(&node);
        self.remove_devices_of(node);
        self.remove_routes_of(node);
        if !self.roster.contains(&node) {
            self.voters.remove(&node);
        }
        self.decided.retain(|(author, _), _| *author != node);
        self.proposals
            .retain(|(target, by), _| *target != node && *by != node);
        self.forget_role_proposals_of(node);
        self.revoke_all_of(node, &member, evicted);
        self.free_names_of(node, evicted);
        self.forget_publications();
        if evicted {
            self.drop_records(|_, record| record.owner == node);
            self.evicted.insert(node, index);
            self.note_eviction();
            let own: Vec<Serial> = self
                .issuers_of(node)
                .map(|issuer| issuer.certificate.serial)
                .collect();
            for serial in own {
                if let Some(issuer) = self.issuers.get_mut(&serial) {
                    issuer.revoked.get_or_insert(index);
                }
            }
        }
    }

    fn revoke_all_of(&mut self, node: NodeId, member: &Member, evicted: bool) {
        let serials: Vec<Serial> = self
            .certificates
            .iter()
            .filter(|(_, issued)| issued.owner == node)
            .map(|(serial, _)| *serial)
            .collect();
        let identity = Hash::of(&member.key.spki());
        for serial in serials {
            let is_identity = self.certificates[&serial].key_hash == identity;
            self.revoke(serial, evicted || !is_identity);
        }
    }

    fn free_names_of(&mut self, node: NodeId, evicted: bool) {
        let touched: Vec<(Label, Name)> = self
            .names
            .iter()
            .filter(|(_, held)| held.owner == node || held.shared.contains(&node))
            .map(|(label, held)| (label.clone(), held.clone()))
            .collect();
        for (label, mut held) in touched {
            let heir = if evicted {
                None
            } else {
                self.heir(node, &label, &held)
            };
            match (held.owner == node, heir) {
                (false, _) => self.set_shared(&label, node, false),
                (true, Some(heir)) => {
                    self.free_name(&label);
                    held.owner = heir;
                    held.shared.remove(&heir);
                    self.give_name(label, held);
                }
                (true, None) => self.release(&label),
            }
        }
    }

    /// What becomes of each name of a member's when it leaves: who has it
    /// then, or nobody.
    pub fn names_left_by(&self, node: NodeId) -> BTreeMap<Label, Option<NodeId>> {
        let mut after = self.clone();
        after.remove_member(node, self.position.index + 1, false);
        let own = self.names.iter().filter(|(_, held)| held.owner == node);
        own.map(|(label, _)| {
            let heir = after.names.get(label).map(|held| held.owner);
            (label.clone(), heir)
        })
        .collect()
    }

    /// Who has a name once `node`, which owns it, has left: a service goes on
    /// where it runs besides, records go to an admin; of several to who has
    /// been a member for longest, and who has room for it.
    fn heir(&self, node: NodeId, label: &Label, name: &Name) -> Option<NodeId> {
        let able = |other: &NodeId, member: &Member| match name.kind {
            NameKind::Node | NameKind::Device => false,
            NameKind::Service => name.shared.contains(other),
            NameKind::Records => member.roles.contains(&Role::Admin),
        };
        self.members
            .iter()
            .filter(|(other, member)| **other != node && able(other, member))
            .filter(|(other, _)| self.may_inherit(**other, label, name))
            .min_by_key(|(other, member)| (member.joined, **other))
            .map(|(other, _)| *other)
    }

    /// Who asked for the eviction of `node`, and when.
    pub(super) fn proposals_against(&self, node: NodeId) -> impl Iterator<Item = (NodeId, u64)> {
        let first = (node, NodeId([0; 16]));
        let last = (node, NodeId([0xff; 16]));
        self.proposals
            .range(first..=last)
            .map(|((_, by), at_ms)| (*by, *at_ms))
    }

    /// Evictions within the last hour of ledger time.
    pub(super) fn recent_evictions(&self) -> usize {
        let since = self.stamp_ms.saturating_sub(limits::EVICTION_AGREEMENT_MS);
        self.evictions
            .iter()
            .filter(|at_ms| **at_ms > since)
            .count()
    }

    fn note_eviction(&mut self) {
        let since = self.stamp_ms.saturating_sub(limits::EVICTION_AGREEMENT_MS);
        self.evictions.retain(|at_ms| *at_ms > since);
        self.evictions.push(self.stamp_ms);
    }

    /// Remembers that a hold was decided; of one author's only the newest, as
    /// it takes back what it announces once it has seen that.
    pub(super) fn decide_hold(&mut self, author: NodeId, hold: HoldId, index: u64) {
        self.decided.insert((author, hold), index);
        let first = (author, HoldId([0; 16]));
        let last = (author, HoldId([0xff; 16]));
        let own: Vec<(u64, HoldId)> = self
            .decided
            .range(first..=last)
            .map(|((_, hold), index)| (*index, *hold))
            .collect();
        if own.len() > limits::HOLDS_DECIDED
            && let Some((_, oldest)) = own.into_iter().min()
        {
            self.decided.remove(&(author, oldest));
        }
    }
}

/// Names and records.
impl State {
    /// Frees a name with all records at it and below it.
    pub(super) fn release(&mut self, label: &Label) {
        self.free_name(label);
        let gone = label.clone();
        let state = self.clone();
        self.drop_records(|name, _| label_of(&state, name).as_ref() == Some(&gone));
        self.forget_publications();
    }

    /// A service's name; also one that had records only.
    pub(super) fn claim(&mut self, label: Label, owner: NodeId, index: u64) {
        match self.names.get_mut(&label) {
            Some(held) => held.kind = NameKind::Service,
            None => self.give_name(
                label,
                Name {
                    kind: NameKind::Service,
                    owner,
                    shared: BTreeSet::new(),
                    since: index,
                },
            ),
        }
    }

    pub(super) fn add_record(&mut self, record: AddRecord, owner: NodeId, index: u64) {
        // S8: what has records is nobody else's to claim.
        if let Some(label) = label_of(self, &record.name)
            && !self.names.contains_key(&label)
        {
            let name = Name {
                kind: NameKind::Records,
                owner,
                shared: BTreeSet::new(),
                since: index,
            };
            self.give_name(label, name);
        }
        let mut all = self.records.get(&record.name).cloned().unwrap_or_default();
        let name = record.name.clone();
        let added = UserRecord::of(record, owner, index);
        self.count_record(&name, &added);
        all.push(added);
        self.record_count += 1;
        self.records.insert(name, all);
    }

    /// Gives a record that is there another TTL, or other readers.
    pub(super) fn change_record(&mut self, change: AddRecord) {
        let mut all = self.records.get(&change.name).cloned().unwrap_or_default();
        for record in all.iter_mut().filter(|held| held.data == change.data) {
            self.uncount_record(&change.name, record);
            record.ttl_s = change.ttl_s;
            record.public = change.public;
            self.count_record(&change.name, record);
        }
        self.records.insert(change.name, all);
    }

    pub(super) fn remove_record(&mut self, remove: &RemoveRecord) {
        self.drop_records(|name, record| *name == remove.name && record.data == remove.data);
    }

    pub(super) fn remove_records(&mut self, remove: &RemoveRecords) {
        let rtype = RecordType(remove.rtype);
        self.drop_records(|name, record| {
            *name == remove.name && record.data.record_type() == rtype
        });
    }

    /// Takes records away, and names that stood for nothing but them.
    fn drop_records(&mut self, gone: impl Fn(&DomainName, &UserRecord) -> bool) {
        let touched: Vec<(DomainName, Vec<UserRecord>)> = self
            .records
            .iter()
            .filter(|(name, all)| all.iter().any(|record| gone(name, record)))
            .map(|(name, all)| (name.clone(), all.clone()))
            .collect();
        for (name, mut all) in touched {
            let before = all.len();
            for record in all.iter().filter(|record| gone(&name, record)) {
                self.uncount_record(&name, record);
            }
            all.retain(|record| !gone(&name, record));
            self.record_count -= (before - all.len()) as u32;
            if all.is_empty() {
                self.records.remove(&name);
                self.free_if_empty(&name);
            } else {
                self.records.insert(name, all)
            }
        }
    }

    fn free_if_empty(&mut self, name: &DomainName) {
        let Some(label) = label_of(self, name) else {
            return;
        };
        let only_records = self
            .names
            .get(&label)
            .is_some_and(|held| held.kind == NameKind::Records);
        let more = || {
            self.records
                .keys()
                .any(|other| label_of(self, other).as_ref() == Some(&label))
        };
        if only_records && !more() {
            self.free_name(&label);
        }
    }
}

/// Certificates.
impl State {
    /// Revokes a certificate, and with it its key.
    pub(super) fn revoke(&mut self, serial: Serial, with_key: bool) {
        let Some(issued) = self.certificates.get(&serial) else {
            return;
        };
        let (key_hash, not_after_ms) = (issued.key_hash, issued.not_after_ms);
        if !self.revoked.contains_key(&serial) {
            let revocation = Revocation {
                key_hash,
                at_ms: self.stamp_ms,
                not_after_ms,
            };
            self.revoked.insert(serial, revocation);
        }
        if with_key {
            let until = self.revoked_keys.get(&key_hash).copied().unwrap_or(0);
            self.revoked_keys.insert(key_hash, until.max(not_after_ms));
        }
    }

    /// Keeps of certificates what is still of use. Every node does so at the
    /// same stamps, as it looks at all of them.
    pub(super) fn compact(&mut self) {
        let stamp_ms = self.stamp_ms;
        let over = |not_after_ms: u64| {
            stamp_ms > not_after_ms.saturating_add(limits::CERTIFICATE_SLACK_MS)
        };
        let grace_ms = u64::from(limits::RENEWAL_GRACE_DAYS) * 86_400_000;
        self.uncount_renewals();
        let memberships = self.membership_serials();
        let is_over = |(serial, issued): &(&Serial, &Issued)| {
            let grace_ms = if memberships.contains(serial) {
                grace_ms
            } else {
                0
            };
            over(issued.not_after_ms.saturating_add(grace_ms))
        };
        let gone: Vec<Serial> = self
            .certificates
            .iter()
            .filter(is_over)
            .map(|(serial, _)| *serial)
            .collect();
        for serial in &gone {
            self.remove_certificate(serial);
        }
        let whole_ms = if self.rules == 0 {
            limits::CERTIFICATE_WHOLE_MS
        } else {
            limits::CERTIFICATE_FETCH_MS
        };
        let old: Vec<Serial> = self
            .certificates
            .iter()
            .filter(|(serial, issued)| {
                !issued.der.is_empty()
                    && stamp_ms > issued.not_before_ms.saturating_add(whole_ms)
                    && !memberships.contains(serial)
            })
            .map(|(serial, _)| *serial)
            .collect();
        for serial in old {
            self.shrink_certificate(serial, false);
        }
        self.revoked
            .retain(|_, revocation| !over(revocation.not_after_ms));
        // Another certificate for the key may last longer than the one that it
        // was revoked with.
        let others = self.certificates.values();
        let known: BTreeSet<Hash> = others.map(|issued| issued.key_hash).collect();
        self.revoked_keys
            .retain(|key, not_after_ms| !over(*not_after_ms) || known.contains(key));
        // A membership may be looked at with its issuer for the grace period.
        self.issuers
            .retain(|_, issuer| !over(issuer.certificate.not_after_ms.saturating_add(grace_ms)));
    }
}
