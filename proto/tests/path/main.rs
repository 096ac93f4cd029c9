//! Every pair finds its way: selectors at both ends, NATs of each kind between them.

mod world;

use std::time::Duration;

use innermesh_proto::path::{Tier, Via, tier};

use self::world::{Nat, World};

const KINDS: [Nat; 6] = [
    Nat::None,
    Nat::FullCone,
    Nat::AddressRestricted,
    Nat::PortRestricted,
    Nat::Symmetric,
    Nat::Blocked,
];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Whether two NATs let a pair through that both know each other's outer address.
fn goes_straight(nats: [Nat; 2]) -> bool {
    let is_hard = |nat| matches!(nat, Nat::Symmetric | Nat::PortRestricted);
    let [a, b] = nats;
    let blocked = nats.contains(&Nat::Blocked);
    let clash = nats.contains(&Nat::Symmetric) && is_hard(a) && is_hard(b);
    !blocked && !clash
}

#[test]
fn every_pair_connects_and_straight_where_the_nats_let_it() {
    for a in KINDS {
        for b in KINDS {
            let mut world = World::new([a, b], true);
            let began = world.now;
            world.send(0);
            world.run(ms(1000));
            assert!(
                world.ends[1].received > 0,
                "{a:?} {b:?}: the first packet is lost"
            );
            let first = world.ends[1].first.unwrap() - began;
            assert!(first <= ms(200), "{a:?} {b:?}: {first:?}");
            world.talk(ms(10_000), ms(100));
            let uses = world
                .ends
                .each_ref()
                .map(|end| end.selector.in_use().unwrap());
            let straight = uses.map(|via| via != Via::Relay);
            assert_eq!(
                straight,
                [goes_straight([a, b]); 2],
                "{a:?} {b:?}: {uses:?}"
            );
        }
    }
}

#[test]
fn without_a_relay_a_neighbour_of_the_other_brings_them_together() {
    for a in KINDS {
        for b in KINDS {
            let mut world = World::new([a, b], false);
            world.send(0);
            world.run(ms(3000));
            let connects = world.ends[1].received > 0;
            assert_eq!(connects, goes_straight([a, b]), "{a:?} {b:?}");
        }
    }
}

#[test]
fn a_way_that_goes_silent_is_left_within_two_seconds_and_taken_again_later() {
    for is_cut in [true, false] {
        let mut world = World::new([Nat::PortRestricted, Nat::PortRestricted], true);
        world.talk(ms(5000), ms(50));
        assert!(
            world
                .ends
                .iter()
                .all(|end| end.selector.in_use() != Some(Via::Relay))
        );
        if is_cut {
            world.cut_straight(true);
        } else {
            world.rebind(1);
        }
        let began = world.now;
        let before = world.ends.each_ref().map(|end| end.received);
        world.talk(ms(2000), ms(50));
        for (end, before) in world.ends.iter().zip(before) {
            assert!(
                end.received > before + 2,
                "{is_cut}: nothing came within {:?}",
                world.now - began
            );
        }
        world.cut_straight(false);
        world.announce(1);
        world.talk(ms(40_000), ms(100));
        let uses = world
            .ends
            .each_ref()
            .map(|end| end.selector.in_use().unwrap());
        assert!(uses.iter().all(|via| *via != Via::Relay), "{uses:?}");
    }
}

#[test]
fn a_pair_that_says_nothing_is_silent_and_one_that_cannot_go_straight_stays_calm() {
    let mut world = World::new([Nat::Symmetric, Nat::Symmetric], true);
    world.talk(ms(30_000), ms(200));
    world.run(ms(60_000));
    for end in &world.ends {
        assert_eq!(end.selector.poll_timeout(), None);
    }
    let probes = world.ends.each_ref().map(|end| end.probes);
    world.run(ms(3_600_000));
    assert_eq!(world.ends.each_ref().map(|end| end.probes), probes);
    // An hour of talk: hunts after 30 s, 2, 10 and 60 minutes, of 12 rounds each.
    world.talk(ms(3_600_000), ms(1000));
    for (end, before) in world.ends.iter().zip(probes) {
        assert!(end.probes - before <= 4 * 12 * 4, "{}", end.probes - before);
        assert!(end.uses.len() <= 2, "{:?}", end.uses);
    }
}

#[test]
fn nobody_changes_ways_twice_in_thirty_seconds_where_all_work() {
    for a in KINDS {
        for b in KINDS {
            let mut world = World::new([a, b], true);
            world.talk(ms(120_000), ms(100));
            for end in &world.ends {
                let of = |via: &Via| match via {
                    Via::Direct(at) => tier(at),
                    Via::Relay => Tier::Relayed,
                };
                for both in end.uses.windows(2) {
                    let [(first, one), (second, other)] = both else {
                        unreachable!("two of them")
                    };
                    let upgrade = of(other) < of(one);
                    assert!(
                        upgrade || *second - *first >= ms(30_000),
                        "{a:?} {b:?} {:?}",
                        end.uses
                    );
                }
            }
        }
    }
}
