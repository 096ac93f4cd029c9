//! Who is live by the links that nodes have with their neighbours: the dead are noticed
//! soon, and who stands still or is cut off for a while takes nobody for dead by its own
//! clock alone.

use std::{net::SocketAddr, time::Duration};

use innermesh_agent::{
    control::node::{LiveBy, PeersRequest, PingRequest, StatusRequest},
    node::Agent,
};
use simulations::{
    Machine, World, clock,
    mesh::{found, join, meet, start, until},
    net::link::Link,
    stand_in::Place,
    world::PORT,
};

/// How long agents may take until all see each other.
const PATIENCE: Duration = Duration::from_secs(10);
/// From the last packet of a node to its being dead for all.
const DETECTION: Duration = Duration::from_millis(3500);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

const NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];

/// How many an agent takes for live, itself too.
fn live(agent: &Agent) -> usize {
    let view = agent.view().borrow().clone();
    view.nodes.values().filter(|node| node.live).count()
}

/// Waits until links are what the agents judge each other by.
async fn linked(agents: &[&Agent]) {
    let others = agents.len() - 1;
    until("all have links with all", PATIENCE, async || {
        let all = agents.iter();
        all.filter(|agent| live(agent) == others + 1 && whole(agent, others) == others)
            .count()
            == agents.len()
    })
    .await;
}

/// So many agents, `m0` and on, each of which joined by the first.
async fn mesh_of(world: &mut World, count: usize) -> (Vec<Machine>, Vec<Agent>) {
    let machines: Vec<_> = (0..count)
        .map(|n| world.machine(&format!("m{n}")))
        .collect();
    let mut agents = vec![found(&machines[0]).await];
    for machine in &machines[1..] {
        agents.push(join(machine, "m0", &agents[0]).await);
    }
    (machines, agents)
}

/// Of how many others an agent knows that they name so many links.
fn whole(agent: &Agent, links: usize) -> usize {
    agent.read_heads(|table| {
        let bodies = table.iter().filter_map(|(_, known)| known.body.as_ref());
        let named = bodies.filter_map(|body| body.links.as_ref());
        named.filter(|named| named.links.len() == links).count()
    })
}

/// How many others an agent takes for live because of links.
async fn by_links(agent: &Agent) -> usize {
    let peers = agent.control().ask(PeersRequest {}).await;
    let peers = peers.expect("the peers").into_iter();
    let by_links = [Some(LiveBy::Link), Some(LiveBy::Neighbours)];
    peers
        .filter(|peer| by_links.contains(&peer.live_by))
        .count()
}

/// The most links that one node names, of those that an agent knows.
fn most_links(agent: &Agent) -> usize {
    agent.read_heads(|table| {
        let bodies = table.iter().filter_map(|(_, known)| known.body.as_ref());
        let named = bodies.filter_map(|body| body.links.as_ref());
        named.map(|named| named.links.len()).max().unwrap_or(0)
    })
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_power_fails_is_dead_for_all_after_three_and_a_half_seconds() {
    for (seed, loss) in [(1, 0.0), (2, 0.0), (3, 0.1)] {
        let mut world = World::new(seed);
        let ([_a, _b, _c, _d, mut e], agents) = meet(&mut world, NAMES).await;
        linked(&agents.each_ref()).await;
        world.wire.set_usual(Link {
            latency_ms: 20,
            loss,
            ..Link::default()
        });
        tokio::time::sleep(Duration::from_secs(10)).await;
        let [first, second, third, fourth, fifth] = agents;
        e.crash().await;
        drop(fifth);
        let begin = clock::now();
        let left = [&first, &second, &third, &fourth];
        while left.iter().any(|agent| live(agent) != 4) {
            let took = clock::now() - begin;
            assert!(took < DETECTION, "seed {seed}: {took:?}");
            assert!(left.iter().all(|agent| live(agent) >= 4), "seed {seed}");
            tokio::time::sleep(LOOK).await;
        }
        let took = clock::now() - begin;
        assert!(took > Duration::from_secs(2), "seed {seed}: {took:?}");
        println!("seed {seed}, loss {loss}: dead for all after {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_starts_again_at_once_is_dead_for_nobody() {
    let mut world = World::new(4);
    let ([_one, mut two, _three], agents) = meet(&mut world, ["one", "two", "three"]).await;
    linked(&agents.each_ref()).await;
    let [first, second, third] = agents;
    two.crash().await;
    drop(second);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let again = start(&two).await;
    let begin = clock::now();
    while clock::now() < begin + Duration::from_secs(20) {
        assert_eq!(
            (live(&first), live(&third)),
            (3, 3),
            "{:?}",
            clock::now() - begin
        );
        tokio::time::sleep(LOOK).await;
    }
    linked(&[&first, &again, &third]).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_stands_still_again_and_again_takes_nobody_for_dead() {
    for (seed, long) in [(5, 3), (6, 8), (7, 20)] {
        let mut world = World::new(seed);
        let ([_one, two, _three], agents) = meet(&mut world, ["one", "two", "three"]).await;
        linked(&agents.each_ref()).await;
        let [first, second, third] = &agents;
        for round in 0..6 {
            two.still(Duration::from_secs(long), false);
            tokio::time::sleep(Duration::from_secs(long)).await;
            let begin = clock::now();
            while clock::now() < begin + Duration::from_secs(15) {
                let took = clock::now() - begin;
                let words = format!("seed {seed}, round {round}, after {took:?}");
                assert_eq!(live(second), 3, "{words}");
                // A link that fails again and again waits; who is heard isn't dead.
                if took > Duration::from_secs(5) {
                    assert_eq!((live(first), live(third)), (3, 3), "{words}");
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sides_of_a_split_see_each_other_again_soon_after_it_ends() {
    for (seed, long) in [(8, 10), (9, 14), (10, 60)] {
        let mut world = World::new(seed);
        let (machines, agents) = meet(&mut world, NAMES).await;
        linked(&agents.each_ref()).await;
        let (left, right) = machines.split_at(2);
        for (one, other) in left.iter().flat_map(|a| right.iter().map(move |b| (a, b))) {
            world.wire.cut(one.place, other.place);
            world.wire.cut(other.place, one.place);
        }
        until("each side is alone", Duration::from_secs(4), async || {
            let counts: Vec<usize> = agents.iter().map(live).collect();
            counts == [2, 2, 3, 3, 3]
        })
        .await;
        tokio::time::sleep(Duration::from_secs(long)).await;
        world.wire.heal();
        let begin = clock::now();
        until("all see all", Duration::from_secs(40), async || {
            agents.iter().all(|agent| live(agent) == 5)
        })
        .await;
        println!("{long} s: healed after {:?}", clock::now() - begin);
    }
}

#[tokio::test(start_paused = true)]
async fn a_mesh_in_which_not_all_have_links_with_all_notices_a_death_as_soon() {
    const MACHINES: usize = 16;
    let mut world = World::new(12);
    let (mut machines, mut agents) = mesh_of(&mut world, MACHINES).await;
    let others = MACHINES - 1;
    until("all are live by links for all", PATIENCE * 4, async || {
        for agent in &agents {
            if by_links(agent).await != others {
                return false;
            }
        }
        true
    })
    .await;
    // Links that nobody wants end after half a minute.
    until("nobody has links with all", PATIENCE * 4, async || {
        agents.iter().all(|agent| most_links(agent) < others)
    })
    .await;
    machines[others].crash().await;
    agents.truncate(others);
    let begin = clock::now();
    while agents.iter().any(|agent| live(agent) != others) {
        let took = clock::now() - begin;
        assert!(took < DETECTION, "{took:?}");
        assert!(agents.iter().all(|agent| live(agent) >= others));
        tokio::time::sleep(LOOK).await;
    }
    println!(
        "dead for all of {MACHINES} after {:?}",
        clock::now() - begin
    );
}

#[tokio::test(start_paused = true)]
async fn a_large_mesh_connects_whom_it_needs_and_others_when_they_are_asked() {
    const MACHINES: usize = 20;
    let mut world = World::new(13);
    let (_machines, agents) = mesh_of(&mut world, MACHINES).await;
    let others = MACHINES - 1;
    until("all are live by links for all", PATIENCE * 4, async || {
        for agent in &agents {
            if by_links(agent).await != others {
                return false;
            }
        }
        true
    })
    .await;
    // What was needed to join isn't any more after a minute.
    tokio::time::sleep(Duration::from_secs(100)).await;
    let mut connections = 0;
    for agent in &agents {
        assert_eq!(live(agent), MACHINES);
        connections += direct(agent).await.len();
    }
    println!("{connections} ends of connections");
    assert!(connections <= MACHINES * 10, "{connections}");
    let connected = direct(&agents[3]).await;
    let mut names = (4..MACHINES).map(|n| format!("m{n}"));
    let far = names.find(|name| !connected.contains(name));
    let far = far.expect("one without a connection");
    let ping = PingRequest {
        node: far.parse().expect("a name"),
        count: 1,
    };
    let reply = agents[3].control().ask(ping).await.expect("a reply");
    assert_eq!(reply.rtt_ms.len(), 1);
    assert!(direct(&agents[3]).await.contains(&far));
}

#[tokio::test(start_paused = true)]
async fn tunnels_are_kept_open_with_neighbours_alone_and_so_at_a_start() {
    const MACHINES: usize = 16;
    let mut world = World::new(14);
    let (mut machines, mut agents) = mesh_of(&mut world, MACHINES).await;
    let others = MACHINES - 1;
    until("nobody has links with all", PATIENCE * 8, async || {
        agents.iter().all(|agent| {
            let most = most_links(agent);
            live(agent) == MACHINES && most > 0 && most < others
        })
    })
    .await;
    let kept = |machine: &Machine| {
        let plan = machine.tunnel_plan();
        let peers = plan.peers.values();
        (
            plan.peers.len(),
            peers.filter(|peer| peer.keepalive_s.is_some()).count(),
        )
    };
    for (machine, agent) in machines.iter().zip(&agents) {
        until("the tunnel to follow the links", PATIENCE, async || {
            let peers = agent.control().ask(PeersRequest {}).await;
            let linked = peers.expect("the peers");
            let linked = linked.iter().filter(|peer| peer.linked).count();
            kept(machine) == (others, linked)
        })
        .await;
    }
    let last = agents.pop().expect("one of them");
    machines[others].crash().await;
    drop(last);
    let again = start(&machines[others]).await;
    let begin = clock::now();
    while clock::now() < begin + Duration::from_secs(20) {
        let (all, kept) = kept(&machines[others]);
        assert!(kept < others, "{kept} of {all}");
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(live(&again), MACHINES);
}

/// The members with which an agent has a connection.
async fn direct(agent: &Agent) -> Vec<String> {
    let peers = agent.control().ask(PeersRequest {}).await;
    let peers = peers.expect("the peers").into_iter();
    let direct = peers.filter(|peer| peer.endpoint.is_some());
    direct.map(|peer| peer.name).collect()
}

#[tokio::test(start_paused = true)]
async fn a_member_that_floods_with_packets_of_links_is_read_no_more_and_harms_nobody() {
    let mut world = World::new(11);
    let ([one, mut two, _three], agents) = meet(&mut world, ["one", "two", "three"]).await;
    linked(&agents.each_ref()).await;
    let [first, second, third] = agents;
    two.crash().await;
    drop(second);
    let place = Place::of(&two, first.view()).await;
    let to = SocketAddr::new(one.address, PORT);
    let node = place.transport.dial(to, None).await.expect("a connection");
    until("it is registered", PATIENCE, async || {
        place.transport.is_connected(node)
    })
    .await;
    for round in 0..200u32 {
        for packet in [&[1][..], &[1, 0xff, 0xff], &[9; 40], &[]] {
            place.transport.send_datagram(node, packet.to_vec().into());
        }
        if round.is_multiple_of(20) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let refused = async || {
        let control = first.control();
        let status = control.ask(StatusRequest {}).await;
        status.expect("a status").counters["link_packets_refused"]
    };
    // Those with another first byte are for newer builds.
    until("they are counted", PATIENCE, async || {
        refused().await == 400
    })
    .await;
    // Its transport acknowledges for as long as it may stand for its agent.
    tokio::time::sleep(DETECTION + Duration::from_secs(1)).await;
    assert_eq!((live(&first), live(&third)), (2, 2));
}
