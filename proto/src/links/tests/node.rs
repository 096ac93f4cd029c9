//! A node's links, with two nodes face to face.

use std::{collections::BTreeMap, time::Duration};

use super::{live::named, rings::id};
use crate::{
    crypto::Hash,
    id::{MeshId, NodeId},
    limits,
    links::{
        Beat, DOWN, Effect, KEEP_VIEW, Links, NamedLinks, Order, Place, QUIET, Settings, TICK, key,
        ms, wire::Flags,
    },
};

const MESH: MeshId = MeshId([3; 32]);

fn settings(me: NodeId) -> Settings {
    Settings {
        me,
        mesh: MESH,
        generation: 1,
        behind_nat: false,
    }
}

/// Two nodes and what lies between them.
struct Pair {
    nodes: [Links; 2],
    now: Duration,
    own: [Order; 2],
    /// Whether packets from each arrive.
    arrive: [bool; 2],
    published: [Vec<NamedLinks>; 2],
    repairs: usize,
    sent: [Vec<Beat>; 2],
    reached: [bool; 2],
}

impl Pair {
    fn new() -> Self {
        let start = ms(5000);
        let nodes = [0, 1].map(|n| {
            let mut links = Links::new(settings(id(n)), start);
            for member in 0..2 {
                links.handle_member(start, id(member), Some(&Hash::default()));
            }
            links
        });
        Self {
            nodes,
            now: start,
            own: [(1, 0); 2],
            arrive: [true; 2],
            published: Default::default(),
            repairs: 0,
            sent: Default::default(),
            reached: [true; 2],
        }
    }

    fn up() -> Self {
        let mut pair = Self::new();
        pair.run(ms(3000));
        assert!(pair.is_up(0) && pair.is_up(1));
        assert_eq!(pair.nodes[0].named().len(), 1);
        pair
    }

    fn is_up(&self, n: usize) -> bool {
        self.nodes[n].up().count() == 1
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += ms(10);
            self.step(&[0, 1]);
        }
    }

    /// Polls these, and carries out what they want done.
    fn step(&mut self, which: &[usize]) {
        for n in which {
            if self.nodes[*n].next_due() <= self.now {
                self.nodes[*n].poll(self.now);
            }
        }
        let mut is_news = true;
        while is_news {
            is_news = false;
            for n in which {
                while let Some(effect) = self.nodes[*n].poll_effect() {
                    is_news = true;
                    self.carry_out(*n, effect, which);
                }
            }
        }
    }

    fn carry_out(&mut self, n: usize, effect: Effect, which: &[usize]) {
        let (now, other) = (self.now, 1 - n);
        match effect {
            Effect::Dial(peer) => {
                self.nodes[n].handle_connected(now, peer);
                self.nodes[other].handle_connected(now, id(n as u64));
            }
            Effect::Send(_, beat) => {
                self.sent[n].push(beat.clone());
                if self.arrive[n] && which.contains(&other) {
                    let reached = self.reached[other];
                    self.nodes[other].handle_packet(now, id(n as u64), &beat, reached);
                }
            }
            Effect::Publish(links) => {
                self.published[n].push(links.clone());
                self.own[n].1 += 1;
                self.nodes[n].handle_own_head(now, self.own[n], &links);
                if self.arrive[n] && which.contains(&other) {
                    let from = id(n as u64);
                    self.nodes[other].handle_head(now, from, self.own[n]);
                    self.nodes[other].handle_named(now, from, self.own[n], false, &links);
                }
            }
            Effect::Repair(_) => self.repairs += 1,
            Effect::Release(_) => {}
        }
    }
}

#[test]
fn a_link_forms_is_named_by_both_and_beats_in_turn() {
    let mut pair = Pair::up();
    assert_eq!(pair.published[0].len(), 1);
    assert_eq!(pair.published[1].len(), 1);
    assert!(pair.nodes[0].is_live(&id(1)) && pair.nodes[1].is_live(&id(0)));
    pair.sent = Default::default();
    pair.run(Duration::from_secs(60));
    // A beat each 667 ms, each with an answer: 1.5 packets a second and end.
    for sent in &pair.sent {
        assert!((80..=100).contains(&sent.len()), "{}", sent.len());
        let turns = sent.iter().filter(|beat| beat.flags.has(Flags::TURN));
        assert!((40..=50).contains(&turns.count()));
    }
    assert_eq!(pair.published[0].len() + pair.published[1].len(), 2);
    assert_eq!(pair.repairs, 0);
}

#[test]
fn silence_is_probed_and_ends_the_link_after_three_seconds() {
    let mut pair = Pair::up();
    pair.arrive = [true, false];
    let begin = pair.now;
    pair.sent = Default::default();
    pair.run(QUIET);
    let before = pair.sent[0].len();
    while pair.is_up(0) {
        pair.run(ms(10));
        assert!(pair.now < begin + ms(4000));
    }
    let silent = pair.now - begin;
    assert!(
        silent <= DOWN + ms(20) && silent > DOWN - ms(700),
        "{silent:?}"
    );
    assert!(pair.sent[0].len() >= before + 4);
    // It takes the other end's link away too, and says so.
    pair.run(ms(100));
    assert!(!pair.is_up(1));
    assert!(pair.nodes[0].named().is_empty());
    assert!(!pair.nodes[0].is_live(&id(1)));
    pair.run(ms(300));
    assert_eq!(pair.published[0].last(), Some(&NamedLinks::default()));
}

#[test]
fn a_packet_that_is_heard_brings_the_link_back() {
    let mut pair = Pair::up();
    pair.arrive = [false; 2];
    pair.run(ms(6000));
    assert!(!pair.is_up(0) && !pair.is_up(1));
    pair.arrive = [true; 2];
    let begin = pair.now;
    while !(pair.is_up(0) && pair.is_up(1)) {
        pair.run(ms(10));
    }
    assert!(pair.now - begin <= ms(1600), "{:?}", pair.now - begin);
    pair.run(ms(2000));
    assert_eq!(pair.nodes[0].named().len(), 1);
}

#[test]
fn a_link_that_fails_again_and_again_waits_longer_and_longer() {
    let mut pair = Pair::up();
    let mut waits = Vec::new();
    for _ in 0..5 {
        pair.arrive = [false; 2];
        while pair.is_up(0) || pair.is_up(1) {
            pair.run(ms(10));
        }
        let begin = pair.now;
        pair.arrive = [true; 2];
        while !(pair.is_up(0) && pair.is_up(1)) {
            pair.run(ms(10));
        }
        waits.push((pair.now - begin).as_secs());
    }
    let expected = [0, 1, 3, 7, 15];
    for (wait, least) in waits.iter().zip(expected) {
        assert!((least..=least + 2).contains(wait), "{waits:?}");
    }
}

#[test]
fn who_stood_still_asks_before_it_drops() {
    for pause in [4, 60, 3600] {
        let mut pair = Pair::up();
        pair.sent = Default::default();
        // Both machines are suspended: nobody's packets are missing.
        pair.now += Duration::from_secs(pause);
        pair.step(&[0, 1]);
        assert!(pair.is_up(0) && pair.is_up(1), "after {pause} s");
        assert_eq!(pair.nodes[0].pauses(), 1);
        assert!(pair.sent[0].iter().any(|beat| beat.flags.has(Flags::ASK)));
        pair.run(ms(5000));
        assert!(pair.is_up(0) && pair.is_up(1));
        assert!(
            pair.nodes[0]
                .take_changes()
                .values()
                .all(|is_live| *is_live)
        );
        assert_eq!(pair.published[0].len(), 1);
    }
}

#[test]
fn who_stood_still_and_gets_no_answer_drops_after_three_seconds_of_asking() {
    let mut pair = Pair::up();
    pair.now += Duration::from_secs(60);
    pair.arrive = [true, false];
    let begin = pair.now;
    pair.step(&[0, 1]);
    while pair.is_up(0) {
        assert!(pair.nodes[0].is_live(&id(1)));
        pair.run(ms(10));
    }
    assert!(pair.now - begin >= DOWN && pair.now - begin <= DOWN + TICK);
    assert!(KEEP_VIEW < DOWN);
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    let mut pair = Pair::up();
    for _ in 0..500 {
        pair.nodes[0].poll(ms(0));
        pair.nodes[0].handle_position(ms(1), Place::default(), 0);
    }
    assert!(pair.is_up(0));
    let changes = pair.nodes[0].take_changes();
    assert!(changes.values().all(|is_live| *is_live));
    while pair.nodes[0].poll_effect().is_some() {}
    pair.run(ms(3000));
    assert!(pair.is_up(0) && pair.is_up(1));
    assert_eq!(pair.nodes[0].pauses(), 0);
}

#[test]
fn the_wall_clock_of_a_peer_means_nothing() {
    let mut pair = Pair::up();
    for clock in [0, u64::MAX, 1_800_000_000_000] {
        pair.nodes[0].handle_position(pair.now, Place::default(), clock);
        pair.run(ms(3000));
        assert!(pair.is_up(0) && pair.is_up(1));
    }
}

#[test]
fn a_link_is_named_only_once_both_ledgers_were_compared() {
    let mut pair = Pair::new();
    pair.reached = [true, false];
    pair.run(ms(5000));
    assert!(pair.is_up(0) && pair.is_up(1));
    assert!(pair.nodes[0].named().is_empty() && pair.nodes[1].named().is_empty());
    assert!(pair.published.iter().all(Vec::is_empty));
    pair.reached = [true, true];
    pair.run(ms(2000));
    assert_eq!(pair.nodes[0].named().len() + pair.nodes[1].named().len(), 2);
}

#[test]
fn a_drop_is_answered() {
    let mut pair = Pair::up();
    let order = (1, pair.own[1].1 + 1);
    pair.nodes[0].handle_named(pair.now, id(1), order, false, &named(&[]));
    assert!(!pair.is_up(0));
    assert!(pair.nodes[0].named().is_empty());
    // A head that is older than the link says nothing of it.
    let mut pair = Pair::up();
    pair.nodes[0].handle_named(pair.now, id(1), (1, 0), false, &named(&[]));
    assert!(pair.is_up(0));
}

#[test]
fn tables_that_stay_different_are_repaired_and_seldom() {
    let mut pair = Pair::up();
    for n in 0..2 {
        pair.nodes[n].handle_member(pair.now, id(7), Some(&Hash::default()));
    }
    pair.nodes[0].handle_head(pair.now, id(7), (1, 1));
    pair.run(ms(10_000));
    assert!((5..=40).contains(&pair.repairs), "{}", pair.repairs);
    // At another place in the ledger nothing can be compared.
    let place = Place {
        index: 9,
        hash: [1; 16],
    };
    pair.nodes[0].handle_position(pair.now, place, 0);
    pair.run(ms(2000));
    pair.repairs = 0;
    pair.run(ms(10_000));
    assert_eq!(pair.repairs, 0);
    pair.nodes[1].handle_position(pair.now, place, 0);
    pair.nodes[1].handle_head(pair.now, id(7), (1, 1));
    pair.run(ms(10_000));
    assert_eq!(pair.repairs, 0);
}

#[test]
fn who_leaves_is_let_go_at_once() {
    let mut pair = Pair::up();
    pair.nodes[0].leave(pair.now);
    pair.step(&[0, 1]);
    assert!(!pair.is_up(1));
    pair.run(ms(5000));
    assert!(!pair.is_up(1) && !pair.nodes[1].is_live(&id(0)));
}

/// One node, and what members and strangers do to it.
fn alone(members: u64) -> (Links, Duration) {
    let now = ms(5000);
    let mut links = Links::new(settings(id(0)), now);
    for member in 0..members {
        links.handle_member(now, id(member), Some(&Hash::of(&member.to_le_bytes())));
    }
    (links, now)
}

fn answers(links: &mut Links) -> usize {
    let mut sent = 0;
    while let Some(effect) = links.poll_effect() {
        sent += usize::from(matches!(effect, Effect::Send(..)));
    }
    sent
}

#[test]
fn strangers_and_their_heads_leave_nothing_behind() {
    let (mut links, now) = alone(3);
    let stranger = id(999);
    links.handle_connected(now, stranger);
    links.handle_head(now, stranger, (9, 9));
    links.handle_named(now, stranger, (9, 9), false, &named(&[(key(&id(0)), 1)]));
    let beat = Beat {
        flags: Flags::ASK,
        mine: 5,
        ..Beat::default()
    };
    for _ in 0..100 {
        links.handle_packet(now, stranger, &beat, true);
    }
    assert_eq!(answers(&mut links), 0);
    assert!(links.live().graph().is_empty() && !links.is_live(&stranger));
    assert_eq!(links.digest().total(), [0; 16]);
}

#[test]
fn one_peer_gets_few_answers_however_often_it_asks() {
    let (mut links, mut now) = alone(3);
    links.handle_connected(now, id(1));
    let _ = answers(&mut links);
    let mut sent = 0;
    for n in 0..100_000u32 {
        now += Duration::from_micros(100);
        // Each is another attempt: the link flaps as fast as it can.
        let beat = Beat {
            flags: Flags::ASK,
            mine: n + 1,
            yours: 65_537,
            ..Beat::default()
        };
        links.handle_packet(now, id(1), &beat, true);
        sent += answers(&mut links);
    }
    // Ten seconds.
    let most = limits::LINK_ANSWERS + 10 * limits::LINK_ANSWERS_PER_S + 10;
    assert!(sent <= most as usize, "{sent} answers");
}

#[test]
fn all_members_at_once_get_no_more_than_twenty_links() {
    let (mut links, now) = alone(400);
    let mut own: BTreeMap<NodeId, u32> = BTreeMap::new();
    for round in 0..3 {
        for peer in 1..400 {
            links.handle_connected(now, id(peer));
            let beat = Beat {
                flags: Flags::ASK.with(Flags::WANTS, true),
                mine: 5,
                yours: own.get(&id(peer)).copied().unwrap_or(0),
                ..Beat::default()
            };
            links.handle_packet(now + ms(round), id(peer), &beat, true);
            while let Some(effect) = links.poll_effect() {
                if let Effect::Send(to, beat) = effect
                    && !beat.flags.has(Flags::FULL)
                {
                    own.insert(to, beat.mine);
                }
            }
        }
    }
    // Its own eight come on top of those that it lets in.
    let up = links.up().count();
    assert!((limits::LINKS..=limits::LINKS + 24).contains(&up), "{up}");
}

#[test]
fn a_member_that_is_gone_leaves_nothing_behind() {
    let mut pair = Pair::up();
    let empty = {
        let (links, _) = alone(1);
        links.digest().total()
    };
    pair.nodes[0].handle_member_gone(pair.now, &id(1));
    pair.nodes[0].handle_member_gone(pair.now, &id(0));
    assert_eq!(pair.nodes[0].up().count(), 0);
    assert_eq!(pair.nodes[0].digest().total(), empty);
    assert!(!pair.nodes[0].is_live(&id(1)));
    let mut effects = std::iter::from_fn(|| pair.nodes[0].poll_effect());
    assert!(effects.any(|effect| effect == Effect::Release(id(1))));
}
