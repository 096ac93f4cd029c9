//! What people do with machines: make a mesh, let others join, ask for names,
//! and wait, in simulated time.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use innermesh_agent::{
    control::api::InviteRequest,
    enroll::{self, InitOptions, JoinOptions},
    mesh::Agent,
};
use innermesh_proto::zone::{DomainName, RecordType};

use crate::{Machine, clock};

/// The domain of simulated meshes.
pub const DOMAIN: &str = "home.example.com";
/// The tunnel's interface on simulated machines.
const INTERFACE: &str = "im0";

/// Makes a mesh on `machine` and starts its agent.
///
/// # Panics
/// When a step fails.
pub async fn found(machine: &Machine) -> Agent {
    let options = InitOptions {
        domain: DOMAIN.parse().expect("a domain"),
        name: machine.name.parse().expect("a label"),
        ipv4: None,
        interface: INTERFACE.into(),
    };
    enroll::init(&machine.host, options)
        .await
        .expect("a mesh is made");
    start(machine).await
}

/// A token for one use, by an admin's agent.
///
/// # Errors
/// Why there is none.
pub async fn invite(admin: &Agent) -> Result<String, String> {
    let invite = InviteRequest {
        ttl_s: 3600,
        uses: 1,
        roles: Vec::new(),
        names: Vec::new(),
    };
    let invite = admin.control().invite(invite).await;
    Ok(invite.map_err(|e| e.to_string())?.token)
}

/// Has `machine` join with a token, through the agent on the machine named
/// `seed`, and starts its agent.
///
/// # Errors
/// Why it didn't join.
pub async fn join_with(machine: &Machine, seed: &str, token: String) -> Result<Agent, String> {
    let options = JoinOptions {
        seed: seed.into(),
        token,
        name: machine.name.parse().expect("a label"),
        interface: INTERFACE.into(),
    };
    enroll::join(&machine.host, options)
        .await
        .map_err(|e| e.to_string())?;
    let agent = Agent::build(machine.config(), machine.host.clone()).await;
    agent.map_err(|e| e.to_string())
}

/// Has `machine` join by an invite of `admin`'s, through the agent on the
/// machine named `seed`, and starts its agent.
///
/// # Panics
/// When a step fails.
pub async fn join(machine: &Machine, seed: &str, admin: &Agent) -> Agent {
    try_join(machine, seed, admin)
        .await
        .expect("the machine joins")
}

/// As [`join`].
///
/// # Errors
/// Why it didn't join.
pub async fn try_join(machine: &Machine, seed: &str, admin: &Agent) -> Result<Agent, String> {
    join_with(machine, seed, invite(admin).await?).await
}

/// Starts the agent of a machine that is in a mesh.
///
/// # Panics
/// When it can't be started.
pub async fn start(machine: &Machine) -> Agent {
    Agent::build(machine.config(), machine.host.clone())
        .await
        .expect("the agent starts")
}

/// The addresses that `agent` gives for a name below the mesh's domain, of
/// both families.
///
/// # Panics
/// When `name` is no name.
pub async fn resolve(agent: &Agent, name: &str) -> BTreeSet<IpAddr> {
    let name: DomainName = format!("{name}.{DOMAIN}").parse().expect("a name");
    let dns = agent.dns();
    let mut found = BTreeSet::new();
    for rtype in [RecordType::A, RecordType::AAAA] {
        let report = dns.query(&name, rtype).await;
        let last = |line: &String| line.split_whitespace().last()?.parse::<IpAddr>().ok();
        found.extend(report.answers.iter().filter_map(last));
    }
    found
}

/// Whether `agent` says that a name below the mesh's domain doesn't exist.
///
/// # Panics
/// When `name` is no name.
pub async fn is_denied(agent: &Agent, name: &str) -> bool {
    let name: DomainName = format!("{name}.{DOMAIN}").parse().expect("a name");
    let report = agent.dns().query(&name, RecordType::AAAA).await;
    report.rcode == "NXDOMAIN"
}

/// The overlay addresses of an agent's own node.
pub fn addresses(agent: &Agent) -> BTreeSet<IpAddr> {
    let view = agent.view().borrow().clone();
    let own = view.own_member();
    own.map(innermesh_proto::view::MeshView::addresses)
        .unwrap_or_default()
        .into_iter()
        .collect()
}

/// The addresses that a machine's tunnel leads to.
pub fn routed(machine: &Machine) -> BTreeSet<IpAddr> {
    let plan = machine.tunnel_plan();
    let peers = plan.peers.values();
    peers
        .flat_map(|peer| &peer.allowed_ips)
        .map(|net| net.addr())
        .collect()
}

/// Waits until something holds; gives how long that took.
///
/// # Panics
/// When it doesn't hold within `patience`.
pub async fn until(
    what: &str,
    patience: Duration,
    mut holds: impl AsyncFnMut() -> bool,
) -> Duration {
    let start = clock::now();
    while !holds().await {
        assert!(
            clock::now() < start + patience,
            "not within {patience:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    clock::now() - start
}
