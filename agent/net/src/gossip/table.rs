//! The table of the others' heads: what gets into it, and what is kept of it.

use std::sync::Arc;

use innermesh_proto::{
    codec,
    crypto::Sealed,
    endpoint::is_lane,
    head::{self, Head, Known, Offer},
    id::NodeId,
    ledger::Position,
    limits,
    message::{Push, PushedHead},
    rpc::method,
};

use super::{
    known,
    state::{Inner, Shared, in_force, pushed},
};

impl Inner {
    /// Takes one head that claims to be of a member; says what came of it.
    pub(super) fn take_head(&self, sealed: Sealed) -> Option<(Head, Offer)> {
        let state = self.ledger.state();
        let claimed: Head = sealed.peek(limits::HEAD_BYTES).ok()?;
        let member = state.members.get(&claimed.node)?;
        // A change reaches a node from several peers: what isn't newer isn't
        // worth a verification, as long as it is what was verified before.
        let known = self
            .shared()
            .table
            .get(&claimed.node)
            .map(|known| (known.head.order() > claimed.order(), known.sealed == sealed));
        if let Some((true, _) | (_, true)) = known {
            return Some((claimed, Offer::Old));
        }
        let head = match head::open(&sealed, &member.key, &state.mesh, &*self.host.keys) {
            Ok(head) => head,
            Err(error) => {
                tracing::debug!(node = ?claimed.node, %error, "a head was refused");
                self.count(|counters| counters.refused += 1);
                return None;
            }
        };
        if head.node == self.me {
            self.meet_own(&head);
            return None;
        }
        let now = self.now();
        let mut shared = self.shared();
        if !shared.may_begin(&head, self.host.clock.now()) {
            drop(shared);
            self.count(|counters| counters.refused += 1);
            return None;
        }
        let before = shared
            .table
            .get(&head.node)
            .and_then(|known| put_back(known, &head));
        let was_live = shared
            .table
            .get(&head.node)
            .is_some_and(|known| self.is_live(&head.node, known));
        let offer = shared
            .table
            .offer(head.clone(), sealed, Some(now), was_live);
        if offer == Offer::Conflict {
            shared.conflicts.insert(head.node);
        }
        let compared = self.compare_one(&mut shared, &head.node);
        if matches!(offer, Offer::Renewed | Offer::Changed) {
            self.note_known(&shared.table, &head.node);
        }
        drop(shared);
        if let Some(before) = before {
            let heads = vec![PushedHead {
                head: before,
                body: None,
            }];
            let push = codec::encode(&Push { heads });
            self.transport.notify(head.node, method::PUSH, push);
        }
        if head.position.index > self.ledger.state().position.index {
            self.ledger.ahead(head.node, head.position.index);
        }
        let held = self.ledger.hash_at(head.position.index);
        if held.is_some_and(|held| held != head.position.hash) {
            self.ledger.differs(head.node);
        }
        if offer == Offer::Changed || compared {
            self.changed();
        }
        if offer == Offer::Changed {
            self.unsaved.notify_one();
        }
        Some((head, offer))
    }

    /// Forgets nodes that are no members: nothing of theirs is taken any more, and
    /// nothing that is held of them is said.
    pub(super) fn forget_others(&self) {
        let state = self.ledger.state();
        let is_member = |node: &NodeId| state.members.contains_key(node);
        let mut shared = self.shared();
        shared.table.retain(is_member);
        shared.budgets.retain(|node, _| is_member(node));
        shared.runs.retain(|node, _| is_member(node));
        shared.say_cloned.retain(|node, _| is_member(node));
        shared
            .conflicts
            .retain(|node| *node == self.me || is_member(node));
        let now = self.host.clock.now();
        let new = self.links.set_members(&state, &shared.table, now);
        drop(shared);
        // They may have connected before the ledger held here had them.
        for node in new {
            if self.transport.is_connected(node) {
                self.links.connected(node, now);
            }
        }
        self.exchange.retain(is_member);
    }

    /// Marks peers whose ledger position this node's ledger has reached.
    /// Returns whether any is new.
    pub(super) fn compare(&self, shared: &mut Shared) -> bool {
        let with_stored = shared.has_compared;
        shared
            .table
            .compare(with_stored, |position| self.reached(position))
    }

    /// As [`Self::compare`], for one peer.
    pub(super) fn compare_one(&self, shared: &mut Shared, node: &NodeId) -> bool {
        let with_stored = shared.has_compared;
        shared
            .table
            .compare_one(node, with_stored, |position| self.reached(position))
    }

    pub(super) fn reached(&self, position: &Position) -> bool {
        self.ledger.hash_at(position.index) == Some(position.hash)
    }

    pub(super) fn heads(&self) -> Vec<PushedHead> {
        let shared = self.shared();
        let others = shared
            .table
            .iter()
            .map(|(_, known)| pushed(&known.sealed, in_force(known)));
        let mut bytes = 0;
        shared
            .own
            .pushed()
            .into_iter()
            .chain(others)
            .take_while(|head| {
                bytes += head.head.bytes.len() + 80 + head.body.as_ref().map_or(0, Vec::len);
                bytes < limits::RPC_BYTES / 2
            })
            .collect()
    }

    /// Saves what is known of peers soon after it changed.
    pub(super) async fn keep(self: Arc<Self>) {
        loop {
            self.unsaved.notified().await;
            self.host.clock.sleep(known::SAVE_DELAY).await;
            self.save().await;
        }
    }

    pub(super) async fn save(&self) {
        let mut keeper = self.keeper.lock().await;
        let (table, mut paths) = (self.shared().table.clone(), self.transport.paths());
        paths.retain(|_, at| !is_lane(at));
        if let Err(error) = keeper.save(&*self.host.disk, &table, &paths).await {
            tracing::warn!(%error, "what is known of peers could not be saved");
        }
    }
}

/// The newest head of a node's earlier run, where its new one follows the
/// ledger less far than that: its state was put back, and it doesn't know.
fn put_back(known: &Known, head: &Head) -> Option<Sealed> {
    let before = &known.head;
    let is_back =
        before.generation < head.generation && before.position.index > head.position.index;
    is_back.then(|| known.sealed.clone())
}
