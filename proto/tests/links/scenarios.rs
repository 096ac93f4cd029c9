//! Meshes that start, lose nodes, split, stand still and grow.

use std::collections::BTreeSet;

use innermesh_proto::limits;

use crate::model::{Index, State, World};

pub const SECOND: u64 = 1_000_000;

/// A mesh whose nodes have found each other.
pub fn formed(count: usize, seed: u64) -> World {
    let mut world = World::new(count, |_| false, seed);
    settle(&mut world);
    world
}

/// Runs until everybody sees everybody and nothing was published for a while.
pub fn settle(world: &mut World) {
    let mut quiet = 0;
    for _ in 0..60 {
        let before: u64 = world.nodes.iter().map(|node| node.published).sum();
        world.run(SECOND);
        let after: u64 = world.nodes.iter().map(|node| node.published).sum();
        quiet = if before == after && world.unseen() == 0 {
            quiet + 1
        } else {
            0
        };
        if quiet == 3 {
            world.changes.clear();
            return;
        }
    }
    panic!("the mesh doesn't settle: {} pairs unseen", world.unseen());
}

/// When each survivor noticed that each of `dead` was, in milliseconds since `begin`.
/// Panics where one never did.
pub fn noticed(world: &World, dead: &[Index], begin: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for by in world.alive() {
        for of in dead {
            assert!(!world.sees(by, *of), "{by} takes {of} for live");
            let mut changes = world.changes.iter().rev();
            let last = changes.find(|change| change.by == by && change.of == *of);
            let last = last.expect("it was live before");
            found.push((last.at - begin) / 1000);
        }
    }
    found.sort_unstable();
    found
}

/// Views in which a node that ran was dead, and for how many milliseconds at most; of
/// those that weren't spared.
pub fn falsely_dead(world: &World, spared: &BTreeSet<Index>) -> (usize, u64) {
    let (mut episodes, mut longest) = (0, 0);
    let changes = world.changes.iter().enumerate();
    for (n, change) in changes.filter(|(_, change)| !change.is_live) {
        let is_fault = world.nodes[change.of].state != State::Dead
            && world.nodes[change.by].state != State::Dead
            && !spared.contains(&change.of)
            && !spared.contains(&change.by);
        if is_fault {
            episodes += 1;
            let mut later = world.changes[n..].iter();
            let end = later.find(|at| at.by == change.by && at.of == change.of && at.is_live);
            let end = end.map_or(world.now, |end| end.at);
            longest = longest.max((end - change.at) / 1000);
        }
    }
    (episodes, longest)
}

pub fn some(world: &mut World, count: usize) -> Vec<Index> {
    let mut all = world.alive();
    (0..count)
        .map(|_| {
            let n = world.below(all.len() as u64) as usize;
            all.swap_remove(n)
        })
        .collect()
}

#[test]
fn everybody_sees_everybody_over_few_links() {
    for count in [2, 3, 12, 13, 40] {
        let world = formed(count, 1);
        for n in 0..count {
            let up = world.up(n);
            assert!(up <= limits::LINKS, "{up} links of {n} among {count}");
            if count <= limits::LINKS_ALL {
                assert_eq!(up, count - 1);
            } else {
                assert!(up >= 4, "{up} links of {n} among {count}");
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut world = formed(20, 9);
        world.loss = 0.1;
        world.kill(3);
        world.run(6 * SECOND);
        let changes = world.changes.iter();
        changes
            .map(|change| (change.at, change.by, change.of, change.is_live))
            .collect::<Vec<_>>()
    };
    let first = run();
    assert!(first.len() >= 19);
    assert_eq!(first, run());
}

#[test]
fn one_that_falls_silent_is_noticed_by_all_within_four_seconds() {
    for (count, seed) in [(3, 1), (3, 2), (20, 3), (20, 4)] {
        let mut world = formed(count, seed);
        world.loss = 0.1;
        let begin = world.now;
        world.kill(1);
        world.run(5 * SECOND);
        let noticed = noticed(&world, &[1], begin);
        let last = *noticed.last().unwrap();
        assert!(last <= 4000, "{count} nodes: {noticed:?}");
        // Half of the links must be silent for 3 s, and the last packet was sent before.
        assert!(noticed[0] >= 1500, "{count} nodes: {noticed:?}");
        assert_eq!(falsely_dead(&world, &BTreeSet::new()).0, 0);
    }
}

#[test]
fn a_third_that_falls_silent_is_noticed_and_nobody_else_is_dead() {
    for seed in 1..4 {
        let mut world = formed(30, seed);
        let dead = some(&mut world, 9);
        let begin = world.now;
        for node in &dead {
            world.kill(*node);
        }
        world.run(8 * SECOND);
        let noticed = noticed(&world, &dead, begin);
        assert!(*noticed.last().unwrap() <= 5000, "{noticed:?}");
        let (episodes, longest) = falsely_dead(&world, &BTreeSet::new());
        assert_eq!(episodes, 0, "for up to {longest} ms");
    }
}

#[test]
fn the_sides_of_a_split_part_and_find_each_other_again() {
    let mut world = formed(30, 5);
    world.split(|n| (n % 2) as u8);
    world.run(20 * SECOND);
    assert_eq!(world.unseen(), 2 * 15 * 15);
    for n in 0..30 {
        assert!(world.up(n) >= 3, "{n} has {} links", world.up(n));
    }
    world.split(|_| 0);
    world.run(20 * SECOND);
    assert_eq!(world.unseen(), 0);
}

#[test]
fn who_stands_still_for_two_seconds_loses_no_link_and_publishes_nothing() {
    for seed in 1..5 {
        let mut world = formed(15, seed);
        // What wasn't needed in the end is released.
        world.run(60 * SECOND);
        let before: u64 = world.nodes.iter().map(|node| node.published).sum();
        world.stop(0);
        world.run(2 * SECOND);
        world.wake(0);
        world.run(5 * SECOND);
        let after: u64 = world.nodes.iter().map(|node| node.published).sum();
        assert_eq!(after, before);
        assert!(world.changes.is_empty(), "{:?}", world.changes);
        assert_eq!(world.nodes[0].links.pauses(), 1);
    }
}

#[test]
fn who_slept_for_long_takes_nobody_for_dead_and_comes_back_at_once() {
    let mut world = formed(15, 2);
    world.stop(0);
    world.run(60 * SECOND);
    assert!((1..15).all(|by| !world.sees(by, 0)));
    world.changes.clear();
    let begin = world.now;
    world.wake(0);
    world.run(10 * SECOND);
    assert_eq!(world.unseen(), 0);
    let by_sleeper = world.changes.iter().filter(|change| change.by == 0);
    let dead: Vec<_> = by_sleeper.filter(|change| !change.is_live).collect();
    assert!(dead.is_empty(), "{dead:?}");
    let back = world.changes.iter().filter(|change| change.of == 0);
    let last = back.map(|change| change.at - begin).max().unwrap();
    assert!(last <= 3 * SECOND, "{last}");
}

#[test]
fn one_that_joins_is_live_for_all_within_a_second_or_two() {
    let mut world = formed(20, 3);
    let begin = world.now;
    let new = world.join(false);
    world.run(4 * SECOND);
    assert_eq!(world.unseen(), 0);
    let came = world.changes.iter().filter(|change| change.of == new);
    let last = came.map(|change| change.at - begin).max().unwrap();
    assert!(last <= 2 * SECOND, "{last}");
    assert_eq!(falsely_dead(&world, &BTreeSet::new()).0, 0);
}

#[test]
fn nodes_behind_nats_lean_on_those_that_can_be_dialed() {
    let mut world = World::new(30, |n| n % 3 != 0, 4);
    settle(&mut world);
    for n in 0..30 {
        let up: Vec<Index> = (0..30)
            .filter(|other| {
                let id = world.nodes[*other].id;
                world.nodes[n].links.up().any(|peer| *peer == id)
            })
            .collect();
        assert!(!up.is_empty());
        if world.nodes[n].behind_nat {
            assert!(up.iter().all(|peer| !world.nodes[*peer].behind_nat));
        }
        assert!(up.len() <= limits::LINKS_NAMED);
    }
}

#[test]
fn a_node_whose_ledger_is_behind_is_named_only_once_it_has_caught_up() {
    let mut world = World::new(8, |_| false, 6);
    world.nodes[0].position = 3;
    world.run(5 * SECOND);
    let own = world.nodes[0].links.named();
    assert!(own.is_empty(), "{own:?}");
    let id = world.nodes[0].id;
    for n in 1..8 {
        let named = world.nodes[n].links.named();
        assert!(!named.contains_key(&innermesh_proto::links::key(&id)));
        // A link is up all the same: it is live for those that have one.
        assert!(world.sees(n, 0));
    }
    world.nodes[0].position = 7;
    world.run(5 * SECOND);
    assert_eq!(world.nodes[0].links.named().len(), 7);
}

#[test]
fn a_quiet_mesh_with_losses_stays_whole() {
    let mut world = formed(15, 7);
    world.loss = 0.2;
    world.run(120 * SECOND);
    let (episodes, longest) = falsely_dead(&world, &BTreeSet::new());
    assert_eq!(episodes, 0, "for up to {longest} ms");
}
