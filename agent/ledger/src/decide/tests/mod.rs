//! The core without a disk: what it decides, and what it waits for before it
//! says so.

mod lab;

use std::{collections::BTreeSet, time::Duration};

use innermesh_proto::{
    crypto::Hash,
    ledger::{BatchError, Content, Outcome, Position, request::Evict},
};
use innermesh_testing::mesh::{Mesh, id, key};

use self::lab::Lab;
use super::{
    core::Step,
    error::ProposeError,
    status::VotingDisabled,
    time::{LedgerTime, Now},
    voting::{FoundLog, Part, Place, part},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn one_who_decides_alone_answers_only_once_its_batch_is_on_disk() {
    let (mut lab, _) = Lab::led(1);
    let request = lab.claim("photos");
    let ticket = lab.ask(0, request);
    let now = lab.now;
    let node = &mut lab.nodes[0];
    assert!(node.core.poll_decision(now, |_| true));
    let mut is_stored = false;
    while let Some(step) = node.core.poll_step() {
        assert!(node.core.poll_answers().is_empty(), "nothing is on disk");
        is_stored |= matches!(step, Step::Store(_));
        node.carry_out(step, now);
    }
    assert!(is_stored);
    let answers = node.core.poll_answers();
    let index = node.newest().0;
    assert_eq!(answers, [(ticket, Ok(Outcome::Done(index)))]);
    assert!(
        node.core
            .state()
            .names
            .contains_key(&"photos".parse().unwrap())
    );
}

#[test]
fn three_voters_elect_one_and_come_to_the_same_ledger() {
    let (mut lab, leader) = Lab::led(3);
    for name in ["photos", "music", "books"] {
        let request = lab.claim(name);
        let ticket = lab.ask(leader, request);
        lab.settle();
        let answer = lab.nodes[leader].answers.get(&ticket);
        assert!(matches!(answer, Some(Ok(Outcome::Done(_)))), "{answer:?}");
    }
    lab.run(SECOND);
    let newest: BTreeSet<_> = lab.nodes.iter().map(|node| node.newest()).collect();
    assert_eq!(newest.len(), 1);
    for node in &lab.nodes {
        let proof = &node.batches.last().unwrap().proof;
        assert!(proof.len() >= 2, "a majority signed it");
    }
}

#[test]
fn who_doesn_t_lead_says_who_does() {
    let (mut lab, leader) = Lab::led(3);
    let other = (leader + 1) % 3;
    let request = lab.claim("photos");
    let ticket = lab.ask(other, request);
    lab.settle();
    let known = Some(id(&*key(leader as u8)));
    let answer = lab.nodes[other].answers.remove(&ticket);
    assert_eq!(answer, Some(Err(ProposeError::NotLeader(known))));
}

#[test]
fn no_batch_is_stored_that_a_majority_hasn_t_signed() {
    let (mut lab, leader) = Lab::led(3);
    let before = lab.nodes[leader].newest();
    for other in (0..3).filter(|other| *other != leader) {
        lab.nodes[other].is_stuck = true;
    }
    let request = lab.claim("photos");
    let ticket = lab.ask(leader, request);
    lab.settle();
    assert_eq!(lab.nodes[leader].newest(), before);
    assert!(!lab.nodes[leader].answers.contains_key(&ticket));
    for node in &mut lab.nodes {
        node.is_stuck = false;
    }
    lab.settle();
    assert!(lab.nodes[leader].newest().0 > before.0);
    assert!(lab.nodes[leader].answers.contains_key(&ticket));
}

#[test]
fn a_leader_that_is_cut_off_refuses_nobody_and_is_followed_by_another() {
    let (mut lab, leader) = Lab::led(3);
    let request = lab.claim("photos");
    lab.ask(leader, request);
    lab.settle();
    lab.cut_off.insert(leader);
    // Another's name: it would be refused, if this node still led.
    let content = Content::Release("nobody-s".parse().unwrap());
    let request = lab.request(1, &content);
    let ticket = lab.ask(leader, request);
    lab.settle();
    assert!(!lab.nodes[leader].answers.contains_key(&ticket));
    lab.run(20 * SECOND);
    let answer = lab.nodes[leader].answers.remove(&ticket);
    assert!(
        matches!(answer, Some(Err(ProposeError::NotLeader(_)))),
        "{answer:?}"
    );
    let next = lab.leader().expect("another leads");
    assert_ne!(next, leader);
    let content = Content::Release("nobody-s".parse().unwrap());
    let request = lab.request(1, &content);
    let ticket = lab.ask(next, request);
    lab.settle();
    let answer = lab.nodes[next].answers.remove(&ticket);
    assert!(
        matches!(answer, Some(Ok(Outcome::Refused(_)))),
        "{answer:?}"
    );
}

#[test]
fn whose_asker_turned_to_another_is_passed_over() {
    let (mut lab, _) = Lab::led(1);
    let before = lab.nodes[0].newest();
    let request = lab.claim("photos");
    let ticket = lab.ask(0, request);
    let core = &mut lab.nodes[0].core;
    assert!(!core.poll_decision(lab.now, |asked| asked != ticket));
    assert_eq!(core.poll_answers().len(), 1, "the ticket is used up");
    assert_eq!(lab.nodes[0].newest(), before);
}

#[test]
fn a_leader_with_little_room_takes_only_what_takes_something_away() {
    let (mut lab, _) = Lab::led(1);
    lab.nodes[0].core.note_free(1 << 20, lab.now);
    let request = lab.claim("photos");
    let claimed = lab.ask(0, request);
    let evict = Content::Evict(Evict {
        node: id(&*key(9)),
        hold: None,
        root: None,
    });
    let request = lab.request(0, &evict);
    let evicted = lab.ask(0, request);
    lab.settle();
    let answers = &lab.nodes[0].answers;
    assert_eq!(answers.get(&claimed), Some(&Err(ProposeError::Full)));
    let judged = answers.get(&evicted);
    assert!(
        matches!(judged, Some(Ok(Outcome::Refused(_)))),
        "{judged:?}"
    );
}

#[test]
fn ledger_time_goes_on_while_nobody_asks_for_anything() {
    let (mut lab, _) = Lab::led(1);
    let before = lab.nodes[0].newest().0;
    lab.run(Duration::from_secs(3 * 3600 + 60));
    let batches = lab.nodes[0].newest().0 - before;
    assert!((3..=4).contains(&batches), "{batches} in three hours");
}

/// Whether each member has its place by what a node holds.
fn all_are_placed(lab: &Lab, node: usize) -> bool {
    let state = lab.nodes[node].core.state();
    let mut members = state.members.keys();
    members.all(|node| state.batch_after(node).is_some())
}

#[test]
fn who_is_let_in_has_its_place_by_one_empty_batch() {
    for voters in [1, 3] {
        let (mut lab, leader) = Lab::led(voters);
        let before = lab.nodes[leader].newest().0;
        // Two at once wait for the same one.
        let tickets = [8, 9].map(|machine| {
            let request = lab.join(machine);
            lab.ask(leader, request)
        });
        lab.settle();
        for ticket in tickets {
            let answer = lab.nodes[leader].answers.get(&ticket);
            assert_eq!(answer, Some(&Ok(Outcome::Done(before + 1))));
        }
        lab.run(60 * SECOND);
        let leader = &lab.nodes[leader];
        assert_eq!(
            leader.newest().0,
            before + 2,
            "no batch follows an empty one"
        );
        assert!(leader.batches.last().unwrap().entries.is_empty());
        assert!((0..lab.nodes.len()).all(|node| all_are_placed(&lab, node)));
    }
}

#[test]
fn what_is_asked_meanwhile_is_decided_by_the_batch_that_a_new_member_waits_for() {
    let (mut lab, _) = Lab::led(1);
    let before = lab.nodes[0].newest().0;
    let request = lab.join(9);
    lab.ask(0, request);
    let now = lab.now;
    assert!(lab.nodes[0].core.poll_decision(now, |_| true));
    let request = lab.claim("photos");
    let claimed = lab.ask(0, request);
    lab.run(SECOND);
    let answer = lab.nodes[0].answers.get(&claimed);
    assert_eq!(answer, Some(&Ok(Outcome::Done(before + 2))));
    assert_eq!(lab.nodes[0].newest().0, before + 2);
    assert!(all_are_placed(&lab, 0));
}

#[test]
fn a_leader_that_is_gone_before_the_empty_batch_leaves_it_to_the_next() {
    let (mut lab, leader) = Lab::led(3);
    let before = lab.nodes[leader].newest().0;
    lab.falls_silent = Some((leader, before + 1));
    let request = lab.join(9);
    let ticket = lab.ask(leader, request);
    lab.settle();
    let answer = lab.nodes[leader].answers.get(&ticket);
    assert_eq!(answer, Some(&Ok(Outcome::Done(before + 1))));
    assert!(lab.cut_off.contains(&leader));
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    for other in &others {
        assert!(lab.nodes[*other].newest().0 <= before + 1);
    }
    lab.run(20 * SECOND);
    let next = lab.leader().expect("another leads");
    assert_ne!(next, leader);
    for other in others {
        assert_eq!(lab.nodes[other].newest().0, before + 2);
        assert!(all_are_placed(&lab, other));
    }
}

#[test]
fn one_who_starts_and_decides_alone_writes_what_its_members_wait_for() {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(9), "nine");
    let mut lab = Lab::of(mesh, 1);
    let (node, now) = (&mut lab.nodes[0], lab.now);
    while let Some(step) = node.core.poll_step() {
        node.carry_out(step, now);
    }
    let due = node.core.poll_timeout(now);
    assert!(due.is_some_and(|due| due <= now.mono), "at once");
    lab.settle();
    assert!(all_are_placed(&lab, 0));
    let due = lab.nodes[0].core.poll_timeout(lab.now);
    assert!(due.is_some_and(|due| due > lab.now.mono + 3000 * SECOND));
}

#[test]
fn a_node_that_was_rolled_back_votes_no_more_and_sends_those_who_wait_elsewhere() {
    let (mut lab, leader) = Lab::led(3);
    let request = lab.claim("photos");
    let ticket = lab.ask(leader, request);
    let node = &mut lab.nodes[leader];
    assert!(node.core.handle_rolled_back(), "its log is to be removed");
    assert!(!node.core.handle_rolled_back(), "once");
    let status = node.core.status();
    assert_eq!(status.disabled, Some(VotingDisabled::RolledBack));
    assert!(!status.votes && !status.leads);
    let answers = node.core.poll_answers();
    assert_eq!(answers, [(ticket, Err(ProposeError::NotLeader(None)))]);
    lab.run(20 * SECOND);
    assert!(lab.leader().is_some_and(|other| other != leader));
}

#[test]
fn a_follower_takes_only_what_the_roster_signed_and_comes_next() {
    let (mut lab, leader) = Lab::led(3);
    let other = (leader + 1) % 3;
    lab.cut_off.insert(other);
    for name in ["photos", "music"] {
        let request = lab.claim(name);
        lab.ask(leader, request);
        lab.settle();
    }
    let all = lab.nodes[leader].batches.clone();
    let held = lab.nodes[other].batches.len();
    let core = &mut lab.nodes[other].core;
    let mut forged = all[held].clone();
    forged.proof.pop_first();
    forged.proof.pop_first();
    let taken = core.handle_batches(vec![forged]);
    assert_eq!(taken.result, Err(BatchError::Proof));
    assert!(taken.batches.is_empty());
    let taken = core.handle_batches(vec![all[held + 1].clone()]);
    assert!(matches!(taken.result, Err(BatchError::Index { .. })));
    // What is held already is passed over.
    let taken = core.handle_batches(all[held - 1..].to_vec());
    assert_eq!((taken.result, taken.batches.len()), (Ok(()), 2));
    let newest = lab.nodes[leader].core.state().position;
    assert_eq!(lab.nodes[other].core.state().position, newest);
}

#[test]
fn who_votes_by_which_log_follows_from_what_is_on_disk() {
    let place = |is_in_roster, is_alone| Place {
        id: 7,
        is_in_roster,
        is_alone,
        position: Position {
            index: 5,
            hash: Hash::of(b"5"),
        },
        base: 0,
        durable: 5,
        is_noted_gone: false,
    };
    let (alone, one_of_many, waiting) =
        (place(true, true), place(true, false), place(false, false));
    let damaged = || FoundLog::Damaged("raft.log is damaged".into());
    for place in [&alone, &waiting] {
        let fresh = part(FoundLog::Nothing, place);
        assert!(matches!(fresh, Part::VotesAnew(_)), "{fresh:?}");
    }
    let Part::VotesAnew(saved) = part(damaged(), &alone) else {
        panic!("one who decides alone promised nobody anything");
    };
    assert!(saved.base.index > 5 << 16, "beyond what was lost");
    let disabled = |found, place: &Place| match part(found, place) {
        Part::Disabled(why) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        disabled(FoundLog::Nothing, &one_of_many),
        VotingDisabled::Missing
    );
    for place in [&one_of_many, &waiting] {
        let why = disabled(damaged(), place);
        assert!(matches!(why, VotingDisabled::Damaged(_)), "{why:?}");
    }
    let gone = Place {
        is_noted_gone: true,
        ..alone
    };
    for found in [FoundLog::Nothing, damaged()] {
        assert_eq!(disabled(found, &gone), VotingDisabled::LostAlone);
    }

    let found = || FoundLog::Saved(saved.clone());
    assert!(
        matches!(part(found(), &gone), Part::Votes(_)),
        "it has its log"
    );
    let short = Place {
        durable: 4,
        ..alone
    };
    assert!(matches!(part(found(), &short), Part::Later));
    let later = |place: Place| Place {
        base: 6,
        durable: 9,
        ..place
    };
    assert_eq!(disabled(found(), &later(alone)), VotingDisabled::LostAlone);
    assert_eq!(disabled(found(), &later(one_of_many)), VotingDisabled::Lost);
}

#[test]
fn a_leader_that_was_away_for_long_writes_an_empty_batch_at_once() {
    let at = |seconds, wall_ms| Now {
        mono: Duration::from_secs(seconds),
        wall_ms,
    };
    let hour_ms = 3_600_000;
    let fresh = LedgerTime::new(10 * hour_ms, at(5, 10 * hour_ms));
    assert_eq!(fresh.beat(false), 3605 * SECOND);
    let mut old = LedgerTime::new(10 * hour_ms, at(5, 12 * hour_ms));
    assert_eq!(old.beat(false), 5 * SECOND);
    // Also where a new member waits for one, and not again at once where none can be written.
    assert_eq!(fresh.beat(true), 5 * SECOND);
    old.postpone_beat(6 * SECOND);
    assert_eq!((old.beat(false), old.beat(true)), (6 * SECOND, 6 * SECOND));
    // However far its own clock jumps, time since the stamp is what passed.
    assert_eq!(
        old.latest(10 * hour_ms, at(65, 99 * hour_ms)),
        10 * hour_ms + 60_000
    );
}
