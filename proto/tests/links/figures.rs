//! The figures of the decision record.

use std::collections::{BTreeMap, BTreeSet};

use innermesh_proto::{
    id::{MeshId, NodeId},
    links::rings::{Fit, Rings},
};

use crate::{
    hostile::flaps,
    model::{State, World, id, salt},
    scenarios::{SECOND, falsely_dead, formed, noticed, settle, some},
};

fn at(sorted: &[u64], part: f64) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted[(last as f64 * part).round() as usize]
}

fn sizes() -> Vec<usize> {
    let text = std::env::var("SIZES").unwrap_or_else(|_| "3 20 50 200".into());
    text.split_whitespace()
        .map(|size| size.parse().unwrap())
        .collect()
}

fn seeds(count: usize) -> u64 {
    match count {
        0..=20 => 20,
        21..=60 => 6,
        61..=300 => 2,
        _ => 1,
    }
}

#[test]
#[ignore = "prints figures"]
fn detection() {
    println!("nodes  killed  loss  p50    p99    max   false deaths  heads");
    for count in sizes() {
        for (part, loss) in [(0.0, 0.1), (0.3, 0.0), (0.5, 0.0)] {
            if count < 10 && part > 0.0 {
                continue;
            }
            let (mut times, mut episodes, mut heads, mut longest) = (Vec::new(), 0, 0, 0);
            for seed in 0..seeds(count) {
                let mut world = formed(count, seed);
                world.loss = loss;
                world.run(2 * SECOND);
                world.changes.clear();
                let before: u64 = world.nodes.iter().map(|node| node.published).sum();
                let dead = some(&mut world, ((count as f64 * part) as usize).max(1));
                let begin = world.now;
                dead.iter().for_each(|node| world.kill(*node));
                world.run(10 * SECOND);
                times.extend(noticed(&world, &dead, begin));
                let (faults, time) = falsely_dead(&world, &BTreeSet::new());
                episodes += faults;
                longest = longest.max(time);
                let after: u64 = world.nodes.iter().map(|node| node.published).sum();
                heads += after - before;
            }
            times.sort_unstable();
            println!(
                "{count:5}  {part:6}  {loss:4}  {:5}  {:5}  {:5}  {episodes} (≤ {longest} ms)  {}",
                at(&times, 0.5),
                at(&times, 0.99),
                times.last().unwrap(),
                heads / seeds(count),
            );
        }
    }
}

#[test]
#[ignore = "prints figures"]
fn idle() {
    println!("nodes  loss  B/s a node  links  false deaths in 5 min");
    for count in sizes() {
        for loss in [0.0, 0.1, 0.2] {
            let mut world = formed(count, 1);
            world.loss = loss;
            // Until what wasn't needed in the end is released.
            world.run(60 * SECOND);
            world.changes.clear();
            let before: u64 = world.nodes.iter().map(|node| node.sent).sum();
            world.run(300 * SECOND);
            let after: u64 = world.nodes.iter().map(|node| node.sent).sum();
            let links: usize = (0..count).map(|n| world.up(n)).sum();
            let (episodes, longest) = falsely_dead(&world, &BTreeSet::new());
            println!(
                "{count:5}  {loss:4}  {:10}  {:.1}  {episodes} (≤ {longest} ms)",
                (after - before) / 300 / count as u64,
                links as f64 / count as f64,
            );
        }
    }
}

#[test]
#[ignore = "prints figures"]
fn pauses_joins_and_splits() {
    println!("nodes  what  false deaths or time");
    for count in sizes() {
        for pause in [2500, 10_000] {
            let (mut trials, mut total, mut longest) = (0, 0, 0);
            for seed in 0..seeds(count) {
                let mut world = formed(count, seed);
                let part = if pause > 3000 { count * 3 / 10 } else { 1 };
                let asleep = some(&mut world, part.max(1));
                asleep.iter().for_each(|node| world.stop(*node));
                world.run(pause * 1000);
                // Who slept for long is rightly dead to those awake. What counts is what
                // the woken and the others think of each other afterwards.
                if pause > 3000 {
                    world.changes.clear();
                }
                asleep.iter().for_each(|node| world.wake(*node));
                world.run(15 * SECOND);
                let (episodes, time) = falsely_dead(&world, &BTreeSet::new());
                trials += usize::from(episodes > 0);
                total += episodes;
                longest = longest.max(time);
                assert_eq!(world.unseen(), 0);
            }
            println!(
                "{count:5}  pause of {pause} ms: {trials} trials of {}, {total} views, up to {longest} ms",
                seeds(count)
            );
        }
        let (mut joins, mut heals, mut heads) = (Vec::new(), Vec::new(), 0);
        for seed in 0..seeds(count) {
            let mut world = formed(count, seed);
            let before: u64 = world.nodes.iter().map(|node| node.published).sum();
            let begin = world.now;
            let new = world.join(false);
            world.run(8 * SECOND);
            let after: u64 = world.nodes.iter().map(|node| node.published).sum();
            heads += after - before;
            assert_eq!(world.unseen(), 0);
            let came = world.changes.iter().filter(|change| change.of == new);
            joins.extend(came.map(|change| (change.at - begin) / 1000));
            settle(&mut world);
            world.split(|n| (n % 2) as u8);
            world.run(60 * SECOND);
            world.changes.clear();
            let begin = world.now;
            world.split(|_| 0);
            world.run(70 * SECOND);
            assert_eq!(world.unseen(), 0);
            let came = world.changes.iter().filter(|change| change.is_live);
            heals.extend(came.map(|change| (change.at - begin) / 1000));
        }
        joins.sort_unstable();
        heals.sort_unstable();
        println!(
            "{count:5}  join: p50 {} max {} ms, {} heads; heal after a minute: p50 {} p99 {} max {} ms",
            at(&joins, 0.5),
            joins.last().unwrap(),
            heads / seeds(count),
            at(&heals, 0.5),
            at(&heals, 0.99),
            heals.last().unwrap()
        );
    }
}

#[test]
#[ignore = "prints figures"]
fn churn_and_flaps() {
    for count in sizes().into_iter().filter(|count| *count >= 20) {
        let mut world: World = formed(count, 3);
        // Each 10 s one dies and comes back 5 s later, as the same run: a cut cable.
        let before: u64 = world.nodes.iter().map(|node| node.published).sum();
        let mut spared = BTreeSet::new();
        for _ in 0..24 {
            let node = some(&mut world, 1)[0];
            spared.insert(node);
            world.split(|n| u8::from(n == node));
            world.run(5 * SECOND);
            world.split(|_| 0);
            world.run(5 * SECOND);
        }
        let after: u64 = world.nodes.iter().map(|node| node.published).sum();
        let (episodes, longest) = falsely_dead(&world, &spared);
        println!(
            "{count} nodes, 24 cut cables in 4 min: {} heads a cut, {episodes} false deaths of others (≤ {longest} ms)",
            (after - before) / 24
        );
        let mut world = formed(count, 4);
        let (all, most) = flaps(&mut world, 0, 5);
        println!("{count} nodes, one flaps for 5 min: {all} heads of others, {most} of one");
        assert_eq!(world.nodes[0].state, State::Runs);
    }
}

fn rings(count: usize) -> Rings {
    let mut rings = Rings::new(MeshId([1; 32]));
    for n in 0..count {
        rings.insert(id(n), Some(&salt(n)));
    }
    rings
}

fn neighbours(rings: &Rings, node: &NodeId) -> BTreeSet<NodeId> {
    rings.neighbours(node, |_| Fit::Take)
}

/// How many of `left` aren't reached from most of them.
fn apart(edges: &BTreeMap<NodeId, BTreeSet<NodeId>>, left: &BTreeSet<NodeId>) -> usize {
    let mut rest = left.clone();
    let mut largest = 0;
    while let Some(first) = rest.pop_first() {
        let (mut open, mut size) = (vec![first], 0);
        while let Some(node) = open.pop() {
            size += 1;
            open.extend(edges[&node].iter().filter(|peer| rest.remove(peer)));
        }
        largest = largest.max(size);
    }
    left.len() - largest
}

#[test]
#[ignore = "prints figures"]
fn random_thirds_and_joins() {
    println!("nodes  links  30 % gone, none skipped yet: trials with some apart, nodes apart");
    for count in [13, 20, 50, 200, 500, 1000, 2000] {
        let (rings, mut world) = (rings(count), World::new(1, |_| false, count as u64));
        let all: Vec<NodeId> = rings.members().copied().collect();
        let edges: BTreeMap<_, _> = all.iter().map(|n| (*n, neighbours(&rings, n))).collect();
        let links: usize = edges.values().map(BTreeSet::len).sum();
        let (mut failures, mut nodes) = (0, 0);
        for _ in 0..200 {
            let mut left = all.clone();
            for _ in 0..count * 3 / 10 {
                let n = world.below(left.len() as u64) as usize;
                left.swap_remove(n);
            }
            let apart = apart(&edges, &left.into_iter().collect());
            failures += usize::from(apart > 0);
            nodes += apart;
        }
        println!(
            "{count:5}  {:.2}  {failures} of 200, {nodes} of {}",
            links as f64 / count as f64,
            200 * (count - count * 3 / 10),
        );
        let mut changes: BTreeMap<usize, usize> = BTreeMap::new();
        for new in count..count + 40 {
            let mut with = rings.clone();
            with.insert(id(new), Some(&salt(new)));
            for node in neighbours(&with, &id(new)) {
                let after = neighbours(&with, &node);
                let differ = edges[&node].symmetric_difference(&after).count();
                *changes.entry(differ).or_default() += 1;
            }
        }
        println!("       changes at each neighbour of one that joins: {changes:?}");
    }
}
