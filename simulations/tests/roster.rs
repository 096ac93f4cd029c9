//! Whole agents that decide together: promoted while they run, and one of them
//! lost.

use std::time::Duration;

use innermesh_agent::{
    ca::{Root, recovery},
    enroll::{self, InitOptions, init::RECOVERY, keys},
    host::Disk,
    mesh::Agent,
    services::Spec,
};
use innermesh_proto::ledger::{Content, Outcome, request::Promote};
use simulations::{
    Machine, World,
    mesh::{DOMAIN, join, start, until},
    world::START_MS,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A mesh, and its root.
async fn found(machine: &Machine) -> (Agent, Root) {
    let options = InitOptions {
        domain: DOMAIN.parse().unwrap(),
        name: machine.name.parse().unwrap(),
        ipv4: None,
        interface: "im0".into(),
    };
    let report = enroll::init(&machine.host, options).await.unwrap();
    let sealed = machine.disk.read(RECOVERY.as_ref()).await.unwrap();
    let sealed = String::from_utf8(sealed.unwrap()).unwrap();
    let root = recovery::open(&sealed, &report.passphrase, &*machine.host.keys);
    (start(machine).await, root.unwrap())
}

async fn promote(admin: &Agent, root: &Root, machine: &Machine) {
    let host = &machine.host;
    let issuer = host.keys.generate_p256();
    keys::store_issuer(host, &*issuer).await.unwrap();
    let der = root.issuer(&issuer.spki(), START_MS, &*host.keys).unwrap();
    let node = keys::require_identity(host).await.unwrap();
    let content = Content::Promote(Promote {
        node: node.public().node_id(),
        issuers: vec![der],
    });
    let outcome = admin.ask(&content, PATIENCE).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

fn roster(agent: &Agent) -> usize {
    agent.view().borrow().ledger.roster.len()
}

async fn granted(agent: &Agent, name: &str) -> bool {
    let spec = Spec::new(name.parse().unwrap(), 8080);
    let _ = agent.control().service_add(spec).await;
    let label = name.parse().unwrap();
    agent.view().borrow().ledger.names.contains_key(&label)
}

#[tokio::test(start_paused = true)]
async fn three_agents_decide_and_go_on_when_the_leader_is_lost() {
    let mut world = World::new(1);
    let mut machines = ["one", "two", "three", "four"].map(|name| world.machine(name));
    let (first, root) = found(&machines[0]).await;
    let second = join(&machines[1], "one", &first).await;
    let third = join(&machines[2], "one", &first).await;
    let fourth = join(&machines[3], "one", &first).await;
    promote(&first, &root, &machines[1]).await;
    promote(&first, &root, &machines[2]).await;
    let agents = [&first, &second, &third, &fourth];
    until("all know a roster of three", PATIENCE, async || {
        agents.iter().all(|agent| roster(agent) == 3)
    })
    .await;
    until(
        "a member that decides nothing gets a name",
        PATIENCE,
        async || granted(&fourth, "photos").await,
    )
    .await;

    let leads = |agent: &Agent| agent.council().borrow().leads;
    let leader = agents.iter().position(|agent| leads(agent));
    let leader = leader.expect("one leads");
    machines[leader].crash().await;
    until("another decides", PATIENCE, async || {
        granted(&fourth, "films").await
    })
    .await;
    let again = start(&machines[leader]).await;
    until("it takes part again", PATIENCE, async || {
        let label = "films".parse().unwrap();
        let holds = again.view().borrow().ledger.names.contains_key(&label);
        holds && again.council().borrow().leader.is_some()
    })
    .await;
}
