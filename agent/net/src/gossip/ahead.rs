//! What a node's own former heads tell it: that its state was put back to an
//! earlier time, or that a second machine has its key.

use std::sync::{Arc, atomic::Ordering};

use innermesh_proto::head::Head;

use super::{generation, state::Inner};

/// How often a node goes on above what others know of it before it takes
/// another machine for the cause.
const RAISES: u32 = 3;

/// What to do about a second machine with this node's key.
pub(super) const TWIN: &str = "another machine runs with this node's key: a cloned disk or a restored snapshot. \
     Stop one of the two, and `agent join` it anew with a fresh state folder";

impl Inner {
    /// A head of this very node came back from a peer. Newer than anything
    /// this process made: another machine runs with the same key (S10), or
    /// this disk was rolled back. An earlier run's that followed the ledger
    /// further than this one could when it began: it was rolled back.
    pub(super) fn meet_own(&self, head: &Head) {
        let mut shared = self.shared();
        let newest = shared
            .own
            .head
            .as_ref()
            .map_or((0, 0), |(head, _)| head.order());
        if head.order() > newest {
            shared.own.seen_generation = shared.own.seen_generation.max(head.generation);
        } else if head.generation < self.generation.load(Ordering::Relaxed)
            && head.position.index > self.ledger.opened_at()
            && !self.ledger.was_damaged()
        {
            let further = shared
                .own
                .position_before_rollback
                .is_none_or(|before| before.index < head.position.index);
            if further {
                shared.own.position_before_rollback = Some(head.position);
            }
        } else {
            return;
        }
        drop(shared);
        self.overtaken.notify_one();
    }

    /// Goes on above what this node has announced before, where its disk was
    /// rolled back (S2). A second machine with its key does the same: after a
    /// few times it is told, and nothing more is done.
    pub(super) async fn keep_ahead(self: Arc<Self>) {
        let mut raised = 0;
        loop {
            self.overtaken.notified().await;
            self.look_back().await;
            let seen = self.shared().own.seen_generation;
            if seen < self.generation.load(Ordering::Relaxed) {
                continue;
            }
            raised += 1;
            // Once more with the word that there is a second one, or the others
            // would go on to take that one's heads alone.
            let last = raised > RAISES;
            if last && self.note_twin() {
                tracing::error!("{TWIN}");
            }
            let next = match generation::raise(&*self.host.disk, seen).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(%error, "{TWIN}");
                    self.note_twin();
                    return;
                }
            };
            if !last {
                self.note_rolled_back().await;
            }
            if let Err(error) = self.exchange.restart(next).await {
                return tracing::error!(%error, "gossip can't be started again");
            }
            self.generation.store(next, Ordering::Relaxed);
            self.clone().renew().await;
            if last {
                return;
            }
        }
    }

    /// Whether this node held more of the ledger, in an earlier run, than it
    /// began with in this one. Where a recovery led back to an earlier place,
    /// that may be right: what is held there now tells.
    async fn look_back(&self) {
        let Some(before) = self.shared().own.position_before_rollback else {
            return;
        };
        let is_back = match self.ledger.hash_at(before.index) {
            Some(hash) => hash == before.hash,
            None if self.ledger.state().recovery == 0 => true,
            // Until this node's ledger is as far.
            None => return,
        };
        self.shared().own.position_before_rollback = None;
        if is_back {
            self.note_rolled_back().await;
        }
    }

    async fn note_rolled_back(&self) {
        if self.rolled_back.swap(true, Ordering::Relaxed) {
            return;
        }
        self.ledger.roll_back().await;
        tracing::warn!(
            "this node's state is older than what it has announced, as after a restored snapshot; \
             it goes on above that"
        );
    }
}
