//! Where nobody answers little is sent, whoever says that a peer is there.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use innermesh_agent::{
    enroll::{self, JoinOptions},
    node::Agent,
};
use innermesh_proto::limits;
use simulations::{
    World, clock,
    mesh::{found, invite, join, until},
    world::PORT,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Between two datagrams of one handshake that nobody answers there is less, and
/// between two handshakes with one port there is more.
const APART: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn an_address_that_never_answers_is_left_alone_longer_and_longer_whoever_announces_it() {
    let mut world = World::new(1);
    let [one, two, victim] = ["one", "two", "victim"].map(|name| world.machine(name));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    // Three members say that they are at each of sixteen ports of a stranger.
    let mut liars = ["a", "b", "c"].map(|name| world.machine(name));
    let mut agents = Vec::new();
    for liar in &liars {
        let options = JoinOptions {
            seed: "one".into(),
            token: invite(&first).await.unwrap(),
            name: liar.name.parse().unwrap(),
            interface: "im0".into(),
        };
        enroll::join(&liar.host, options).await.unwrap();
        let mut config = liar.config();
        config.advertise = (0..limits::ENDPOINTS as u16)
            .map(|number| SocketAddr::new(victim.address, PORT + number))
            .collect();
        let agent = Agent::build(config, liar.host.clone()).await.unwrap();
        agents.push(agent);
    }
    until("all are known", PATIENCE, async || {
        [&first, &second]
            .iter()
            .all(|agent| agent.heads().len() == 4)
    })
    .await;
    let dials = Arc::new(AtomicU64::new(0));
    let (counted, at, by) = (dials.clone(), victim.address, two.address);
    let mut newest = BTreeMap::new();
    world.wire.observe(Box::new(move |passing| {
        if passing.to.ip() == at && passing.from.ip() == by {
            let now = clock::now();
            let before = newest.insert(passing.to.port(), now);
            if before.is_none_or(|before| now - before > APART) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    for liar in &mut liars {
        liar.crash().await;
    }
    // Until the others miss them, and the pauses have grown.
    tokio::time::sleep(3 * MINUTE).await;
    assert!(dials.load(Ordering::Relaxed) > 0, "nothing was dialed");
    dials.store(0, Ordering::Relaxed);
    let minutes = 10;
    tokio::time::sleep(minutes * MINUTE).await;
    let dials = dials.load(Ordering::Relaxed);
    // At most two pauses of the longest kind fit into a minute with the dials
    // between them, each with so many ports.
    let most = 3 * limits::DIALED_PORTS as u64 * u64::from(minutes);
    assert!(dials <= most, "{dials} dials in {minutes} minutes");
}
