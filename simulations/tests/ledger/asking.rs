//! Machines that ask to be let in without a token: few at a time, not for
//! long, and one admin's to decide.

use std::time::Duration;

use innermesh_agent::{
    control::members::{AdmissionsRequest, DenyRequest, RequestState},
    enroll::{self, AskOptions, JoinError},
    node::Agent,
};
use innermesh_proto::{admission::Ending, limits};
use simulations::{
    Machine, World, clock,
    mesh::{found, have_met, join_as_admin, until},
};

const PATIENCE: Duration = Duration::from_secs(60);

async fn ask(machine: &Machine, seed: &str) -> Result<(), JoinError> {
    let options = AskOptions {
        seed: seed.into(),
        name: machine.name.parse().unwrap(),
        interface: "im0".into(),
    };
    enroll::ask(&machine.host, options, &|_| {})
        .await
        .map(|_| ())
}

async fn waiting(admin: &Agent) -> usize {
    admin
        .control()
        .ask(AdmissionsRequest {})
        .await
        .unwrap()
        .len()
}

#[tokio::test(start_paused = true)]
async fn no_more_than_sixteen_wait_at_one_member_and_none_for_more_than_ten_minutes() {
    let mut world = World::new(1);
    let one = world.machine("one");
    let first = found(&one).await;
    let mut asking = tokio::task::JoinSet::new();
    let begun = clock::now();
    for number in 0..limits::REQUESTS {
        let machine = world.machine(&format!("m{number}"));
        asking.spawn(async move { ask(&machine, "one").await });
    }
    until("all wait", PATIENCE, async || {
        waiting(&first).await == limits::REQUESTS
    })
    .await;
    let late = world.machine("late");
    let refused = ask(&late, "one").await;
    assert!(
        matches!(&refused, Err(JoinError::Refused(why)) if why.contains("too many machines")),
        "{refused:?}"
    );
    while let Some(ended) = asking.join_next().await {
        let ended = ended.unwrap();
        assert!(
            matches!(ended, Err(JoinError::NotLetIn(Ending::Expired))),
            "{ended:?}"
        );
    }
    let most = Duration::from_millis(limits::REQUEST_WAIT_MS);
    let took = clock::now() - begun;
    assert!(took < most + PATIENCE && took > most - PATIENCE, "{took:?}");
    assert_eq!(waiting(&first).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_the_first_admin_s_that_looks_and_asked_again_it_is_another() {
    let mut world = World::new(1);
    let [one, two, new] = ["one", "two", "new"].map(|name| world.machine(name));
    let first = found(&one).await;
    let second = join_as_admin(&two, "one", &first).await;
    have_met(&[&first, &second]).await;
    let host = new.host.clone();
    let options = AskOptions {
        seed: "two".into(),
        name: "new".parse().unwrap(),
        interface: "im0".into(),
    };
    let again = options.clone();
    let asking = tokio::spawn(async move { enroll::ask(&host, options, &|_| {}).await });
    until("the request", PATIENCE, async || waiting(&first).await == 1).await;
    let rows = first.control().ask(AdmissionsRequest {}).await.unwrap();
    assert_eq!(
        (rows[0].state, rows[0].admin.as_deref()),
        (RequestState::Ready, Some("one"))
    );
    let rows = second.control().ask(AdmissionsRequest {}).await.unwrap();
    assert_eq!(
        (rows[0].state, rows[0].admin.as_deref()),
        (RequestState::Elsewhere, Some("one"))
    );
    // Whoever asks anew starts with another nonce, for whichever admin looks.
    asking.abort();
    let host = new.host.clone();
    let asking = tokio::spawn(async move { enroll::ask(&host, again, &|_| {}).await });
    until("the new request", PATIENCE, async || {
        let rows = second.control().ask(AdmissionsRequest {}).await.unwrap();
        rows.len() == 1 && rows[0].state == RequestState::Ready
    })
    .await;
    second
        .control()
        .ask(DenyRequest {
            which: "new".into(),
        })
        .await
        .unwrap();
    let ended = asking.await.unwrap();
    assert!(
        matches!(ended, Err(JoinError::NotLetIn(Ending::Denied))),
        "{ended:?}"
    );
}
