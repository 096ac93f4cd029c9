//! Repair: what makes two tables of heads the same that differ. The one that saw it sends
//! the digests of its buckets; the other says which heads it holds in those that differ;
//! what either lacks passes, through the same checks as a push.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use innermesh_proto::{
    codec,
    id::NodeId,
    limits,
    links::{Order, digest::BUCKETS},
    message::{BucketsAnswer, BucketsQuery, HeadsOfQuery, Push, PushedHead},
    rpc::method,
};

use super::state::{Inner, in_force, pushed};

/// How long a peer may take for each answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Peers with which tables are compared at a time.
pub(super) const REPAIRS: usize = 4;
/// Heads that are asked for, or told, at once.
const CHUNK: usize = 64;

impl Inner {
    /// Compares tables with a peer, and passes what differs.
    pub(super) async fn repair(self: Arc<Self>, peer: NodeId) {
        let _turn = self.repairs.acquire().await;
        let has_news = self.exchange_heads(peer).await;
        let mut repairing = self.repairing.lock().unwrap_or_else(|e| e.into_inner());
        repairing.remove(&peer);
        drop(repairing);
        let now = self.host.clock.now();
        if let Some(has_news) = has_news {
            self.links.repaired(&peer, has_news, now);
        }
    }

    /// Whether any head came that was new; `None` where the peer didn't answer.
    async fn exchange_heads(self: &Arc<Self>, peer: NodeId) -> Option<bool> {
        let query = codec::encode(&BucketsQuery {
            buckets: self.links.buckets().to_vec(),
        });
        let answer = self.transport.call(peer, method::COMPARE, query, ANSWER);
        let answer: BucketsAnswer = codec::decode(&answer.await.ok()?, limits::RPC_BYTES).ok()?;
        let theirs = answer.heads.into_iter().take(limits::MEMBERS);
        let theirs: BTreeMap<NodeId, Order> = theirs
            .map(|(node, generation, seq)| (node, (generation, seq)))
            .collect();
        let own = self.links.heads_in(answer.differing);
        let newer = own
            .iter()
            .filter(|(node, order)| theirs.get(*node) < Some(order));
        let newer: Vec<NodeId> = newer.map(|(node, _)| *node).collect();
        let lacking = theirs.iter().filter(|(node, order)| {
            **node != self.me && self.links.is_member(node) && own.get(*node) < Some(*order)
        });
        let lacking: Vec<NodeId> = lacking.map(|(node, _)| *node).collect();
        let mut has_news = false;
        for nodes in newer.chunks(CHUNK) {
            let push = codec::encode(&Push {
                heads: self.heads_of(nodes),
            });
            self.transport.notify(peer, method::PUSH, push);
        }
        for nodes in lacking.chunks(CHUNK) {
            let query = codec::encode(&HeadsOfQuery {
                nodes: nodes.to_vec(),
            });
            let answer = self.transport.call(peer, method::HEADS_OF, query, ANSWER);
            let push: Push = codec::decode(&answer.await.ok()?, limits::RPC_BYTES).ok()?;
            has_news |= self.take_heads(peer, push.heads);
        }
        Some(has_news)
    }

    /// Which heads are held here in the buckets that differ from a peer's; `None` where
    /// those aren't as many as there are.
    pub(super) fn compare_buckets(&self, query: &BucketsQuery) -> Option<BucketsAnswer> {
        let theirs: [[u8; 16]; BUCKETS] = query.buckets.as_slice().try_into().ok()?;
        let differing = self.links.differing(&theirs);
        let heads = self.links.heads_in(differing).into_iter();
        Some(BucketsAnswer {
            differing,
            heads: heads
                .map(|(node, (generation, seq))| (node, generation, seq))
                .collect(),
        })
    }

    /// The heads of these nodes that are held, as many as one frame takes.
    pub(super) fn heads_of(&self, nodes: &[NodeId]) -> Vec<PushedHead> {
        let shared = self.shared();
        let mut bytes = 0;
        let held = nodes.iter().take(limits::MEMBERS).filter_map(|node| {
            if *node == self.me {
                return shared.own.pushed();
            }
            let known = shared.table.get(node)?;
            Some(pushed(&known.sealed, in_force(known)))
        });
        held.take_while(|head| {
            bytes += head.head.bytes.len() + 80 + head.body.as_ref().map_or(0, Vec::len);
            bytes < limits::RPC_BYTES / 2
        })
        .collect()
    }
}
