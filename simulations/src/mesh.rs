//! What people do with machines: make a mesh, let others join, ask for names,
//! and wait, in simulated time.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use innermesh_agent::{
    ca::{Root, recovery},
    control::{
        Der,
        ca::{RecoverRequest, RecoveryRequest},
        members::InviteRequest,
    },
    dns::Dns,
    enroll::{self, InitOptions, JoinOptions},
    host::{Disk, Host, key_files as keys, state_folder::RECOVERY},
    ledger::client::SubmitError,
    node::Agent,
};
use innermesh_proto::{
    codec,
    crypto::Purpose,
    id::NodeId,
    ledger::{
        Content, Outcome, Recovery, Refusal, Role, SignedRecovery,
        request::{Promote, RoleChange, RootWord},
    },
    limits,
    name::Label,
    view::MeshView,
    zone::{DomainName, RecordType},
};

use crate::{Machine, World, clock};

/// The domain of simulated meshes.
pub const DOMAIN: &str = "home.example.com";
/// The tunnel's interface on simulated machines.
const INTERFACE: &str = "im0";

/// Bytes that most of the root's signatures have in DER.
const USUAL: usize = 71;

/// How long agents of a new mesh may take until they know each other.
const MEETING: Duration = Duration::from_secs(60);

/// Machines of these names in one mesh that the first has founded, whose agents
/// all know each other.
///
/// # Panics
/// When a step fails.
pub async fn meet<const N: usize>(
    world: &mut World,
    names: [&str; N],
) -> ([Machine; N], [Agent; N]) {
    let machines = names.map(|name| world.machine(name));
    let (founder, others) = machines.split_first().expect("a machine");
    let mut agents = vec![found(founder).await];
    for machine in others {
        agents.push(join(machine, names[0], &agents[0]).await);
    }
    have_met(&agents.iter().collect::<Vec<_>>()).await;
    let agents = agents.try_into().ok();
    (machines, agents.expect("one for each machine"))
}

/// Waits until each of the agents has the heads of all others.
///
/// # Panics
/// When they don't meet.
pub async fn have_met(agents: &[&Agent]) {
    until("all have met", MEETING, async || {
        let met = |agent: &&Agent| agent.heads().len() + 1 == agents.len();
        agents.iter().all(met)
    })
    .await;
}

/// Makes a mesh on `machine` and starts its agent.
///
/// # Panics
/// When a step fails.
pub async fn found(machine: &Machine) -> Agent {
    init(machine).await;
    start(machine).await
}

/// As [`found`]; gives the root too.
///
/// # Panics
/// When a step fails.
pub async fn found_with_root(machine: &Machine) -> (Agent, Root) {
    let passphrase = init(machine).await;
    let sealed = machine.disk.read(RECOVERY.as_ref()).await;
    let sealed = sealed.ok().flatten().expect("a recovery file");
    let sealed = String::from_utf8(sealed).expect("it is text");
    let root = recovery::open(&sealed, &passphrase, &*machine.host.keys);
    (start(machine).await, root.expect("its passphrase is right"))
}

/// Has `admin` make a CA node of a machine.
///
/// # Errors
/// Why it isn't one. It may become one all the same.
///
/// # Panics
/// When the machine isn't a member.
pub async fn promote(admin: &Agent, root: &Root, host: &Host) -> Result<(), String> {
    let issuer = host.keys.generate_p256();
    let words = |error: &dyn std::fmt::Display| error.to_string();
    keys::store_issuer(host, &*issuer)
        .await
        .map_err(|error| words(&error))?;
    let begin_ms = admin.view().borrow().ledger.stamp_ms;
    let der = root.issuer(&issuer.spki(), begin_ms, &*host.keys);
    let node = keys::require_identity(host).await.expect("a member");
    let content = Content::Promote(Promote {
        node: node.public().node_id(),
        issuers: vec![der.map_err(|error| words(&error))?],
    });
    ask(admin, &content).await
}

/// Has a CA node go on alone, by the root's word, as its user does who has lost
/// the others.
///
/// # Errors
/// Why it doesn't.
pub async fn recover(agent: &Agent, root: &Root) -> Result<(), String> {
    const LOOKS: usize = 40;
    let control = agent.control();
    for _ in 0..LOOKS {
        let asked = control
            .ask(RecoveryRequest {})
            .await
            .map_err(|e| e.to_string());
        if let Ok(asked) = asked
            && asked.ahead.is_empty()
        {
            let signed = codec::encode(&signed(root, &asked.recovery.0)?);
            let done = control
                .ask(RecoverRequest {
                    signed: Der(signed),
                })
                .await;
            return done.map(|_| ()).map_err(|e| e.to_string());
        }
        // A leader is missed, or others' batches are fetched, a moment on.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err("others are ahead, or a leader still answers".into())
}

/// A recovery with the root's signature. How long that is in DER depends on the
/// numbers in it, and those on what TLS drew at each join; so that a run is the
/// same each time, the number of the recovery is raised until it has the usual
/// length.
///
/// # Errors
/// What is no recovery.
pub fn signed(root: &Root, recovery: &[u8]) -> Result<SignedRecovery, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let mut recovery: Recovery =
        codec::decode(recovery, limits::HEADER_BYTES).map_err(|error| words(&error))?;
    loop {
        let bytes = codec::encode(&recovery);
        let message = Purpose::Recovery.message(&root.mesh(), &bytes);
        let signature = root.sign(&message).map_err(|error| words(&error))?;
        if signature.len() == USUAL {
            return Ok(SignedRecovery { bytes, signature });
        }
        recovery.number += 1;
    }
}

/// Has `admin` take a role from a node by the root's word.
///
/// # Errors
/// Why the node has it still. It may lose it all the same.
pub async fn take_by_root(
    admin: &Agent,
    root: &Root,
    node: NodeId,
    role: Role,
) -> Result<(), String> {
    const TRIES: u32 = 5;
    let mut last = String::new();
    for _ in 0..TRIES {
        let view = admin.view().borrow().clone();
        let content = if view.ledger.rules < 2 {
            Content::Demote(node)
        } else {
            Content::TakeRole(taken_by_root(root, &view, node, role)?)
        };
        match decided(admin, &content).await {
            Ok(Outcome::Done(_)) => return Ok(()),
            // Another word of the root's came before it.
            Ok(Outcome::Refused(refusal @ Refusal::RootSignature)) => last = refusal.to_string(),
            Ok(other) => return Err(format!("{other:?}")),
            Err(error) => return Err(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Err(last)
}

fn taken_by_root(
    root: &Root,
    view: &MeshView,
    node: NodeId,
    role: Role,
) -> Result<RoleChange, String> {
    let mut change = RoleChange {
        node,
        role,
        root: None,
    };
    let number = view.ledger.next_root_word();
    let mut until_ms = view.ledger.stamp_ms + limits::REQUEST_LIFETIME_MS;
    loop {
        let message = change.root_message(&root.mesh(), &view.me, false, number, until_ms);
        let signature = root.sign(&message).map_err(|error| error.to_string())?;
        // As for a recovery.
        if signature.len() == USUAL {
            change.root = Some(RootWord {
                until_ms,
                signature,
            });
            return Ok(change);
        }
        until_ms -= 1;
    }
}

/// Has the ledger decide what a member asks.
///
/// # Errors
/// Why there was no answer.
pub async fn decided(agent: &Agent, content: &Content) -> Result<Outcome, SubmitError> {
    const PATIENCE: Duration = Duration::from_secs(10);
    agent.ask(content, PATIENCE).await
}

/// Has the ledger do what a member asks.
///
/// # Errors
/// The refusal, or why there was no answer.
pub async fn ask(agent: &Agent, content: &Content) -> Result<(), String> {
    match decided(agent, content).await {
        Ok(Outcome::Done(_)) => Ok(()),
        Ok(Outcome::Refused(refusal)) => Err(refusal.to_string()),
        Ok(Outcome::Waiting(waiting)) => Err(format!("{waiting:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Has as many batches written as `count`, one after the other, no faster than
/// each of the authors may.
pub async fn write_batches(authors: &[&Agent], count: u64) {
    let mut names: Vec<Held> = (0..authors.len()).map(Held::new).collect();
    let mut written = 0;
    while written < count {
        let mut wait = Duration::MAX;
        for (author, held) in authors.iter().zip(&mut names) {
            while written < count {
                match author.ask(&held.next(), Duration::from_secs(10)).await {
                    Ok(Outcome::Done(_)) => {
                        held.is_held = !held.is_held || !held.gives_back;
                        written += 1;
                    }
                    Err(SubmitError::Spent(_)) if held.is_held && held.gives_back => {
                        held.gives_back = false;
                    }
                    Err(SubmitError::Spent(until)) => {
                        wait = wait.min(until);
                        break;
                    }
                    other => panic!("a name of the author's own: {other:?}"),
                }
            }
        }
        if written < count {
            tokio::time::sleep(wait).await;
        }
    }
}

/// A name that an author takes and gives back; once it may give nothing back for
/// a while it asks for it again and again, which is written too.
struct Held {
    name: Label,
    is_held: bool,
    gives_back: bool,
}

impl Held {
    fn new(number: usize) -> Self {
        Self {
            name: format!("photos-{number}").parse().expect("a label"),
            is_held: false,
            gives_back: true,
        }
    }

    fn next(&self) -> Content {
        if self.is_held && self.gives_back {
            return Content::Release(self.name.clone());
        }
        Content::Claim(self.name.clone())
    }
}

/// Writes what a new mesh begins with; gives the root's passphrase.
async fn init(machine: &Machine) -> String {
    let options = InitOptions {
        domain: DOMAIN.parse().expect("a domain"),
        name: machine.name.parse().expect("a label"),
        ipv4: None,
        interface: INTERFACE.into(),
        rules: machine.rules,
    };
    let report = enroll::init(&machine.host, options).await;
    report.expect("a mesh is made").passphrase
}

/// A token for one use, by an admin's agent.
///
/// # Errors
/// Why there is none.
pub async fn invite(admin: &Agent) -> Result<String, String> {
    invite_as(admin, &[]).await
}

async fn invite_as(admin: &Agent, roles: &[&str]) -> Result<String, String> {
    let invite = InviteRequest {
        ttl_s: 3600,
        uses: 1,
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        names: Vec::new(),
        routes: Vec::new(),
        addresses: Vec::new(),
    };
    let invite = admin.control().ask(invite).await;
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

/// As [`join`], as an admin.
///
/// # Panics
/// When a step fails.
pub async fn join_as_admin(machine: &Machine, seed: &str, admin: &Agent) -> Agent {
    let token = invite_as(admin, &["admin"]).await;
    let joined = join_with(machine, seed, token.expect("a token")).await;
    joined.expect("the machine joins")
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
        answers_alike(&dns, &name, rtype).await;
        let report = dns.query(&name, rtype).await;
        let last = |line: &String| line.split_whitespace().last()?.parse::<IpAddr>().ok();
        found.extend(report.answers.iter().filter_map(last));
    }
    found
}

/// Both paths of DNS say the same, whatever became of the mesh.
async fn answers_alike(dns: &Dns, name: &DomainName, rtype: RecordType) {
    let question = question(name, rtype);
    let source = IpAddr::from([127, 0, 0, 1]);
    let both = dns.both_ways(&question, source, true).await;
    if both.prompt.is_some() {
        assert_eq!(both.prompt, both.careful, "{name} {rtype}");
    }
}

/// A question as a program asks it, with recursion desired.
pub fn question(name: &DomainName, rtype: RecordType) -> Vec<u8> {
    let mut message = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(Vec::from(name.clone()));
    message.push(0);
    message.extend(rtype.0.to_be_bytes());
    message.extend([0, 1]);
    message
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

/// How soon [`until`] asks again, at first and at most.
const SOON: Duration = Duration::from_millis(5);
const AGAIN: Duration = Duration::from_millis(500);

/// Waits until something holds. What takes hours of simulated time isn't asked for each
/// few milliseconds of it.
///
/// # Panics
/// When it doesn't hold within `patience`.
pub async fn until(what: &str, patience: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let start = clock::now();
    while !holds().await {
        let took = clock::now() - start;
        assert!(took < patience, "not within {patience:?}: {what}");
        tokio::time::sleep((took / 50).clamp(SOON, AGAIN)).await;
    }
}
