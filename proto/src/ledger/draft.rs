//! The next batch in the making, and what each entry changes.

use std::collections::BTreeSet;

use super::{
    batch::{Batch, Entry, Header, Position, STATE_HASH_INTERVAL},
    effect::{Decision, Effect, JoinEffect},
    leaf::LeafError,
    outcome::Outcome,
    refusal::Refusal,
    rules,
    state::State,
};
use crate::{
    crypto::{Hash, PublicKey, Sealed, Verify},
    limits,
};

impl State {
    /// Starts the next batch at `stamp_ms`, or at this state's stamp if that is later.
    pub fn draft(&self, stamp_ms: u64) -> Draft {
        let mut state = self.clone();
        state.note_newest_batch();
        state.advance(stamp_ms);
        Draft {
            state,
            entries: Vec::new(),
            bytes: 0,
            previous: self.position,
            epoch: self.epoch,
            with_hash: false,
        }
    }
}

/// A batch in the making: the leader's, and every node's while it applies one.
pub struct Draft {
    state: State,
    entries: Vec<Entry>,
    bytes: usize,
    previous: Position,
    epoch: u32,
    with_hash: bool,
}

impl Draft {
    /// Has the header say the hash of the state, wherever the batch is.
    pub fn hash_state(&mut self) {
        self.with_hash = true;
    }

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
        !self.is_ended()
            && self.entries.len() < limits::BATCH_ENTRIES
            && self.bytes + Entry::most_bytes(self.state.rules) <= limits::BATCH_ENTRY_BYTES
    }

    /// What the request needs before it can be added.
    ///
    /// # Errors
    /// The [`Refusal`] that it would meet.
    pub fn decide(&self, request: &Sealed, verify: &dyn Verify) -> Result<Decision, Refusal> {
        let ruling = rules::rule(&self.state, request, self.state.stamp_ms, verify).1;
        let effect = ruling?;
        self.check_place(&effect)?;
        Ok(match effect {
            Effect::Repeat(outcome) => Decision::Repeat(outcome),
            Effect::Join(join) => Decision::Certificate(join.plan),
            Effect::Renew(plan, _) | Effect::Certify(plan, _) => Decision::Certificate(plan),
            _ => Decision::Plain,
        })
    }

    /// A roster change is the only entry of its batch.
    fn check_place(&self, effect: &Effect) -> Result<(), Refusal> {
        if self.is_ended() {
            return Err(Refusal::EpochEnded);
        }
        match effect {
            Effect::Roster(_) if !self.is_empty() => Err(Refusal::NotAlone),
            _ => Ok(()),
        }
    }

    /// Whether a roster change ended the batch.
    pub fn is_ended(&self) -> bool {
        self.state.epoch != self.epoch
    }

    /// Applies one entry. A refusal changes nothing and is recorded.
    pub fn add(&mut self, entry: Entry, verify: &dyn Verify) -> Outcome {
        let index = self.previous.index + 1;
        let (key, ruling) = rules::rule(&self.state, &entry.request, self.state.stamp_ms, verify);
        let place = |effect: Effect| self.check_place(&effect).map(|()| effect);
        let outcome = match ruling.and_then(place) {
            Err(refusal) => Outcome::Refused(refusal),
            Ok(effect) => self
                .take(effect, &entry.attachment, index, verify)
                .unwrap_or_else(Outcome::Refused),
        };
        // What came too late for this batch may be asked again in the next.
        let late = matches!(outcome, Outcome::Refused(Refusal::EpochEnded));
        // From rules 1 on a refusal leaves no trace.
        let late = late || self.state.rules > 0 && matches!(outcome, Outcome::Refused(_));
        if let Some((key, expires_ms)) = key
            && !late
        {
            let requests = &mut self.state.requests;
            if !requests.contains_key(&key) {
                requests.insert(key, (expires_ms, outcome.clone()));
                self.state.count_request(key.0);
            }
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
                take_join(state, *join, attachment, verify).map_err(refuse)?;
            }
            Effect::Renew(plan, node) => {
                let serial = state
                    .take_leaf(&plan, node, attachment, verify)
                    .map_err(refuse)?;
                state.set_membership(node, serial);
                state.count_renewal(node);
            }
            Effect::Claim(name, owner) => state.claim(name, owner, index),
            Effect::Share(share) => {
                state.set_shared(&share.name, share.with, true);
            }
            Effect::Unshare(share) => {
                state.set_shared(&share.name, share.with, false);
            }
            Effect::Release(name) => state.release(&name),
            Effect::Certify(plan, node) => {
                state
                    .take_leaf(&plan, node, attachment, verify)
                    .map_err(refuse)?;
            }
            Effect::Promote(node, issuers) => state.promote(node, issuers),
            Effect::Demote(node) => state.demote(node),
            Effect::Roster(roster) => state.change_roster(roster),
            Effect::Leave(node) => state.remove_member(node, index, false),
            Effect::Propose { node, by } => {
                state.proposals.insert((node, by), state.stamp_ms);
                return Ok(Outcome::Waiting(index));
            }
            Effect::Evict { node, hold } => {
                if let Some((author, hold)) = hold {
                    state.decide_hold(author, hold, index);
                }
                state.remove_member(node, index, true);
            }
            Effect::Unhold(author, hold) => state.decide_hold(author, hold, index),
            Effect::Revoke(serial) => state.revoke(serial, true),
            Effect::AddRecord(record, owner) => state.add_record(record, owner, index),
            Effect::ChangeRecord(record) => state.change_record(record),
            Effect::RemoveRecords(remove) => state.remove_records(&remove),
            Effect::RemoveRecord(remove) => state.remove_record(&remove),
            Effect::Rules(rules) => state.raise_rules(rules, index),
            Effect::TunnelKey(node, key) => state.set_tunnel_key(node, key),
            Effect::GiveRole(given) => state.give_role(&given),
            Effect::TakeRole(taken) => state.take_role(&taken),
            Effect::ProposeTaking { node, role, by } => {
                state.propose_taking(node, role, by);
                return Ok(Outcome::Waiting(index));
            }
            Effect::Withdraw(withdraw, by) => state.withdraw(&withdraw, by),
            Effect::RevokeInvite(revoke, by) => state.revoke_invite(&revoke, by),
            Effect::AddDevice(add, ipv4) => state.add_device(*add, ipv4, index),
            Effect::ChangeDevice(id, change) => state.change_device(id, *change, index),
            Effect::RemoveDevice(id) => state.remove_device(id),
            Effect::AddRoute(add) => state.add_route(add),
            Effect::RemoveRoute(remove) => state.remove_route(remove),
            Effect::Policy(policy, by) => state.set_policy(*policy, by),
            Effect::Publish(publish, by) => state.publish(*publish, by),
            Effect::Unpublish(at) => state.unpublish(&at),
            Effect::PublishKey(inside, set, ipv4) => state.set_publish_key(inside, set, ipv4),
        }
        Ok(Outcome::Done(index))
    }

    /// The keys of the roster that the entries so far lead to, where that is
    /// another one.
    pub(super) fn next_roster(&self) -> Option<BTreeSet<PublicKey>> {
        self.is_ended()
            .then(|| self.state.roster_keys.values().copied().collect())
    }

    /// The state with all entries.
    pub(super) fn into_state(self) -> State {
        self.state
    }

    /// Ends the batch: gives the state after it, and the batch without a proof.
    pub fn finish(self) -> (State, Batch) {
        let mut header = Header {
            mesh: self.state.mesh,
            epoch: self.epoch,
            index: self.previous.index + 1,
            previous: self.previous.hash,
            entries: Batch::entries_hash(&self.entries),
            stamp_ms: self.state.stamp_ms,
            state: None,
            next: self.next_roster(),
            recovery: None,
            rules: self.state.rules,
        };
        let is_due = self.with_hash || header.index.is_multiple_of(STATE_HASH_INTERVAL);
        if header.next.is_some() || is_due {
            header.state = Some(self.state.hash_at(header.index));
        }
        let batch = Batch::unproved(&header, self.entries);
        let mut state = self.state;
        state.position = Position {
            index: header.index,
            hash: Hash::of(&batch.header),
        };
        (state, batch)
    }
}

fn take_join(
    state: &mut State,
    join: JoinEffect,
    attachment: &[u8],
    verify: &dyn Verify,
) -> Result<(), LeafError> {
    let node = join.member.key.node_id();
    let inviter = join.member.invited_by;
    let serial = state.take_leaf(&join.plan, node, attachment, verify)?;
    state.admit(node, join.member);
    state.grant_addresses(node, join.addresses);
    state.set_membership(node, serial);
    if let Some(key) = join.tunnel {
        state.set_tunnel_key(node, key);
    }
    if let Some((token, expires_ms)) = join.token {
        state.spend(token, expires_ms);
        if let Some(inviter) = inviter {
            state.count_invite(inviter, token);
        }
    }
    Ok(())
}
