//! Random histories of everything that a mesh goes through, against what must
//! hold of any of them.

use std::collections::BTreeSet;

use innermesh_proto::{
    certificate::Serial,
    id::NodeId,
    ledger::{
        Content, Role, State,
        record::RecordData,
        request::{AddRecord, Evict, RemoveRecords, RoleChange, RosterChange, Share},
    },
    zone::{DomainName, RecordType},
};
use proptest::prelude::*;

use crate::mesh::{KEYS, MINUTE, Mesh, certify, id, key};

/// Machines that may come to be members; the founder is machine 0, and the
/// first four come as admins.
const MACHINES: u8 = 8;
const NAMES: [&str; 4] = ["a", "b", "n1", "_x"];

#[derive(Clone, Debug)]
enum Step {
    Join(u8, u8),
    Claim(u8, usize),
    Share(u8, usize, u8, bool),
    Release(u8, usize),
    Certify(u8),
    Renew(u8),
    Promote(u8, u8),
    Demote(u8, u8),
    /// Whatever is wanted, by that one.
    Roster(u8),
    Leave(u8),
    Evict(u8, u8),
    /// Who asks, about whom, and whether it is to be an admin.
    Admin(u8, u8, bool),
    Revoke(u8, usize),
    Record(u8, usize, bool),
    Batch(u64),
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly those that may do most.
    let who = || prop_oneof![3 => Just(0), 4 => 1..4u8, 3 => 0..MACHINES];
    let name = || 0..NAMES.len();
    prop_oneof![
        4 => (who(), who()).prop_map(|(who, by)| Step::Join(who, by)),
        3 => (who(), name()).prop_map(|(who, name)| Step::Claim(who, name)),
        2 => (who(), name(), who(), any::<bool>())
            .prop_map(|(who, name, with, more)| Step::Share(who, name, with, more)),
        1 => (who(), name()).prop_map(|(who, name)| Step::Release(who, name)),
        1 => who().prop_map(Step::Certify),
        1 => who().prop_map(Step::Renew),
        3 => (who(), who()).prop_map(|(by, who)| Step::Promote(by, who)),
        1 => (who(), who()).prop_map(|(by, who)| Step::Demote(by, who)),
        3 => who().prop_map(Step::Roster),
        1 => who().prop_map(Step::Leave),
        3 => (who(), who()).prop_map(|(by, who)| Step::Evict(by, who)),
        3 => (who(), who(), any::<bool>()).prop_map(|(by, who, is)| Step::Admin(by, who, is)),
        1 => (who(), any::<usize>()).prop_map(|(who, which)| Step::Revoke(who, which)),
        3 => (who(), name(), any::<bool>())
            .prop_map(|(who, name, more)| Step::Record(who, name, more)),
        4 => (0..200u64).prop_map(Step::Batch),
    ]
}

fn content(mesh: &Mesh, step: &Step) -> Option<(u8, Content)> {
    let state = mesh.state();
    let share = |name: usize, with: u8| {
        let name = NAMES[name].parse().ok()?;
        let with = id(&*key(with));
        Some(Share { name, with })
    };
    Some(match *step {
        Step::Claim(who, name) => (who, Content::Claim(NAMES[name].parse().ok()?)),
        Step::Share(who, name, with, true) => (who, Content::Share(share(name, with)?)),
        Step::Share(who, name, with, false) => (who, Content::Unshare(share(name, with)?)),
        Step::Release(who, name) => (who, Content::Release(NAMES[name].parse().ok()?)),
        Step::Certify(who) => (who, certify(&[&format!("n{who}.lab.internal")], 2)),
        Step::Renew(who) => (who, Content::Renew),
        Step::Promote(by, who) => {
            let promote = innermesh_proto::ledger::request::Promote {
                node: id(&*key(who)),
                issuers: vec![mesh.issuer_der()],
            };
            (by, Content::Promote(promote))
        }
        Step::Demote(by, who) => (by, Content::Demote(id(&*key(who)))),
        Step::Roster(by) => {
            let voters = state.wanted_roster()?;
            (by, Content::Roster(RosterChange { voters }))
        }
        Step::Leave(who) => (who, Content::Leave),
        Step::Evict(by, who) => {
            let evict = Evict {
                node: id(&*key(who)),
                hold: None,
                root: None,
            };
            (by, Content::Evict(evict))
        }
        Step::Admin(by, who, is_given) => {
            let change = RoleChange {
                node: id(&*key(who)),
                role: Role::Admin,
                root: None,
            };
            let give_or_take = if is_given {
                Content::GiveRole
            } else {
                Content::TakeRole
            };
            (by, give_or_take(change))
        }
        Step::Revoke(who, which) => {
            let serials: Vec<Serial> = state.certificates.keys().copied().collect();
            (who, Content::Revoke(serials[which % serials.len()]))
        }
        Step::Record(who, name, more) => {
            let name: DomainName = format!("{}.lab.internal", NAMES[name]).parse().unwrap();
            let data = RecordData::Txt(vec![vec![b'x'; usize::from(who)]]);
            let rtype = RecordType::TXT.0;
            let add = AddRecord {
                name: name.clone(),
                data,
                ttl_s: None,
                public: false,
            };
            if more {
                (who, Content::AddRecord(add))
            } else {
                (who, Content::RemoveRecords(RemoveRecords { name, rtype }))
            }
        }
        Step::Join(..) | Step::Batch(_) => return None,
    })
}

/// What must hold of each state, and of it after the one before.
fn check(before: &State, state: &State) {
    assert!(state.agrees_with_itself());
    let read = State::decode(&state.encode(), state.rules).unwrap();
    assert_eq!(read, *state, "a snapshot is the whole state");
    for (node, member) in &state.members {
        assert_eq!(state.names[&member.name].owner, *node);
        assert!(!state.evicted.contains_key(node));
    }
    for held in state.names.values() {
        let mut users = std::iter::once(&held.owner).chain(&held.shared);
        assert!(users.all(|node| state.members.contains_key(node)));
    }
    // S17: what is revoked stays so while it could be valid.
    for node in before.evicted.keys() {
        assert!(state.evicted.contains_key(node));
    }
    for (serial, revocation) in &before.revoked {
        let over = state.stamp_ms > revocation.not_after_ms;
        assert!(over || state.revoked.contains_key(serial));
    }
    for (serial, issued) in &before.certificates {
        let now = state.certificates.get(serial);
        assert!(
            now.is_none_or(
                |now| !before.is_revoked(serial, issued) || state.is_revoked(serial, now)
            )
        );
    }
    // Rosters go from one allowed size to another, and numbers come once.
    assert!((1..=5).contains(&state.roster.len()));
    for (node, number) in &state.voters {
        let new = before.voters.values().all(|held| held < number);
        match before.voters.get(node) {
            // Who waited may have gone and come back within one batch.
            Some(held) if held != number => {
                assert!(new && !before.roster.contains(node));
            }
            Some(_) => {}
            None => assert!(new),
        }
    }
    if state.roster != before.roster {
        assert_eq!(state.epoch, before.epoch + 1);
        let (old, new): (&BTreeSet<NodeId>, &BTreeSet<NodeId>) = (&before.roster, &state.roster);
        assert!(new.len() + 1 == old.len() || matches!(new.len(), 3 | 5));
        assert!(new.is_subset(old) || old.is_subset(new));
    }
    assert!(
        state.admins().count() > 0,
        "someone is left to let machines in"
    );
    assert!(
        state.roster.iter().any(|node| state.is_voter(*node)),
        "someone is left to decide"
    );
}

fn run(steps: &[Step]) {
    let mut mesh = Mesh::with_overlay("10.77.0.0/22");
    for number in 1..=5 {
        mesh.admit_as(
            &*key(number),
            &format!("n{number}"),
            &*key(number / 3),
            |grant| {
                if number < 4 {
                    grant.roles = [Role::Admin].into();
                }
            },
        );
    }
    let mut open = Vec::new();
    for step in steps.iter().chain([&Step::Batch(0)]) {
        match step {
            Step::Batch(minutes) => {
                let before = mesh.state().clone();
                mesh.batch(std::mem::take(&mut open));
                check(&before, mesh.state());
                mesh.now_ms += minutes * MINUTE;
            }
            Step::Join(who, by) => {
                let token = mesh.token_by(&*key(*by), 100 + who, |grant| {
                    grant.uses = 50;
                    if *who < 4 {
                        grant.roles = [Role::Admin].into();
                    }
                });
                open.push(mesh.join_request(&token, &*key(*who), &format!("n{who}")));
            }
            Step::Roster(_) => {
                // It stands alone.
                let before = mesh.state().clone();
                mesh.batch(std::mem::take(&mut open));
                check(&before, mesh.state());
                if let Some((who, content)) = content(&mesh, step) {
                    let before = mesh.state().clone();
                    mesh.ask(&*key(who), content);
                    check(&before, mesh.state());
                }
            }
            other => {
                if let Some((who, content)) = content(&mesh, other) {
                    open.push(mesh.request(&*key(who), &content));
                }
            }
        }
    }
    // A node that replays every batch tells the same story.
    let mut state = State::genesis(&mesh.genesis, &KEYS).unwrap();
    for batch in &mesh.batches {
        state = state.describe(batch, &KEYS).unwrap().0;
    }
    assert_eq!(state, *mesh.state());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_history_breaks_what_must_hold(steps in prop::collection::vec(step(), 1..80)) {
        run(&steps);
    }
}
