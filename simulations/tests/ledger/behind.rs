//! Whole agents that come to a mesh whose ledger has grown past what the peers
//! that they can reach still hold, batch by batch.

use std::time::Duration;

use innermesh_agent::{ledger::loading, node::Agent};
use innermesh_proto::{ledger::batch::STATE_HASH_INTERVAL, limits};
use simulations::{
    Machine, World,
    mesh::{invite, join_with, meet, start, until, write_batches},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// The batch with which a ledger's file is made shorter.
const GROWN: u64 = STATE_HASH_INTERVAL.next_multiple_of(limits::LEDGER_KEPT) + limits::LEDGER_KEPT;

fn index(agent: &Agent) -> u64 {
    agent.view().borrow().ledger.position.index
}

/// Where the ledger's file on a machine begins.
async fn base(machine: &Machine) -> u64 {
    let contents = loading::load(&machine.disk).await.unwrap();
    let at = contents.start.map(|start| start.at.position().unwrap());
    at.map_or(0, |at| at.index)
}

#[tokio::test(start_paused = true)]
async fn who_was_away_or_asked_in_long_ago_takes_a_state_from_a_member() {
    let mut world = World::new(1);
    let names = ["one", "two", "three"];
    let (mut machines, [first, second, away]) = meet(&mut world, names).await;
    // The invite says where the ledger was: long before what is left of it.
    let old = invite(&first).await.unwrap();
    machines[2].crash().await;
    drop(away);
    write_batches(&[&first, &second], GROWN + 5 - index(&first)).await;
    until("the member follows", PATIENCE, async || {
        index(&second) >= GROWN + 5
    })
    .await;
    assert!(base(&machines[1]).await > 0);

    let new = world.machine("four");
    let fourth = join_with(&new, "two", old).await.unwrap();
    assert!(base(&new).await > 0, "it began with a state");
    until("they have met", PATIENCE, async || {
        fourth.heads().len() == 2
    })
    .await;
    until("the member knows it", PATIENCE, async || {
        index(&second) == index(&first)
    })
    .await;

    // Only the member that dropped the past is there for the one that was away.
    let wanted = first.view().borrow().ledger.position;
    machines[0].crash().await;
    drop(first);
    let back = start(&machines[2]).await;
    assert!(index(&back) < GROWN);
    until("it has caught up", PATIENCE, async || {
        back.view().borrow().ledger.position == wanted
    })
    .await;
    assert!(base(&machines[2]).await > 0, "it took a state");
}
