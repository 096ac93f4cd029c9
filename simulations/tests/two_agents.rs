//! Two whole agents in one simulated world: made, joined and run by the same
//! calls as the program's, with nothing but the host between them and it.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use innermesh_agent::{
    control::api::InviteRequest,
    enroll::{self, InitOptions, JoinOptions},
    mesh::Agent,
};
use innermesh_proto::zone::{DomainName, RecordType};
use simulations::{Machine, World, clock};

const DOMAIN: &str = "home.example.com";
/// How long two agents may take until they know each other, in simulated time.
const PATIENCE: Duration = Duration::from_secs(2);

#[tokio::test(start_paused = true)]
async fn two_agents_resolve_each_other_and_have_routes_to_each_other() {
    let mut world = World::new(1);
    let (one, two) = (world.machine("one"), world.machine("two"));

    let first = enroll::init(
        &one.host,
        InitOptions {
            domain: DOMAIN.parse().unwrap(),
            name: "one".parse().unwrap(),
            ipv4: None,
            interface: "im0".into(),
        },
    )
    .await
    .unwrap();
    let one_agent = Agent::build(one.config(), one.host.clone()).await.unwrap();
    let invite = InviteRequest {
        ttl_s: 3600,
        uses: 1,
        roles: Vec::new(),
        names: Vec::new(),
    };
    let invite = one_agent.control().invite(invite).await.unwrap();

    let options = JoinOptions {
        seed: "one".into(),
        token: invite.token.clone(),
        name: "two".parse().unwrap(),
        interface: "im0".into(),
    };
    let second = enroll::join(&two.host, options).await.unwrap();
    assert_eq!(second.mesh, first.mesh);
    let two_agent = Agent::build(two.config(), two.host.clone()).await.unwrap();

    for (agent, name, addresses) in [
        (&two_agent, "one", &first.addresses),
        (&one_agent, "two", &second.addresses),
    ] {
        until(&format!("{name} is resolved"), async || {
            let resolved = resolve(agent, name).await;
            resolved == addresses.iter().copied().collect()
        })
        .await;
    }
    for (machine, addresses) in [(&one, &second.addresses), (&two, &first.addresses)] {
        until(
            &format!("{} has a route to the other", machine.name),
            async || {
                let wanted = addresses.iter().copied().collect::<BTreeSet<_>>();
                routed(machine) == wanted
            },
        )
        .await;
    }
    let endpoints = |machine: &Machine| {
        let plan = machine.tunnel_plan();
        let peers = plan.peers.into_values();
        peers.filter_map(|peer| peer.endpoint).collect::<Vec<_>>()
    };
    assert_eq!(endpoints(&one), [(two.address, 51820).into()]);
    assert_eq!(endpoints(&two), [(one.address, 51820).into()]);
}

/// The addresses that `agent` gives for a name of the mesh, of both families.
async fn resolve(agent: &Agent, name: &str) -> BTreeSet<IpAddr> {
    let name: DomainName = format!("{name}.{DOMAIN}").parse().unwrap();
    let dns = agent.dns();
    let mut found = BTreeSet::new();
    for rtype in [RecordType::A, RecordType::AAAA] {
        let report = dns.query(&name, rtype).await;
        let last = |line: &String| line.split_whitespace().last()?.parse::<IpAddr>().ok();
        found.extend(report.answers.iter().filter_map(last));
    }
    found
}

/// The addresses that a machine's tunnel leads to.
fn routed(machine: &Machine) -> BTreeSet<IpAddr> {
    let plan = machine.tunnel_plan();
    let peers = plan.peers.values();
    peers
        .flat_map(|peer| &peer.allowed_ips)
        .map(|net| net.addr())
        .collect()
}

/// Waits in simulated time.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = clock::now() + PATIENCE;
    while !holds().await {
        assert!(clock::now() < end, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
