//! Who is to be a neighbour, and whom that has this node dial.

use std::time::Duration;

use super::{Effect, Links};
use crate::{
    id::NodeId,
    limits,
    links::{SLOW_DIAL, key, rings::Fit, state::Link},
};

impl Links {
    /// Works out who is to be a neighbour, and dials whom that needs.
    pub(super) fn choose(&mut self, now: Duration) {
        self.chosen = Some(now);
        let wanted = self
            .rings
            .neighbours(&self.me, |node| self.fit(node, true, now));
        // Who would be none if those that are silent still answered.
        let needed = self
            .rings
            .neighbours(&self.me, |node| self.fit(node, false, now));
        for peer in &wanted {
            let is_spare = !needed.contains(peer);
            self.link(*peer, now).set_wanted(true, is_spare, now);
        }
        for (peer, link) in &mut self.links {
            if !wanted.contains(peer) {
                link.set_wanted(false, false, now);
            }
        }
        let rings = &self.rings;
        self.dials.retain(|node| rings.contains(node));
        for peer in wanted {
            if self.connected.contains(&peer) || self.behind_nats.contains(&peer) {
                continue;
            }
            // Only this node can dial where it is behind a NAT.
            let is_polite = !self.behind_nat && peer < self.me;
            if self.dials.begin(peer, is_polite, now) {
                self.effects.push_back(Effect::Dial(peer));
            }
        }
    }

    /// What a node is to this one. `has_spares`: another is taken beside one that is silent.
    pub(super) fn fit(&self, node: &NodeId, has_spares: bool, now: Duration) -> Fit {
        let is_there = self.behind_nats.contains(node);
        if self.behind_nat && is_there {
            return Fit::Skip;
        }
        let link = self.links.get(node);
        if let Some(link) = link.filter(|link| link.is_up()) {
            return if has_spares && link.is_silent(now) {
                Fit::Beside
            } else {
                Fit::Take
            };
        }
        if link.is_some_and(|link| link.is_refused(now)) || self.dials.is_paused(node, now) {
            return Fit::Skip;
        }
        let forming = link.map_or(Duration::ZERO, |link| link.forming_for(now));
        let is_slow = match self.dials.age(node, now) {
            Some(age) => age >= SLOW_DIAL,
            None => forming >= SLOW_DIAL || link.is_some_and(|link| link.is_lost(now)),
        };
        if is_slow || self.is_settled && !self.live.is_live(key(node)) {
            Fit::Beside
        } else {
            Fit::Take
        }
    }

    /// Whether one more link would be taken up that this node doesn't want itself.
    pub(super) fn has_room(&self, peer: &NodeId) -> bool {
        let is_up = self.links.get(peer).is_some_and(Link::is_up);
        let leans = !self.behind_nat && self.behind_nats.contains(peer);
        let most = if leans {
            limits::LINKS_NAMED
        } else {
            limits::LINKS
        };
        let never = self.behind_nat && self.behind_nats.contains(peer);
        !never && (is_up || self.up().count() < most)
    }
}
