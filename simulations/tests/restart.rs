//! A mesh whose machines all start at once, while the seed that all joined by and the only
//! CA node isn't there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::join_all;
use innermesh_agent::{control::node::StatusRequest, node::Agent};
use innermesh_proto::{id::NodeId, links::key};
use simulations::{
    Machine, World, clock,
    mesh::{found, join, start, until},
};

/// All but the seed; more than those among which all have links with all.
const MACHINES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// How many an agent takes for live, itself too.
fn live(agent: &Agent) -> usize {
    let view = agent.view().borrow().clone();
    view.nodes.values().filter(|node| node.live).count()
}

/// Whom each names as its neighbours, as one agent holds it.
fn named(agent: &Agent) -> BTreeMap<NodeId, BTreeSet<u64>> {
    agent.read_heads(|table| {
        let known = table.iter().map(|(node, known)| {
            let links = known.body.as_ref().and_then(|body| body.links.as_ref());
            let peers = links.map(|named| named.links.keys().copied().collect());
            (*node, peers.unwrap_or_default())
        });
        known.collect()
    })
}

/// Makes the mesh, waits until nobody has links with all, and stops all. Gives the
/// machines, the seed first, with their nodes, and whom each named.
async fn stopped(world: &mut World) -> (Vec<(Machine, NodeId)>, BTreeMap<NodeId, BTreeSet<u64>>) {
    let names: Vec<String> = (0..=MACHINES).map(|n| format!("m{n}")).collect();
    let machines: Vec<Machine> = names.iter().map(|name| world.machine(name)).collect();
    let mut agents = vec![found(&machines[0]).await];
    for machine in &machines[1..] {
        agents.push(join(machine, "m0", &agents[0]).await);
    }
    until("all see all", PATIENCE, async || {
        agents.iter().all(|agent| live(agent) == MACHINES + 1)
    })
    .await;
    // Links that nobody wants end, and connections without any.
    tokio::time::sleep(2 * PATIENCE).await;
    let named = named(&agents[0]);
    join_all(agents.iter().map(Agent::stop)).await;
    let nodes = agents.iter().map(|agent| agent.view().borrow().me);
    let nodes: Vec<NodeId> = nodes.collect();
    drop(agents);
    let mut of = Vec::new();
    for (mut machine, node) in machines.into_iter().zip(nodes) {
        machine.crash().await;
        of.push((machine, node));
    }
    let (seed, others) = of.split_first().expect("a seed");
    for (other, _) in others {
        world.wire.cut(seed.0.place, other.place);
        world.wire.cut(other.place, seed.0.place);
    }
    (of, named)
}

#[tokio::test(start_paused = true)]
async fn machines_that_start_at_once_connect_with_few_and_see_all_soon() {
    let mut world = World::new(21);
    let (machines, _) = stopped(&mut world).await;
    let begin = clock::now();
    let starting = machines[1..].iter().map(|(machine, _)| start(machine));
    let agents = join_all(starting).await;
    until("all see all", Duration::from_secs(2), async || {
        agents.iter().all(|agent| live(agent) == MACHINES)
    })
    .await;
    println!("all see all after {:?}", clock::now() - begin);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut dials = 0;
    for agent in &agents {
        let status = agent.control().ask(StatusRequest {}).await;
        dials += status.expect("a status").counters["dials"];
    }
    println!("{dials} connections dialed");
    // Eight neighbours each, and some that both ends dial.
    assert!(dials <= MACHINES as u64 * 5, "{dials}");
}

#[tokio::test(start_paused = true)]
async fn two_that_start_alone_and_are_no_neighbours_find_each_other() {
    let mut world = World::new(22);
    let (machines, named) = stopped(&mut world).await;
    let others = &machines[1..];
    let pairs = others
        .iter()
        .flat_map(|one| others.iter().map(move |two| (one, two)));
    let mut apart =
        pairs.filter(|(one, two)| one.1 != two.1 && !named[&one.1].contains(&key(&two.1)));
    let (one, two) = apart.next().expect("two that aren't neighbours");
    let begin = clock::now();
    let (first, second) = (start(&one.0).await, start(&two.0).await);
    until("both see each other", Duration::from_secs(20), async || {
        live(&first) == 2 && live(&second) == 2
    })
    .await;
    println!("both see each other after {:?}", clock::now() - begin);
}
