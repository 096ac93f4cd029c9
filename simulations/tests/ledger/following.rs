//! A member that claims a place in the ledger that nobody has come to, and
//! answers whoever believes it as slowly as it may: it stops nobody.

use std::{net::SocketAddr, time::Duration};

use innermesh_agent::node::Agent;
use innermesh_proto::{ledger::Content, zone::RecordType};
use simulations::{
    Machine, World,
    byzantine::{Byzantine, Lie},
    clock,
    mesh::{DOMAIN, ask, is_denied, meet, start, until},
    world::PORT,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn index(agent: &Agent) -> u64 {
    agent.view().borrow().ledger.position.index
}

fn at(machine: &Machine) -> SocketAddr {
    SocketAddr::new(machine.address, PORT)
}

/// Who decides, one that is to be lied to, and a member that lies.
struct Scene {
    world: World,
    machines: [Machine; 2],
    first: Agent,
    second: Option<Agent>,
    liar: Byzantine,
}

impl Scene {
    async fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let (machines, agents) = meet(&mut world, ["one", "two", "liar"]).await;
        let ([one, two, mut three], [first, second, third]) = (machines, agents);
        three.crash().await;
        let liar = Byzantine::new(&three, &third).await;
        Self {
            world,
            machines: [one, two],
            first,
            second: Some(second),
            liar,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_meets_a_liar_first_is_caught_up_within_five_seconds() {
    let mut scene = Scene::new(1).await;
    drop(scene.second.take());
    scene.machines[1].crash().await;
    ask(&scene.first, &Content::Claim("photos".parse().unwrap()))
        .await
        .unwrap();
    let wanted = index(&scene.first);

    let wire = scene.world.wire.clone();
    let [one, two] = [0, 1].map(|number| scene.machines[number].place);
    wire.cut(one, two);
    wire.cut(two, one);
    let back = start(&scene.machines[1]).await;
    assert!(index(&back) < wanted);
    let asked = scene.liar.asked();
    until("it asks the liar", PATIENCE, async || {
        scene
            .liar
            .tell(at(&scene.machines[1]), Lie::EndlessSnapshot)
            .await;
        asked.heads() > 0
    })
    .await;
    let healed = clock::now();
    wire.heal();
    let caught_up = async {
        until("it has caught up", PATIENCE, async || {
            index(&back) >= wanted
        })
        .await
    };
    let lies = async {
        loop {
            let to = at(&scene.machines[1]);
            scene.liar.tell(to, Lie::EndlessSnapshot).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        _ = caught_up => {}
        () = lies => {}
    }
    let took = clock::now() - healed;
    assert!(took <= Duration::from_secs(5), "{took:?}");
    assert_eq!(asked.parts(), 0, "a header without a proof was believed");
}

#[tokio::test(start_paused = true)]
async fn a_liar_that_is_no_further_than_a_node_does_not_end_its_loading() {
    let mut scene = Scene::new(4).await;
    drop(scene.second.take());
    scene.machines[1].crash().await;
    ask(&scene.first, &Content::Claim("photos".parse().unwrap()))
        .await
        .unwrap();
    let wanted = index(&scene.first);
    let wire = scene.world.wire.clone();
    let [one, two] = [0, 1].map(|number| scene.machines[number].place);
    wire.cut(one, two);
    wire.cut(two, one);
    let back = start(&scene.machines[1]).await;
    let began = clock::now();
    // Its own head, at the place that the node had come to.
    let to = at(&scene.machines[1]);
    until("its head was taken", Duration::from_secs(3), async || {
        scene.liar.tell(to, Lie::StolenKey).await;
        let view = back.view().borrow().clone();
        let mut nodes = view.nodes.iter();
        nodes.any(|(node, seen)| *node != view.me && seen.ledger_caught_up)
    })
    .await;
    while clock::now() < began + Duration::from_secs(4) {
        assert!(!is_denied(&back, "photos").await, "a name in force");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    wire.heal();
    until("it has caught up", PATIENCE, async || {
        index(&back) >= wanted
    })
    .await;
    assert!(!is_denied(&back, "photos").await);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_proves_false_is_looked_at_less_and_less() {
    let mut scene = Scene::new(2).await;
    let asked = scene.liar.asked();
    let to = at(&scene.machines[1]);
    for _ in 0..240 {
        scene.liar.tell(to, Lie::EndlessSnapshot).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // Two minutes of lies, twice a second.
    let heads = asked.heads();
    assert!((1..=20).contains(&heads), "{heads}");
    assert_eq!(asked.parts(), 0);
    // Nobody else was left out for it.
    ask(&scene.first, &Content::Claim("photos".parse().unwrap()))
        .await
        .unwrap();
    let second = scene.second.as_ref().unwrap();
    until("it follows", Duration::from_secs(2), async || {
        index(second) >= index(&scene.first)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_not_known_here_is_denied_unless_the_roster_signed_what_is_lacking() {
    let mut scene = Scene::new(3).await;
    let second = scene.second.as_ref().unwrap();
    let to = at(&scene.machines[1]);
    until("nothing is being learned", PATIENCE, async || {
        is_denied(second, "photos").await
    })
    .await;
    // A claim alone changes nothing.
    for _ in 0..50 {
        scene.liar.tell(to, Lie::EndlessSnapshot).await;
        scene.liar.tell(to, Lie::FarAhead).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(is_denied(second, "photos").await);
    }
    // Its disk takes nothing more: it hears of what it can't take.
    scene.machines[1].disk.set_free(Some(1000));
    ask(&scene.first, &Content::Claim("photos".parse().unwrap()))
        .await
        .unwrap();
    let name: innermesh_proto::zone::DomainName = format!("photos.{DOMAIN}").parse().unwrap();
    let rcode = async || second.dns().query(&name, RecordType::A).await.rcode;
    until("it can't tell", PATIENCE, async || {
        rcode().await == "SERVFAIL"
    })
    .await;
    assert!(index(second) < index(&scene.first));
    scene.machines[1].disk.set_free(None);
    until("it has caught up", PATIENCE, async || {
        index(second) == index(&scene.first)
    })
    .await;
    assert_ne!(rcode().await, "SERVFAIL");
    assert!(is_denied(second, "films").await);
}
