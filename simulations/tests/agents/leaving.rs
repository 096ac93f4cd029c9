//! Leaving a mesh that is busy: whoever has left knows it.

use std::time::Duration;

use innermesh_agent::control::node::{LeaveRequest, LeaveState};
use innermesh_proto::ledger::Content;
use simulations::{
    World,
    mesh::{ask, meet, start, until},
};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn whoever_leaves_while_much_is_decided_knows_that_it_has_left() {
    for seed in 1..=8 {
        let mut world = World::new(seed);
        let (_machines, agents) = meet(&mut world, ["one", "two", "three"]).await;
        let [first, second, third] = agents;
        let busy = second.clone();
        let load = tokio::spawn(async move {
            for number in 0.. {
                let name = format!("s{}", number % 500).parse().unwrap();
                let _ = ask(&busy, &Content::Claim(name)).await;
            }
        });
        tokio::time::sleep(Duration::from_millis(100 + seed)).await;
        let left = third.control().ask(LeaveRequest {}).await;
        let left = left.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(left.state, LeaveState::Left);
        tokio::time::timeout(PATIENCE, third.left())
            .await
            .expect("its agent is to end");
        load.abort();
        until("the others to see it", PATIENCE, async || {
            first.view().borrow().ledger.members.len() == 2
                && second.view().borrow().ledger.members.len() == 2
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_missed_that_it_has_left_finds_out_when_it_leaves_again() {
    let mut world = World::new(1);
    let ([_one, mut two], [_first, second]) = meet(&mut world, ["one", "two"]).await;
    // It leaves, and goes back to what it knew before.
    two.disk.snapshot();
    ask(&second, &Content::Leave).await.unwrap();
    two.crash().await;
    assert!(two.disk.restore());
    let again = start(&two).await;
    assert_eq!(again.view().borrow().ledger.members.len(), 2);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let left = again
        .control()
        .ask(LeaveRequest {})
        .await
        .expect("it has left");
    assert_eq!(left.state, LeaveState::Left);
    tokio::time::timeout(PATIENCE, again.left())
        .await
        .expect("its agent is to end");
}

#[tokio::test(start_paused = true)]
async fn gossip_forgets_a_node_that_has_left() {
    let mut world = World::new(1);
    let (_machines, agents) = meet(&mut world, ["one", "two", "three"]).await;
    let [first, second, third] = &agents;
    ask(third, &Content::Leave).await.expect("it may leave");
    until("the others to forget it", PATIENCE, async || {
        [first, second].iter().all(|agent| agent.heads().len() == 1)
    })
    .await;
}
