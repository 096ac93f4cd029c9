//! Members have their places among their neighbours, by the ledger alone.

use std::{collections::BTreeMap, time::Duration};

use innermesh_agent::node::Agent;
use innermesh_proto::{crypto::Hash, id::NodeId};
use simulations::{
    World,
    mesh::{join, meet, until},
};

const SECONDS: Duration = Duration::from_secs(3);

/// By what each member is placed, as an agent sees it; without those that aren't.
fn places(agent: &Agent) -> BTreeMap<NodeId, Hash> {
    let ledger = agent.view().borrow().ledger.clone();
    let members = ledger.members.keys();
    let placed = members.filter_map(|node| Some((*node, ledger.batch_after(node)?)));
    placed.collect()
}

async fn placed(agents: &[&Agent], count: usize) {
    until("all have a place", SECONDS, async || {
        let first = places(agents[0]);
        first.len() == count && agents.iter().all(|agent| places(agent) == first)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn all_have_their_places_within_seconds_of_a_join_and_each_join_has_one_empty_batch() {
    let mut world = World::new(1);
    let (_machines, [first, second]) = meet(&mut world, ["one", "two"]).await;
    placed(&[&first, &second], 2).await;
    let before = places(&first);
    let mut batches = first.batches();
    let third = world.machine("three");
    let third = join(&third, "one", &first).await;
    let all = [&first, &second, &third];
    placed(&all, 3).await;
    // Those that were there stay where they were.
    assert!(
        before
            .iter()
            .all(|place| places(&third).get(place.0) == Some(place.1))
    );

    tokio::time::sleep(20 * SECONDS).await;
    let written = std::iter::from_fn(|| batches.try_recv().ok());
    let empty = written.filter(|batch| batch.entries.is_empty());
    assert_eq!(empty.count(), 1, "none follows the empty one");
}
