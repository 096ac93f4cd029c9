use innermesh_proto::{
    crypto::{Hash, Sign},
    ledger::{
        Content, Outcome, Refusal, Role,
        request::{Evict, HoldId, Share, Unhold, Withdraw},
    },
};

use crate::mesh::{DAY, MINUTE, Mesh, certify, id, key, label, owner};

fn evict(number: u8) -> Content {
    Content::Evict(Evict {
        node: id(&*key(number)),
        hold: None,
        root: None,
    })
}

fn is_member(mesh: &Mesh, number: u8) -> bool {
    mesh.state().members.contains_key(&id(&*key(number)))
}

/// As [`fresh`], a day later: each admin speaks for itself.
fn mesh() -> Mesh {
    let mut mesh = fresh();
    mesh.now_ms += DAY;
    mesh.batch(Vec::new());
    mesh
}

/// Admins 1 and 2 by the founder, admin 3 by 1, and plain members 10 to 16.
fn fresh() -> Mesh {
    let mut mesh = Mesh::new();
    for (number, by) in [(1, 0), (2, 0), (3, 1)] {
        let name = format!("admin{number}");
        mesh.admit_as(&*key(number), &name, &*key(by), |grant| {
            grant.roles = [Role::Admin].into();
        });
    }
    for number in 10..=16 {
        mesh.admit(&*key(number), &format!("n{number}"));
    }
    mesh
}

fn done(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

fn waits(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Waiting(_)), "{outcome:?}");
}

#[test]
fn an_evicted_machine_loses_all_that_it_had_and_its_key_never_comes_back() {
    let mut mesh = mesh();
    let gone = key(10);
    done(mesh.ask(&*gone, Content::Claim(label("photos"))));
    done(mesh.ask(&*gone, certify(&["photos.lab.internal"], 30)));
    done(mesh.ask(&*key(11), Content::Claim(label("wiki"))));
    let share = Share {
        name: label("wiki"),
        with: id(&*gone),
    };
    done(mesh.ask(&*key(11), Content::Share(share)));
    let node = id(&*gone);
    let address = mesh.state().members[&node].ipv4;
    done(mesh.ask(&*key(1), evict(10)));
    let state = mesh.state();
    assert!(!is_member(&mesh, 10) && state.evicted.contains_key(&node));
    assert_eq!(owner(state, "photos"), None);
    assert_eq!(owner(state, "n10"), None);
    assert!(state.names[&label("wiki")].shared.is_empty());
    let own: Vec<_> = state
        .certificates
        .iter()
        .filter(|(_, issued)| issued.owner == node)
        .collect();
    assert_eq!(own.len(), 2);
    assert!(
        own.iter()
            .all(|(serial, issued)| state.is_revoked(serial, issued))
    );
    assert!(
        state
            .revoked_keys
            .contains_key(&Hash::of(&gone.public().spki()))
    );

    let request = mesh.request(&*gone, &Content::Renew);
    mesh.assert_refused(request, Refusal::NotMember);
    let token = mesh.token(200, |_| {});
    let request = mesh.join_request(&token, &*gone, "n10");
    mesh.assert_refused(request, Refusal::Evicted);
    // Its name and its address are free.
    mesh.admit(&*key(20), "n10");
    assert!(
        mesh.state()
            .members
            .values()
            .all(|m| m.ipv4 != address || m.key == key(20).public())
    );
    // Asked again, it is so already.
    done(mesh.ask(&*key(2), evict(10)));
}

#[test]
fn a_plain_member_evicts_nobody_and_nobody_evicts_itself() {
    let mut mesh = mesh();
    let request = mesh.request(&*key(10), &evict(11));
    mesh.assert_refused(request, Refusal::NotAdmin);
    let request = mesh.request(&*key(1), &evict(1));
    mesh.assert_refused(request, Refusal::Oneself);
    let request = mesh.request(&*key(1), &evict(99));
    mesh.assert_refused(request, Refusal::NoSuchNode);
}

#[test]
fn an_admin_goes_by_the_word_of_two_others_within_an_hour() {
    let mut mesh = mesh();
    waits(mesh.ask(&*key(1), evict(2)));
    assert!(is_member(&mesh, 2));
    assert_eq!(
        mesh.state().proposed_evictions().collect::<Vec<_>>(),
        [(id(&*key(2)), id(&*key(1)))]
    );
    waits(mesh.ask(&*key(1), evict(2)));
    // An admin that the first let in is no second person.
    waits(mesh.ask(&*key(3), evict(2)));
    assert!(is_member(&mesh, 2));

    // After an hour the first word is void.
    let mut late = Mesh::new();
    for number in [1, 2, 3] {
        late.admit_as(
            &*key(number),
            &format!("admin{number}"),
            &*key(0),
            |grant| {
                grant.roles = [Role::Admin].into();
            },
        );
    }
    late.now_ms += DAY;
    let token = late.token_by(&*key(2), 200, |grant| {
        grant.expires_ms += DAY;
    });
    waits(late.ask(&*key(1), evict(2)));
    late.now_ms += 61 * MINUTE;
    waits(late.ask(&*key(3), evict(2)));
    late.now_ms += 59 * MINUTE;
    done(late.ask(&*key(1), evict(2)));
    assert!(!is_member(&late, 2));
    assert_eq!(late.state().proposed_evictions().count(), 0);
    // Its invites died with it.
    let request = late.join_request(&token, &*key(20), "twenty");
    late.assert_refused(request, Refusal::Inviter);
}

#[test]
fn an_admin_can_not_make_its_own_second() {
    let mut mesh = fresh();
    // 3 came by 1: neither order counts at first.
    waits(mesh.ask(&*key(3), evict(2)));
    waits(mesh.ask(&*key(1), evict(2)));
    assert!(is_member(&mesh, 2));
    // Everybody came by the founder; who has been an admin for a day counts.
    mesh.now_ms += DAY + 61 * MINUTE;
    waits(mesh.ask(&*key(0), evict(2)));
    waits(mesh.ask(&*key(1), evict(2)));
    done(mesh.ask(&*key(0), evict(2)));
    assert!(!is_member(&mesh, 2));
}

#[test]
fn two_that_one_admin_let_in_are_no_two_persons_on_their_first_day() {
    let admin = |grant: &mut innermesh_proto::ledger::Grant| grant.roles = [Role::Admin].into();
    let mut mesh = mesh();
    mesh.admit_as(&*key(4), "admin4", &*key(1), admin);
    mesh.admit_as(&*key(5), "admin5", &*key(1), admin);
    waits(mesh.ask(&*key(4), evict(2)));
    waits(mesh.ask(&*key(5), evict(2)));
    assert!(is_member(&mesh, 2));
    // As 1's word it counts beside that of another.
    waits(mesh.ask(&*key(4), evict(5)));
    done(mesh.ask(&*key(2), evict(5)));
    // A day later each speaks for itself.
    mesh.admit_as(&*key(6), "admin6", &*key(1), admin);
    mesh.now_ms += DAY;
    waits(mesh.ask(&*key(4), evict(2)));
    done(mesh.ask(&*key(6), evict(2)));
}

#[test]
fn who_leaves_and_comes_back_by_its_own_child_sheds_nothing() {
    let admin = |grant: &mut innermesh_proto::ledger::Grant| grant.roles = [Role::Admin].into();
    let mut mesh = mesh();
    // 1 lets 4 in, and 4 lets 5 in; 4 goes and comes back by 5.
    mesh.admit_as(&*key(4), "admin4", &*key(1), admin);
    mesh.admit_as(&*key(5), "admin5", &*key(4), admin);
    done(mesh.ask(&*key(4), Content::Leave));
    mesh.admit_as(&*key(4), "again", &*key(5), admin);
    mesh.now_ms += DAY;
    waits(mesh.ask(&*key(1), evict(2)));
    waits(mesh.ask(&*key(4), evict(2)));
    waits(mesh.ask(&*key(5), evict(2)));
    assert!(is_member(&mesh, 2));
}

#[test]
fn descent_is_remembered_when_who_stands_between_has_gone() {
    let mut mesh = mesh();
    let roles = |grant: &mut innermesh_proto::ledger::Grant| grant.roles = [Role::Admin].into();
    mesh.admit_as(&*key(4), "admin4", &*key(3), roles);
    done(mesh.ask(&*key(3), Content::Leave));
    waits(mesh.ask(&*key(1), evict(2)));
    waits(mesh.ask(&*key(4), evict(2)));
    assert!(is_member(&mesh, 2));
}

#[test]
fn more_than_three_an_hour_take_two() {
    let mut mesh = mesh();
    for number in 10..13 {
        done(mesh.ask(&*key(1), evict(number)));
    }
    waits(mesh.ask(&*key(1), evict(13)));
    waits(mesh.ask(&*key(3), evict(14)));
    done(mesh.ask(&*key(2), evict(13)));
    mesh.now_ms += 61 * MINUTE;
    done(mesh.ask(&*key(3), evict(14)));
}

#[test]
fn the_roots_signature_stands_for_the_second_admin() {
    let mut mesh = mesh();
    let by_root = |mesh: &Mesh, number: u8| {
        let node = id(&*key(number));
        let message = Evict::root_message(&mesh.id, &node);
        Content::Evict(Evict {
            node,
            hold: None,
            root: Some(mesh.root.sign(&message).unwrap()),
        })
    };
    let other = by_root(&Mesh::new(), 2);
    let request = mesh.request(&*key(1), &other);
    mesh.assert_refused(request, Refusal::RootSignature);
    let Content::Evict(mut moved) = by_root(&mesh, 10) else {
        unreachable!()
    };
    moved.node = id(&*key(2));
    let request = mesh.request(&*key(1), &Content::Evict(moved));
    mesh.assert_refused(request, Refusal::RootSignature);
    let content = by_root(&mesh, 2);
    done(mesh.ask(&*key(1), content));
    assert!(!is_member(&mesh, 2));
}

#[test]
fn a_ca_node_is_evicted_only_while_the_rest_can_go_on() {
    let mut mesh = mesh();
    let request = mesh.request(&*key(1), &evict(0));
    mesh.assert_refused(request, Refusal::LastCa);
    mesh.promote(10);
    mesh.promote(11);
    mesh.become_roster(&[0, 10, 11]);
    // Certified by the founder's issuer; it needs another one afterwards.
    waits(mesh.ask(&*key(1), evict(0)));
    done(mesh.ask(&*key(2), evict(0)));
    let state = mesh.state();
    assert!(!is_member(&mesh, 0) && state.roster.contains(&id(&*key(0))));
    assert!(!state.can_issue(id(&*key(0))));
    assert_eq!(state.due_for_renewal().count(), state.members.len());
    let request = mesh.request(&*key(1), &evict(10));
    mesh.assert_refused(request, Refusal::NoMajority);
    // The two others take it out of the roster without its help.
    mesh.become_roster_by(&[10, 11], &*key(10));
    assert_eq!(mesh.state().roster.len(), 2);
    assert!(!mesh.state().voters.contains_key(&id(&*key(0))));
    let request = mesh.request(&*key(1), &evict(10));
    mesh.assert_refused(request, Refusal::NoMajority);
}

#[test]
fn the_last_admin_is_evicted_by_nobody() {
    let mut mesh = Mesh::new();
    for number in [10, 11] {
        mesh.admit(&*key(number), &format!("n{number}"));
        mesh.promote(number);
    }
    mesh.become_roster(&[0, 10, 11]);
    let node = id(&*key(0));
    let root = mesh.root.sign(&Evict::root_message(&mesh.id, &node));
    let by_root = Content::Evict(Evict {
        node,
        hold: None,
        root: Some(root.unwrap()),
    });
    let request = mesh.request(&*key(10), &by_root);
    mesh.assert_refused(request, Refusal::LastAdmin);
    let change = mesh.by_root(&*key(10), id(&*key(10)), Role::Admin, true);
    done(mesh.ask(&*key(10), Content::GiveRole(change)));
    done(mesh.ask(&*key(10), by_root));
}

#[test]
fn who_asked_for_an_eviction_takes_that_back_and_nobody_else_does() {
    let mut mesh = mesh();
    let withdraw = |number: u8| {
        Content::Withdraw(Withdraw {
            node: id(&*key(number)),
            role: None,
        })
    };
    waits(mesh.ask(&*key(1), evict(2)));
    // Else one that is to go would keep itself.
    for other in [2, 0] {
        let request = mesh.request(&*key(other), &withdraw(2));
        mesh.assert_refused(request, Refusal::NothingToWithdraw);
    }
    done(mesh.ask(&*key(1), withdraw(2)));
    assert_eq!(mesh.state().proposed_evictions().count(), 0);
    waits(mesh.ask(&*key(0), evict(2)));
    let request = mesh.request(&*key(1), &withdraw(2));
    mesh.assert_refused(request, Refusal::NothingToWithdraw);
}

#[test]
fn a_hold_is_decided_either_way() {
    let mut mesh = mesh();
    let (first, second) = (HoldId([1; 16]), HoldId([2; 16]));
    let admin = id(&*key(1));
    let held = Content::Evict(Evict {
        node: id(&*key(10)),
        hold: Some(first),
        root: None,
    });
    assert!(!mesh.state().is_decided(admin, first));
    done(mesh.ask(&*key(1), held));
    assert!(mesh.state().is_decided(admin, first));
    let unhold = Content::Unhold(Unhold {
        author: admin,
        hold: second,
    });
    let request = mesh.request(&*key(11), &unhold);
    mesh.assert_refused(request, Refusal::NotAdmin);
    done(mesh.ask(&*key(2), unhold));
    assert!(mesh.state().is_decided(admin, second));
    for number in 0..100 {
        let unhold = Unhold {
            author: admin,
            hold: HoldId([100 + number; 16]),
        };
        done(mesh.ask(&*key(2), Content::Unhold(unhold)));
    }
    assert!(
        !mesh.state().is_decided(admin, first),
        "the oldest are forgotten"
    );
    assert!(mesh.state().is_decided(admin, HoldId([199; 16])));
}

#[test]
fn who_leaves_may_come_back_and_the_last_admin_may_not_go() {
    let mut mesh = mesh();
    let one = key(10);
    done(mesh.ask(&*one, Content::Claim(label("photos"))));
    done(mesh.ask(&*one, Content::Leave));
    assert!(!is_member(&mesh, 10));
    assert_eq!(owner(mesh.state(), "photos"), None);
    mesh.admit(&*one, "again");
    assert!(is_member(&mesh, 10));
    let serial = mesh.state().members[&id(&*one)].certificate.unwrap();
    let issued = &mesh.state().certificates[&serial];
    assert!(!mesh.state().is_revoked(&serial, issued));
    for number in [1, 2, 3] {
        done(mesh.ask(&*key(number), Content::Leave));
    }
    mesh.promote(11);
    mesh.promote(12);
    mesh.become_roster(&[0, 11, 12]);
    done(mesh.ask(&*key(0), Content::Demote(id(&*key(0)))));
    mesh.become_roster(&[11, 12]);
    let request = mesh.request(&*key(0), &Content::Leave);
    mesh.assert_refused(request, Refusal::LastAdmin);
}

#[test]
fn a_ca_node_that_an_admin_wants_gone_leads_last() {
    let mut mesh = mesh();
    mesh.promote(10);
    mesh.promote(11);
    mesh.become_roster(&[0, 10, 11]);
    for number in [10, 11] {
        let node = id(&*key(number));
        let first = (0..64).find(|slot| mesh.state().leader_order(*slot)[0] == node);
        let slot = first.expect("each has its turn");
        waits(mesh.ask(&*key(1), evict(number)));
        let order = mesh.state().leader_order(slot);
        assert_ne!(order[0], node);
        assert_eq!(order.len(), 3, "it still may where nobody else can");
    }
}
