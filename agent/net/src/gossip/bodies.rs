//! The bodies that heads name: in force once they are there, fetched where they
//! didn't come along.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use innermesh_proto::{
    codec,
    crypto::Hash,
    head::{Head, Known},
    id::NodeId,
    limits,
    message::BodyQuery,
    rpc::method,
};

use super::{budget::Budget, state::Inner};

/// How long a peer may take to hand over a body.
const FETCH: Duration = Duration::from_secs(5);
/// What a fetch costs an author of whom nothing came, in bytes.
const UNANSWERED: usize = 1024;
/// Peers that are asked for a body at most.
const SOURCES: usize = 5;

impl Inner {
    /// Has the body that a head names put in force: from `body`, or fetched.
    pub(super) fn settle_body(self: &Arc<Self>, from: NodeId, head: &Head, body: Option<Vec<u8>>) {
        let mut shared = self.shared();
        let missing = shared
            .table
            .get(&head.node)
            .and_then(|known| known.missing_body());
        if missing.is_none() {
            return;
        }
        if let Some(bytes) = body
            && shared.put_body(head.node, bytes, self.host.clock.now())
        {
            self.note_known(&shared.table, &head.node);
            drop(shared);
            self.unsaved.notify_one();
            return self.changed();
        }
        if shared.fetching.insert(head.node) {
            drop(shared);
            let fetching = self.clone().fetch_bodies(from, head.node);
            self.host.tasks.spawn(fetching);
        }
    }

    /// Asks again for the bodies that nobody had, when their heads came.
    pub(super) fn fetch_lacking(self: &Arc<Self>) {
        let mut shared = self.shared();
        let known = shared.table.iter();
        let lacking = known.filter(|(_, known)| known.missing_body().is_some());
        let lacking: Vec<NodeId> = lacking.map(|(node, _)| *node).collect();
        for owner in lacking {
            if shared.fetching.insert(owner) {
                let fetching = self.clone().fetch_bodies(owner, owner);
                self.host.tasks.spawn(fetching);
            }
        }
    }

    /// Fetches an author's newest body until it is there, one at a time and
    /// within the author's budget: those in between are never asked for.
    pub(super) async fn fetch_bodies(self: Arc<Self>, from: NodeId, owner: NodeId) {
        loop {
            let now = self.host.clock.now();
            let (hash, wait) = {
                let mut shared = self.shared();
                let missing = shared.table.get(&owner).and_then(Known::missing_body);
                let Some(hash) = missing else {
                    shared.fetching.remove(&owner);
                    shared.budgets.retain(|_, budget| !budget.is_full(now));
                    return;
                };
                let budget = shared.budgets.entry(owner);
                (
                    hash,
                    budget.or_insert_with(|| Budget::of_bodies(now)).wait(now),
                )
            };
            if !wait.is_zero() {
                self.host.clock.sleep(wait).await;
                continue;
            }
            let (bytes, is_had) = self.fetch_body(from, owner, hash).await;
            let now = self.host.clock.now();
            let mut shared = self.shared();
            if let Some(budget) = shared.budgets.get_mut(&owner) {
                budget.spend(bytes.max(UNANSWERED), now);
            }
            // Nobody has it, or there is a newer one, which its head asks for.
            if !is_had && shared.table.get(&owner).and_then(Known::missing_body) == Some(hash) {
                shared.fetching.remove(&owner);
                return;
            }
        }
    }

    /// Asks for a body: the one who sent the head, its owner, then others.
    /// Gives how much came, and whether it was the right one.
    pub(super) async fn fetch_body(
        &self,
        from: NodeId,
        owner: NodeId,
        hash: Hash,
    ) -> (usize, bool) {
        let mut received = 0;
        let connected: BTreeSet<NodeId> = self.transport.peers().into_iter().collect();
        let first = self.random_below(connected.len());
        let others = connected.iter().cycle().skip(first).take(connected.len());
        let others = others
            .copied()
            .filter(|node| *node != from && *node != owner);
        let sources: Vec<NodeId> = [from, owner]
            .into_iter()
            .chain(others)
            .take(SOURCES)
            .collect();
        let query = codec::encode(&BodyQuery { hash });
        for source in sources
            .into_iter()
            .filter(|source| connected.contains(source))
        {
            let answer = self
                .transport
                .call(source, method::BODY, query.clone(), FETCH)
                .await;
            let Ok(bytes) = answer else { continue };
            received += bytes.len();
            if bytes.len() > limits::BODY_BYTES || Hash::of(&bytes) != hash {
                self.count(|counters| counters.refused += 1);
                continue;
            }
            let now = self.host.clock.now();
            let mut shared = self.shared();
            let put = shared.put_body(owner, bytes, now);
            if put {
                self.note_known(&shared.table, &owner);
            }
            drop(shared);
            if put {
                self.unsaved.notify_one();
                self.changed();
            }
            return (received, true);
        }
        (received, false)
    }
}
