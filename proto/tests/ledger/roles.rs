//! Who gives roles and who takes them: from rules 2 on, one stolen admin makes
//! no second of its own and takes no other's role.

use innermesh_proto::{
    crypto::Sign,
    id::NodeId,
    ledger::{
        Content, Outcome, Refusal, Role,
        record::RecordData,
        request::{AddRecord, Evict, RoleChange, Withdraw},
    },
};

use crate::mesh::{DAY, MINUTE, Mesh, id, key};

fn node(number: u8) -> NodeId {
    id(&*key(number))
}

fn change(number: u8, role: Role) -> RoleChange {
    RoleChange {
        node: node(number),
        role,
        root: None,
    }
}

fn give(number: u8) -> Content {
    Content::GiveRole(change(number, Role::Admin))
}

fn take(number: u8) -> Content {
    Content::TakeRole(change(number, Role::Admin))
}

fn evict(number: u8) -> Content {
    Content::Evict(Evict {
        node: node(number),
        hold: None,
        root: None,
    })
}

fn is_admin(mesh: &Mesh, number: u8) -> bool {
    let member = mesh.state().members.get(&node(number));
    member.is_some_and(|member| member.roles.contains(&Role::Admin))
}

fn done(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

fn waits(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Waiting(_)), "{outcome:?}");
}

/// Admins 1, 2 and 3 by the founder, for a day, and plain members 10 to 13.
fn mesh() -> Mesh {
    let mut mesh = Mesh::new();
    for number in [1, 2, 3] {
        let name = format!("admin{number}");
        mesh.admit_as(&*key(number), &name, &*key(0), |grant| {
            grant.roles = [Role::Admin].into();
        });
    }
    for number in 10..=13 {
        mesh.admit(&*key(number), &format!("n{number}"));
    }
    mesh.now_ms += DAY;
    mesh.batch(Vec::new());
    mesh
}

#[test]
fn an_admin_gives_the_role_and_it_can_be_given_up() {
    let mut mesh = mesh();
    let request = mesh.request(&*key(10), &give(10));
    mesh.assert_refused(request, Refusal::NotAdmin);
    done(mesh.ask(&*key(1), give(10)));
    assert!(is_admin(&mesh, 10));
    done(mesh.ask(&*key(10), give(11)));
    // So already.
    done(mesh.ask(&*key(2), give(10)));
    done(mesh.ask(&*key(10), take(10)));
    assert!(!is_admin(&mesh, 10));
    let request = mesh.request(&*key(10), &give(12));
    mesh.assert_refused(request, Refusal::NotAdmin);
    let request = mesh.request(&*key(1), &Content::GiveRole(change(10, Role::Ca)));
    mesh.assert_refused(request, Refusal::CaByPromotion);
    let request = mesh.request(&*key(1), &give(99));
    mesh.assert_refused(request, Refusal::NoSuchNode);
}

#[test]
fn taking_the_role_from_another_takes_two_as_evicting_it_does() {
    let mut mesh = mesh();
    waits(mesh.ask(&*key(1), take(2)));
    assert_eq!(
        mesh.state().proposed_role_changes().collect::<Vec<_>>(),
        [(node(2), Role::Admin, node(1))]
    );
    waits(mesh.ask(&*key(1), take(2)));
    // And so it can't be evicted alone afterwards.
    waits(mesh.ask(&*key(1), evict(2)));
    assert!(is_admin(&mesh, 2));
    done(mesh.ask(&*key(3), take(2)));
    assert!(!is_admin(&mesh, 2));
    assert_eq!(mesh.state().proposed_role_changes().count(), 0);
    // After an hour a word is void.
    waits(mesh.ask(&*key(1), take(3)));
    mesh.now_ms += 61 * MINUTE;
    waits(mesh.ask(&*key(0), take(3)));
    assert!(is_admin(&mesh, 3));
}

#[test]
fn demoting_another_takes_two_or_the_root_and_oneself_nobody() {
    let mut mesh = mesh();
    for number in [10, 11] {
        mesh.promote(number);
    }
    mesh.become_roster(&[0, 10, 11]);
    waits(mesh.ask(&*key(1), Content::Demote(node(10))));
    assert!(mesh.state().is_voter(node(10)));
    // However it is put, it is one thing.
    done(mesh.ask(&*key(2), Content::TakeRole(change(10, Role::Ca))));
    assert!(!mesh.state().is_voter(node(10)));
    mesh.become_roster(&[0, 11]);
    done(mesh.ask(&*key(11), Content::Demote(node(11))));
    mesh.become_roster(&[0]);
    let request = mesh.request(&*key(1), &Content::Demote(node(0)));
    mesh.assert_refused(request, Refusal::LastCa);
    let request = mesh.request(&*key(1), &Content::Demote(node(12)));
    mesh.assert_refused(request, Refusal::NotCa);
}

#[test]
fn who_is_made_an_admin_counts_as_let_in_by_its_maker_from_then_on() {
    let mut mesh = mesh();
    // Members for long, by the founder; admins by 1.
    done(mesh.ask(&*key(1), give(10)));
    done(mesh.ask(&*key(1), give(11)));
    for (first, second) in [(1, 10), (10, 1), (10, 11)] {
        waits(mesh.ask(&*key(first), take(2)));
        waits(mesh.ask(&*key(second), take(2)));
        waits(mesh.ask(&*key(first), evict(3)));
        waits(mesh.ask(&*key(second), evict(3)));
        mesh.now_ms += 61 * MINUTE;
    }
    assert!(is_admin(&mesh, 2) && is_admin(&mesh, 3));
    mesh.now_ms += DAY;
    // After a day it may have begun; by its maker's word it never is the second.
    waits(mesh.ask(&*key(1), take(2)));
    waits(mesh.ask(&*key(10), take(2)));
    done(mesh.ask(&*key(1), take(2)));
}

#[test]
fn giving_the_role_up_and_having_it_again_sheds_nothing() {
    let mut mesh = mesh();
    // 1 makes 10 one, and 10 makes 11 one; 10 is made one again by 11.
    done(mesh.ask(&*key(1), give(10)));
    done(mesh.ask(&*key(10), give(11)));
    done(mesh.ask(&*key(10), take(10)));
    done(mesh.ask(&*key(11), give(10)));
    for (first, second) in [(1, 10), (10, 1), (1, 11), (11, 1), (10, 11), (11, 10)] {
        waits(mesh.ask(&*key(first), take(2)));
        waits(mesh.ask(&*key(second), take(2)));
        mesh.now_ms += 61 * MINUTE;
    }
    mesh.now_ms += DAY;
    waits(mesh.ask(&*key(1), take(2)));
    waits(mesh.ask(&*key(10), take(2)));
    waits(mesh.ask(&*key(11), take(2)));
    assert!(is_admin(&mesh, 2));
}

#[test]
fn a_word_ends_with_the_role_of_who_gave_it() {
    let mut mesh = mesh();
    waits(mesh.ask(&*key(1), take(2)));
    waits(mesh.ask(&*key(1), evict(2)));
    done(mesh.ask(&*key(1), take(1)));
    done(mesh.ask(&*key(0), give(1)));
    mesh.now_ms += MINUTE;
    waits(mesh.ask(&*key(3), take(2)));
    waits(mesh.ask(&*key(3), evict(2)));
    assert!(is_admin(&mesh, 2));
}

#[test]
fn the_last_admin_stays_one_whoever_asks() {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(10), "n10");
    let request = mesh.request(&*key(0), &take(0));
    mesh.assert_refused(request, Refusal::LastAdmin);
    let by_root = mesh.by_root(&*key(10), node(0), Role::Admin, false);
    let request = mesh.request(&*key(10), &Content::TakeRole(by_root));
    mesh.assert_refused(request, Refusal::LastAdmin);
}

#[test]
fn the_roots_word_changes_a_role_once_for_its_author_and_for_some_minutes() {
    let mut mesh = mesh();
    let asker = key(10);
    let word = mesh.by_root(&*asker, node(10), Role::Admin, true);
    // What it says can't be turned round, nor given on.
    let turned = mesh.request(&*asker, &Content::TakeRole(word.clone()));
    mesh.assert_refused(turned, Refusal::RootSignature);
    let given_on = mesh.request(&*key(11), &Content::GiveRole(word.clone()));
    mesh.assert_refused(given_on, Refusal::RootSignature);
    let mut for_another = word.clone();
    for_another.node = node(11);
    let other = mesh.request(&*asker, &Content::GiveRole(for_another));
    mesh.assert_refused(other, Refusal::RootSignature);
    done(mesh.ask(&*asker, Content::GiveRole(word.clone())));
    assert!(is_admin(&mesh, 10));
    // Once it has lost the role, nobody brings the old word again.
    done(mesh.ask(&*asker, take(10)));
    let again = mesh.request(&*asker, &Content::GiveRole(word));
    mesh.assert_refused(again, Refusal::RootSignature);
    let late = mesh.by_root(&*asker, node(10), Role::Admin, true);
    mesh.now_ms += 6 * MINUTE;
    mesh.batch(Vec::new());
    let late = mesh.request(&*asker, &Content::GiveRole(late));
    mesh.assert_refused(late, Refusal::Expired);
    // The root speaks for whom it makes one, whoever did before.
    done(mesh.ask(&*key(1), give(11)));
    done(mesh.ask(&*key(11), take(11)));
    let word = mesh.by_root(&*asker, node(11), Role::Admin, true);
    done(mesh.ask(&*asker, Content::GiveRole(word)));
    waits(mesh.ask(&*key(1), take(3)));
    done(mesh.ask(&*key(11), take(3)));
    let word = mesh.by_root(&*asker, node(10), Role::Admin, true);
    done(mesh.ask(&*asker, Content::GiveRole(word)));
    waits(mesh.ask(&*key(10), take(2)));
    done(mesh.ask(&*key(1), take(2)));
}

#[test]
fn what_waits_is_withdrawn_by_who_asked_for_it() {
    let mut mesh = mesh();
    let withdraw = Content::Withdraw(Withdraw {
        node: node(2),
        role: Some(Role::Admin),
    });
    waits(mesh.ask(&*key(1), take(2)));
    let request = mesh.request(&*key(2), &withdraw);
    mesh.assert_refused(request, Refusal::NothingToWithdraw);
    done(mesh.ask(&*key(1), withdraw));
    waits(mesh.ask(&*key(3), take(2)));
    assert!(is_admin(&mesh, 2));
}

#[test]
fn so_many_made_a_node_an_admin_and_no_more_are_remembered() {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(100), "hundred");
    let mut refused = 0;
    for number in 1..=20 {
        mesh.admit_as(&*key(number), &format!("a{number}"), &*key(0), |grant| {
            grant.roles = [Role::Admin].into();
        });
        match mesh.ask(&*key(number), give(100)) {
            Outcome::Done(_) => done(mesh.ask(&*key(100), take(100))),
            Outcome::Refused(Refusal::TooManyMakers) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 3);
    done(mesh.ask(&*key(1), give(100)));
}

#[test]
fn a_role_that_was_taken_no_longer_vouches_for_what_its_node_left() {
    let mut mesh = mesh();
    done(mesh.ask(&*key(1), give(10)));
    let record = AddRecord {
        name: "tv.lab.internal".parse().unwrap(),
        data: RecordData::A([192, 0, 2, 9].into()),
        ttl_s: None,
        public: false,
    };
    done(mesh.ask(&*key(10), Content::AddRecord(record)));
    let counts = |mesh: &Mesh| {
        let mut records = mesh.state().records.values();
        mesh.state().record_counts(&records.next().unwrap()[0])
    };
    assert!(counts(&mesh));
    done(mesh.ask(&*key(10), take(10)));
    assert!(!counts(&mesh));
    done(mesh.ask(&*key(10), Content::Leave));
    assert!(!counts(&mesh));
}

#[test]
fn under_earlier_rules_roles_are_as_they_were() {
    let mut mesh = Mesh::with_rules(1);
    for number in [1, 2, 3] {
        mesh.admit_as(&*key(number), &format!("a{number}"), &*key(0), |grant| {
            grant.roles = [Role::Admin].into();
        });
    }
    for number in [10, 11] {
        mesh.admit(&*key(number), &format!("n{number}"));
        mesh.promote(number);
    }
    mesh.become_roster(&[0, 10, 11]);
    for content in [give(10), take(2)] {
        let request = mesh.request(&*key(1), &content);
        mesh.assert_refused(request, Refusal::NotUnderstood);
    }
    waits(mesh.ask(&*key(1), evict(2)));
    done(mesh.ask(&*key(3), evict(2)));
    done(mesh.ask(&*key(1), Content::Demote(node(10))));
    let before = mesh.state().encode();
    done(mesh.ask(&*key(0), Content::Rules(2)));
    assert!(mesh.state().agrees_with_itself());
    assert_ne!(mesh.state().encode(), before);
    waits(mesh.ask(&*key(1), Content::Demote(node(11))));
    done(mesh.ask(&*key(1), give(11)));
}

#[test]
fn a_recovery_makes_its_node_an_admin() {
    let mut mesh = Mesh::new();
    for number in [10, 11] {
        mesh.admit(&*key(number), &format!("n{number}"));
        mesh.promote(number);
    }
    mesh.become_roster(&[0, 10, 11]);
    let signed = mesh.recovery(1, mesh.state().position, &[10]);
    let (state, _) = mesh
        .state()
        .recovered(&signed, mesh.now_ms, &crate::mesh::KEYS)
        .unwrap();
    assert!(state.admins().any(|admin| admin == node(10)));
    let key = key(10);
    assert_eq!(state.members[&node(10)].key, key.public());
}
