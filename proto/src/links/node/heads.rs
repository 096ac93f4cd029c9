//! What others' heads say of links, and the answer to a neighbour that drops one.

use std::time::Duration;

use super::Links;
use crate::{
    id::NodeId,
    links::{NamedLinks, Order, RETURN, key, state::Loss},
};

impl Links {
    pub(super) fn note_head(&mut self, node: NodeId, order: Order) -> bool {
        let before = self.orders.get(&node).copied();
        let is_new = before.is_none_or(|before| order > before);
        if is_new {
            self.digest.replace(&node, before, Some(order));
            self.orders.insert(node, order);
        }
        is_new
    }

    pub(super) fn take_named(
        &mut self,
        node: NodeId,
        order: Order,
        leaving: bool,
        named: &NamedLinks,
        now: Duration,
    ) -> bool {
        let before = self.live.graph().order(key(&node));
        if before.is_some_and(|before| order <= before) {
            return false;
        }
        let none = NamedLinks::default();
        let named = if named.is_sound(&node) { named } else { &none };
        self.live.set_head(key(&node), order, leaving, named, now);
        let is_new = if named.behind_nat {
            self.behind_nats.insert(node)
        } else {
            self.behind_nats.remove(&node)
        };
        if is_new {
            self.chosen = None;
        }
        true
    }

    /// A neighbour that doesn't name this node any more has lost the link: so has this
    /// node. One that has never named it gets a moment for it.
    pub(super) fn answer_drop(&mut self, peer: NodeId, now: Duration) {
        let graph = self.live.graph();
        let is_named = graph.names(key(&peer), key(&self.me));
        let order = graph.order(key(&peer));
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        let (Some(epoch), Some(since)) = (link.epoch(), link.named_since()) else {
            return;
        };
        if is_named {
            return link.note_named_by_peer();
        }
        let is_dropped = order.is_some_and(|order| order > epoch);
        if is_dropped && (link.was_named_by_peer() || now >= since + RETURN) {
            self.lose(peer, Loss::Failure, now);
        }
    }
}
