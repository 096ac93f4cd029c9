//! The client against the server, and field names that scripts rely on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use innermesh_proto::{limits, name::Label, zone::Protocol};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
};

use super::{
    api::*,
    client::{Client, ClientError},
    finding::{Finding, Severity, code},
    server,
    socket::Socket,
};
use crate::{
    host::{Clock, Mono, UnixTime},
    services::Spec,
};

pub(crate) struct TokioClock;

#[async_trait::async_trait]
impl Clock for TokioClock {
    fn now(&self) -> Mono {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        let now = tokio::time::Instant::now().into_std();
        now.saturating_duration_since(*START.get_or_init(|| now))
    }
    fn wall_ms(&self) -> u64 {
        0
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// An agent that knows two nodes, and remembers what it was told.
#[derive(Default)]
pub(crate) struct FakeAgent {
    pub services: Mutex<Vec<Spec>>,
    pub released: Mutex<Vec<(String, bool)>>,
    pub slow: bool,
}

pub(crate) fn sample_status() -> Status {
    let node = |name: &str, live| NodeRow {
        name: name.into(),
        id: "abcd".into(),
        addresses: vec!["10.9.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        roles: vec!["admin".into()],
        live,
        path: if live { Path::Direct } else { Path::None },
        held: false,
    };
    Status {
        mesh: "00ff".into(),
        domain: "in.example.org".into(),
        node: "alpha".into(),
        id: "abcd".into(),
        version: "0.1.0".into(),
        uptime_s: 7,
        dns: DnsStatus {
            address: "10.9.0.53:53".parse().ok(),
        },
        ledger: LedgerStatus {
            index: 3,
            hash: "aa".into(),
        },
        warnings: vec!["add two CA nodes".into()],
        findings: vec![Finding::new(
            code::TUNNEL_NOT_APPLIED,
            Severity::Error,
            "the tunnel is down".into(),
            "restart it",
        )],
        nodes: vec![node("alpha", true), node("beta", false)],
        services: vec![ServiceStatus {
            name: "photos".into(),
            node: "alpha".into(),
            port: 8080,
            healthy: true,
        }],
        pending: vec![Pending {
            name: "wiki".into(),
            reason: "the CA is not reached".into(),
        }],
        counters: BTreeMap::from([("dns_queries".into(), 5)]),
        overlay: Some(super::api::OverlayStatus {
            interface: "im0".into(),
            filter: true,
            routes: true,
            containers: vec!["docker0 172.17.0.0/16".into()],
            exceptions: Vec::new(),
            dropped: BTreeMap::from([("arp_asked".into(), 0), ("leak".into(), 2)]),
            dropped_by_others: BTreeMap::from([("in4".into(), 3)]),
        }),
    }
}

#[async_trait::async_trait]
impl Control for FakeAgent {
    async fn status(&self) -> Status {
        if self.slow {
            std::future::pending::<()>().await;
        }
        sample_status()
    }
    async fn peers(&self) -> Vec<Peer> {
        vec![Peer {
            name: "beta".into(),
            path: Path::Relay,
            endpoint: "192.0.2.1:51819".parse().ok(),
            rtt_ms: Some(1.5),
            psk: true,
        }]
    }
    async fn ping(&self, node: Label, count: u32) -> Result<PingReply, ControlError> {
        if node.as_str() != "beta" {
            let message = format!("no member is called {node}; `agent status` lists them");
            return Err(ControlError::new(ErrorCode::NotFound, message));
        }
        Ok(PingReply {
            node: "beta".into(),
            path: Path::Direct,
            endpoint: "192.0.2.1:51819".parse().ok(),
            sent: count,
            rtt_ms: vec![0.5; count as usize],
            tunnel: Some(TunnelPing {
                works: true,
                handshake: true,
                age_s: Some(3),
            }),
        })
    }
    async fn invite(&self, request: InviteRequest) -> Result<Invite, ControlError> {
        let expires = UnixTime::from_ms(request.ttl_s * 1000);
        Ok(Invite {
            token: "tok".into(),
            command: "printf %s tok | agent join 192.0.2.1 --token -".into(),
            asking: "agent join 192.0.2.1 --token -".into(),
            expires,
            expires_ms: expires.ms(),
        })
    }
    async fn service_add(&self, service: Spec) -> Result<ServiceAdded, ControlError> {
        let name = service.name.to_string();
        self.services.lock().unwrap().push(service);
        Ok(ServiceAdded {
            reachable: vec![format!("{name}.alpha.in.example.org")],
            name,
            state: ServiceState::Pending,
            reason: Some("the CA is not reached".into()),
            addresses: vec!["10.9.0.2".parse().unwrap()],
        })
    }
    async fn service_rm(&self, name: Label, release: bool) -> Result<(), ControlError> {
        self.released
            .lock()
            .unwrap()
            .push((name.to_string(), release));
        Ok(())
    }
    async fn service_list(&self) -> Vec<ServiceRow> {
        vec![ServiceRow {
            name: "photos".into(),
            node: "alpha".into(),
            port: 8080,
            proto: Protocol::Tcp,
            healthy: false,
            check: Some("tcp".into()),
            granted: true,
            last_error: Some("connection refused".into()),
        }]
    }
    async fn configure_services(&self, services: Vec<Spec>) -> Result<(), ControlError> {
        *self.services.lock().unwrap() = services;
        Ok(())
    }
    async fn cert_issue(&self, request: CertRequest) -> Result<Issued, ControlError> {
        Err(ControlError::new(
            ErrorCode::Refused,
            format!("{:?}", request.names),
        ))
    }
    async fn cert_list(&self) -> Vec<CertRow> {
        vec![CertRow {
            serial: "0a".into(),
            names: vec!["photos.in.example.org".into()],
            node: "alpha".into(),
            not_before: UnixTime::from_ms(0),
            not_after: UnixTime::from_ms(86_400_000),
            kind: CertKind::Service,
            revoked: false,
            renewal: None,
        }]
    }
    async fn dns_query(&self, name: String, rtype: String) -> Result<QueryReport, ControlError> {
        Ok(QueryReport {
            name,
            rtype,
            rcode: "NOERROR".into(),
            origin: crate::dns::Origin::Zone,
            answers: vec![],
            authorities: vec![],
            additionals: vec![],
            error: None,
            elapsed_ms: 0,
        })
    }
    async fn dns_zone(&self) -> String {
        "alpha.in.example.org. 30 IN A 10.9.0.2\n".into()
    }
}

#[async_trait::async_trait]
impl CaControl for FakeAgent {
    async fn ca_status(&self) -> CaStatus {
        CaStatus {
            leader: Some("alpha".into()),
            term: 1,
            roster: vec!["alpha".into()],
            waiting: vec![WaitingRow {
                node: "beta".into(),
                reason: "one more".into(),
            }],
            voters: vec![VoterRow {
                node: "alpha".into(),
                decides: true,
                behind: Some(0),
                active: None,
            }],
            issuers: vec![IssuerRow {
                node: "alpha".into(),
                serial: "0b".into(),
                state: IssuerState::InForce,
                not_before: UnixTime::from_ms(0),
                not_after: UnixTime::from_ms(86_400_000),
                days_left: 1,
            }],
            ledger: LedgerStatus {
                index: 3,
                hash: "aa".into(),
            },
            epoch: 2,
            recovery: 0,
            warnings: vec![],
        }
    }
    async fn ca_root(&self) -> CaRoot {
        CaRoot {
            mesh: "00ff".into(),
            pem: "-----BEGIN".into(),
            fingerprint_sha256: "bb".into(),
            not_after: UnixTime::from_ms(0),
        }
    }
    async fn ca_keys(&self, node: Label) -> Result<CaKeys, ControlError> {
        Ok(CaKeys {
            mesh: "00ff".into(),
            is_ca: node.as_str() == "alpha",
            now_ms: 5,
            held: vec![Life {
                begin_ms: 1,
                end_ms: 9,
            }],
            offered: vec![Der(vec![3])],
        })
    }
    async fn ca_promote(&self, request: PromoteRequest) -> Result<(), ControlError> {
        let message = format!("{} {:?}", request.node, request.issuers);
        Err(ControlError::new(ErrorCode::Refused, message))
    }
    async fn ca_demote(&self, node: Label) -> Result<(), ControlError> {
        Err(ControlError::new(ErrorCode::Refused, node))
    }
    async fn ca_recovery(&self) -> Result<CaRecovery, ControlError> {
        Err(ControlError::new(ErrorCode::Refused, "nothing is lost"))
    }
    async fn ca_recover(&self, signed: Der) -> Result<(), ControlError> {
        Err(ControlError::new(ErrorCode::Refused, format!("{signed:?}")))
    }
}

/// A served fake, its client, and what ends it.
pub(crate) struct Served {
    pub agent: Arc<FakeAgent>,
    pub client: Client,
    pub path: std::path::PathBuf,
    _stop: oneshot::Sender<()>,
    _folder: tempfile::TempDir,
}

pub(crate) async fn served(agent: FakeAgent) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let socket = Socket::bind(&path).await.unwrap();
    let agent = Arc::new(agent);
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server::serve(
        socket,
        agent.clone(),
        Arc::new(TokioClock),
        async {
            let _ = stopped.await;
        },
    ));
    Served {
        agent,
        client: Client::new(&path),
        path,
        _stop: stop,
        _folder: folder,
    }
}

#[tokio::test]
async fn every_request_gets_its_answer() {
    let served = served(FakeAgent::default()).await;
    let client = &served.client;
    assert_eq!(client.status().await.unwrap(), sample_status());
    assert_eq!(client.peers().await.unwrap()[0].path, Path::Relay);
    let pong = client.ping(&"beta".parse().unwrap(), 2).await.unwrap();
    assert_eq!(pong.rtt_ms.len(), 2);
    let request = InviteRequest {
        ttl_s: 60,
        uses: 1,
        roles: vec![],
        names: vec!["web-*".parse().unwrap()],
        routes: vec![],
        addresses: Vec::new(),
    };
    assert_eq!(client.invite(&request).await.unwrap().expires_ms, 60_000);
    assert_eq!(client.service_list().await.unwrap().len(), 1);
    assert_eq!(client.cert_list().await.unwrap()[0].kind, CertKind::Service);
    assert_eq!(client.ca_status().await.unwrap().term, 1);
    assert_eq!(client.ca_root().await.unwrap().mesh, "00ff");
    assert!(
        client
            .ca_keys(&"alpha".parse().unwrap())
            .await
            .unwrap()
            .is_ca
    );
    let report = client.dns_query("a b&type=x", "AAAA").await.unwrap();
    assert_eq!(
        (report.name.as_str(), report.rtype.as_str()),
        ("a b&type=x", "AAAA")
    );
    assert!(client.dns_zone().await.unwrap().starts_with("alpha"));
}

#[tokio::test]
async fn a_service_arrives_as_it_was_described() {
    let served = served(FakeAgent::default()).await;
    let service = Spec {
        name: "photos".parse().unwrap(),
        port: 8080,
        protocol: Protocol::Udp,
        check: Some("http://127.0.0.1:8080/health".parse().unwrap()),
        address: Some("192.0.2.7".parse().unwrap()),
        share: ["beta".parse().unwrap()].into(),
        wildcard: false,
    };
    let added = served.client.service_add(&service).await.unwrap();
    assert_eq!(added.state, ServiceState::Pending);
    assert_eq!(*served.agent.services.lock().unwrap(), [service]);
    served
        .client
        .service_rm(&"photos".parse().unwrap(), true)
        .await
        .unwrap();
    assert_eq!(
        *served.agent.released.lock().unwrap(),
        [("photos".to_string(), true)]
    );
}

#[tokio::test]
async fn who_is_to_be_a_ca_node_arrives_with_its_issuers() {
    let served = served(FakeAgent::default()).await;
    let node: Label = "beta".parse().unwrap();
    let request = PromoteRequest {
        node: node.clone(),
        issuers: vec![Der(vec![1, 2])],
    };
    let said = served.client.ca_promote(&request).await.unwrap_err();
    assert_eq!(said.to_string(), "beta [2 bytes of DER]");
    let said = served.client.ca_demote(&node).await.unwrap_err();
    assert_eq!(said.to_string(), "beta");
    let said = served.client.ca_recovery().await.unwrap_err();
    assert_eq!(said.to_string(), "nothing is lost");
    let said = served.client.ca_recover(Der(vec![7])).await.unwrap_err();
    assert_eq!(said.to_string(), "1 bytes of DER");
}

#[tokio::test]
async fn a_refusal_arrives_in_the_agent_s_own_words() {
    let served = served(FakeAgent::default()).await;
    let refused = served
        .client
        .ping(&"gamma".parse().unwrap(), 1)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused(e) if e.code == ErrorCode::NotFound),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("no member is called gamma"));
    let too_many = served
        .client
        .ping(&"beta".parse().unwrap(), limits::PINGS + 1)
        .await;
    assert!(matches!(too_many, Err(ClientError::Refused(e)) if e.code == ErrorCode::Invalid));
    let request = CertRequest {
        names: vec!["x".into()],
        csr: Der(vec![1, 2]),
        days: 1,
    };
    let refused = served.client.cert_issue(&request).await;
    assert!(matches!(refused, Err(ClientError::Refused(e)) if e.code == ErrorCode::Refused));
}

#[tokio::test]
async fn without_an_agent_the_client_says_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let absent = Client::new(&path).status().await.unwrap_err();
    assert!(matches!(absent, ClientError::NotRunning(_)), "{absent:?}");
    assert!(absent.to_string().contains("systemctl start innermesh"));
    drop(tokio::net::UnixListener::bind(&path).unwrap());
    let stale = Client::new(&path).status().await.unwrap_err();
    assert!(matches!(stale, ClientError::NotRunning(_)), "{stale:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_is_answered_with_a_timeout() {
    let served = served(FakeAgent {
        slow: true,
        ..Default::default()
    })
    .await;
    let error = served.client.status().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Refused(e) if e.code == ErrorCode::Timeout),
        "{error:?}"
    );
}

/// Sends bytes as they are and returns all that comes back.
async fn raw(served: &Served, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(&served.path).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A server that closes early may reset what it didn't read.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn nonsense_is_refused_as_json_and_changes_nothing() {
    let served = served(FakeAgent::default()).await;
    for (method, path, body, status) in [
        ("POST", "/v1/services", "{}", "400"),
        (
            "POST",
            "/v1/services",
            r#"{"name":"UPPER","port":1}"#,
            "400",
        ),
        ("POST", "/v1/services", r#"{"name":"a","port":0}"#, "400"),
        (
            "POST",
            "/v1/services",
            r#"{"name":"a","port":1,"check":"exec:x"}"#,
            "400",
        ),
        (
            "POST",
            "/v1/services",
            r#"{"name":"a","port":1,"typo":1}"#,
            "400",
        ),
        (
            "POST",
            "/v1/certificates",
            r#"{"names":[],"csr":"*","days":1}"#,
            "400",
        ),
        ("DELETE", "/v1/services/a.b", "", "400"),
        ("GET", "/v1/ping?node=beta&count=-1", "", "400"),
        ("GET", "/v1/nothing", "", "404"),
        ("PUT", "/v1/status", "", "404"),
    ] {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let answer = raw(&served, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path} {body}: {answer}"
        );
        let (_, json) = answer.split_once("\r\n\r\n").unwrap();
        let error: ControlError = serde_json::from_str(json).unwrap();
        assert!(!error.message.is_empty());
    }
    assert!(served.agent.services.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let served = served(FakeAgent::default()).await;
    let mut request = format!(
        "POST /v1/services HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        limits::CONTROL_BODY_BYTES + 1
    )
    .into_bytes();
    request.resize(request.len() + limits::CONTROL_BODY_BYTES + 1, b' ');
    let answer = raw(&served, &request).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("length limit"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_sends_nothing_is_cut_off() {
    let served = served(FakeAgent::default()).await;
    assert_eq!(raw(&served, b"GET /v1/status HTT").await, "");
}

#[tokio::test]
async fn a_user_s_idle_connections_give_way_to_its_next_one() {
    let served = served(FakeAgent::default()).await;
    let mut held = Vec::new();
    for _ in 0..limits::CONTROL_PER_USER {
        let mut stream = UnixStream::connect(&served.path).await.unwrap();
        stream
            .write_all(b"GET /v1/peers HTTP/1.1\r\nHost: agent\r\n\r\n")
            .await
            .unwrap();
        // The answer shows that the place is taken.
        stream.read_u8().await.unwrap();
        held.push(stream);
    }
    let next = tokio::time::timeout(Duration::from_secs(4), served.client.peers());
    assert!(next.await.expect("in time").is_ok());
    let mut rest = Vec::new();
    let ended = held[0].read_to_end(&mut rest);
    let ended = tokio::time::timeout(Duration::from_secs(4), ended).await;
    assert!(
        ended.is_ok(),
        "the one that was idle for the longest is closed"
    );
}

#[test]
fn the_field_names_of_status_are_those_that_scripts_read() {
    assert_eq!(
        serde_json::to_value(sample_status()).unwrap(),
        json!({
            "mesh": "00ff",
            "domain": "in.example.org",
            "node": "alpha",
            "id": "abcd",
            "version": "0.1.0",
            "uptime_s": 7,
            "dns": {"address": "10.9.0.53:53"},
            "ledger": {"index": 3, "hash": "aa"},
            "warnings": ["add two CA nodes"],
            "findings": [{
                "code": "tunnel-not-applied", "severity": "error",
                "text": "the tunnel is down", "remedy": "restart it",
            }],
            "nodes": [
                {"name": "alpha", "id": "abcd", "addresses": ["10.9.0.2", "fd00::2"],
                 "roles": ["admin"], "live": true, "path": "direct", "held": false},
                {"name": "beta", "id": "abcd", "addresses": ["10.9.0.2", "fd00::2"],
                 "roles": ["admin"], "live": false, "path": "none", "held": false},
            ],
            "services": [{"name": "photos", "node": "alpha", "port": 8080, "healthy": true}],
            "pending": [{"name": "wiki", "reason": "the CA is not reached"}],
            "counters": {"dns_queries": 5},
            "overlay": {
                "interface": "im0", "filter": true, "routes": true,
                "containers": ["docker0 172.17.0.0/16"], "exceptions": [],
                "dropped_by_others": {"in4": 3},
                "dropped": {"arp_asked": 0, "leak": 2},
            },
        })
    );
}

#[tokio::test]
async fn the_field_names_of_the_other_answers_are_those_that_scripts_read() {
    let agent = FakeAgent::default();
    let value = |v: Result<Value, _>| v.unwrap();
    assert_eq!(
        value(serde_json::to_value(agent.peers().await)),
        json!([{"name": "beta", "path": "relay", "endpoint": "192.0.2.1:51819", "rtt_ms": 1.5, "psk": true}])
    );
    assert_eq!(
        value(serde_json::to_value(agent.ca_status().await)),
        json!({
            "leader": "alpha", "term": 1, "roster": ["alpha"],
            "waiting": [{"node": "beta", "reason": "one more"}],
            "voters": [{"node": "alpha", "decides": true, "behind": 0, "active": null}],
            "issuers": [{
                "node": "alpha", "serial": "0b", "state": "in_force", "days_left": 1,
                "not_before": "1970-01-01T00:00:00Z", "not_after": "1970-01-02T00:00:00Z",
            }],
            "ledger": {"index": 3, "hash": "aa"}, "epoch": 2, "recovery": 0, "warnings": [],
        })
    );
    let request = InviteRequest {
        ttl_s: 1,
        uses: 1,
        roles: vec![],
        names: vec![],
        routes: vec![],
        addresses: Vec::new(),
    };
    assert_eq!(
        value(serde_json::to_value(agent.invite(request).await.unwrap())),
        json!({
            "token": "tok", "command": "printf %s tok | agent join 192.0.2.1 --token -",
            "asking": "agent join 192.0.2.1 --token -",
            "expires": "1970-01-01T00:00:01Z", "expires_ms": 1000,
        })
    );
    assert_eq!(
        value(serde_json::to_value(agent.service_list().await)),
        json!([{
            "name": "photos", "node": "alpha", "port": 8080, "proto": "tcp", "healthy": false,
            "check": "tcp", "granted": true, "last_error": "connection refused",
        }])
    );
    assert_eq!(
        value(serde_json::to_value(agent.cert_list().await)),
        json!([{
            "serial": "0a", "names": ["photos.in.example.org"], "node": "alpha",
            "not_before": "1970-01-01T00:00:00Z", "not_after": "1970-01-02T00:00:00Z",
            "kind": "service", "revoked": false, "renewal": null,
        }])
    );
}

#[test]
fn a_refusal_of_a_kind_from_a_later_version_is_still_understood() {
    let error: ControlError =
        serde_json::from_value(json!({"code": "quota", "message": "no more"})).unwrap();
    assert_eq!(error, ControlError::new(ErrorCode::Internal, "no more"));
}
