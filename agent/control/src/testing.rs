//! An agent for tests, behind a real socket.

#![allow(missing_docs, reason = "made for tests")]
#![allow(clippy::disallowed_methods, reason = "made for tests")]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{
    all::{AnyRequest, Control},
    ca::{
        CaRequest, CaRoot, CaRootRequest, CaStatus, CaStatusRequest, IssuerRow, IssuerState,
        VoterRow, WaitingRow,
    },
    client::Client,
    dns::ResolverStatus,
    error::{ControlError, ErrorCode},
    finding::{Finding, Severity, code},
    node::{
        DnsStatus, LedgerStatus, NodeRequest, NodeRow, OverlayStatus, Path, Pending, ServiceStatus,
        Status, StatusRequest, TunnelStatus,
    },
    request::Reply,
    server,
    socket::Socket,
};
use innermesh_host::{Clock, Mono, UnixTime, resolver::Method};

/// Tokio's, which a test may pause.
pub struct TokioClock;

#[async_trait]
impl Clock for TokioClock {
    fn now(&self) -> Mono {
        static START: OnceLock<std::time::Instant> = OnceLock::new();
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

type Answers = dyn Fn(AnyRequest, u32) -> Result<Reply, ControlError> + Send + Sync;

/// Answers a few questions with samples, and refuses all else by showing it,
/// unless a test says otherwise.
pub struct FakeAgent(Box<Answers>);

impl FakeAgent {
    #[allow(clippy::new_without_default, reason = "a test says what it asks")]
    pub fn new() -> Self {
        Self::answering(|request, _| match request {
            AnyRequest::Node(NodeRequest::Status(_)) => {
                Reply::to::<StatusRequest>(&sample_status())
            }
            AnyRequest::Ca(CaRequest::Status(_)) => {
                Reply::to::<CaStatusRequest>(&sample_ca_status())
            }
            AnyRequest::Ca(CaRequest::Root(_)) => Reply::to::<CaRootRequest>(&sample_ca_root()),
            other => Err(ControlError::new(ErrorCode::Refused, format!("{other:?}"))),
        })
    }

    pub fn answering(
        answers: impl Fn(AnyRequest, u32) -> Result<Reply, ControlError> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(answers))
    }
}

#[async_trait]
impl Control for FakeAgent {
    async fn answer(&self, request: AnyRequest, uid: u32) -> Result<Reply, ControlError> {
        (self.0)(request, uid)
    }
}

pub fn sample_status() -> Status {
    let node = |name: &str, live| NodeRow {
        name: name.into(),
        id: "abcd".into(),
        addresses: vec!["10.9.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        roles: vec!["admin".into()],
        live,
        path: if live { Path::Direct } else { Path::None },
        linked: false,
        relay: None,
        tcp: false,
        through: Vec::new(),
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
            addresses: "10.9.0.53:53".parse().into_iter().collect(),
            resolver: Some(ResolverStatus {
                managed: true,
                method: Some(Method::Resolved),
                why: "nsswitch.conf has `resolve` before `dns`".into(),
                error: None,
                works: Some(true),
            }),
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
            checked: true,
        }],
        pending: vec![Pending {
            name: "wiki".into(),
            reason: "the CA is not reached".into(),
        }],
        counters: BTreeMap::from([("dns_queries".into(), 5)]),
        overlay: Some(OverlayStatus {
            interface: "im0".into(),
            filter: true,
            routes: true,
            containers: vec!["docker0 172.17.0.0/16".into()],
            exceptions: Vec::new(),
            dropped: BTreeMap::from([("arp_asked".into(), 0), ("leak".into(), 2)]),
            dropped_by_others: BTreeMap::from([("in4".into(), 3)]),
        }),
        tunnel: Some(TunnelStatus {
            relay: Some("gamma".into()),
            places: vec!["192.0.2.1:51820".parse().expect("an address")],
            interface: "im0".into(),
            port: 51821,
        }),
    }
}

pub fn sample_ca_status() -> CaStatus {
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
        findings: vec![],
    }
}

pub fn sample_ca_root() -> CaRoot {
    CaRoot {
        mesh: "00ff".into(),
        pem: "-----BEGIN".into(),
        fingerprint_sha256: "bb".into(),
        not_after: UnixTime::from_ms(0),
    }
}

/// A client of an agent that is served until this is dropped.
pub struct Served {
    pub client: Client,
    pub path: PathBuf,
    _stop: oneshot::Sender<()>,
    _folder: tempfile::TempDir,
}

pub async fn served(agent: impl Control + 'static) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let socket = Socket::bind(&path).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server::serve(
        socket,
        Arc::new(agent),
        Arc::new(TokioClock),
        async {
            let _ = stopped.await;
        },
    ));
    Served {
        client: Client::new(&path),
        path,
        _stop: stop,
        _folder: folder,
    }
}
