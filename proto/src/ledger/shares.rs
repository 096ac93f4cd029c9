//! What each node may have of the state, from rules 1 on (S24): so many names,
//! records, certificates and invites, and bytes in all. A part is reserved for
//! each node that no other can take; what is left is shared.
//!
//! Bytes are an upper bound of an item's encoding with all that may be added
//! for it later, such as its revocation: what takes something away always fits.

use super::{
    effect::Effect,
    extension::Shares,
    place::label_of,
    record::UserRecord,
    refusal::Refusal,
    request::{AddRecord, Author, Role},
    sizes::{
        SHARE, TOKEN, certificate_bytes, der_bytes, issued_bytes, member_bytes, name_bytes,
        record_bytes,
    },
    state::{Issued, Member, Name, State},
};
use crate::{
    certificate::{LeafPlan, Serial},
    codec,
    crypto::{Hash, PublicKey},
    id::NodeId,
    limits::{self, REQUEST_REMEMBERED_BYTES as REQUEST},
    map::Map,
    name::Label,
    zone::DomainName,
};

impl State {
    /// Whether what a request would change stays within its author's share.
    pub(super) fn check_shares(&self, author: Author, effect: &Effect) -> Result<(), Refusal> {
        match effect {
            Effect::Join(join) => {
                self.check_return(&join.member, &join.plan)?;
                match (join.member.invited_by, join.token) {
                    (Some(inviter), Some((token, _))) => self.check_invite(inviter, token),
                    _ => self.check_requests(author, limits::REQUESTS_REMEMBERED),
                }
            }
            Effect::Claim(label, owner) => {
                self.check_requests(author, limits::REQUESTS_PER_NODE)?;
                if self.names.contains_key(label) {
                    return Ok(());
                }
                self.check_names(*owner)?;
                self.check_bytes(*owner, name_bytes(label, 0))
            }
            Effect::Share(share) => {
                self.check_requests(author, limits::REQUESTS_PER_NODE)?;
                let owner = self.names.get(&share.name).map(|name| name.owner);
                owner.map_or(Ok(()), |owner| self.check_bytes(owner, SHARE))
            }
            Effect::Certify(plan, owner) => {
                self.check_requests(author, limits::REQUESTS_PER_NODE)?;
                self.check_certificate(plan, *owner)
            }
            Effect::AddRecord(record, owner) => {
                self.check_requests(author, limits::REQUESTS_PER_NODE)?;
                self.check_record(record, *owner)
            }
            Effect::AddDevice(..) | Effect::ChangeDevice(..) | Effect::AddRoute(_) => {
                self.check_access_share(author, effect)
            }
            Effect::RevokeInvite(revoke, by) => {
                self.check_requests(author, limits::REQUESTS_REMEMBERED)?;
                self.check_invite(*by, revoke.token)
            }
            Effect::Nothing
            | Effect::ChangeRecord(_)
            | Effect::TunnelKey(..)
            | Effect::PublishKey(..) => self.check_requests(author, limits::REQUESTS_PER_NODE),
            // What takes something away, what keeps members members, and what
            // only admins and the roster may.
            _ => self.check_requests(author, limits::REQUESTS_REMEMBERED),
        }
    }

    pub(super) fn check_requests(&self, author: Author, most: u32) -> Result<(), Refusal> {
        let Author::Node(node) = author else {
            return Ok(());
        };
        if self.requests_of(node) >= most {
            return Err(Refusal::TooManyRequests);
        }
        Ok(())
    }

    /// How many requests of a node are remembered.
    fn requests_of(&self, node: NodeId) -> u32 {
        let requests = &self.extension.shares.requests;
        requests.get(&node).copied().unwrap_or(0)
    }

    /// What a machine left behind is its own when it comes back: each time one
    /// more membership.
    fn check_return(&self, member: &Member, plan: &LeafPlan) -> Result<(), Refusal> {
        let names: Vec<String> = plan.dns.iter().cloned().collect();
        let certificate = certificate_bytes(&names, 0) + der_bytes(plan);
        let bytes = member_bytes(member, self.rules) + certificate;
        self.check_asked(member.key.node_id(), bytes)
    }

    fn check_invite(&self, inviter: NodeId, token: PublicKey) -> Result<(), Refusal> {
        let shares = &self.extension.shares;
        if shares.invites.contains_key(&(inviter, token)) {
            return Ok(());
        }
        if range_of(&shares.invites, inviter).count() >= limits::INVITES_PER_NODE {
            return Err(Refusal::TooManyInvites);
        }
        self.check_bytes(inviter, TOKEN)
    }

    pub(super) fn check_names(&self, owner: NodeId) -> Result<(), Refusal> {
        if self.names_held_by(owner) as usize >= limits::NAMES_SHARE {
            return Err(Refusal::TooManyNames);
        }
        Ok(())
    }

    fn check_record(&self, record: &AddRecord, owner: NodeId) -> Result<(), Refusal> {
        let count = self.extension.shares.records.get(&owner).copied();
        let is_admin = |member: &Member| member.roles.contains(&Role::Admin);
        let most = if self.members.get(&owner).is_some_and(is_admin) {
            limits::RECORDS_PER_ADMIN
        } else {
            limits::RECORDS_PER_NODE
        };
        if count.unwrap_or(0) >= most {
            return Err(Refusal::TooManyRecords);
        }
        let kept = UserRecord::of(record.clone(), owner, self.position.index + 1);
        let mut bytes = record_bytes(&record.name, &kept);
        if let Some(label) = label_of(self, &record.name)
            && !self.names.contains_key(&label)
        {
            self.check_names(owner)?;
            bytes += name_bytes(&label, 0);
        }
        self.check_bytes(owner, bytes)
    }

    fn check_certificate(&self, plan: &LeafPlan, owner: NodeId) -> Result<(), Refusal> {
        let shares = &self.extension.shares;
        let names = self.names_of(plan);
        let key = (owner, subject(&names, &Hash::of(&plan.spki)));
        if !shares.certificates.contains_key(&key)
            && range_of_hash(&shares.certificates, owner).count() >= limits::CERTIFICATES_PER_NODE
        {
            return Err(Refusal::TooManyCertificates);
        }
        self.check_bytes(owner, certificate_bytes(&names, 0) + der_bytes(plan))
    }

    /// Whether `owner` may have `bytes` more: room stays for what is given also
    /// to those who have none left.
    pub(super) fn check_bytes(&self, owner: NodeId, bytes: u64) -> Result<(), Refusal> {
        let shares = &self.extension.shares;
        let used = self.bytes_of(owner);
        let after = used + bytes;
        if after <= limits::NODE_BYTES_RESERVED && self.members.contains_key(&owner) {
            return Ok(());
        }
        self.check_asked(owner, bytes)?;
        // Of the new bytes only those beyond the reserve are the pool's.
        let beyond = after - used.max(limits::NODE_BYTES_RESERVED).min(after);
        if shares.excess + beyond > limits::STATE_BYTES_SHARED {
            return Err(Refusal::StateFull);
        }
        Ok(())
    }

    fn check_asked(&self, node: NodeId, bytes: u64) -> Result<(), Refusal> {
        let remembered = u64::from(self.requests_of(node)) * REQUEST;
        let after = (self.bytes_of(node) + bytes).saturating_sub(remembered);
        if after > limits::NODE_BYTES_ASKED {
            return Err(Refusal::ShareUsedUp);
        }
        Ok(())
    }

    /// Whether a name may fall to a node whose owner leaves: nobody fills
    /// another's share, so half of it stays for what the node asks for itself.
    pub(super) fn may_inherit(&self, node: NodeId, label: &Label, name: &Name) -> bool {
        let bytes = name_bytes(label, name.shared.len());
        self.rules == 0
            || (self.names_held_by(node) as usize) < limits::NAMES_SHARE / 2
                && self
                    .check_asked(node, limits::NODE_BYTES_ASKED / 2 + bytes)
                    .is_ok()
    }

    /// Bytes that what `node` has takes up, at most.
    pub fn bytes_of(&self, node: NodeId) -> u64 {
        self.extension.shares.used.get(&node).copied().unwrap_or(0)
    }
}

/// Keeping the counts. Under rules 0 there are none.
impl State {
    /// Counts everything, when the rules become those that need it.
    pub(super) fn count_shares(&mut self) {
        self.extension.shares = Shares::default();
        for (node, member) in self.members.clone().iter() {
            self.charge(*node, member_bytes(member, self.rules));
        }
        for (label, name) in self.names.clone().iter() {
            self.charge(name.owner, name_bytes(label, name.shared.len()));
        }
        for (name, all) in self.records.clone().iter() {
            all.iter()
                .for_each(|record| self.count_record(name, record));
        }
        for (serial, issued) in self.certificates.clone().iter() {
            self.charge(issued.owner, issued_bytes(issued));
            if issued.has_place() {
                let key = (issued.owner, subject(&issued.names, &issued.key_hash));
                self.extension.shares.certificates.insert(key, *serial);
            }
        }
        for (owner, bytes) in self.access_bytes() {
            self.charge(owner, bytes);
        }
        for (author, _) in self.requests.clone().keys() {
            self.count_request(*author);
        }
    }

    /// Moves a node's bytes on, keeping the sum beyond what is reserved; also
    /// where `change` makes it a member or takes it out.
    fn with_share<T>(&mut self, node: NodeId, change: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.excess_of(node);
        let result = change(self);
        let after = self.excess_of(node);
        let shares = &mut self.extension.shares;
        shares.excess = (shares.excess + after).saturating_sub(before);
        result
    }

    fn excess_of(&self, node: NodeId) -> u64 {
        let used = self.bytes_of(node);
        if self.members.contains_key(&node) {
            return used.saturating_sub(limits::NODE_BYTES_RESERVED);
        }
        used
    }

    pub(super) fn charge(&mut self, node: NodeId, bytes: u64) {
        if self.rules == 0 {
            return;
        }
        self.with_share(node, |state| {
            let used = state.bytes_of(node) + bytes;
            state.extension.shares.used.insert(node, used);
        });
    }

    pub(super) fn refund(&mut self, node: NodeId, bytes: u64) {
        if self.rules == 0 {
            return;
        }
        self.with_share(node, |state| {
            let used = state.bytes_of(node).saturating_sub(bytes);
            if used == 0 {
                state.extension.shares.used.remove(&node);
            } else {
                state.extension.shares.used.insert(node, used);
            }
        });
    }

    pub(super) fn insert_member(&mut self, node: NodeId, member: Member) {
        let bytes = member_bytes(&member, self.rules);
        self.with_share(node, |state| state.members.insert(node, member));
        self.charge(node, bytes);
    }

    pub(super) fn take_member(&mut self, node: NodeId) {
        let Some(member) = self.members.get(&node) else {
            return;
        };
        self.refund(node, member_bytes(member, self.rules));
        self.with_share(node, |state| state.members.remove(&node));
        self.forget_batch_after(&node);
    }

    pub(super) fn count_name(&mut self, label: &Label, name: &Name) {
        self.charge(name.owner, name_bytes(label, name.shared.len()));
    }

    pub(super) fn uncount_name(&mut self, label: &Label, name: &Name) {
        self.refund(name.owner, name_bytes(label, name.shared.len()));
    }

    /// Lets `with` use a name, or no longer.
    pub(super) fn set_shared(&mut self, label: &Label, with: NodeId, is_shared: bool) {
        let Some(name) = self.names.get_mut(label) else {
            return;
        };
        let owner = name.owner;
        if is_shared && name.shared.insert(with) {
            self.charge(owner, SHARE);
        } else if !is_shared && name.shared.remove(&with) {
            self.refund(owner, SHARE);
            self.forget_publications();
        }
    }

    pub(super) fn count_record(&mut self, name: &DomainName, record: &UserRecord) {
        if self.rules == 0 {
            return;
        }
        let records = &mut self.extension.shares.records;
        let count = records.get(&record.owner).copied().unwrap_or(0);
        records.insert(record.owner, count + 1);
        self.charge(record.owner, record_bytes(name, record));
    }

    pub(super) fn uncount_record(&mut self, name: &DomainName, record: &UserRecord) {
        lower(&mut self.extension.shares.records, &record.owner);
        self.refund(record.owner, record_bytes(name, record));
    }

    /// Takes in what was issued; one with the same names and key that was there
    /// gives way to it.
    pub(super) fn insert_certificate(&mut self, serial: Serial, issued: Issued) {
        let (owner, bytes) = (issued.owner, issued_bytes(&issued));
        let key = (owner, subject(&issued.names, &issued.key_hash));
        let has_place = issued.has_place();
        self.certificates.insert(serial, issued);
        if self.rules == 0 {
            return;
        }
        self.charge(owner, bytes);
        if has_place {
            let earlier = self.extension.shares.certificates.get(&key).copied();
            self.extension.shares.certificates.insert(key, serial);
            if let Some(earlier) = earlier {
                self.shrink_certificate(earlier, true);
            }
        }
    }

    /// Drops a certificate's bytes, and its names where another one took its
    /// place; serial, key and end stay, for revocations (S17).
    pub(super) fn shrink_certificate(&mut self, serial: Serial, is_superseded: bool) {
        let Some(issued) = self.certificates.get_mut(&serial) else {
            return;
        };
        let before = issued_bytes(issued);
        issued.der = Box::default();
        if is_superseded {
            issued.names = Vec::new();
        }
        let (owner, after) = (issued.owner, issued_bytes(issued));
        self.refund(owner, before - after);
    }

    pub(super) fn remove_certificate(&mut self, serial: &Serial) {
        let Some(issued) = self.certificates.get(serial).cloned() else {
            return;
        };
        self.certificates.remove(serial);
        self.refund(issued.owner, issued_bytes(&issued));
        let key = (issued.owner, subject(&issued.names, &issued.key_hash));
        let certificates = &mut self.extension.shares.certificates;
        if certificates.get(&key) == Some(serial) {
            certificates.remove(&key);
        }
    }

    pub(super) fn count_invite(&mut self, inviter: NodeId, token: PublicKey) {
        let invites = &self.extension.shares.invites;
        if self.rules == 0 || invites.contains_key(&(inviter, token)) {
            return;
        }
        self.extension.shares.invites.insert((inviter, token), ());
        self.charge(inviter, TOKEN);
    }

    /// Forgets the invites whose tokens are forgotten.
    pub(super) fn uncount_invites(&mut self) {
        let invites = self.extension.shares.invites.clone();
        for (inviter, token) in invites.keys() {
            if !self.tokens.contains_key(token) {
                self.extension.shares.invites.remove(&(*inviter, *token));
                self.refund(*inviter, TOKEN);
            }
        }
    }

    /// Whether a member gets another membership certificate: some at once, and
    /// one a day over time (the virtual scheduling of GCRA, ITU-T I.371).
    pub(super) fn may_renew(&self, node: NodeId) -> bool {
        let ahead_ms = (limits::RENEWALS_AT_ONCE - 1) * limits::RENEWAL_GAP_MS;
        let until = self.extension.shares.renewed.get(&node);
        until.is_none_or(|until| *until <= self.stamp_ms.saturating_add(ahead_ms))
    }

    pub(super) fn count_renewal(&mut self, node: NodeId) {
        if self.rules == 0 {
            return;
        }
        let stamp_ms = self.stamp_ms;
        let renewed = &mut self.extension.shares.renewed;
        let until = renewed
            .get(&node)
            .map_or(stamp_ms, |until| stamp_ms.max(*until));
        renewed.insert(node, until.saturating_add(limits::RENEWAL_GAP_MS));
    }

    /// Forgets whose renewals are long ago.
    pub(super) fn uncount_renewals(&mut self) {
        let stamp_ms = self.stamp_ms;
        let renewed = &mut self.extension.shares.renewed;
        renewed.retain(|_, until| *until > stamp_ms);
    }

    pub(super) fn count_request(&mut self, author: Author) {
        let Author::Node(node) = author else { return };
        if self.rules == 0 {
            return;
        }
        let requests = &mut self.extension.shares.requests;
        let count = requests.get(&node).copied().unwrap_or(0);
        requests.insert(node, count + 1);
        self.charge(node, REQUEST);
    }

    pub(super) fn uncount_request(&mut self, author: Author) {
        let Author::Node(node) = author else { return };
        lower(&mut self.extension.shares.requests, &node);
        self.refund(node, REQUEST);
    }

    /// Whether the counts are those of what is there; a test of this program's
    /// own work. Invites and renewals are left out: nothing else tells of them.
    pub(super) fn shares_agree(&self) -> bool {
        if self.rules == 0 {
            return self.extension.shares == Shares::default();
        }
        let mut again = self.clone();
        again.count_shares();
        for ((inviter, token), ()) in self.extension.shares.invites.iter() {
            again.count_invite(*inviter, *token);
        }
        again.extension.shares.renewed = self.extension.shares.renewed.clone();
        again.extension.shares == self.extension.shares
    }
}

impl Issued {
    /// Whether it is counted, and gives way to another one with its names and
    /// key. Memberships, whose key's hash begins with the node's id, follow each
    /// other by a rule of their own; one for addresses alone had no names before
    /// rules 3.
    fn has_place(&self) -> bool {
        !self.names.is_empty() && !self.key_hash.0.starts_with(&self.owner.0)
    }

    /// Whether another one with the same names and key took its place.
    pub fn is_superseded(&self) -> bool {
        self.names.is_empty()
    }
}

fn lower(counts: &mut Map<NodeId, u32>, node: &NodeId) {
    match counts.get(node).copied() {
        Some(0 | 1) => {
            counts.remove(node);
        }
        Some(count) => counts.insert(*node, count - 1),
        None => {}
    }
}

/// By what a certificate takes the place of another one.
fn subject(names: &[String], key_hash: &Hash) -> Hash {
    codec::hash(&(names, key_hash))
}

fn range_of(
    invites: &Map<(NodeId, PublicKey), ()>,
    node: NodeId,
) -> impl Iterator<Item = &(NodeId, PublicKey)> {
    let first = (node, PublicKey([0; 32]));
    let last = (node, PublicKey([0xff; 32]));
    invites.range(first..=last).map(|(key, ())| key)
}

fn range_of_hash(
    certificates: &Map<(NodeId, Hash), Serial>,
    node: NodeId,
) -> impl Iterator<Item = &Serial> {
    let first = (node, Hash([0; 32]));
    let last = (node, Hash([0xff; 32]));
    certificates.range(first..=last).map(|(_, serial)| serial)
}
