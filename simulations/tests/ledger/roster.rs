//! Whole agents that decide together: promoted while they run, and whoever
//! leads lost again and again.

use std::time::Duration;

use innermesh_agent::{
    ca::Root,
    control::{ca::CaStatusRequest, services::ServiceAddRequest},
    host::key_files as keys,
    ledger::{VotingDisabled, client::SubmitError},
    node::Agent,
    services::Spec,
};
use innermesh_proto::ledger::{Content, Outcome, Refusal};
use simulations::{
    Machine, World, clock,
    mesh::{ask, found_with_root, join, promote, start, until},
};

const PATIENCE: Duration = Duration::from_secs(10);
/// In which a request that is asked when the leader dies is decided.
const GOES_ON: Duration = Duration::from_secs(3);

fn roster(agent: &Agent) -> usize {
    agent.view().borrow().ledger.roster.len()
}

fn holds(agent: &Agent, name: &str) -> bool {
    let label = name.parse().unwrap();
    agent.view().borrow().ledger.names.contains_key(&label)
}

/// Has a name asked for, once.
async fn granted(agent: &Agent, name: &str) -> bool {
    let spec = Spec::new(name.parse().unwrap(), 8080);
    let _ = agent.control().ask(ServiceAddRequest(spec)).await;
    holds(agent, name)
}

/// Three that decide, on the first three of the machines, and a member.
async fn mesh(machines: &[Machine; 4]) -> ([Agent; 3], Agent, Root) {
    let (first, root) = found_with_root(&machines[0]).await;
    let second = join(&machines[1], "one", &first).await;
    let third = join(&machines[2], "one", &first).await;
    let fourth = join(&machines[3], "one", &first).await;
    for machine in &machines[1..3] {
        promote(&first, &root, &machine.host).await.unwrap();
    }
    let agents = [first, second, third];
    until("all know a roster of three", PATIENCE, async || {
        agents
            .iter()
            .chain([&fourth])
            .all(|agent| roster(agent) == 3)
    })
    .await;
    (agents, fourth, root)
}

#[tokio::test(start_paused = true)]
async fn three_agents_decide_and_go_on_within_seconds_whoever_leads_is_lost() {
    let mut world = World::new(1);
    let mut machines = ["one", "two", "three", "four"].map(|name| world.machine(name));
    let (mut agents, fourth, _) = mesh(&machines).await;
    until(
        "a member that decides nothing gets a name",
        PATIENCE,
        async || granted(&fourth, "photos").await,
    )
    .await;

    for lost in 0..6 {
        let leader = agents
            .iter()
            .position(|agent| agent.raft_status().borrow().leads);
        let leader = leader.expect("one leads");
        machines[leader].crash().await;
        let begun = clock::now();
        let name = format!("films{lost}");
        assert!(
            granted(&fourth, &name).await,
            "{name} wasn't granted at once"
        );
        let took = clock::now() - begun;
        assert!(took < GOES_ON, "{name} took {took:?}");

        agents[leader] = start(&machines[leader]).await;
        until("it takes part again", PATIENCE, async || {
            let again = &agents[leader];
            holds(again, &name) && again.raft_status().borrow().leader.is_some()
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_the_last_word_while_a_silent_node_may_hold_the_request() {
    let mut world = World::new(4);
    let machines = ["one", "two", "three", "four"].map(|name| world.machine(name));
    let (agents, fourth, _) = mesh(&machines).await;
    until("one has it", PATIENCE, async || {
        granted(&agents[0], "photos").await
    })
    .await;
    let claim = Content::Claim("photos".parse().unwrap());
    let refused = fourth.ask(&claim, PATIENCE).await;
    assert!(
        matches!(&refused, Ok(Outcome::Refused(Refusal::NameTaken { .. }))),
        "{refused:?}"
    );

    let leader = agents
        .iter()
        .position(|agent| agent.raft_status().borrow().leads);
    let leader = leader.expect("one leads");
    for other in (0..machines.len()).filter(|other| *other != leader) {
        world
            .wire
            .cut(machines[leader].place, machines[other].place);
        world
            .wire
            .cut(machines[other].place, machines[leader].place);
    }
    let refused = fourth.ask(&claim, PATIENCE).await;
    assert!(
        matches!(
            &refused,
            Err(SubmitError::Unsettled(Refusal::NameTaken { .. }))
        ),
        "{refused:?}"
    );
    world.wire.heal();
    until("it is told for certain again", PATIENCE, async || {
        matches!(fourth.ask(&claim, PATIENCE).await, Ok(Outcome::Refused(_)))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_ca_node_that_was_put_back_votes_no_more_until_it_is_promoted_again() {
    let mut world = World::new(2);
    let mut machines = ["one", "two", "three", "four"].map(|name| world.machine(name));
    let (mut agents, fourth, root) = mesh(&machines).await;
    machines[2].disk.snapshot();
    // What it announces from now on, it won't remember.
    for name in ["photos", "films"] {
        assert!(granted(&agents[2], name).await);
    }
    until("all have heard it", PATIENCE, async || {
        [&agents[0], &agents[1], &fourth]
            .iter()
            .all(|agent| holds(agent, "films"))
    })
    .await;
    machines[2].crash().await;
    assert!(machines[2].disk.restore());
    agents[2] = start(&machines[2]).await;
    let barred = |agent: &Agent| agent.raft_status().borrow().disabled.clone();
    until("it notices", PATIENCE, async || {
        barred(&agents[2]) == Some(VotingDisabled::RolledBack)
    })
    .await;
    assert!(!agents[2].raft_status().borrow().votes);
    let told = agents[2].control().ask(CaStatusRequest {}).await.unwrap();
    assert!(
        told.warnings
            .iter()
            .any(|why| why.contains("older than what it has done")),
        "{:?}",
        told.warnings
    );
    // The two others decide, and two are enough to put it right.
    assert!(granted(&fourth, "music").await);
    let third = keys::require_identity(&machines[2].host).await.unwrap();
    let third = third.public().node_id();
    // It gives its seat up by itself; from another two admins take it, or the root.
    ask(&agents[2], &Content::Demote(third)).await.unwrap();
    promote(&agents[0], &root, &machines[2].host).await.unwrap();
    until("it votes again", PATIENCE, async || {
        let council = agents[2].raft_status().borrow().clone();
        council.votes && council.disabled.is_none()
    })
    .await;
}
