//! Random histories against a plain model of who owns what, and random damage.

use std::collections::{BTreeMap, BTreeSet};

use innermesh_proto::{
    codec,
    crypto::{Sealed, Sign},
    id::NodeId,
    ledger::{Batch, Content, Entry, Outcome, State, request::Share},
    limits,
};
use proptest::prelude::*;

use crate::mesh::{self, KEYS, MINUTE, Mesh, Token, certify, facts, id, key, label};

const NAMES: [&str; 6] = ["founder", "a", "b", "c", "acme", "a-b"];
/// Machines that may come to be members; the founder is machine 0.
const MACHINES: u8 = 5;
const TOKENS: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    Join {
        who: u8,
        name: usize,
        token: u8,
    },
    Claim {
        who: u8,
        name: usize,
    },
    Share {
        who: u8,
        name: usize,
        with: u8,
    },
    Release {
        who: u8,
        name: usize,
    },
    Certify {
        who: u8,
        name: usize,
    },
    Renew {
        who: u8,
    },
    /// The same request again.
    Again {
        which: usize,
    },
    /// The batch ends, and time passes.
    Batch {
        minutes: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (who, name) = (0..MACHINES, 0..NAMES.len());
    prop_oneof![
        3 => (who.clone(), name.clone(), 0..TOKENS)
            .prop_map(|(who, name, token)| Step::Join { who, name, token }),
        4 => (who.clone(), name.clone()).prop_map(|(who, name)| Step::Claim { who, name }),
        2 => (who.clone(), name.clone(), 0..MACHINES)
            .prop_map(|(who, name, with)| Step::Share { who, name, with }),
        2 => (who.clone(), name.clone()).prop_map(|(who, name)| Step::Release { who, name }),
        1 => (who.clone(), name).prop_map(|(who, name)| Step::Certify { who, name }),
        1 => who.prop_map(|who| Step::Renew { who }),
        2 => any::<usize>().prop_map(|which| Step::Again { which }),
        3 => (0..20u64).prop_map(|minutes| Step::Batch { minutes }),
    ]
}

/// Who owns what, as told by what was granted.
#[derive(Default)]
struct Model {
    names: BTreeMap<&'static str, NodeId>,
    uses: BTreeMap<u8, u32>,
    members: usize,
    certificates: usize,
    /// How often each machine renewed: a few times at once is all.
    renewed: BTreeMap<u8, u64>,
    /// Requests that were done, which a copy doesn't do again.
    done: BTreeSet<usize>,
}

impl Model {
    /// What was granted must have been free to be granted.
    fn grant(&mut self, number: usize, step: &Step) {
        if !self.done.insert(number) {
            return;
        }
        match *step {
            Step::Join { who, name, token } => {
                let before = self.names.insert(NAMES[name], id(&*key(who)));
                assert_eq!(before, None, "the name of a machine was taken");
                *self.uses.entry(token).or_default() += 1;
                self.members += 1;
                self.certificates += 1;
            }
            Step::Claim { who, name } => {
                // Also granted to who shares it: then it stays its owner's.
                self.names.entry(NAMES[name]).or_insert(id(&*key(who)));
            }
            Step::Release { who, name } => {
                let before = self.names.remove(NAMES[name]);
                assert_eq!(before, Some(id(&*key(who))), "not its owner's to give");
            }
            Step::Share { who, name, .. } => {
                assert_eq!(self.names.get(NAMES[name]), Some(&id(&*key(who))));
            }
            Step::Certify { .. } => self.certificates += 1,
            Step::Renew { who } => {
                let renewed = self.renewed.entry(who).or_default();
                if *renewed < limits::RENEWALS_AT_ONCE {
                    *renewed += 1;
                    self.certificates += 1;
                }
            }
            Step::Again { .. } | Step::Batch { .. } => {}
        }
    }

    fn check(&self, state: &State, tokens: &[Token]) {
        let names: BTreeMap<&str, NodeId> = state
            .names
            .iter()
            .map(|(name, held)| (name.as_str(), held.owner))
            .collect();
        assert_eq!(names, self.names);
        assert_eq!(state.members.len(), self.members);
        assert_eq!(state.certificates.len(), self.certificates);
        for (token, uses) in &self.uses {
            let grant: innermesh_proto::ledger::Grant = tokens[usize::from(*token)]
                .grant
                .peek(limits::REQUEST_BYTES)
                .unwrap();
            assert!(*uses <= grant.uses, "token {token} was spent too often");
        }
        check_owners(state);
    }
}

/// S8: a name, an IPv4 address and a serial have one owner.
fn check_owners(state: &State) {
    let addresses: BTreeSet<_> = state.members.values().map(|member| member.ipv4).collect();
    assert_eq!(addresses.len(), state.members.len());
    for (node, member) in &state.members {
        assert_eq!(member.key.node_id(), *node);
        assert!(state.ipv4.contains(&member.ipv4));
        assert_eq!(state.names[&member.name].owner, *node);
        let serial = member.certificate.expect("every member has one");
        assert_eq!(state.certificates[&serial].owner, *node);
    }
    for held in state.names.values() {
        assert!(state.members.contains_key(&held.owner));
        assert!(
            held.shared
                .iter()
                .all(|node| state.members.contains_key(node))
        );
    }
}

fn content(step: &Step) -> Option<(u8, Content)> {
    Some(match *step {
        Step::Claim { who, name } => (who, Content::Claim(label(NAMES[name]))),
        Step::Release { who, name } => (who, Content::Release(label(NAMES[name]))),
        Step::Renew { who } => (who, Content::Renew),
        Step::Certify { who, name } => {
            let name = format!("{}.lab.internal", NAMES[name]);
            (who, certify(&[&name], 30))
        }
        Step::Share { who, name, with } => {
            let share = Share {
                name: label(NAMES[name]),
                with: id(&*key(with)),
            };
            (who, Content::Share(share))
        }
        Step::Join { .. } | Step::Again { .. } | Step::Batch { .. } => return None,
    })
}

/// Runs steps; the helper that writes batches checks that a follower comes to
/// the same state.
fn run(steps: &[Step]) -> Mesh {
    let mut mesh = Mesh::with_overlay("10.77.0.0/22");
    let tokens: Vec<Token> = (0..TOKENS)
        .map(|n| mesh.token(100 + n, |grant| grant.uses = u32::from(n)))
        .collect();
    let mut model = Model {
        names: BTreeMap::from([("founder", id(&*mesh.founder))]),
        members: 1,
        certificates: 1,
        ..Model::default()
    };
    let mut sent: Vec<(Sealed, Step)> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for step in steps.iter().chain([&Step::Batch { minutes: 0 }]) {
        match step {
            Step::Batch { minutes } => {
                let requests = open.iter().map(|n| sent[*n].0.clone()).collect();
                let outcomes = mesh.batch(requests);
                for (number, outcome) in open.drain(..).zip(outcomes) {
                    if let Outcome::Done(_) = outcome {
                        model.grant(number, &sent[number].1);
                    }
                }
                model.check(mesh.state(), &tokens);
                mesh.now_ms += minutes * MINUTE;
            }
            Step::Again { which } if !sent.is_empty() => open.push(which % sent.len()),
            Step::Again { .. } => {}
            Step::Join { who, name, token } => {
                let token = &tokens[usize::from(*token)];
                let request = mesh.join_request(token, &*key(*who), NAMES[*name]);
                open.push(sent.len());
                sent.push((request, step.clone()));
            }
            other => {
                let (who, content) = content(other).expect("the rest are requests");
                let request = mesh.request(&*key(who), &content);
                open.push(sent.len());
                sent.push((request, other.clone()));
            }
        }
    }
    mesh
}

/// One batch with a bit of everything, and the mesh before it.
fn sample() -> (Mesh, Batch) {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(1), "one");
    let founder = mesh.founder.clone();
    let token = mesh.token(100, |_| {});
    let requests = vec![
        mesh.join_request(&token, &*key(2), "two"),
        mesh.request(&*founder, &Content::Claim(label("photos"))),
        mesh.request(&*key(1), &certify(&["one.lab.internal"], 9)),
        mesh.request(&*key(1), &Content::Renew),
    ];
    mesh.batch(requests);
    let batch = mesh.batches.pop().expect("the newest");
    mesh.states.pop();
    (mesh, batch)
}

/// `entries` under a header that the roster signed.
fn proved(mesh: &Mesh, like: &Batch, entries: Vec<Entry>) -> Batch {
    let mut header = like.read_header().expect("a good header");
    header.entries = Batch::entries_hash(&entries);
    mesh::signed(&header, entries, &*mesh.founder)
}

fn flip(bytes: &mut [u8], at: usize, with: u8) {
    let at = at % bytes.len();
    bytes[at] ^= with;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_history_gives_a_name_an_address_or_a_serial_two_owners(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        run(&steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_damaged_batch_is_refused_and_nothing_panics(
        damage in prop::collection::vec((any::<usize>(), 1..=255u8), 1..4),
        runs in 1..20usize,
    ) {
        let (mesh, batch) = sample();
        let whole = codec::encode(&batch);
        for run in 0..runs {
            let mut bytes = whole.clone();
            for (at, with) in &damage {
                flip(&mut bytes, at.wrapping_mul(run + 1), *with);
            }
            let Ok(damaged) = codec::decode::<Batch>(&bytes, limits::BATCH_BYTES) else {
                continue;
            };
            if damaged != batch {
                prop_assert!(mesh.state().next(&damaged, &KEYS).is_err());
            }
        }
    }

    #[test]
    fn an_entry_that_was_changed_grants_nothing_even_if_the_roster_signs_it(
        which in 0..4usize,
        at in any::<usize>(),
        with in 1..=255u8,
        in_attachment: bool,
    ) {
        let (mesh, batch) = sample();
        let mut entries = batch.entries.clone();
        let entry = &mut entries[which];
        if in_attachment && !entry.attachment.is_empty() {
            flip(&mut entry.attachment, at, with);
        } else {
            flip(&mut entry.request.bytes, at, with);
        }
        let alone = proved(&mesh, &batch, vec![entries[which].clone()]);
        let (state, outcomes) = mesh.state().next(&alone, &KEYS).unwrap();
        prop_assert!(matches!(outcomes[..], [Outcome::Refused(_)]), "{:?}", outcomes);
        prop_assert_eq!(facts(&state), facts(mesh.state()));
        let rest = proved(&mesh, &batch, entries);
        let (state, _) = mesh.state().next(&rest, &KEYS).unwrap();
        check_owners(&state);
    }

    #[test]
    fn no_bytes_in_place_of_a_request_or_a_certificate_make_it_panic(
        request in prop::collection::vec(any::<u8>(), 0..200),
        attachment in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (mesh, batch) = sample();
        let mut entries = batch.entries.clone();
        entries[0].attachment = attachment;
        entries[1].request.bytes = request.clone();
        // Garbage that its author really signed.
        let message = innermesh_proto::crypto::Purpose::Request.message(&mesh.id, &request);
        entries[1].request.signature = mesh.founder.sign(&message);
        let rest = proved(&mesh, &batch, entries);
        let (state, outcomes) = mesh.state().next(&rest, &KEYS).unwrap();
        prop_assert!(matches!(outcomes[0], Outcome::Refused(_)));
        prop_assert!(matches!(outcomes[1], Outcome::Refused(_)));
        check_owners(&state);
    }
}
