mod cluster;
mod disk;
mod hostile;
mod log;

use self::cluster::{Cluster, Random};
use super::*;

#[test]
fn three_agree_and_the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut cluster = Cluster::new(seed, 3);
        (cluster.lost, cluster.doubled) = (50, 50);
        for n in 0..20 {
            cluster.settle(&format!("fact {n}"), 20_000);
        }
        cluster.lost = 0;
        cluster.run_until(10_000, "all hear it", Cluster::agree);
        cluster.trace()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn one_alone_leads_at_once() {
    let mut cluster = Cluster::new(1, 1);
    cluster.run_until(200, "it leads", |c| c.leader() == Some(1));
    assert!(cluster.propose("a"));
    cluster.run(1);
    assert!(cluster.knows("a"));
}

#[test]
fn a_dead_leader_is_replaced_within_five_seconds() {
    for voters in [3, 5] {
        for seed in 0..40 {
            let mut cluster = Cluster::new(seed, voters);
            cluster.run_until(5000, "a first leader", |c| c.leader().is_some());
            cluster.settle("before", 1000);
            let first = cluster.leader().unwrap();
            cluster.crash(first);
            let took = cluster.run_until(5000, "a new leader", |c| {
                c.leader().is_some_and(|leader| leader != first)
            });
            assert!(took > 0);
            cluster.settle("after", 2000);
            cluster.start(first);
            // A snapshot may be passed over a few times.
            cluster.run_until(20_000, "it catches up", Cluster::agree);
        }
    }
}

#[test]
fn nothing_is_lost_through_loss_crashes_torn_writes_and_cuts() {
    for (voters, seeds) in [(3, 0..60), (5, 100..140)] {
        for seed in seeds {
            chaos(seed, voters);
        }
    }
}

fn chaos(seed: u64, voters: u64) {
    let mut cluster = Cluster::new(seed, voters);
    let mut choice = Random(seed ^ 0x5eed);
    (cluster.lost, cluster.doubled, cluster.latency) = (100, 100, 300);
    (cluster.torn, cluster.compacted) = (10, 5);
    let mut fact = 0;
    for _ in 0..60 {
        let (a, b) = (1 + choice.below(voters), 1 + choice.below(voters));
        match choice.below(6) {
            0 if a != b => {
                // One way only.
                cluster.cut.insert((a, b));
            }
            1 => cluster.cut.clear(),
            2 => {
                cluster.crash(a);
                cluster.run(choice.below(4000));
                cluster.start(a);
            }
            3 => cluster.transfer(a),
            _ => {}
        }
        for _ in 0..choice.below(4) {
            fact += 1;
            cluster.propose(&format!("fact {fact}"));
        }
        cluster.run(200 + choice.below(1500));
    }
    assert!(cluster.crashes > 0, "nothing crashed");
    cluster.cut.clear();
    (cluster.lost, cluster.doubled, cluster.latency) = (0, 0, 40);
    cluster.torn = 0;
    cluster.run(3500);
    for id in 1..=voters {
        cluster.start(id);
    }
    cluster.run_until(5000, "a leader after the faults", |c| c.leader().is_some());
    cluster.settle("the last", 5000);
    cluster.run_until(10_000, "all hear it", Cluster::agree);
}

#[test]
fn a_roster_grows_and_shrinks_also_under_loss() {
    for seed in 0..30 {
        let mut cluster = Cluster::new(seed, 1);
        (cluster.lost, cluster.doubled) = (seed % 4 * 50, 50);
        cluster.compacted = 20;
        cluster.settle("alone", 2000);
        grow(&mut cluster, [2, 3]);
        grow(&mut cluster, [4, 5]);
        for id in [5, 4, 3, 2] {
            remove(&mut cluster, id);
            cluster.settle(&format!("without {id}"), 10_000);
        }
        assert_eq!(cluster.leader(), Some(1));
    }
}

fn grow(cluster: &mut Cluster, new: [u64; 2]) {
    for id in new {
        cluster.add_empty(id);
        cluster.change(&[Change::Learner(id)], "", |conf| conf.contains(id));
    }
    cluster.run_until(20_000, "the learners catch up", |c| {
        new.iter()
            .all(|id| c.nodes[id].ledger.len() == c.history.len())
    });
    let steps = new.map(Change::Voter);
    let context = format!("{new:?} vote");
    cluster.change(&steps, &context, |conf| {
        new.iter().all(|id| conf.voters.contains(id))
    });
    assert!(cluster.knows(&context));
    cluster.settle(&format!("with {new:?}"), 10_000);
}

fn remove(cluster: &mut Cluster, id: u64) {
    let start = cluster.now;
    while cluster.leader().is_none_or(|leader| leader == id) {
        assert!(cluster.now < start + 20_000, "{id} doesn't hand over");
        cluster.transfer(1);
        cluster.run(500);
    }
    let context = format!("{id} leaves");
    cluster.change(&[Change::Remove(id)], &context, |conf| !conf.contains(id));
    cluster.members.remove(&id);
}

#[test]
fn leadership_is_handed_over_in_a_moment() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.run_until(5000, "a first leader", |c| c.leader().is_some());
        cluster.settle("a", 1000);
        cluster.run(500);
        let next = cluster.leader().unwrap() % 3 + 1;
        cluster.transfer(next);
        cluster.run_until(1000, "the next leads", |c| c.leader() == Some(next));
    }
}

#[test]
fn a_voter_that_may_not_lead_votes_and_never_stands() {
    let mut cluster = Cluster::new(3, 3);
    cluster.run(10);
    for id in [1, 2] {
        cluster.live(id).unwrap().engine.set_may_lead(false);
    }
    cluster.run_until(8000, "the third leads", |c| c.leader() == Some(3));
    cluster.transfer(1);
    cluster.run(3000);
    assert_eq!(cluster.leader(), Some(3));
    cluster.crash(3);
    cluster.run(10_000);
    assert_eq!(cluster.leader(), None);
    cluster.start(3);
    cluster.run_until(8000, "it leads again", |c| c.leader() == Some(3));
}

#[test]
fn a_leader_that_hears_nobody_steps_down() {
    let mut cluster = Cluster::new(5, 3);
    cluster.run_until(5000, "a first leader", |c| c.leader().is_some());
    let first = cluster.leader().unwrap();
    for other in (1..=3).filter(|id| *id != first) {
        cluster.cut.insert((other, first));
    }
    // It is heard and hears nobody: the others must not stay true to it.
    cluster.run_until(8000, "another leads", |c| {
        c.leader().is_some_and(|leader| leader != first)
    });
    cluster.settle("without it", 3000);
}
