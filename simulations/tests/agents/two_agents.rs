//! Whole agents in a simulated world: made, joined and run by the same calls
//! as the program's, with nothing but the host between them and it.

use std::time::Duration;

use innermesh_agent::{
    control::services::{ServiceAddRequest, ServiceRmRequest},
    services::Spec,
};
use simulations::{
    Machine, World,
    mesh::{addresses, found, join, resolve, routed, start, until},
};

/// How long agents may take until they know each other, in simulated time.
const PATIENCE: Duration = Duration::from_secs(2);

#[tokio::test(start_paused = true)]
async fn two_agents_resolve_each_other_and_have_routes_to_each_other() {
    let mut world = World::new(1);
    let (one, two) = (world.machine("one"), world.machine("two"));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    until("both resolve the other's name", PATIENCE, async || {
        resolve(&first, "two").await == addresses(&second)
            && resolve(&second, "one").await == addresses(&first)
    })
    .await;
    assert_eq!(addresses(&first).len(), 2);
    until("both have routes to the other", PATIENCE, async || {
        routed(&one) == addresses(&second) && routed(&two) == addresses(&first)
    })
    .await;
    let endpoints = |machine: &Machine| {
        let plan = machine.tunnel_plan();
        let peers = plan.peers.values();
        peers.filter_map(|peer| peer.endpoint).collect::<Vec<_>>()
    };
    assert_eq!(endpoints(&one), [(two.address, 51820).into()]);
    assert_eq!(endpoints(&two), [(one.address, 51820).into()]);
}

#[tokio::test(start_paused = true)]
async fn a_machine_joins_through_a_member_that_decides_nothing() {
    let mut world = World::new(2);
    let machines = ["one", "two", "three"].map(|name| world.machine(name));
    let first = found(&machines[0]).await;
    let second = join(&machines[1], "one", &first).await;
    let third = join(&machines[2], "two", &first).await;
    for (agent, name, of) in [(&first, "three", &third), (&third, "two", &second)] {
        until("every pair resolves", PATIENCE, async || {
            resolve(agent, name).await == addresses(of)
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_is_resolved_everywhere_and_its_name_has_one_owner() {
    let mut world = World::new(3);
    let (one, two) = (world.machine("one"), world.machine("two"));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    let photos = || Spec::new("photos".parse().unwrap(), 8080);
    until("the leader is reached", PATIENCE, async || {
        second
            .control()
            .ask(ServiceAddRequest(photos()))
            .await
            .is_ok()
            && resolve(&second, "photos").await == addresses(&second)
    })
    .await;
    until("the other resolves it", PATIENCE, async || {
        resolve(&first, "photos").await == addresses(&second)
    })
    .await;

    // A name that is taken is pending, and asking for it again and again
    // would fill the ledger.
    let added = first
        .control()
        .ask(ServiceAddRequest(photos()))
        .await
        .unwrap();
    assert!(
        added.reason.unwrap().contains("taken by two"),
        "and by whom"
    );
    let position = || first.view().borrow().ledger.position;
    let before = position();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(position(), before);

    // Given back, it goes to the one who waits.
    let name = "photos".parse().unwrap();
    second
        .control()
        .ask(ServiceRmRequest {
            name,
            release: true,
        })
        .await
        .unwrap();
    until("the next owner's is resolved", PATIENCE, async || {
        resolve(&second, "photos").await == addresses(&first)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_stops_is_known_to_be_gone_at_once() {
    let mut world = World::new(4);
    let (one, two) = (world.machine("one"), world.machine("two"));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    let live = || {
        let view = first.view().borrow().clone();
        view.nodes.values().filter(|node| node.live).count()
    };
    until("both are live", PATIENCE, async || live() == 2).await;
    second.stop().await;
    // Long before its lease is over.
    until("one is live", Duration::from_millis(100), async || {
        live() == 1
    })
    .await;
    assert_eq!(resolve(&first, "two").await, addresses(&second));
    assert_eq!(routed(&one), addresses(&second));
}

#[tokio::test(start_paused = true)]
async fn ledger_time_goes_on_while_nothing_happens() {
    let mut world = World::new(5);
    let one = world.machine("one");
    let agent = found(&one).await;
    let index = || agent.view().borrow().ledger.position.index;
    assert_eq!(index(), 0);
    // By then it has its certificate for ACME.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let first = index();
    for hour in 1..=2 {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        until("an hourly batch", PATIENCE, async || {
            index() == first + hour
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_power_fails_comes_back_by_itself() {
    let mut world = World::new(6);
    let (one, mut two) = (world.machine("one"), world.machine("two"));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    let expected = addresses(&second);
    two.crash().await;
    drop(second);
    let second = start(&two).await;
    until("the two know each other", PATIENCE, async || {
        resolve(&first, "two").await == expected
            && resolve(&second, "one").await == addresses(&first)
            && routed(&two) == addresses(&first)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_mended_in_time_although_the_view_changes_all_the_time() {
    /// Less than the tunnel is looked at in.
    const BETWEEN: Duration = Duration::from_secs(3);
    let mut world = World::new(7);
    let (one, two) = (world.machine("one"), world.machine("two"));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    until("a route to the other", PATIENCE, async || {
        routed(&one) == addresses(&second)
    })
    .await;
    let plan = one.tunnel_plan();
    let key = *plan.peers.keys().next().unwrap();
    let is_peer = || one.shake(key, (two.address, 51820).into());
    assert!(is_peer());
    one.lose_peer(key);
    assert!(!is_peer());
    for port in 8080..8085 {
        let version = first.view().borrow().version;
        let service = Spec::new("photos".parse().unwrap(), port);
        second
            .control()
            .ask(ServiceAddRequest(service))
            .await
            .unwrap();
        until("the next view", PATIENCE, async || {
            first.view().borrow().version > version
        })
        .await;
        tokio::time::sleep(BETWEEN).await;
    }
    assert!(is_peer(), "it was put off");
}
