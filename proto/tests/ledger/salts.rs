//! By what members' places among their neighbours are computed, from rules 8 on.

use std::collections::BTreeMap;

use innermesh_proto::{
    crypto::Hash,
    id::NodeId,
    ledger::{Content, Outcome, RULES, Snapshot, State},
};
use proptest::prelude::*;

use crate::mesh::{KEYS, Mesh, id, key};

const BEFORE: u32 = 7;

/// The hash of each batch's header, the first batch's first.
fn hash_of(mesh: &Mesh, index: u64) -> Hash {
    Hash::of(&mesh.batches[index as usize - 1].header)
}

fn raise(mesh: &mut Mesh) {
    let founder = mesh.founder.clone();
    let done = mesh.ask(&*founder, Content::Rules(8));
    assert!(matches!(done, Outcome::Done(_)), "{done:?}");
}

#[test]
fn a_member_is_placed_by_the_batch_after_the_one_that_admitted_it() {
    let mut mesh = Mesh::new();
    let (founder, one) = (id(&*mesh.founder), id(&*key(1)));
    assert_eq!(mesh.state().batch_after(&founder), None);
    assert!(!mesh.state().awaits_batch(), "one alone has no neighbours");
    mesh.admit(&*key(1), "one");
    assert_eq!(mesh.state().batch_after(&founder), Some(hash_of(&mesh, 1)));
    assert_eq!(mesh.state().batch_after(&one), None);
    assert!(mesh.state().awaits_batch());
    mesh.batch(Vec::new());
    for _ in 0..3 {
        assert_eq!(mesh.state().batch_after(&one), Some(hash_of(&mesh, 2)));
        assert_eq!(mesh.state().batch_after(&founder), Some(hash_of(&mesh, 1)));
        assert!(!mesh.state().awaits_batch(), "an empty batch admits nobody");
        assert!(mesh.state().agrees_with_itself());
        mesh.batch(Vec::new());
    }
}

#[test]
fn who_comes_back_is_placed_anew_and_who_is_gone_has_no_place() {
    let mut mesh = Mesh::new();
    let one = id(&*key(1));
    mesh.admit(&*key(1), "one");
    mesh.batch(Vec::new());
    let before = mesh.state().batch_after(&one);
    mesh.ask(&*key(1), Content::Leave);
    assert_eq!(mesh.state().batch_after(&one), None);
    assert!(!mesh.state().awaits_batch());
    mesh.admit(&*key(1), "one");
    assert_eq!(mesh.state().batch_after(&one), None);
    // One that leaves at once waits for nothing.
    mesh.admit(&*key(2), "two");
    mesh.ask(&*key(2), Content::Leave);
    assert!(!mesh.state().awaits_batch());
    assert!(mesh.state().agrees_with_itself());
    let after = mesh.state().batch_after(&one);
    assert!(after.is_some() && after != before);
}

#[test]
fn members_from_before_are_placed_by_the_batch_after_the_one_that_brought_the_rules() {
    let mut mesh = Mesh::with_rules(BEFORE);
    mesh.admit(&*key(1), "one");
    mesh.batch(Vec::new());
    mesh.admit(&*key(2), "two");
    let all = [0, 1, 2].map(|number| id(&*key(number)));
    let placed = |mesh: &Mesh| all.map(|node| mesh.state().batch_after(&node));
    assert_eq!(placed(&mesh), [None; 3]);
    assert!(!mesh.state().awaits_batch());
    let bytes = all.map(|node| mesh.state().bytes_of(node));
    raise(&mut mesh);
    assert_eq!(placed(&mesh), [None; 3]);
    assert!(mesh.state().awaits_batch());
    for (node, before) in all.into_iter().zip(bytes) {
        assert!(mesh.state().bytes_of(node) > before, "it counts");
    }
    assert!(mesh.state().agrees_with_itself());
    mesh.batch(Vec::new());
    let hash = Some(hash_of(&mesh, mesh.state().position.index));
    assert_eq!(placed(&mesh), [hash; 3]);
    mesh.batch(Vec::new());
    assert_eq!(placed(&mesh), [hash; 3]);
}

#[test]
fn under_earlier_rules_nothing_of_it_is_encoded() {
    let mut mesh = Mesh::with_rules(BEFORE);
    mesh.admit(&*key(1), "one");
    let earlier = mesh.state().clone();
    let mut later = earlier.clone();
    later.rules = BEFORE + 1;
    let (earlier, later) = (earlier.encode(), later.encode());
    // Two empty maps.
    assert_eq!(later.len(), earlier.len() + 2);
    assert!(later.ends_with(&[0, 0]));
    let changed = earlier
        .iter()
        .zip(&later)
        .filter(|(one, other)| one != other);
    assert_eq!(changed.count(), 1, "the number of the rules");
}

#[test]
fn a_state_under_any_rules_is_read_as_it_was_written() {
    for rules in 0..=RULES {
        let mut mesh = Mesh::with_rules(rules);
        mesh.admit(&*key(1), "one");
        let state = mesh.state();
        let bytes = state.encode();
        assert_eq!(&State::decode(&bytes, rules).unwrap(), state);
        for other in (0..=RULES).filter(|other| *other != rules) {
            assert!(State::decode(&bytes, other).is_err(), "{rules} as {other}");
        }
    }
}

#[test]
fn a_state_whose_header_has_its_hash_places_by_that_header_too() {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(1), "one");
    mesh.admit(&*key(2), "two");
    mesh.promote(1);
    mesh.promote(2);
    mesh.admit(&*key(3), "three");
    mesh.become_roster(&[0, 1, 2]);
    let end = mesh.batches.last().unwrap();
    let hash = Hash::of(&end.header);
    let bytes = Snapshot::of(mesh.state()).bytes;
    let opened = Snapshot::open(&bytes, end).unwrap();
    assert_eq!(&opened, mesh.state());
    assert_eq!(opened.batch_after(&id(&*key(3))), Some(hash));
    mesh.batch(Vec::new());
    let next = mesh.batches.last().unwrap();
    let after = opened.next(next, &KEYS).unwrap().0;
    assert_eq!(after.batch_after(&id(&*key(3))), Some(hash));
}

#[test]
fn a_recovery_by_the_root_is_a_batch_after_too() {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(1), "one");
    let recovery = mesh.recovery(1, mesh.state().position, &[0]);
    let (state, batch) = mesh
        .state()
        .recovered(&recovery, mesh.now_ms, &KEYS)
        .unwrap();
    let hash = Some(Hash::of(&batch.header));
    assert_eq!(state.batch_after(&id(&*key(1))), hash);
    assert!(!state.awaits_batch());
    assert!(state.agrees_with_itself());
    let (next, _) = state.draft(mesh.now_ms).finish();
    assert_eq!(next.batch_after(&id(&*key(1))), hash);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Join(u8),
    Leave(u8),
    /// Two machines by one batch.
    Both(u8, u8),
    Empty,
    Raise,
}

fn step() -> impl Strategy<Value = Step> {
    let machine = || 1..6u8;
    prop_oneof![
        4 => machine().prop_map(Step::Join),
        2 => machine().prop_map(Step::Leave),
        1 => (machine(), machine()).prop_map(|(one, other)| Step::Both(one, other)),
        4 => Just(Step::Empty),
        1 => Just(Step::Raise),
    ]
}

/// Who is a member since which batch, as told by what was decided.
struct Model {
    admitted: BTreeMap<NodeId, u64>,
    raised: Option<u64>,
}

impl Model {
    /// The hash that `node` is to be placed by, as of the newest batch.
    fn salt(&self, mesh: &Mesh, node: &NodeId) -> Option<Hash> {
        let since = self.admitted[node].max(self.raised?);
        (since < mesh.state().position.index).then(|| hash_of(mesh, since + 1))
    }
}

fn run(steps: &[Step], rules: u32) -> (Mesh, Model) {
    let mut mesh = Mesh::with_rules(rules);
    let mut model = Model {
        admitted: [(id(&*key(0)), 0)].into(),
        raised: (rules > BEFORE).then_some(0),
    };
    for step in steps {
        let next = mesh.state().position.index + 1;
        let joins = |mesh: &mut Mesh, machine: u8| {
            let token = mesh.token(100 + machine, |grant| grant.uses = 50);
            mesh.join_request(&token, &*key(machine), &format!("n{machine}"))
        };
        let (who, requests) = match *step {
            Step::Join(one) => (vec![one], vec![joins(&mut mesh, one)]),
            Step::Both(one, other) => {
                let requests = vec![joins(&mut mesh, one), joins(&mut mesh, other)];
                (vec![one, other], requests)
            }
            Step::Leave(one) => (vec![one], vec![mesh.request(&*key(one), &Content::Leave)]),
            Step::Empty => (vec![], vec![]),
            Step::Raise => (vec![0], vec![mesh.request(&*key(0), &Content::Rules(8))]),
        };
        let outcomes = mesh.batch(requests);
        for (machine, outcome) in who.into_iter().zip(outcomes) {
            if !matches!(outcome, Outcome::Done(_)) {
                continue;
            }
            let node = id(&*key(machine));
            match step {
                Step::Leave(_) => drop(model.admitted.remove(&node)),
                Step::Raise => model.raised = Some(next),
                _ => drop(model.admitted.insert(node, next)),
            }
        }
        for node in model.admitted.keys() {
            let expected = model.salt(&mesh, node);
            assert_eq!(mesh.state().batch_after(node), expected, "after {step:?}");
        }
        assert!(mesh.state().agrees_with_itself());
    }
    (mesh, model)
}

/// What a state says of each machine.
fn places(state: &State) -> Vec<Option<Hash>> {
    let all = (0..6).map(|number| id(&*key(number)));
    all.map(|node| state.batch_after(&node)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn all_nodes_come_to_the_same_places(
        steps in prop::collection::vec(step(), 1..40),
        rules in BEFORE..=BEFORE + 1,
        from in any::<prop::sample::Index>(),
    ) {
        let (mesh, model) = run(&steps, rules);
        // One that is told of every batch, and one that begins with a state.
        let from = from.index(mesh.states.len());
        let state = &mesh.states[from];
        let mut late = State::decode(&state.encode(), state.rules).unwrap();
        let mut first = State::genesis(&mesh.genesis, &KEYS).unwrap();
        for (at, batch) in mesh.batches.iter().enumerate() {
            first = first.next(batch, &KEYS).unwrap().0;
            if at >= from {
                late = late.next(batch, &KEYS).unwrap().0;
            }
        }
        prop_assert_eq!(places(&first), places(mesh.state()));
        prop_assert_eq!(places(&late), places(mesh.state()));
        let waits = |node: &NodeId| model.salt(&mesh, node).is_none();
        let awaits = model.raised.is_some()
            && model.admitted.len() > 1
            && model.admitted.keys().any(waits);
        prop_assert_eq!(mesh.state().awaits_batch(), awaits);
    }
}
