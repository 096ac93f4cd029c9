//! What happens in the world, and what comes of it.

use std::{collections::BTreeMap, rc::Rc};

use innermesh_proto::{
    id::NodeId,
    links::{Effect, NamedLinks},
};

use super::{
    BODY_BYTES, Change, DIAL_TIMEOUT, Event, FAN_OUT, HEAD_BYTES, Head, INBOX, Index,
    PACKET_OVERHEAD, State, World, pair,
};

impl World {
    pub(super) fn happen(&mut self, event: Event) {
        let at = match &event {
            Event::Poll(at) | Event::Member { at, .. } => *at,
            Event::Packet { to, .. } | Event::Push { to, .. } | Event::Repair { to, .. } => *to,
            Event::Dialed { from, .. } => *from,
            Event::Idle { other, .. } => *other,
        };
        match self.nodes[at].state {
            State::Dead => return,
            State::Still => {
                if self.nodes[at].inbox.len() < INBOX && !matches!(event, Event::Poll(_)) {
                    self.nodes[at].inbox.push(event);
                }
                return;
            }
            State::Runs => {}
        }
        let now = self.time(at);
        match event {
            Event::Poll(_) => {
                if self.nodes[at].wakes <= self.now {
                    self.nodes[at].links.poll(now);
                }
            }
            Event::Member { member, .. } => self.meet(at, member),
            Event::Packet { from, beat, .. } => {
                let reached = self.nodes[at].position >= beat.position.index;
                let from = self.nodes[from].id;
                self.nodes[at]
                    .links
                    .handle_packet(now, from, &beat, reached);
            }
            Event::Push { from, head, .. } => self.take(at, from, head),
            Event::Repair { from, .. } => self.repair(from, at),
            Event::Dialed { from, to } => self.dialed(from, to),
            Event::Idle { one, other } => {
                if !self.reaches(one, other) {
                    self.connections.remove(&pair(one, other));
                    let gone = self.nodes[one].id;
                    self.nodes[at].links.handle_disconnected(now, &gone);
                }
            }
        }
        self.drain(at);
    }

    pub(super) fn drain(&mut self, at: Index) {
        // What came in may have work for now.
        let now = self.time(at);
        if self.nodes[at].links.next_due() <= now {
            self.nodes[at].links.poll(now);
        }
        while let Some(effect) = self.nodes[at].links.poll_effect() {
            self.carry_out(at, effect);
        }
        let of = self.nodes[at].links.take_changes();
        for (node, is_live) in of {
            let of = self.by_id[&node];
            self.changes.push(Change {
                at: self.now,
                by: at,
                of,
                is_live,
            });
        }
        let due = self.nodes[at].links.next_due();
        let due = u64::try_from(due.as_micros()).unwrap() - self.nodes[at].skew;
        let due = due.max(self.now + 1);
        if self.nodes[at].wakes <= self.now || due < self.nodes[at].wakes {
            self.nodes[at].wakes = due;
            self.put(due - self.now, Event::Poll(at));
        }
    }

    fn carry_out(&mut self, at: Index, effect: Effect) {
        match effect {
            Effect::Dial(node) => {
                let to = self.by_id[&node];
                let can = self.reaches(at, to)
                    && !self.nodes[to].behind_nat
                    && self.nodes[to].state == State::Runs;
                let delay = if can {
                    3 * self.stream_delay()
                } else {
                    DIAL_TIMEOUT
                };
                self.nodes[at].sent += 4000;
                self.put(delay, Event::Dialed { from: at, to });
            }
            Effect::Send(node, beat) => {
                self.nodes[at].sent += PACKET_OVERHEAD + beat.encode().len() as u64;
                let to = self.by_id[&node];
                if self.reaches(at, to) && !self.is_lost() {
                    let delay = self.delay();
                    self.put(delay, Event::Packet { from: at, to, beat });
                }
            }
            Effect::Publish(named) => {
                let named = self.nodes[at].names_instead.clone().unwrap_or(named);
                self.publish(at, named);
            }
            Effect::Repair(node) => {
                let to = self.by_id[&node];
                if self.reaches(at, to) {
                    self.nodes[at].sent += 1100;
                    let delay = self.stream_delay();
                    self.put(delay, Event::Repair { from: at, to });
                }
            }
            Effect::Release(_) => {}
        }
    }

    pub fn publish(&mut self, at: Index, named: NamedLinks) {
        let now = self.time(at);
        let node = &mut self.nodes[at];
        node.own.1 += 1;
        node.published += 1;
        node.links.handle_own_head(now, node.own, &named);
        let head = Head {
            owner: at,
            order: node.own,
            named: Rc::new(named),
        };
        node.heads.insert(at, head.clone());
        let up: Vec<NodeId> = node.links.up().copied().collect();
        for peer in up {
            self.push(at, self.by_id[&peer], head.clone());
        }
    }

    fn push(&mut self, from: Index, to: Index, head: Head) {
        let links = head.named.links.len() as u64;
        self.nodes[from].sent += PACKET_OVERHEAD + HEAD_BYTES + BODY_BYTES + 12 * links;
        if self.reaches(from, to) {
            let delay = self.stream_delay();
            self.put(delay, Event::Push { from, to, head });
        }
    }

    fn take(&mut self, at: Index, from: Index, head: Head) {
        let known = self.nodes[at].heads.get(&head.owner);
        if head.owner == at || known.is_some_and(|known| known.order >= head.order) {
            return;
        }
        let now = self.time(at);
        let owner = self.nodes[head.owner].id;
        let node = &mut self.nodes[at];
        node.heads.insert(head.owner, head.clone());
        node.links.handle_head(now, owner, head.order);
        node.links
            .handle_named(now, owner, head.order, false, &head.named);
        if !node.budget.take(owner, now) {
            return;
        }
        let mut up: Vec<Index> = node.links.up().map(|peer| self.by_id[peer]).collect();
        up.retain(|peer| *peer != from && *peer != head.owner);
        for _ in 0..FAN_OUT.min(up.len()) {
            let n = self.below(up.len() as u64) as usize;
            let peer = up.swap_remove(n);
            self.push(at, peer, head.clone());
        }
    }

    /// `from` asked; `to` answers with what differs, and is given what it lacks.
    fn repair(&mut self, from: Index, to: Index) {
        self.nodes[to].sent += 1100;
        let (one, other) = (&self.nodes[from].heads, &self.nodes[to].heads);
        let newer = |one: &BTreeMap<Index, Head>, other: &BTreeMap<Index, Head>| {
            let lacks = one.values().filter(|head| {
                let known = other.get(&head.owner);
                known.is_none_or(|known| known.order < head.order)
            });
            lacks.cloned().collect::<Vec<Head>>()
        };
        let (there, back) = (newer(one, other), newer(other, one));
        for head in there {
            self.push(from, to, head);
        }
        for head in back {
            self.push(to, from, head);
        }
        let now = self.time(from);
        if self.nodes[from].state == State::Runs {
            let peer = self.nodes[to].id;
            self.nodes[from].links.handle_repaired(now, &peer, true);
        }
    }

    fn dialed(&mut self, from: Index, to: Index) {
        let (now, there) = (self.time(from), self.time(to));
        let (one, other) = (self.nodes[from].id, self.nodes[to].id);
        let can = self.reaches(from, to)
            && !self.nodes[to].behind_nat
            && self.nodes[to].state == State::Runs;
        if can {
            self.connections.insert(pair(from, to));
            self.nodes[from].links.handle_connected(now, other);
            self.nodes[to].links.handle_connected(there, one);
            self.drain(to);
        } else {
            self.nodes[from].links.handle_dial_failed(now, other);
        }
    }
}
