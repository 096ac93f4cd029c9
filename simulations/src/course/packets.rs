//! Packets between the machines, through their tunnels: some at all times, and at the end
//! from each to each other (L2).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use innermesh_proto::ledger::{Content, Role, request::RoleChange};
use tokio::time::Instant;

use super::{Course, acts::Asked};
use crate::{clock, mesh, violation::Seen};

/// Between two packets of somebody to somebody.
const BETWEEN: Duration = Duration::from_millis(400);
/// Between two packets of a pair that talks, and for how long it does.
const TALK: Duration = Duration::from_millis(200);
const TALKS: Duration = Duration::from_secs(12);
/// How long none may arrive while a second way stands.
const SILENCE: Duration = Duration::from_secs(5);
/// Packets that are remembered.
const REMEMBERED: u64 = 10_000;

/// What was sent, and came.
#[derive(Default)]
pub(super) struct Packets {
    /// The number of the newest.
    newest: u64,
    /// From which machine to which each went.
    sent: BTreeMap<u64, (usize, usize)>,
    /// Pairs of which one arrived since it was begun to count.
    passed: BTreeSet<(usize, usize)>,
    /// When the next is sent.
    next: Option<Instant>,
    /// Pairs that talk.
    talks: Vec<Talk>,
}

/// A pair whose packets must not stay away for long.
struct Talk {
    from: usize,
    to: usize,
    until: Instant,
    next: Instant,
    /// When the last one arrived.
    arrived: Instant,
}

impl Course<'_> {
    fn carries(&self) -> bool {
        self.scenario.is_some_and(|scenario| scenario.carries)
    }

    /// Has somebody send something, now and then, and looks at what came.
    pub(super) fn watch_packets(&mut self) {
        if !self.carries() || self.machines.is_empty() {
            return;
        }
        let now = clock::now();
        if self.packets.next.is_none_or(|next| now >= next) {
            self.packets.next = Some(now + BETWEEN);
            let nodes = self.machines.len() as u64;
            let from = self.random.below(nodes) as usize;
            let to = self.random.below(nodes) as usize;
            if from != to {
                self.send_packet(from, to);
            }
        }
        self.talk(now);
        for node in 0..self.machines.len() {
            if let Some(seen) = self.machines[node].tunnel_sent_wrong() {
                return self.violated(node, seen);
            }
            for (source, number) in self.machines[node].packets() {
                let Some((from, to)) = self.packets.sent.remove(&number) else {
                    continue;
                };
                if to != node || self.overlay_ipv4(from) != Some(source) {
                    let words = format!("a packet of node{from} to node{to} came out of {source}");
                    return self.violated(node, ("S12", words));
                }
                self.packets.passed.insert((from, to));
                let talks = self.packets.talks.iter_mut();
                for talk in talks.filter(|talk| (talk.from, talk.to) == (from, to)) {
                    talk.arrived = now;
                }
                self.trace.count("packet");
            }
        }
    }

    /// Has those that talk go on; none of them may be silent for long.
    fn talk(&mut self, now: Instant) {
        let mut talks = std::mem::take(&mut self.packets.talks);
        talks.retain(|talk| now < talk.until);
        for talk in &mut talks {
            if now >= talk.next {
                talk.next = now + TALK;
                self.send_packet(talk.from, talk.to);
            }
            if now > talk.arrived + SILENCE {
                let words = format!(
                    "for {} s no packet of node{} has come to node{}",
                    SILENCE.as_secs(),
                    talk.from,
                    talk.to
                );
                self.violated(talk.from, ("L2", words));
            }
        }
        self.packets.talks = talks;
    }

    /// Two machines talk from now on, for a while.
    pub(super) fn begin_talk(&mut self, from: usize, to: usize) -> bool {
        let now = clock::now();
        self.packets.talks.push(Talk {
            from,
            to,
            until: now + TALKS,
            next: now,
            arrived: now,
        });
        from != to
    }

    fn send_packet(&mut self, from: usize, to: usize) {
        let addresses = (self.overlay_ipv4(from), self.overlay_ipv4(to));
        let (Some(source), Some(target)) = addresses else {
            return;
        };
        self.packets.newest += 1;
        let number = self.packets.newest;
        self.packets.sent.insert(number, (from, to));
        self.packets
            .sent
            .retain(|sent, _| sent + REMEMBERED > number);
        self.machines[from].send_packet(source, target, number);
    }

    fn overlay_ipv4(&self, node: usize) -> Option<Ipv4Addr> {
        let addresses = &self.members.get(&node)?.addresses;
        addresses.iter().find_map(|address| match address {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        })
    }

    /// Begins to count anew which pairs' packets pass.
    pub(super) fn count_packets_anew(&mut self) {
        self.packets.passed.clear();
    }

    /// Whether a packet has passed from each machine to each other one (L2); sends
    /// those that are missing.
    pub(super) fn packets_settled(&mut self) -> Result<(), (usize, Seen)> {
        if !self.carries() {
            return Ok(());
        }
        let runs = |node: &usize| self.agents[*node].is_some() && !self.evicted.contains(node);
        let running: Vec<usize> = (0..self.agents.len()).filter(runs).collect();
        let all = running
            .iter()
            .flat_map(|from| running.iter().map(|to| (*from, *to)));
        let missing: Vec<(usize, usize)> = all
            .filter(|(from, to)| from != to && !self.packets.passed.contains(&(*from, *to)))
            .collect();
        for (from, to) in &missing {
            self.send_packet(*from, *to);
        }
        match missing.first() {
            None => Ok(()),
            Some((from, to)) => {
                let words = format!(
                    "no packet of node{from} comes to node{to}, of {} pairs that lack one",
                    missing.len()
                );
                Err((*from, ("L2", words)))
            }
        }
    }

    /// The first machine has another be a relay.
    pub(super) fn relay(&mut self, node: usize) -> bool {
        let change = RoleChange {
            node: self.ids[node],
            role: Role::Relay,
            root: None,
        };
        self.first_asks(Asked::Relay, move |first| {
            let content = Content::GiveRole(change.clone());
            async move { mesh::ask(&first, &content).await }
        })
    }
}
