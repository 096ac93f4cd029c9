//! What rules 5 brought: the role `exit`.

use innermesh_proto::ledger::{
    Content, Outcome, Refusal, Role, State,
    request::{RoleChange, Withdraw},
};

use crate::mesh::{Mesh, id, key, label};

fn change(number: u8) -> RoleChange {
    RoleChange {
        node: id(&*key(number)),
        role: Role::Exit,
        root: None,
    }
}

fn is_exit(state: &State, number: u8) -> bool {
    let member = state.members.get(&id(&*key(number)));
    member.is_some_and(|member| member.roles.contains(&Role::Exit))
}

#[test]
fn an_admin_gives_the_role_and_takes_it() {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(1), "one");
    let own = mesh.request(&*key(1), &Content::GiveRole(change(1)));
    mesh.assert_refused(own, Refusal::NotAdmin);
    let given = mesh.ask(&*key(0), Content::GiveRole(change(1)));
    assert!(matches!(given, Outcome::Done(_)), "{given:?}");
    assert!(is_exit(mesh.state(), 1) && mesh.state().agrees_with_itself());
    let state = mesh.state();
    let read = State::decode(&state.encode(), state.rules).unwrap();
    assert!(is_exit(&read, 1));
    // And a node gives it up by itself.
    let taken = mesh.ask(&*key(1), Content::TakeRole(change(1)));
    assert!(matches!(taken, Outcome::Done(_)), "{taken:?}");
    assert!(!is_exit(mesh.state(), 1));
}

#[test]
fn under_earlier_rules_what_names_the_role_is_no_request_and_no_grant() {
    let mut mesh = Mesh::with_rules(4);
    mesh.admit(&*key(1), "one");
    for content in [
        Content::GiveRole(change(1)),
        Content::TakeRole(change(1)),
        Content::Withdraw(Withdraw {
            node: id(&*key(1)),
            role: Some(Role::Exit),
        }),
    ] {
        assert_eq!(content.since_rules(), 5);
        let request = mesh.request(&*key(0), &content);
        mesh.assert_refused(request, Refusal::NotUnderstood);
    }
    let token = mesh.token(100, |grant| grant.roles = [Role::Exit].into());
    let request = mesh.join_request(&token, &*key(2), "two");
    mesh.assert_refused(request, Refusal::Grant);

    let raised = mesh.ask(&*key(0), Content::Rules(5));
    assert!(matches!(raised, Outcome::Done(_)), "{raised:?}");
    let request = mesh.join_request(&token, &*key(2), "two");
    assert!(matches!(mesh.decide(request), Outcome::Done(_)));
    assert!(is_exit(mesh.state(), 2));
}

#[test]
fn the_word_that_a_policy_has_for_what_exits_lead_to_becomes_nobodys_name() {
    let mut before = Mesh::with_rules(4);
    let claim = || Content::Claim(label("internet"));
    let done = before.ask(&*key(0), claim());
    assert!(matches!(done, Outcome::Done(_)), "{done:?}");
    // Whoever had it keeps it.
    let raised = before.ask(&*key(0), Content::Rules(5));
    assert!(matches!(raised, Outcome::Done(_)), "{raised:?}");
    assert!(matches!(before.ask(&*key(0), claim()), Outcome::Done(_)));

    let mut mesh = Mesh::new();
    let request = mesh.request(&*key(0), &claim());
    mesh.assert_refused(request, Refusal::NameReserved(label("internet")));
}
