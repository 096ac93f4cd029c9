//! Requests to the ledger from any machine: they reach whoever leads, also
//! when that changes while they are on their way, and nothing is done twice.

use std::{collections::BTreeSet, time::Duration};

use innermesh_agent::node::Agent;
use innermesh_proto::{
    ledger::{Content, Outcome},
    name::Label,
};
use simulations::{
    Machine, World, clock,
    mesh::{found_with_root, join, promote, until},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Three CA nodes, and a member that isn't one, last.
async fn mesh(seed: u64) -> (Vec<Machine>, Vec<Agent>) {
    let mut world = World::new(seed);
    let machines: Vec<Machine> = ["one", "two", "three", "four"]
        .map(|name| world.machine(name))
        .into();
    let (first, root) = found_with_root(&machines[0]).await;
    let mut agents = vec![first];
    for machine in &machines[1..] {
        let agent = join(machine, "one", &agents[0]).await;
        agents.push(agent);
    }
    for machine in &machines[1..3] {
        promote(&agents[0], &root, &machine.host).await.unwrap();
    }
    until(
        "three decide, and all are connected",
        PATIENCE,
        async || {
            let three = agents
                .iter()
                .all(|agent| agent.view().borrow().ledger.roster.len() == 3);
            three && agents.iter().all(|agent| agent.heads().len() == 3)
        },
    )
    .await;
    (machines, agents)
}

/// Which of the machines leads.
fn leader(agents: &[Agent]) -> Option<usize> {
    agents
        .iter()
        .position(|agent| agent.raft_status().borrow().leads)
}

fn name(number: usize) -> Label {
    format!("s{number}").parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_that_its_leader_dies_over_is_decided_once_by_the_next() {
    for seed in 1..=6 {
        let (mut machines, agents) = mesh(seed).await;
        let asker = agents[3].clone();
        let mut asked = tokio::task::JoinSet::new();
        let first = leader(&agents).expect("one leads");
        for number in 0..24 {
            let asker = asker.clone();
            asked.spawn(async move {
                // Some before, some in the very moment, some after.
                tokio::time::sleep(Duration::from_millis(5 * number as u64)).await;
                let content = Content::Claim(name(number));
                asker.ask(&content, Duration::from_secs(20)).await
            });
        }
        tokio::time::sleep(Duration::from_millis(40 + 7 * seed)).await;
        machines[first].crash().await;
        let begun = clock::now();
        let mut batches = BTreeSet::new();
        while let Some(outcome) = asked.join_next().await {
            match outcome.unwrap() {
                Ok(Outcome::Done(index)) => batches.insert(index),
                other => panic!("seed {seed}: {other:?}"),
            };
        }
        assert!(
            clock::now() - begun < Duration::from_secs(10),
            "seed {seed}"
        );
        let others = agents.iter().enumerate().filter(|(at, _)| *at != first);
        let leads = |(_, agent): (usize, &Agent)| agent.raft_status().borrow().leads;
        assert!(others.into_iter().any(leads), "seed {seed}");
        // What was answered is so, for the one that asked, in that batch.
        let ledger = asker.view().borrow().ledger.clone();
        let own = ledger.member_by_name(&"four".parse().unwrap()).unwrap().0;
        for number in 0..24 {
            let held = &ledger.names[&name(number)];
            assert_eq!(held.owner, own);
            assert!(batches.contains(&held.since), "seed {seed}: s{number}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_whoever_asks_is_told_so_in_time() {
    let (mut machines, agents) = mesh(1).await;
    let lead = leader(&agents).expect("one leads");
    for (number, machine) in machines.iter_mut().enumerate().take(3) {
        if number != lead {
            machine.crash().await;
        }
    }
    // From the leader itself, which doesn't know yet that it is alone, and from
    // the member that isn't a CA node.
    for asker in [&agents[lead], &agents[3]] {
        let begun = clock::now();
        let patience = Duration::from_secs(4);
        let asked = asker.ask(&Content::Claim(name(1)), patience).await;
        let error = asked.expect_err("nothing can be decided").to_string();
        assert!(error.contains("no CA node can be reached"), "{error}");
        let took = clock::now() - begun;
        assert!(took <= patience + Duration::from_secs(1), "{took:?}");
    }
}
