//! Who has a place and who waits for one: a function of what came and went and
//! of the time. It knows no sockets.
//!
//! A source has a share by its address, and by the networks around it, as an
//! IPv6 host has as many addresses as it likes and a LAN's hosts are
//! neighbours. Whoever is over its share waits until one of its own is done.
//! When all places are taken, the source that holds the most gives one to a
//! newcomer that holds fewer: the one that has been idle for the longest.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use innermesh_proto::limits;

use crate::Mono;

/// What a source is to this node. Each class but the last has places that the
/// others can't take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A program of this host; at the control socket, one that may change things.
    Local,
    /// A member by its overlay address; among QUIC's strangers, one that
    /// proved a membership or an invite.
    Member,
    /// Anybody else.
    Other,
}

/// Who it is, as far as that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A user of this host; `None` where the kernel doesn't say which.
    User(Option<u32>),
    /// An address; IPv4 never mapped into IPv6.
    Address(IpAddr),
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// What it is to this node.
    pub class: Class,
    pub who: Who,
}

impl Source {
    /// An address that nothing is known of.
    pub fn other(address: IpAddr) -> Self {
        Self {
            class: Class::Other,
            who: Who::Address(address.to_canonical()),
        }
    }

    /// The groups that it counts in, the widest first: a /24 and an address,
    /// or a /48, a /64 and an address. Neighbours share where nothing better
    /// tells them apart; members and users are told apart.
    fn groups(&self) -> [Group; 3] {
        let one = Group::One(self.class, self.who);
        match (self.class, self.who) {
            (Class::Other, Who::Address(IpAddr::V4(ip))) => {
                let [a, b, c, _] = ip.octets();
                let net = Group::Network(IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), 24);
                [net, net, one]
            }
            (Class::Other, Who::Address(IpAddr::V6(ip))) => {
                let net = |bits: u32| {
                    let masked = u128::from(ip) >> (128 - bits) << (128 - bits);
                    Group::Network(IpAddr::V6(Ipv6Addr::from(masked)), bits)
                };
                [net(48), net(64), one]
            }
            _ => [one; 3],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    One(Class, Who),
    Network(IpAddr, u32),
}

/// How many places there are, and who may have how many.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// Places in all; as many may wait again.
    pub all: usize,
    /// Places of one address.
    pub address: usize,
    /// Places of one user of this host.
    pub user: usize,
    /// Places that only programs of this host may take.
    pub kept_local: usize,
    /// Places that only members may take.
    pub kept_member: usize,
}

impl Shares {
    /// Shares that keep some places for programs of this host and for members.
    pub const fn new(all: usize, address: usize, user: usize) -> Self {
        Self {
            all,
            address,
            user,
            kept_local: all / limits::KEPT_PLACES,
            kept_member: all / limits::KEPT_PLACES,
        }
    }

    /// Places of one IPv4 /24 or IPv6 /64 (and /48).
    fn network(&self) -> usize {
        self.all / 2
    }

    /// Places that only this class may take.
    fn kept(&self, class: Class) -> usize {
        match class {
            Class::Local => self.kept_local,
            Class::Member => self.kept_member,
            Class::Other => 0,
        }
    }

    fn each(&self, who: Who) -> usize {
        match who {
            Who::User(_) => self.user,
            Who::Address(_) => self.address,
        }
    }
}

/// A connection, waiting or served.
pub type Id = u64;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has a place.
    Serve(Id),
    /// It gives its place to another: close it.
    Displace(Id),
    /// There is no room for it, not even to wait: close it.
    Refuse(Id),
}

struct Held {
    source: Source,
    /// Requests that are being answered on it.
    working: usize,
    /// When it got its place, or last began or ended a request.
    since: Mono,
}

impl Held {
    /// From when on it may be displaced.
    fn ripe(&self) -> Mono {
        self.since
            + Duration::from_millis(match self.working {
                0 => limits::PLACE_IDLE_MS,
                _ => limits::PLACE_BUSY_MS,
            })
    }
}

/// The places of one listener, or of several that share them.
pub struct Guard {
    shares: Shares,
    next: Id,
    held: BTreeMap<Id, Held>,
    waiting: BTreeMap<Id, Source>,
    counts: BTreeMap<Group, usize>,
    classes: BTreeMap<Class, usize>,
}

impl Guard {
    /// One in which nobody is yet.
    pub fn new(shares: Shares) -> Self {
        Self {
            shares,
            next: 0,
            held: BTreeMap::new(),
            waiting: BTreeMap::new(),
            counts: BTreeMap::new(),
            classes: BTreeMap::new(),
        }
    }

    /// A connection has come: it waits until [`Guard::poll`] serves or refuses
    /// it, which is to be asked at once.
    pub fn arrive(&mut self, source: Source) -> Id {
        let id = self.next;
        self.next += 1;
        self.waiting.insert(id, source);
        id
    }

    /// Whom to serve now, and who gives way for it.
    pub fn poll(&mut self, now: Mono) -> Vec<Step> {
        let mut steps = Vec::new();
        // Whoever holds the least is served first, with the networks around it,
        // then whoever came first.
        let mut waiting: Vec<([usize; 3], Id, Source)> = self
            .waiting
            .iter()
            .map(|(id, source)| (self.holds(source), *id, *source))
            .collect();
        waiting.sort_unstable();
        let mut stuck = BTreeSet::new();
        for (_, id, source) in waiting {
            if stuck.contains(&source) {
                continue;
            }
            match self.room_for(&source, now) {
                Room::Free => {}
                Room::Taken(None) => {
                    stuck.insert(source);
                    continue;
                }
                Room::Taken(Some(victim)) => {
                    self.release(victim);
                    steps.push(Step::Displace(victim));
                }
            }
            self.waiting.remove(&id);
            self.take(id, source, now);
            steps.push(Step::Serve(id));
        }
        while let Some(id) = self.shed() {
            steps.push(Step::Refuse(id));
        }
        steps
    }

    /// When [`Guard::poll`] may find more to do although nobody comes or goes.
    pub fn next_poll(&self, now: Mono) -> Option<Mono> {
        let ripe = self.held.values().map(Held::ripe);
        let first = ripe.filter(|ripe| *ripe > now).min();
        first.filter(|_| !self.waiting.is_empty())
    }

    /// A connection has ended, or waits no more.
    pub fn leave(&mut self, id: Id) {
        if self.waiting.remove(&id).is_none() {
            self.release(id);
        }
    }

    /// A request on a connection has begun, or ended.
    pub fn work(&mut self, id: Id, begins: bool, now: Mono) {
        if let Some(held) = self.held.get_mut(&id) {
            held.working = if begins {
                held.working + 1
            } else {
                held.working.saturating_sub(1)
            };
            // The first of several counts: they don't add up to a long one.
            if !begins || held.working == 1 {
                held.since = now;
            }
        }
    }

    /// A connection has proved to be of a class that has places of its own. It
    /// changes nothing where that class has its share already.
    pub fn prove(&mut self, id: Id, class: Class) {
        let Some(held) = self.held.get(&id) else {
            return;
        };
        let source = Source {
            class,
            ..held.source
        };
        if self.of(class) >= self.shares.kept(class)
            || self.holds(&source)[2] >= self.shares.each(source.who)
        {
            return;
        }
        let since = held.since;
        let working = held.working;
        self.release(id);
        self.take(id, source, since);
        if let Some(held) = self.held.get_mut(&id) {
            held.working = working;
        }
    }

    /// Connections that have a place.
    pub fn served(&self) -> usize {
        self.held.len()
    }

    fn room_for(&self, source: &Source, now: Mono) -> Room {
        let [_, network, one] = source.groups();
        let [wide, _, _] = source.groups();
        let count = |group: Group| self.counts.get(&group).copied().unwrap_or(0);
        if count(one) >= self.shares.each(source.who) {
            return Room::Taken(self.victim(source, now, |held| held.groups()[2] == one));
        }
        for group in [network, wide] {
            if group != one && count(group) >= self.shares.network() {
                return Room::Taken(
                    self.victim(source, now, |held| held.groups().contains(&group)),
                );
            }
        }
        let others: usize = [Class::Local, Class::Member, Class::Other]
            .into_iter()
            .filter(|class| *class != source.class)
            .map(|class| self.of(class).max(self.shares.kept(class)))
            .sum();
        if self.of(source.class) + others < self.shares.all {
            return Room::Free;
        }
        // Places that are kept for a class are safe from the others.
        Room::Taken(self.victim(source, now, |held| {
            held.class == source.class || self.of(held.class) > self.shares.kept(held.class)
        }))
    }

    /// Who gives way to `source`: of the source that holds the most the one
    /// that was idle for the longest, else the one that works for the longest.
    fn victim(&self, source: &Source, now: Mono, may: impl Fn(&Source) -> bool) -> Option<Id> {
        let own = self.holds(source);
        let mut best: Option<([usize; 3], bool, Mono, Id)> = None;
        for (id, held) in &self.held {
            if now < held.ripe() || !may(&held.source) {
                continue;
            }
            let is_own = held.source == *source;
            let holds = self.holds(&held.source);
            // One's own gives way only where it is idle.
            if is_own && held.working > 0 || !is_own && holds <= own {
                continue;
            }
            let better = best.is_none_or(|(most, idle, since, _)| {
                let idle_here = held.working == 0;
                (holds, idle_here, std::cmp::Reverse(held.since))
                    > (most, idle, std::cmp::Reverse(since))
            });
            if better {
                best = Some((holds, held.working == 0, held.since, *id));
            }
        }
        best.map(|(_, _, _, id)| id)
    }

    /// Who is too many among those that wait: of a class that fills the queue,
    /// of the source that has the most waiting, the one that came last.
    fn shed(&mut self) -> Option<Id> {
        if self.waiting.len() <= self.shares.all {
            return None;
        }
        let mut counts: BTreeMap<Group, usize> = BTreeMap::new();
        let mut classes: BTreeMap<Class, usize> = BTreeMap::new();
        for source in self.waiting.values() {
            *classes.entry(source.class).or_default() += 1;
            for group in BTreeSet::from(source.groups()) {
                *counts.entry(group).or_default() += 1;
            }
        }
        let of = |source: &Source| source.groups().map(|group| counts[&group]);
        // One of three classes has more than a third at least.
        let most = self.waiting.iter().max_by_key(|(id, source)| {
            let fills = classes[&source.class] > self.shares.all / 3;
            (fills, of(source), source.class, **id)
        });
        let id = most.map(|(id, _)| *id)?;
        self.waiting.remove(&id);
        Some(id)
    }

    /// How much the groups of a source hold, the widest first.
    fn holds(&self, source: &Source) -> [usize; 3] {
        let count = |group: Group| self.counts.get(&group).copied().unwrap_or(0);
        source.groups().map(count)
    }

    fn of(&self, class: Class) -> usize {
        self.classes.get(&class).copied().unwrap_or(0)
    }

    fn take(&mut self, id: Id, source: Source, now: Mono) {
        for group in BTreeSet::from(source.groups()) {
            *self.counts.entry(group).or_default() += 1;
        }
        *self.classes.entry(source.class).or_default() += 1;
        let held = Held {
            source,
            working: 0,
            since: now,
        };
        self.held.insert(id, held);
    }

    fn release(&mut self, id: Id) {
        let Some(held) = self.held.remove(&id) else {
            return;
        };
        for group in BTreeSet::from(held.source.groups()) {
            if let Some(count) = self.counts.get_mut(&group) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&group);
                }
            }
        }
        if let Some(count) = self.classes.get_mut(&held.source.class) {
            *count -= 1;
        }
    }
}

enum Room {
    Free,
    Taken(Option<Id>),
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARES: Shares = Shares::new(16, 6, 8);
    const NOW: Mono = Duration::from_secs(100);

    fn later(ms: u64) -> Mono {
        NOW + Duration::from_millis(ms)
    }

    fn other(address: &str) -> Source {
        Source::other(address.parse().unwrap())
    }

    fn of(class: Class, who: Who) -> Source {
        Source { class, who }
    }

    /// Lets one come; gives its id and what was done about it.
    fn come(guard: &mut Guard, source: Source, now: Mono) -> (Id, Vec<Step>) {
        let id = guard.arrive(source);
        (id, guard.poll(now))
    }

    fn is_served(guard: &mut Guard, source: Source, now: Mono) -> bool {
        let (id, steps) = come(guard, source, now);
        steps.contains(&Step::Serve(id))
    }

    #[test]
    fn an_address_has_its_share_and_waits_for_one_of_its_own_beyond_it() {
        let mut guard = Guard::new(SHARES);
        let source = other("192.0.2.1");
        let ids: Vec<Id> = (0..6).map(|_| come(&mut guard, source, NOW).0).collect();
        let (seventh, steps) = come(&mut guard, source, NOW);
        assert_eq!(steps, []);
        assert!(is_served(&mut guard, other("198.51.100.1"), NOW));
        guard.leave(ids[3]);
        assert_eq!(guard.poll(NOW), [Step::Serve(seventh)]);
        // An idle one of its own gives way once it has been so for a while.
        let (eighth, steps) = come(&mut guard, source, NOW);
        assert_eq!(steps, []);
        assert_eq!(guard.next_poll(NOW), Some(later(limits::PLACE_IDLE_MS)));
        assert_eq!(
            guard.poll(later(limits::PLACE_IDLE_MS)),
            [Step::Displace(ids[0]), Step::Serve(eighth)]
        );
    }

    #[test]
    fn five_addresses_and_a_64_that_hold_all_give_way_to_whoever_holds_less() {
        let mut guard = Guard::new(SHARES);
        for n in 1..=5 {
            for _ in 0..8 {
                come(&mut guard, other(&format!("192.0.2.{n}")), NOW);
            }
        }
        for n in 0..64 {
            come(&mut guard, other(&format!("2001:db8::{n:x}")), NOW);
        }
        let mut now = later(limits::PLACE_IDLE_MS);
        for newcomer in [
            "203.0.113.7",
            "192.0.2.77",
            "2001:db8:9::1",
            "2001:db8:0:9::1",
        ] {
            let (id, steps) = come(&mut guard, other(newcomer), now);
            // Those that wait took what was free in the same moment.
            now += Duration::from_millis(limits::PLACE_IDLE_MS);
            let steps = [steps, guard.poll(now)].concat();
            assert!(steps.contains(&Step::Serve(id)), "{newcomer}: {steps:?}");
        }
        assert!(guard.served() <= SHARES.all);
    }

    #[test]
    fn a_48_is_one_source_however_many_64s_it_has() {
        let mut guard = Guard::new(SHARES);
        let served = (0..32)
            .filter(|n| is_served(&mut guard, other(&format!("2001:db8:0:{n:x}::1")), NOW))
            .count();
        assert_eq!(served, SHARES.network());
        let soon = later(limits::PLACE_IDLE_MS);
        assert!(is_served(&mut guard, other("2001:db8:1::1"), soon));
    }

    #[test]
    fn places_are_kept_for_members_and_for_programs_of_this_host() {
        let mut guard = Guard::new(SHARES);
        let served = (1..100)
            .filter(|n| is_served(&mut guard, other(&format!("198.51.{n}.1")), NOW))
            .count();
        assert_eq!(served, SHARES.all - 2 * SHARES.all / limits::KEPT_PLACES);
        let member = |n: u8| of(Class::Member, Who::Address([10, 77, 0, n].into()));
        for n in 1..=4 {
            assert!(is_served(&mut guard, member(n), NOW));
            assert!(is_served(
                &mut guard,
                of(Class::Local, Who::User(Some(n.into()))),
                NOW
            ));
        }
        assert_eq!(guard.served(), SHARES.all);
        assert!(!is_served(&mut guard, member(9), NOW));
    }

    #[test]
    fn a_place_is_certain_for_a_while_and_longer_while_a_request_is_answered() {
        let mut guard = Guard::new(SHARES);
        let taken: Vec<Id> = (0..20)
            .map(|n| come(&mut guard, other(&format!("192.0.{}.1", n % 2)), NOW).0)
            .collect();
        for id in &taken {
            guard.work(*id, true, NOW);
        }
        let idle = later(limits::PLACE_IDLE_MS);
        assert!(!is_served(&mut guard, other("203.0.113.7"), idle));
        let busy = later(limits::PLACE_BUSY_MS);
        assert!(guard.poll(busy).contains(&Step::Displace(taken[0])));
    }

    #[test]
    fn who_holds_the_least_is_served_first_and_the_queue_has_an_end() {
        let mut guard = Guard::new(SHARES);
        let greedy = other("192.0.2.1");
        let mut refused = 0;
        for _ in 0..200 {
            let (_, steps) = come(&mut guard, greedy, NOW);
            refused += steps
                .iter()
                .filter(|step| matches!(step, Step::Refuse(_)))
                .count();
        }
        assert_eq!(refused, 200 - SHARES.address - SHARES.all);
        // The queue is full of one source: who comes now is not the one to go.
        assert_eq!(guard.waiting.len(), SHARES.all);
        let (id, steps) = come(&mut guard, other("192.0.9.1"), NOW);
        assert!(steps.contains(&Step::Serve(id)), "{steps:?}");
    }

    #[test]
    fn what_proves_a_membership_takes_a_kept_place_and_no_more_than_there_are() {
        let mut guard = Guard::new(SHARES);
        let ids: Vec<Id> = (1..=8)
            .map(|n| come(&mut guard, other(&format!("198.51.{n}.1")), NOW).0)
            .collect();
        for id in &ids {
            guard.prove(*id, Class::Member);
        }
        assert_eq!(guard.of(Class::Member), SHARES.kept(Class::Member));
        assert_eq!(guard.served(), ids.len());
        // Whatever strangers do, these stay.
        let now = later(limits::PLACE_BUSY_MS);
        for n in 0..100 {
            let steps = come(&mut guard, other(&format!("203.0.{n}.1")), now).1;
            for kept in &ids[..4] {
                assert!(!steps.contains(&Step::Displace(*kept)));
            }
        }
    }

    #[test]
    fn nothing_is_kept_of_who_has_left() {
        let mut guard = Guard::new(SHARES);
        for n in 0..50u8 {
            let (id, _) = come(&mut guard, Source::other([192, 0, 2, n].into()), NOW);
            guard.leave(id);
        }
        assert!(guard.held.is_empty() && guard.waiting.is_empty() && guard.counts.is_empty());
    }
}
