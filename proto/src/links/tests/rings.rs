//! Rings: alike for all, connected, calm, and nobody's choice.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::{
    crypto::Hash,
    id::{MeshId, NodeId},
    limits,
    links::rings::{Fit, Rings},
};

const MESH: MeshId = MeshId([3; 32]);

pub(super) fn id(n: u64) -> NodeId {
    let hash = Hash::of(&n.to_le_bytes()).0;
    NodeId(hash[..16].try_into().unwrap())
}

fn salt(n: u64) -> Hash {
    Hash::of(&[&b"salt"[..], &n.to_le_bytes()].concat())
}

fn rings(members: impl IntoIterator<Item = u64>) -> Rings {
    let mut rings = Rings::new(MESH);
    for n in members {
        rings.insert(id(n), Some(&salt(n)));
    }
    rings
}

type Edges = BTreeMap<NodeId, BTreeSet<NodeId>>;

fn neighbours(rings: &Rings, node: &NodeId) -> BTreeSet<NodeId> {
    rings.neighbours(node, |_| Fit::Take)
}

fn edges(rings: &Rings, fit: impl Fn(&NodeId) -> Fit) -> Edges {
    let members = rings.members().filter(|node| fit(node) != Fit::Skip);
    members
        .map(|node| (*node, rings.neighbours(node, &fit)))
        .collect()
}

/// How many of these are reached from the first one over links between them.
fn reached(edges: &Edges, among: &BTreeSet<NodeId>) -> usize {
    let mut seen = BTreeSet::new();
    let mut open: Vec<NodeId> = among.first().copied().into_iter().collect();
    while let Some(node) = open.pop() {
        if among.contains(&node) && seen.insert(node) {
            open.extend(edges[&node].iter().copied());
        }
    }
    seen.len()
}

/// A cheap source of chance with a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }

    fn part(&mut self, all: &[NodeId], count: usize) -> BTreeSet<NodeId> {
        let mut all = all.to_vec();
        (0..count)
            .map(|_| {
                let n = self.below(all.len() as u64) as usize;
                all.swap_remove(n)
            })
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn links_are_the_same_from_both_ends(
        count in 2..150u64,
        away in prop::collection::btree_set(0..150u64, 0..60),
    ) {
        let rings = rings(0..count);
        let away: BTreeSet<NodeId> = away.into_iter().map(id).collect();
        let fit = |node: &NodeId| if away.contains(node) { Fit::Skip } else { Fit::Take };
        let edges = edges(&rings, fit);
        for (node, peers) in &edges {
            prop_assert!(!peers.contains(node));
            prop_assert!(peers.len() <= limits::LINKS_ALL.max(2 * limits::LINK_RINGS));
            for peer in peers {
                prop_assert!(edges[peer].contains(node));
            }
        }
    }

    #[test]
    fn with_any_nodes_gone_the_others_are_connected_once_they_are_skipped(
        count in 2..200u64,
        seed: u64,
    ) {
        let rings = rings(0..count);
        let all: Vec<NodeId> = rings.members().copied().collect();
        let mut chance = Chance(seed);
        let gone = (count as usize * 3 / 10).min(all.len() - 1);
        let gone = chance.part(&all, gone);
        let left: BTreeSet<NodeId> = all.into_iter().filter(|n| !gone.contains(n)).collect();
        let fit = |node: &NodeId| if gone.contains(node) { Fit::Skip } else { Fit::Take };
        prop_assert_eq!(reached(&edges(&rings, fit), &left), left.len());
    }

    #[test]
    fn one_that_comes_or_goes_changes_its_neighbours_and_one_place_of_each_ring(
        count in (limits::LINKS_ALL as u64 + 1)..300,
        which in 0..300u64,
    ) {
        let before = rings(0..count);
        let new = count + which;
        let mut after = before.clone();
        after.insert(id(new), Some(&salt(new)));
        let near = neighbours(&after, &id(new));
        for node in before.members() {
            let (was, is) = (neighbours(&before, node), neighbours(&after, node));
            let changes = was.symmetric_difference(&is).count();
            if near.contains(node) {
                prop_assert!(is.contains(&id(new)));
                // One comes, and one goes for each ring side that it took over.
                prop_assert!(changes <= 1 + 2 * limits::LINK_RINGS);
                let gone = was.difference(&is).count();
                prop_assert!(is.difference(&was).count() == 1 && gone <= 2 * limits::LINK_RINGS);
            } else {
                prop_assert_eq!(changes, 0);
            }
        }
        after.remove(&id(new));
        for node in before.members() {
            prop_assert_eq!(neighbours(&before, node), neighbours(&after, node));
        }
    }
}

/// Changes at each node that one more node makes: how many nodes have how many.
fn changes_by_a_join(count: u64, trials: u64) -> BTreeMap<usize, usize> {
    let mut tally = BTreeMap::new();
    for new in count..count + trials {
        let before = rings(0..count);
        let mut after = before.clone();
        after.insert(id(new), Some(&salt(new)));
        for node in neighbours(&after, &id(new)) {
            let (was, is) = (neighbours(&before, &node), neighbours(&after, &node));
            let changes = was.symmetric_difference(&is).count();
            *tally.entry(changes).or_default() += 1;
        }
    }
    tally
}

#[test]
fn a_join_changes_at_most_two_links_of_nearly_every_neighbour() {
    for (count, part) in [(50, 0.70), (500, 0.95)] {
        let tally = changes_by_a_join(count, 30);
        let all: usize = tally.values().sum();
        let few: usize = tally.range(..=2).map(|(_, nodes)| nodes).sum();
        assert!(few as f64 >= part * all as f64, "{count}: {tally:?}");
    }
}

/// Trials in which a third that is gone, before anybody was skipped, leaves some apart;
/// and how many that are in all.
fn apart(count: u64, trials: u64) -> (usize, usize) {
    let rings = rings(0..count);
    let edges = edges(&rings, |_| Fit::Take);
    let all: Vec<NodeId> = rings.members().copied().collect();
    let (mut failures, mut nodes) = (0, 0);
    let mut chance = Chance(count);
    for _ in 0..trials {
        let gone = chance.part(&all, all.len() * 3 / 10);
        let left: BTreeSet<NodeId> = all.iter().filter(|n| !gone.contains(n)).copied().collect();
        let reached = reached(&edges, &left);
        // From a node that is itself apart little is reached.
        let apart = (left.len() - reached).min(reached);
        failures += usize::from(apart > 0);
        nodes += apart;
    }
    (failures, nodes)
}

#[test]
fn with_a_third_gone_few_are_apart_even_before_anybody_is_skipped() {
    for (count, trials) in [(20, 100), (100, 100), (2000, 20)] {
        let (_, nodes) = apart(count, trials);
        // 0.3^8 of them lose all eight: one in 15,000. Small meshes have fewer links.
        let most = if count < 50 { 0.02 } else { 0.001 };
        let left = (count * trials) as f64 * 0.7;
        assert!((nodes as f64) < most * left, "{count}: {nodes} of {left}");
    }
}

#[test]
fn a_small_mesh_is_whole() {
    for count in 1..=limits::LINKS_ALL as u64 {
        let rings = rings(0..count);
        for node in rings.members() {
            assert_eq!(neighbours(&rings, node).len() as u64, count - 1);
        }
    }
    assert!(neighbours(&rings(0..40), &id(3)).len() <= 2 * limits::LINK_RINGS);
}

/// Whoever makes keys until one is next to a victim has to know the salt for that.
#[test]
fn a_place_next_to_a_victim_can_not_be_ground() {
    let before = rings(0..1000);
    let victim = id(7);
    let known = Hash::default();
    let mut ground = (10_000..).filter(|key| {
        let mut with = before.clone();
        with.insert(id(*key), Some(&known));
        neighbours(&with, &victim).contains(&id(*key))
    });
    // Eight slots among a thousand nodes: found in a moment.
    let keys: Vec<u64> = ground.by_ref().take(5).collect();
    let beside = keys.iter().filter(|key| {
        let mut with = before.clone();
        with.insert(id(**key), Some(&salt(**key)));
        neighbours(&with, &victim).contains(&id(**key))
    });
    assert_eq!(beside.count(), 0, "{keys:?}");
}

#[test]
fn a_member_has_a_place_once_there_is_a_batch_after_its_own() {
    let mut rings = rings(0..30);
    rings.insert(id(99), None);
    assert!(rings.contains(&id(99)) && rings.len() == 31);
    assert!(neighbours(&rings, &id(99)).is_empty());
    rings.insert(id(99), Some(&salt(99)));
    assert!(!neighbours(&rings, &id(99)).is_empty());
}

#[test]
fn the_next_is_taken_in_the_stead_of_one_that_is_skipped_and_beside_one_that_is_slow() {
    let rings = rings(0..40);
    let me = id(0);
    let all = neighbours(&rings, &me);
    let odd = *all.first().unwrap();
    let with = |fit: Fit| rings.neighbours(&me, |node| if *node == odd { fit } else { Fit::Take });
    let skipped = with(Fit::Skip);
    assert!(!skipped.contains(&odd));
    let beside = with(Fit::Beside);
    assert!(beside.contains(&odd) && beside.is_superset(&skipped));
    // Where nobody is likely, a few are tried all the same.
    let unlikely = rings.neighbours(&me, |_| Fit::Beside);
    assert!((8..=4 * limits::LINK_RINGS).contains(&unlikely.len()));
}
