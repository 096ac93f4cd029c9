//! Members that lie about their links.

use std::collections::BTreeSet;

use innermesh_proto::{
    limits,
    links::{NamedLinks, key},
};

use crate::{
    model::{World, id, named},
    scenarios::{SECOND, falsely_dead, formed},
};

#[test]
fn one_that_names_the_dead_keeps_none_alive() {
    let mut world = formed(30, 11);
    // The liar goes on to name everybody, in heads that are newer and newer.
    let liar = 0;
    let dead: Vec<usize> = (10..19).collect();
    for node in &dead {
        world.kill(*node);
    }
    for _ in 0..40 {
        let all: Vec<usize> = (1..30).collect();
        let lies = named(&all, (1, u64::MAX));
        world.nodes[liar].names_instead = Some(lies.clone());
        world.publish(liar, lies);
        world.run(SECOND / 4);
    }
    for by in world.alive().into_iter().filter(|by| *by != liar) {
        for of in &dead {
            assert!(!world.sees(by, *of), "{by} takes {of} for live");
        }
    }
}

#[test]
fn one_that_names_nobody_or_too_many_kills_none_but_itself() {
    for lies in [
        named(&[], (1, 1)),
        named(&(1..30).collect::<Vec<_>>(), (1, 0)),
        NamedLinks {
            links: (0..9999).map(|n| (n, (1, 1))).collect(),
            ..NamedLinks::default()
        },
        NamedLinks {
            links: [(key(&id(0)), (1, 1))].into(),
            ..NamedLinks::default()
        },
    ] {
        let mut world = formed(30, 12);
        let liar = 0;
        // What can't be encoded reaches nobody.
        let heard = NamedLinks::decode(&lies.encode()).unwrap_or_default();
        world.nodes[liar].names_instead = Some(heard.clone());
        for _ in 0..20 {
            world.publish(liar, heard.clone());
            world.run(SECOND / 2);
        }
        let (episodes, longest) = falsely_dead(&world, &BTreeSet::from([liar]));
        assert_eq!(episodes, 0, "for up to {longest} ms");
        for n in 1..30 {
            assert!(world.nodes[n].links.named().len() <= limits::LINKS_NAMED);
            let graph = world.nodes[n].links.live().graph();
            assert!(graph.len() <= 30 * limits::LINKS_NAMED);
        }
    }
}

/// Heads that the flapping of one neighbour makes others publish.
pub fn flaps(world: &mut World, flapper: usize, minutes: u64) -> (u64, u64) {
    let before: Vec<u64> = world.nodes.iter().map(|node| node.published).collect();
    let nothing = named(&[], (1, 1));
    for _ in 0..minutes * 60 {
        // It drops everybody, and takes everybody up again.
        world.publish(flapper, nothing.clone());
        world.run(SECOND / 2);
        let honest = NamedLinks {
            behind_nat: false,
            links: world.nodes[flapper].links.named(),
        };
        world.publish(flapper, honest);
        world.run(SECOND / 2);
    }
    let others = world.nodes.iter().zip(before).enumerate();
    let made: Vec<u64> = others
        .filter(|(n, _)| *n != flapper)
        .map(|(_, (node, before))| node.published - before)
        .collect();
    (made.iter().sum(), made.iter().copied().max().unwrap_or(0))
}

#[test]
fn one_that_flaps_makes_others_publish_little() {
    let mut world = formed(20, 13);
    let (_, most) = flaps(&mut world, 0, 5);
    // Losses wait for 1, 3, 7 … 63 s: about nine in five minutes, two heads each.
    assert!(most <= 40, "{most} heads of one neighbour in five minutes");
    let (episodes, longest) = falsely_dead(&world, &BTreeSet::from([0]));
    assert_eq!(episodes, 0, "for up to {longest} ms");
}
