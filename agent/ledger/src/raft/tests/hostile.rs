use super::{super::*, cluster::Random, cluster::position};

/// Numbers around the bounds, and around what the voter holds.
fn number(random: &mut Random) -> u64 {
    const EDGES: [u64; 14] = [
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        1000,
        1 << 20,
        (1 << 62) - 1,
        1 << 62,
        (1 << 62) + 1,
        u64::MAX,
    ];
    match random.below(4) {
        0 => EDGES[random.below(EDGES.len() as u64) as usize],
        _ => random.below(12),
    }
}

fn conf(random: &mut Random) -> Conf {
    let mut set = |most: u64| (0..random.below(most)).map(|_| random.below(5)).collect();
    Conf {
        voters: set(4),
        learners: set(3),
        outgoing: set(2),
        learners_next: set(2),
        auto_leave: random.below(2) == 0,
    }
}

fn entries(random: &mut Random, index: u64, term: u64) -> Vec<Entry> {
    let honest = random.below(3) > 0;
    let entry = |n: u64, random: &mut Random| Entry {
        index: if honest {
            index.wrapping_add(1 + n)
        } else {
            number(random)
        },
        term: if honest { term } else { number(random) },
        payload: match random.below(3) {
            0 => Payload::Empty,
            1 => Payload::Data(vec![1; random.below(3) as usize]),
            _ => Payload::Roster {
                changes: (0..random.below(4))
                    .map(|_| match random.below(3) {
                        0 => Change::Voter(random.below(5)),
                        1 => Change::Learner(random.below(5)),
                        _ => Change::Remove(2 + random.below(3)),
                    })
                    .collect(),
                context: Vec::new(),
            },
        },
    };
    (0..random.below(4)).map(|n| entry(n, random)).collect()
}

fn message(random: &mut Random, term: u64) -> Message {
    let term = match random.below(6) {
        0 => number(random),
        1 => term + 1,
        _ => term,
    };
    let flag = random.below(2) == 0;
    let body = match random.below(8) {
        0 => {
            let (index, log_term) = (number(random), number(random));
            Body::Append {
                index,
                log_term,
                commit: number(random),
                entries: entries(random, index, term),
            }
        }
        1 => Body::AppendResponse {
            index: number(random),
            commit: number(random),
            reject: flag.then(|| Reject {
                hint: number(random),
                term: number(random),
            }),
        },
        2 => Body::Vote {
            pre: flag,
            index: number(random),
            log_term: number(random),
            commit: number(random),
            commit_term: number(random),
            transfer: random.below(2) == 0,
        },
        3 => Body::VoteResponse {
            pre: flag,
            reject: random.below(2) == 0,
            commit: number(random),
            commit_term: number(random),
        },
        4 => Body::Heartbeat {
            commit: number(random),
        },
        5 => Body::HeartbeatResponse {
            commit: number(random),
        },
        6 => Body::Snapshot(Base {
            index: number(random),
            term: number(random),
            conf: conf(random),
            position: position(0),
        }),
        _ => Body::TimeoutNow,
    };
    Message {
        from: random.below(5),
        to: if random.below(20) == 0 { 9 } else { 1 },
        term,
        body,
    }
}

#[test]
fn no_message_of_a_peer_ends_a_voter() {
    let mut taken = 0;
    for seed in 0..300 {
        let mut random = Random(seed);
        let voters = match seed % 3 {
            0 => vec![1],
            1 => vec![1, 2],
            _ => vec![1, 2, 3],
        };
        let saved = Saved {
            base: Base {
                index: 1,
                term: 1,
                conf: Conf {
                    voters: voters.into_iter().collect(),
                    ..Conf::default()
                },
                position: position(0),
            },
            hard: Hard {
                term: 1,
                vote: 0,
                commit: 1,
            },
            entries: Vec::new(),
        };
        let mut engine = Engine::new(1, saved).unwrap();
        for _ in 0..400 {
            for _ in 0..random.below(4) {
                engine.tick();
            }
            let term = engine.standing().term;
            taken += usize::from(engine.step(message(&mut random, term)).is_ok());
            if random.below(10) == 0 {
                let _ = engine.propose(vec![1]);
                let _ = engine.propose_roster(&[Change::Learner(4)], Vec::new());
                engine.transfer_leader(1 + random.below(4));
            }
            while let Some(work) = engine.ready() {
                for sent in &work.send {
                    assert_eq!(Message::decode(&sent.encode()).as_ref(), Ok(sent));
                }
                for entry in engine.written().committed {
                    if let Payload::Roster { changes, .. } = &entry.payload {
                        engine.apply_roster(changes);
                    }
                    engine.applied(entry.index, position(0));
                }
            }
        }
    }
    assert!(taken > 10_000, "only {taken} got past the check");
}
