//! What agents serve over TCP, and the revocation lists that they hand on: in the
//! simulation as on real hosts.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use innermesh_agent::{acme, host::Stream, node::Agent};
use innermesh_proto::certificate::{RevocationList, Serial};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
    time_provider::TimeProvider,
};
use simulations::{
    Machine, World,
    mesh::{DOMAIN, addresses, found, join, until},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(60);

/// The whole answer to a GET, its head first.
async fn get(mut stream: impl Stream, host: &str, path: &str) -> Option<(String, Vec<u8>)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let body = answer.split_off(end + 4);
    Some((String::from_utf8(answer).ok()?, body))
}

/// What the page at an address answers to a program on `machine`.
async fn page(machine: &Machine, at: IpAddr, path: &str) -> Option<(String, Vec<u8>)> {
    let address = SocketAddr::new(at, machine.config().page_port);
    let stream = machine.host.net.connect(address).await.ok()?;
    get(stream, "ca", path).await
}

fn own(agent: &Agent) -> IpAddr {
    let mut all = addresses(agent).into_iter();
    all.find(IpAddr::is_ipv4).expect("an overlay address")
}

#[tokio::test(start_paused = true)]
async fn the_page_of_a_node_is_answered_on_itself_and_through_the_tunnel() {
    let mut world = World::new(1);
    let [one, two] = ["one", "two"].map(|name| world.machine(name));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    let is_page = |answer: Option<(String, Vec<u8>)>| {
        answer.is_some_and(|(head, body)| {
            head.starts_with("HTTP/1.1 200") && String::from_utf8_lossy(&body).contains(DOMAIN)
        })
    };
    let loopback = IpAddr::from([127, 0, 0, 1]);
    assert!(is_page(page(&one, loopback, "/").await));
    until(
        "the other's page through the tunnel",
        PATIENCE,
        async || {
            is_page(page(&two, own(&first), "/").await)
                && is_page(page(&one, own(&second), "/").await)
        },
    )
    .await;
    let missing = page(&two, own(&first), "/nothing").await;
    assert!(missing.expect("an answer").0.starts_with("HTTP/1.1 404"));
    // Beside the mesh nobody listens.
    assert!(page(&two, one.address, "/").await.is_none());
}

/// The simulated present, by which certificates are judged.
#[derive(Debug)]
struct Now(Duration);

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0))
    }
}

/// A TLS client on `machine` that trusts the mesh's root and nothing else.
fn client(machine: &Machine, agent: &Agent) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let root = agent.view().borrow().ledger.root.der().to_vec();
    roots.add(CertificateDer::from(root)).expect("a root");
    let now = Now(Duration::from_millis(machine.host.clock.wall_ms()));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_details(provider, Arc::new(now))
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// What ACME answers to a program on `machine`.
async fn acme(machine: &Machine, agent: &Agent, path: &str) -> Option<(String, Vec<u8>)> {
    let at = machine.tunnel_plan().resolver_v4?;
    let address = SocketAddr::new(at.into(), acme::PORT);
    let stream = machine.host.net.connect(address).await.ok()?;
    let name = format!("acme.{DOMAIN}");
    let server = ServerName::try_from(name.clone()).expect("a name");
    let stream = client(machine, agent).connect(server, stream).await.ok()?;
    get(stream, &name, path).await
}

#[tokio::test(start_paused = true)]
async fn the_acme_directory_is_answered_behind_the_mesh_s_own_root() {
    let mut world = World::new(1);
    let [one, two] = ["one", "two"].map(|name| world.machine(name));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    for (machine, agent) in [(&one, &first), (&two, &second)] {
        until("the directory", PATIENCE, async || {
            let answer = acme(machine, agent, "/directory").await;
            answer.is_some_and(|(head, body)| {
                head.starts_with("HTTP/1.1 200")
                    && String::from_utf8_lossy(&body).contains("newNonce")
            })
        })
        .await;
    }
}

/// The revocation list of an issuer as a node's page has it.
async fn list(machine: &Machine, issuer: &Serial) -> Option<RevocationList> {
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let (head, body) = page(machine, loopback, &format!("/crl/{issuer}.crl")).await?;
    let is_there = head.starts_with("HTTP/1.1 200");
    is_there.then(|| RevocationList::parse(&body).expect("it was checked"))
}

#[tokio::test(start_paused = true)]
async fn a_revocation_list_is_signed_by_its_issuer_s_node_and_had_by_all() {
    let mut world = World::new(1);
    let [one, two, three] = ["one", "two", "three"].map(|name| world.machine(name));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    let third = join(&three, "one", &first).await;
    let issuers: Vec<Serial> = {
        let state = first.view().borrow().ledger.clone();
        let issuers = state.issuers.values();
        issuers.map(|issuer| issuer.certificate.serial).collect()
    };
    assert!(!issuers.is_empty());
    let machines = [&one, &two, &three];
    until("all have the same lists", PATIENCE, async || {
        for issuer in &issuers {
            let mut numbers = Vec::new();
            for machine in machines {
                numbers.push(list(machine, issuer).await.map(|list| list.number));
            }
            if numbers[0].is_none() || numbers.iter().any(|number| *number != numbers[0]) {
                return false;
            }
        }
        true
    })
    .await;
    drop((second, third));
}
