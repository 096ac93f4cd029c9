//! Who is live: against the definition, step by step.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;

use crate::links::{
    ANSWER, HALF_GRACE, KEEP_VIEW, Key, NamedLinks, Order, graph::Status, live::Live, ms,
};

const ME: Key = 0;

pub(super) fn named(peers: &[(Key, u64)]) -> NamedLinks {
    NamedLinks {
        behind_nat: false,
        links: peers.iter().map(|(peer, seq)| (*peer, (1, *seq))).collect(),
    }
}

/// A world of heads, told one after the other.
struct Told {
    live: Live,
    seq: BTreeMap<Key, u64>,
    now: Duration,
}

impl Told {
    fn new() -> Self {
        Self {
            live: Live::new(ME, Duration::ZERO),
            seq: BTreeMap::new(),
            now: ms(1000),
        }
    }

    /// `node` names these, with links that came up when each peer had said what it has.
    fn says(&mut self, node: Key, peers: &[Key]) {
        let links: Vec<(Key, u64)> = peers
            .iter()
            .map(|peer| (*peer, self.seq.get(peer).copied().unwrap_or(0)))
            .collect();
        self.says_of(node, &links);
    }

    fn says_of(&mut self, node: Key, links: &[(Key, u64)]) {
        let seq = self.seq.entry(node).or_default();
        *seq += 1;
        let order = (1, *seq);
        self.live
            .set_head(node, order, false, &named(links), self.now);
    }

    fn up(&mut self, node: Key, is_up: bool) {
        self.live.set_up(node, is_up, self.now);
    }

    fn after(&mut self, time: Duration) {
        self.now += time;
        self.live.poll(self.now);
    }

    fn is_live(&self, node: Key) -> bool {
        self.live.is_live(node)
    }
}

/// Me, 1 with a link up; 1 to 5 all linked with each other.
fn five() -> Told {
    let mut told = Told::new();
    told.up(1, true);
    for _ in 0..2 {
        for node in 1..=5 {
            let peers: Vec<Key> = (1..=5).filter(|peer| *peer != node).collect();
            told.says(node, &peers);
        }
    }
    assert!((1..=5).all(|node| told.is_live(node)));
    told
}

#[test]
fn a_link_that_one_end_names_counts_for_nothing() {
    let mut told = Told::new();
    told.up(1, true);
    told.says(1, &[2]);
    assert!(told.is_live(1) && !told.is_live(2));
    told.says(2, &[]);
    assert!(!told.is_live(2));
    // The other way round: whoever names itself into the mesh isn't there.
    told.says(1, &[]);
    told.says(2, &[1]);
    assert!(!told.is_live(2));
    assert_eq!(told.live.graph().status(2, 1), Some(Status::Pending));
    told.says(1, &[2]);
    assert!(told.is_live(2));
}

#[test]
fn who_was_dropped_by_more_than_half_is_dead_although_one_link_counts() {
    let mut told = five();
    // 5 names 1, 2, 3 and 4; three of them drop it.
    for node in [2, 3, 4] {
        let peers: Vec<Key> = (1..=4).filter(|peer| *peer != node).collect();
        told.says(node, &peers);
    }
    assert!(told.is_live(5), "for a moment");
    told.after(HALF_GRACE - ms(1));
    assert!(told.is_live(5));
    told.after(ms(1));
    assert!(!told.is_live(5));
    // It answers: what it names now, all counts.
    told.says_of(5, &[(1, told.seq[&1])]);
    assert!(told.is_live(5));
}

#[test]
fn one_that_nobody_reaches_is_dead_at_once() {
    let mut told = five();
    for node in [1, 2, 3, 4] {
        assert!(told.is_live(5));
        let peers: Vec<Key> = (1..=4).filter(|peer| *peer != node).collect();
        told.says(node, &peers);
    }
    assert!(!told.is_live(5));
}

#[test]
fn a_link_that_its_other_end_could_not_name_yet_speaks_against_nobody() {
    let mut told = five();
    // 5 has new links with 6, 7, 8, 9 and 10, of which heads that name it aren't here.
    for node in 6..=10 {
        told.says(node, &[]);
    }
    let new: Vec<Key> = (1..=4).chain(6..=10).collect();
    let links: Vec<(Key, u64)> = new.iter().map(|peer| (*peer, told.seq[peer])).collect();
    told.says_of(5, &links);
    told.after(Duration::from_secs(60));
    assert!(told.is_live(5));
    // Once those are newer they would have to name it.
    for node in 6..=10 {
        told.says(node, &[]);
    }
    told.after(HALF_GRACE);
    assert!(!told.is_live(5));
}

#[test]
fn a_drop_that_is_not_answered_within_three_seconds_is_death() {
    let mut told = five();
    // One of four drops it: three quarters still count.
    told.says(4, &[1, 2, 3]);
    told.after(ANSWER - ms(1));
    assert!(told.is_live(5));
    told.after(ms(1));
    assert!(!told.is_live(5));

    let mut told = five();
    told.says(4, &[1, 2, 3]);
    told.after(ms(1000));
    told.says(5, &[1, 2, 3]);
    told.after(Duration::from_secs(600));
    assert!(told.is_live(5) && told.is_live(4));
}

/// One liar beside a mass death: it names the dead, and they name it still.
#[test]
fn a_liar_keeps_no_cluster_of_the_dead_alive() {
    let mut told = Told::new();
    told.up(1, true);
    let cluster: Vec<Key> = (10..14).collect();
    for _ in 0..2 {
        told.says(1, &[2, 10]);
        told.says(2, &[1, 10, 11]);
        for node in &cluster {
            let mut peers: Vec<Key> = cluster.iter().copied().filter(|p| p != node).collect();
            peers.extend(if *node == 10 { vec![1, 2] } else { vec![] });
            peers.extend(if *node == 11 { vec![2] } else { vec![] });
            told.says(*node, &peers);
        }
    }
    assert!(cluster.iter().all(|node| told.is_live(*node)));
    // They die. 2 is honest and drops both; 1 lies, and all of them hang on it.
    told.says(2, &[1]);
    told.after(HALF_GRACE);
    told.after(ANSWER);
    let live: Vec<&Key> = cluster.iter().filter(|node| told.is_live(**node)).collect();
    assert!(live.is_empty(), "{live:?}");
}

#[test]
fn who_has_a_link_up_is_live_whatever_heads_say() {
    let mut told = Told::new();
    told.up(9, true);
    assert!(told.is_live(9));
    told.says(9, &[]);
    told.says(8, &[9]);
    told.after(Duration::from_secs(60));
    assert!(told.is_live(9) && !told.is_live(8));
    told.up(9, false);
    assert!(!told.is_live(9));
}

#[test]
fn a_goodbye_ends_it_at_once() {
    let mut told = five();
    told.live
        .set_head(5, (1, 99), true, &NamedLinks::default(), told.now);
    assert!(!told.is_live(5));
    assert!((1..5).all(|node| told.is_live(node)));
}

#[test]
fn who_stood_still_keeps_its_view_for_a_moment_and_then_believes_what_it_hears() {
    let mut told = five();
    told.says(4, &[1, 2, 3]);
    told.now += Duration::from_secs(30);
    told.live.excuse(Duration::from_secs(30), told.now);
    told.live.poll(told.now);
    assert!(told.is_live(5), "5 may have answered meanwhile");
    told.after(ANSWER - ms(1));
    assert!(told.is_live(5));

    let mut told = five();
    told.now += Duration::from_secs(30);
    told.live.excuse(Duration::from_secs(30), told.now);
    told.up(1, false);
    assert!((1..=5).all(|node| told.is_live(node)));
    told.after(KEEP_VIEW - ms(1));
    assert!((1..=5).all(|node| told.is_live(node)));
    told.after(ms(1));
    assert!((1..=5).all(|node| !told.is_live(node)));
    let changes = told.live.take_changes();
    assert!(changes.values().all(|is_live| !is_live));
}

#[test]
fn a_node_that_started_again_is_not_held_to_what_its_last_run_named() {
    let mut told = five();
    // Its second run begins below the sequence of the first.
    told.live.set_head(5, (2, 1), false, &named(&[]), told.now);
    assert!(!told.is_live(5));
    for node in 1..=4 {
        assert_eq!(
            told.live.graph().status(node, 5),
            Some(Status::Dropped { since: told.now })
        );
    }
    // Links with the second run: its own head is newer than that they name.
    let after: BTreeMap<Key, Order> = [(5, (2, 1))].into();
    for node in 1..=4 {
        let peers: Vec<Key> = (1..=4).filter(|peer| *peer != node).collect();
        let mut links = named(&peers.iter().map(|p| (*p, told.seq[p])).collect::<Vec<_>>());
        links.links.extend(after.clone());
        let seq = told.seq[&node] + 1;
        told.seq.insert(node, seq);
        told.live.set_head(node, (1, seq), false, &links, told.now);
        assert_eq!(told.live.graph().status(node, 5), Some(Status::Pending));
    }
    let all: Vec<(Key, u64)> = (1..=4).map(|peer| (peer, told.seq[&peer])).collect();
    told.live.set_head(5, (2, 2), false, &named(&all), told.now);
    assert!((1..=5).all(|node| told.is_live(node)));
}

/// The definition, worked out from nothing.
fn by_definition(
    heads: &BTreeMap<Key, (u64, BTreeMap<Key, u64>)>,
    up: &BTreeSet<Key>,
    answered_late: &BTreeSet<Key>,
) -> BTreeSet<Key> {
    let names = |from: Key, to: Key| heads.get(&from).is_some_and(|(_, n)| n.contains_key(&to));
    let is_sound = |node: Key| {
        let Some((_, links)) = heads.get(&node) else {
            return false;
        };
        let counts = links.keys().filter(|peer| names(**peer, node)).count();
        let dropped = links
            .iter()
            .filter(|(peer, epoch)| {
                !names(**peer, node) && heads.get(peer).is_some_and(|(seq, _)| seq > epoch)
            })
            .count();
        counts > 0 && counts >= dropped && !answered_late.contains(&node)
    };
    let mut live = up.clone();
    let mut open: Vec<Key> = up.iter().copied().collect();
    while let Some(node) = open.pop() {
        let Some((_, links)) = heads.get(&node) else {
            continue;
        };
        for peer in links.keys() {
            if *peer != ME && names(*peer, node) && is_sound(*peer) && live.insert(*peer) {
                open.push(*peer);
            }
        }
    }
    live
}

#[derive(Clone, Debug)]
enum Step {
    Head(Key, Vec<(Key, bool)>),
    Up(Key, bool),
    Forget(Key),
}

fn step(nodes: Key) -> impl Strategy<Value = Step> {
    let links = prop::collection::vec((0..nodes, any::<bool>()), 0..6);
    prop_oneof![
        8 => (1..nodes, links).prop_map(|(node, links)| Step::Head(node, links)),
        2 => (1..nodes, any::<bool>()).prop_map(|(node, is_up)| Step::Up(node, is_up)),
        1 => (1..nodes).prop_map(Step::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Step by step the same as from nothing: a second after each step, when no grace is
    /// left and no answer is due yet, and again once every answer is.
    #[test]
    fn what_is_worked_out_step_by_step_is_what_the_definition_says(
        steps in prop::collection::vec(step(9), 1..60),
    ) {
        let mut live = Live::new(ME, Duration::ZERO);
        let mut heads: BTreeMap<Key, (u64, BTreeMap<Key, u64>)> = BTreeMap::new();
        let mut seqs: BTreeMap<Key, u64> = BTreeMap::new();
        let mut up = BTreeSet::new();
        let mut since: BTreeMap<(Key, Key, u64), Duration> = BTreeMap::new();
        let mut now = ms(0);
        for step in steps {
            now += ms(1000);
            live.poll(now);
            match step {
                Step::Head(node, links) => {
                    let seq = seqs.entry(node).or_default();
                    *seq += 1;
                    let seq = *seq;
                    // A link that came up before or after the peer's newest head.
                    let links: BTreeMap<Key, u64> = links.into_iter().filter(|(peer, _)| *peer != node)
                        .map(|(peer, is_new)| {
                            let at = seqs.get(&peer).copied().unwrap_or(0);
                            (peer, if is_new { at } else { at.saturating_sub(1) })
                        }).collect();
                    let list: Vec<(Key, u64)> = links.iter().map(|(p, e)| (*p, *e)).collect();
                    live.set_head(node, (1, seq), false, &named(&list), now);
                    heads.insert(node, (seq, links));
                }
                Step::Up(node, is_up) => {
                    live.set_up(node, is_up, now);
                    if is_up { up.insert(node); } else { up.remove(&node); }
                }
                Step::Forget(node) => {
                    live.forget(node, now);
                    heads.remove(&node);
                    up.remove(&node);
                }
            }
            // Who hasn't answered for how long, by the definition.
            let links = heads.iter().flat_map(|(node, (_, links))| {
                links.iter().map(|(peer, epoch)| (*node, *peer, *epoch))
            });
            let dropped: BTreeSet<(Key, Key, u64)> = links.filter(|(node, peer, epoch)| {
                heads.get(peer).is_some_and(|(seq, links)| seq > epoch && !links.contains_key(node))
            }).collect();
            since.retain(|link, _| dropped.contains(link));
            for link in dropped {
                since.entry(link).or_insert(now);
            }
            // Grace is over before the next step, answers are due after three.
            let look = now + ms(999);
            live.poll(look);
            let late: BTreeSet<Key> = since.iter().filter(|(_, at)| look >= **at + ANSWER).map(|((node, _, _), _)| *node).collect();
            let expected = by_definition(&heads, &up, &late);
            let found: BTreeSet<Key> = (1..9).filter(|node| live.is_live(*node)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

/// A mesh of rings, as everybody names it.
fn ring_mesh(count: Key) -> (Live, BTreeMap<Key, BTreeSet<Key>>) {
    let mut names: BTreeMap<Key, BTreeSet<Key>> = BTreeMap::new();
    for ring in 0..4u64 {
        // A permutation by a factor that is prime to the count.
        let step = [1, 7, 31, 101][ring as usize];
        for n in 0..count {
            let (one, other) = (n * step % count, (n + 1) * step % count);
            names.entry(one).or_default().insert(other);
            names.entry(other).or_default().insert(one);
        }
    }
    let mut live = Live::new(ME, Duration::ZERO);
    for peer in &names[&ME] {
        live.set_up(*peer, true, ms(0));
    }
    for (node, peers) in &names {
        let links: Vec<(Key, u64)> = peers.iter().map(|peer| (*peer, 0)).collect();
        live.set_head(*node, (1, 1), false, &named(&links), ms(0));
    }
    (live, names)
}

#[test]
fn what_one_node_changes_costs_as_much_as_its_links_whatever_the_mesh() {
    let mut cost = Vec::new();
    for count in [203u64, 2003] {
        let (mut live, names) = ring_mesh(count);
        assert_eq!(live.len() as u64, count - 1);
        let (mut steps, before) = (0, live.work());
        for n in (1..200).map(|n| n * 997 % count).filter(|n| *n != ME) {
            // It drops one neighbour, and takes it up again.
            let peers = &names[&n];
            let dropped = *peers.iter().find(|peer| **peer != ME).unwrap();
            for (seq, without) in [(2, Some(dropped)), (3, None)] {
                let left = peers.iter().filter(|peer| Some(**peer) != without);
                let links: Vec<(Key, u64)> = left.map(|peer| (*peer, 0)).collect();
                live.set_head(n, (1, seq), false, &named(&links), ms(1));
                steps += 1;
            }
            assert_eq!(live.len() as u64, count - 1);
        }
        cost.push((live.work() - before) / steps);
    }
    assert!(
        cost[1] <= 2 * cost[0] + 8,
        "{cost:?} nodes looked at for each head"
    );
    assert!(cost[1] <= 64, "{cost:?} nodes looked at for each head");
}
