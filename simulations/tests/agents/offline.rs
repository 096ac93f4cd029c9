//! `agent ca recover --offline`: a survivor goes on by the root's word while its
//! agent doesn't run.

use std::{collections::BTreeSet, path::Path, time::Duration};

use innermesh_agent::{
    host::Disk,
    node::{Agent, Offline, OfflineError},
};
use innermesh_proto::{id::NodeId, ledger::Content};
use simulations::{
    World,
    mesh::{ask, found_with_root, join, meet, promote, signed, start, until},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn roster(agent: &Agent) -> BTreeSet<NodeId> {
    agent.view().borrow().ledger.roster.clone()
}

#[tokio::test(start_paused = true)]
async fn one_of_three_goes_on_alone_from_its_folder_and_the_others_follow() {
    let mut world = World::new(1);
    let mut machines = ["one", "two", "three", "four"].map(|name| world.machine(name));
    let (first, root) = found_with_root(&machines[0]).await;
    let mut others = Vec::new();
    for machine in &machines[1..] {
        others.push(join(machine, "one", &first).await);
    }
    for machine in &machines[1..3] {
        promote(&first, &root, &machine.host).await.unwrap();
    }
    until("three decide", PATIENCE, async || {
        others.iter().all(|agent| roster(agent).len() == 3)
    })
    .await;
    until("all have met", PATIENCE, async || {
        others.iter().all(|agent| agent.heads().len() == 3)
    })
    .await;
    // As long as an agent runs it is to be asked.
    let refused = Offline::open(&machines[2].host).await.err();
    assert!(
        matches!(refused, Some(OfflineError::Runs(_))),
        "{refused:?}"
    );

    tokio::time::sleep(Duration::from_secs(5)).await;
    let me = others[1].view().borrow().me;
    drop((first, others.remove(0), others.remove(0)));
    for machine in &mut machines[..3] {
        machine.crash().await;
    }
    let offline = Offline::open(&machines[2].host).await.unwrap();
    let asked = offline.asked().clone();
    assert_eq!((asked.node.as_str(), asked.roster.len()), ("three", 3));
    assert_eq!(asked.ahead, [""; 0]);
    let recovery = signed(&root, &asked.recovery.0).unwrap();
    offline.recover(recovery).await.unwrap();
    machines[2].crash().await;

    let third = start(&machines[2]).await;
    assert_eq!(roster(&third), [me].into());
    until("it decides", PATIENCE, async || {
        ask(&third, &Content::Claim("photos".parse().unwrap()))
            .await
            .is_ok()
    })
    .await;
    until("the member follows", PATIENCE, async || {
        roster(&others[0]) == [me].into()
            && others[0].view().borrow().ledger.position == third.view().borrow().ledger.position
    })
    .await;
    // A second time there is nothing that was lost.
    drop(third);
    machines[2].crash().await;
    let refused = Offline::open(&machines[2].host).await.err();
    assert!(
        matches!(refused, Some(OfflineError::DecidesAlone)),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_further_ledgers_is_told_before_anything_is_signed() {
    let mut world = World::new(2);
    let (mut machines, [first, second]) = meet(&mut world, ["one", "two"]).await;
    // Its own file lost batches that it had, and a peer had more than that.
    tokio::time::sleep(Duration::from_secs(700)).await;
    ask(&first, &Content::Claim("photos".parse().unwrap()))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(700)).await;
    // What is known of peers is written down at the latest now.
    second.stop().await;
    drop((first, second));
    for machine in &mut machines {
        machine.crash().await;
    }
    let path = Path::new("ledger");
    let whole = machines[1].disk.read(path).await.unwrap().unwrap();
    let cut = whole.len() - 40;
    machines[1].disk.replace(path, &whole[..cut]).await.unwrap();
    let offline = Offline::open(&machines[1].host).await.unwrap();
    let ahead = offline.asked().ahead.join(", ");
    assert!(ahead.contains("one (batch"), "{ahead}");
    assert!(
        ahead.contains("this machine before its files were damaged"),
        "{ahead}"
    );
}
