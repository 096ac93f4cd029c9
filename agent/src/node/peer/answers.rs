//! The memory that answers from the ledger's files may hold until they are
//! delivered: all of them together, and those to one peer. However many a peer
//! asks for at once, and however slowly it reads, others are answered.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use innermesh_proto::{id::NodeId, limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::quic::Held;

/// What one answer counts for.
const ANSWER: u32 = limits::LEDGER_ANSWER_BYTES as u32;

/// What is left of it.
pub struct AnswerRoom {
    all: Arc<Semaphore>,
    /// Of each peer that has some now.
    of: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
}

impl Default for AnswerRoom {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits::LEDGER_ANSWERS_BYTES)),
            of: Mutex::default(),
        }
    }
}

impl AnswerRoom {
    /// Waits for room for one more answer to this peer.
    pub async fn room(&self, peer: NodeId) -> Held {
        let share = self.share(peer);
        // Its own share first: who has used that up waits for itself only.
        let own = share.acquire_many_owned(ANSWER).await.ok();
        let all = self.all.clone().acquire_many_owned(ANSWER).await.ok();
        let held: (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>) = (own, all);
        Box::new(held)
    }

    fn share(&self, peer: NodeId) -> Arc<Semaphore> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.retain(|_, share| Arc::strong_count(share) > 1);
        let share = of.entry(peer);
        share
            .or_insert_with(|| Arc::new(Semaphore::new(limits::LEDGER_ANSWERS_BYTES_PER_PEER)))
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const SHARE: usize = limits::LEDGER_ANSWERS_BYTES_PER_PEER / limits::LEDGER_ANSWER_BYTES;
    const ALL: usize = limits::LEDGER_ANSWERS_BYTES / limits::LEDGER_ANSWER_BYTES;

    fn node(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    #[test]
    fn one_peer_takes_no_more_than_its_share_and_all_no_more_than_there_is() {
        let answers = AnswerRoom::default();
        let room = |peer| answers.room(node(peer)).now_or_never();
        let held: Vec<_> = (0..32).filter_map(|_| room(1)).collect();
        assert_eq!(held.len(), SHARE);
        let others: Vec<_> = (2..100).filter_map(room).collect();
        assert_eq!(others.len(), ALL - SHARE);
        drop(held);
        assert!(room(1).is_some());
        drop(others);
        assert!(room(7).is_some());
        let of = answers.of.lock().unwrap();
        assert!(of.len() <= 1, "whom nothing is held for isn't remembered");
    }
}
