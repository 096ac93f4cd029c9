//! The client against the server, every request on its way, and field names that
//! scripts rely on.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_proto::{
    certificate::Serial, filter::LanAccess, limits, name::Label, zone::Protocol,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{
    acme::*,
    all::{AnyRequest, Control, routes},
    ca::*,
    certificates::*,
    client::{Client, ClientError},
    der::Der,
    devices::*,
    dns::*,
    error::{ControlError, ErrorCode},
    exits::*,
    log::*,
    members::*,
    node::*,
    policy::*,
    publish::*,
    records::*,
    renewals::*,
    request::{Reply, Request},
    routes::*,
    services::*,
    spec::Spec,
    testing::{FakeAgent, Served, sample_ca_root, sample_ca_status, sample_status, served},
};
use innermesh_host::{UnixTime, identity::FileIdentity};

/// Something to do with each request.
trait EachRequest {
    async fn visit<R: Request>(&mut self, request: R)
    where
        AnyRequest: From<R::Subject>;
}

fn label(name: &str) -> Label {
    name.parse().unwrap()
}

fn photos() -> Spec {
    Spec {
        name: label("photos"),
        port: 8080,
        protocol: Protocol::Udp,
        check: Some("http://127.0.0.1:8080/health".parse().unwrap()),
        address: Some("192.0.2.7".parse().unwrap()),
        share: [label("beta")].into(),
        wildcard: true,
    }
}

fn which() -> WhichRenewal {
    WhichRenewal {
        name: "photos".into(),
        folder: Some("/etc/innermesh/certs".into()),
    }
}

fn wish() -> RenewalWish {
    RenewalWish {
        names: vec!["photos.in.example.org".into()],
        days: 90,
        folder: "/etc/innermesh/certs".into(),
        stem: "photos".into(),
        owner: Some(33),
        group: None,
        mode: 0o640,
        new_key: true,
        renew_before_s: Some(3600),
        exec: Some("systemctl reload nginx".into()),
        exec_now: false,
    }
}

fn root_signed() -> RootSigned {
    RootSigned {
        until_ms: u64::MAX,
        signature: Der(vec![0xff; 71]),
    }
}

/// Every request, with fields that are hard to write.
async fn each_device_request(each: &mut impl EachRequest) {
    let public_key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".to_owned();
    let lan = || vec!["192.168.5.0/24".parse().unwrap()];
    each.visit(DeviceListRequest {}).await;
    let name = || label("phone");
    each.visit(DeviceShowRequest { name: name() }).await;
    each.visit(DeviceAddRequest {
        name: name(),
        public_key: public_key.clone(),
        owner: Some(label("beta")),
        gateways: vec![label("birch")],
        routes: lan(),
        full_tunnel: true,
        dns: false,
        groups: vec![label("family")],
        ttl_s: Some(60),
    })
    .await;
    each.visit(DeviceRenewRequest {
        name: name(),
        public_key,
        gateways: Some(vec![label("birch")]),
        routes: Some(lan()),
        full_tunnel: None,
        dns: Some(true),
        ttl_s: None,
    })
    .await;
    let to = label("handy");
    each.visit(DeviceRenameRequest { name: name(), to }).await;
    each.visit(DeviceRmRequest { name: name() }).await;
}

async fn each_request(each: &mut impl EachRequest) {
    each.visit(StatusRequest {}).await;
    each.visit(PeersRequest {}).await;
    let (node, count) = (label("beta"), limits::PINGS);
    each.visit(PingRequest { node, count }).await;
    each.visit(RekeyRequest {}).await;
    let address = "192.0.2.1".to_owned();
    each.visit(SeedAddRequest { address }).await;
    each.visit(LeaveRequest {}).await;

    each.visit(InviteRequest {
        ttl_s: u64::MAX,
        uses: 2,
        roles: vec!["admin".into()],
        names: vec!["web-*".parse().unwrap()],
        routes: vec!["192.0.2.0/24".parse().unwrap()],
        addresses: vec!["2001:db8::/32".parse().unwrap()],
    })
    .await;
    let (node, root) = (label("beta"), Some(Der(vec![0xff; 70])));
    each.visit(EvictRequest { node, root }).await;
    each.visit(EvictUndoRequest {
        node: label("beta"),
    })
    .await;
    each.visit(InviteListRequest {}).await;
    let id = "00ff 11/22".into();
    each.visit(InviteRevokeRequest { id }).await;
    each.visit(RoleRequest {
        node: label("beta"),
        role: "admin".into(),
        give: true,
        root: Some(root_signed()),
    })
    .await;
    let node = label("beta");
    each.visit(RoleWordRequest { node }).await;
    each.visit(AdmissionsRequest {}).await;
    let (code, grants) = ("1234-5678".into(), Grants::default());
    each.visit(ApproveRequest { code, grants }).await;
    let which_machine = "a \"tablet\" & more".into();
    each.visit(DenyRequest {
        which: which_machine,
    })
    .await;

    each.visit(ServiceListRequest {}).await;
    each.visit(ServiceAddRequest(photos())).await;
    let (name, release) = (label("photos"), true);
    each.visit(ServiceRmRequest { name, release }).await;

    each.visit(CertListRequest {}).await;
    each.visit(CertRequest {
        names: vec!["photos.in.example.org".into()],
        csr: Der(vec![1, 2]),
        days: 1,
    })
    .await;
    let serial: Serial = "AA:".repeat(16).parse().unwrap();
    each.visit(CertRevokeRequest { serial }).await;

    each.visit(RenewalAddRequest(wish())).await;
    each.visit(RenewalCheckRequest {
        folder: "/etc/innermesh/certs".into(),
        stem: "photos".into(),
        seen: FileIdentity {
            device: u64::MAX,
            inode: 7,
        },
    })
    .await;
    let (which, new_key) = (which(), true);
    each.visit(RenewalRmRequest(which.clone())).await;
    each.visit(RenewNowRequest { which, new_key }).await;

    each.visit(RecordListRequest {}).await;
    each.visit(RecordAddRequest {
        name: "tv.in.example.org".into(),
        rtype: "TXT".into(),
        value: "a b%20\n\u{e9}".into(),
        ttl_s: Some(60),
        public: true,
    })
    .await;
    let value = Some("\"a\" &b=%+".to_owned());
    for value in [None, value] {
        let (name, rtype) = ("*.tv &type=x+%/?#".into(), "TXT".into());
        each.visit(RecordRmRequest { name, rtype, value }).await;
    }

    each.visit(RouteListRequest {}).await;
    each.visit(RouteChangeRequest {
        net: "2001:db8:1::/64".parse().unwrap(),
        gateway: Some(label("beta")),
        give: true,
    })
    .await;

    each.visit(PublishListRequest {}).await;
    each.visit(PublishRequest {
        name: label("mail"),
        port: 25,
        to_port: Some(2525),
        on: label("beta"),
        proxy_protocol: true,
    })
    .await;
    each.visit(UnpublishRequest {
        name: label("mail"),
        port: Some(25),
        on: Some(label("beta")),
    })
    .await;
    each.visit(ExitShowRequest {}).await;
    each.visit(ExitUseRequest {
        node: label("attic"),
        lan: LanAccess::Cut,
    })
    .await;
    each.visit(ExitOffRequest {}).await;

    each.visit(CaStatusRequest {}).await;
    each.visit(CaRootRequest {}).await;
    each.visit(CaKeysRequest {
        node: label("beta"),
    })
    .await;
    let (node, issuers) = (label("beta"), vec![Der(vec![1, 2])]);
    each.visit(PromoteRequest { node, issuers }).await;
    let (node, root) = (label("beta"), Some(root_signed()));
    each.visit(DemoteRequest { node, root }).await;
    each.visit(RecoveryRequest {}).await;
    let signed = Der(vec![7]);
    each.visit(RecoverRequest { signed }).await;

    let name = "tv.in.example.org".to_owned();
    each.visit(EabAddRequest { name: name.clone() }).await;
    each.visit(EabRmRequest { name }).await;

    let (name, rtype) = ("a b&type=x".into(), "AAAA".into());
    let source = Some([192, 168, 1, 9].into());
    let query = DnsQueryRequest {
        name,
        rtype,
        source,
    };
    each.visit(query).await;
    each.visit(DnsResolverRequest {}).await;
    each.visit(DnsSetupRequest {}).await;
    each.visit(DnsReleaseRequest {}).await;
    each.visit(DnsZoneRequest {}).await;
    let addresses = vec![[203, 0, 113, 7].into()];
    let public = DnsPublicRequest {
        addresses: addresses.clone(),
    };
    each.visit(public).await;
    let at = Some(([9, 9, 9, 9], 53).into());
    each.visit(DnsVerifyRequest { addresses, at }).await;

    each_device_request(each).await;

    let text = "[default]\nmembers = \"closed\"\n".to_owned();
    each.visit(PolicyShowRequest {}).await;
    each.visit(PolicySetRequest {
        text: text.clone(),
        allow_unknown: true,
        instead_of: Some(3),
    })
    .await;
    each.visit(PolicyCheckRequest {
        text,
        allow_unknown: false,
    })
    .await;
    each.visit(PolicyExplainRequest {
        from: "group:kids".to_owned(),
        to: "[fd00::/64]:tcp/443".to_owned(),
    })
    .await;

    each.visit(LogRequest {}).await;
    let level = "info,innermesh_net::quic=trace".parse().ok();
    each.visit(LogSetRequest { level }).await;
}

/// Asks each, of an agent that refuses it by showing it.
struct Arrival {
    served: Served,
    asked: BTreeSet<String>,
}

impl EachRequest for Arrival {
    async fn visit<R: Request>(&mut self, request: R)
    where
        AnyRequest: From<R::Subject>,
    {
        let answer = self.served.client.ask(&request).await;
        let refused = answer.err().expect("a refusal").to_string();
        assert_eq!(
            refused,
            format!("{:?}", AnyRequest::from(R::Subject::from(request)))
        );
        self.asked.insert(format!("{} {}", R::METHOD, R::PATH));
    }
}

#[tokio::test]
async fn every_request_arrives_as_it_was_asked() {
    let shows = |request, _| {
        Err(ControlError::new(
            ErrorCode::Refused,
            format!("{request:?}"),
        ))
    };
    let mut arrival = Arrival {
        served: served(FakeAgent::answering(shows)).await,
        asked: BTreeSet::new(),
    };
    each_request(&mut arrival).await;
    let all = routes().into_iter();
    let all: BTreeSet<String> = all.map(|r| format!("{} {}", r.method, r.path)).collect();
    assert_eq!(arrival.asked, all, "each is asked above");
}

/// Looks at where each is asked.
struct Templates;

impl EachRequest for Templates {
    async fn visit<R: Request>(&mut self, request: R)
    where
        AnyRequest: From<R::Subject>,
    {
        let named: Vec<&str> = R::PATH
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        if R::METHOD == hyper::Method::POST {
            assert!(
                named.is_empty(),
                "{}: a POST has its fields in its body",
                R::PATH
            );
        }
        let fields = serde_json::to_value(&request).unwrap();
        for name in named {
            let field = fields.get(name);
            assert!(field.is_some_and(Value::is_string), "{}: {fields}", R::PATH);
        }
    }
}

#[tokio::test]
async fn a_path_names_fields_that_its_request_has() {
    each_request(&mut Templates).await;
}

#[test]
fn requests_are_where_older_commands_and_scripts_ask_them() {
    let mut all: Vec<String> = routes()
        .iter()
        .map(|route| {
            let who = if route.changes { "changes" } else { "looks" };
            format!("{} {} {who}", route.path, route.method)
        })
        .collect();
    all.sort();
    assert_eq!(
        all.join("\n"),
        "\
/v1/acme/eab POST changes
/v1/acme/eab/rm POST changes
/v1/ca GET looks
/v1/ca/demote POST changes
/v1/ca/keys POST changes
/v1/ca/promote POST changes
/v1/ca/recover POST changes
/v1/ca/recovery POST changes
/v1/ca/root GET looks
/v1/certificates GET looks
/v1/certificates POST changes
/v1/certificates/{serial} DELETE changes
/v1/device-keys POST changes
/v1/device-names POST changes
/v1/devices GET looks
/v1/devices POST changes
/v1/devices/{name} DELETE changes
/v1/devices/{name} GET changes
/v1/dns/public POST looks
/v1/dns/public/verify POST changes
/v1/dns/query GET looks
/v1/dns/resolver GET looks
/v1/dns/resolver/release POST changes
/v1/dns/resolver/setup POST changes
/v1/dns/zone GET looks
/v1/evictions POST changes
/v1/evictions/{node} DELETE changes
/v1/exit GET looks
/v1/exit POST changes
/v1/exit/off POST changes
/v1/invites GET changes
/v1/invites POST changes
/v1/invites/{id} DELETE changes
/v1/leave POST changes
/v1/log GET looks
/v1/log POST changes
/v1/peers GET looks
/v1/ping GET looks
/v1/policy GET looks
/v1/policy POST changes
/v1/policy/check POST looks
/v1/policy/explain GET looks
/v1/published GET looks
/v1/published POST changes
/v1/records DELETE changes
/v1/records GET looks
/v1/records POST changes
/v1/renewals POST changes
/v1/renewals/check POST changes
/v1/renewals/now POST changes
/v1/renewals/remove POST changes
/v1/requests POST changes
/v1/requests/approve POST changes
/v1/requests/deny POST changes
/v1/roles POST changes
/v1/roles/word POST changes
/v1/routes GET looks
/v1/routes POST changes
/v1/seeds POST changes
/v1/services GET looks
/v1/services POST changes
/v1/services/{name} DELETE changes
/v1/status GET looks
/v1/tunnel/rekey POST changes
/v1/unpublished POST changes"
    );
}

#[tokio::test]
async fn what_older_commands_send_is_understood() {
    let shows = |request, _| {
        Err(ControlError::new(
            ErrorCode::Refused,
            format!("{request:?}"),
        ))
    };
    let served = served(FakeAgent::answering(shows)).await;
    for (line, shown) in [
        (
            "GET /v1/ping?node=beta&count=3",
            "Node(Ping(PingRequest { node: beta, count: 3 }))",
        ),
        ("POST /v1/leave", "Node(Leave(LeaveRequest))"),
        (
            "POST /v1/requests",
            "Members(Admissions(AdmissionsRequest))",
        ),
        (
            "DELETE /v1/services/photos",
            "Services(Rm(ServiceRmRequest { name: photos, release: false }))",
        ),
        (
            "DELETE /v1/services/photos?release=true",
            "Services(Rm(ServiceRmRequest { name: photos, release: true }))",
        ),
        (
            "GET /v1/dns/query?name=a%20b%26c&type=AAAA",
            "Dns(Query(DnsQueryRequest { name: \"a b&c\", rtype: \"AAAA\", source: None }))",
        ),
        (
            "DELETE /v1/records?name=%2A.tv&type=TXT",
            "Records(Rm(RecordRmRequest { name: \"*.tv\", rtype: \"TXT\", value: None }))",
        ),
        (
            "DELETE /v1/records?name=tv&type=A&value=192.0.2.9",
            "Records(Rm(RecordRmRequest { name: \"tv\", rtype: \"A\", value: Some(\"192.0.2.9\") }))",
        ),
    ] {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let answer = raw(&served, request.as_bytes()).await;
        let (_, json) = answer.split_once("\r\n\r\n").unwrap();
        let error: ControlError = serde_json::from_str(json).unwrap();
        assert_eq!(error.message, shown, "{line}");
    }
}

#[tokio::test]
async fn an_answer_arrives_as_it_was_given() {
    let served = served(FakeAgent::new()).await;
    let client = &served.client;
    assert_eq!(
        client.ask(&StatusRequest {}).await.unwrap(),
        sample_status()
    );
    assert_eq!(
        client.ask(&CaStatusRequest {}).await.unwrap(),
        sample_ca_status()
    );
    assert_eq!(
        client.ask(&CaRootRequest {}).await.unwrap(),
        sample_ca_root()
    );
}

#[tokio::test]
async fn who_asks_is_told_to_the_agent() {
    let shows = |_, uid: u32| Err(ControlError::new(ErrorCode::Refused, uid));
    let served = served(FakeAgent::answering(shows)).await;
    let refused = served.client.ask(&RenewalAddRequest(wish())).await;
    let own = nix::unistd::geteuid().to_string();
    assert_eq!(refused.unwrap_err().to_string(), own);
}

#[tokio::test]
async fn within_the_process_a_request_gets_the_same_answer() {
    let agent: Arc<dyn Control> = Arc::new(FakeAgent::new());
    assert_eq!(agent.ask(StatusRequest {}).await.unwrap(), sample_status());
    let refused = agent
        .ask(EvictUndoRequest {
            node: label("beta"),
        })
        .await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::Refused);
}

#[tokio::test]
async fn a_refusal_arrives_in_the_agent_s_own_words() {
    let none = |_, _| {
        let message = "no member is called gamma; `agent status` lists them";
        Err(ControlError::new(ErrorCode::NotFound, message))
    };
    let served = served(FakeAgent::answering(none)).await;
    let ping = |count| PingRequest {
        node: label("gamma"),
        count,
    };
    let refused = served.client.ask(&ping(1)).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused(e) if e.code == ErrorCode::NotFound),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("no member is called gamma"));
    for count in [0, limits::PINGS + 1] {
        let out_of_bounds = served.client.ask(&ping(count)).await;
        assert!(
            matches!(&out_of_bounds, Err(ClientError::Refused(e)) if e.code == ErrorCode::Invalid),
            "{out_of_bounds:?}"
        );
    }
}

#[tokio::test]
async fn without_an_agent_the_client_says_that_none_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let absent = Client::new(&path).ask(&StatusRequest {}).await.unwrap_err();
    assert!(matches!(absent, ClientError::NotRunning(_)), "{absent:?}");
    assert!(absent.to_string().contains("isn't running"));
    drop(tokio::net::UnixListener::bind(&path).unwrap());
    let stale = Client::new(&path).ask(&StatusRequest {}).await.unwrap_err();
    assert!(matches!(stale, ClientError::NotRunning(_)), "{stale:?}");
}

/// An agent that never answers.
struct Hangs;

#[async_trait]
impl Control for Hangs {
    async fn answer(&self, _: AnyRequest, _: u32) -> Result<Reply, ControlError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_is_answered_with_a_timeout() {
    let served = served(Hangs).await;
    let error = served.client.ask(&StatusRequest {}).await.unwrap_err();
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
    let asked = Arc::new(Mutex::new(Vec::new()));
    let all = asked.clone();
    let served = served(FakeAgent::answering(move |request, _| {
        all.lock().unwrap().push(format!("{request:?}"));
        Err(ControlError::new(ErrorCode::Internal, "done"))
    }))
    .await;
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
        ("DELETE", "/v1/services/a?name=b", "", "400"),
        ("DELETE", "/v1/services/%ff", "", "400"),
        ("DELETE", "/v1/certificates/12", "", "400"),
        ("POST", "/v1/invites", "", "400"),
        ("GET", "/v1/ping?node=beta&count=-1", "", "400"),
        ("GET", "/v1/nothing", "", "404"),
        ("PUT", "/v1/status", "", "404"),
        ("POST", "/v1/status", "", "404"),
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
    assert!(asked.lock().unwrap().is_empty(), "{asked:?}");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let served = served(FakeAgent::new()).await;
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
    let served = served(FakeAgent::new()).await;
    assert_eq!(raw(&served, b"GET /v1/status HTT").await, "");
}

#[tokio::test]
async fn a_user_s_idle_connections_give_way_to_its_next_one() {
    let served = served(FakeAgent::new()).await;
    let mut held = Vec::new();
    for _ in 0..limits::CONTROL_PER_USER {
        let mut stream = UnixStream::connect(&served.path).await.unwrap();
        stream
            .write_all(b"GET /v1/ca/root HTTP/1.1\r\nHost: agent\r\n\r\n")
            .await
            .unwrap();
        // The answer shows that the place is taken.
        stream.read_u8().await.unwrap();
        held.push(stream);
    }
    let next = tokio::time::timeout(Duration::from_secs(4), served.client.ask(&CaRootRequest {}));
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
            "dns": {
                "address": "10.9.0.53:53",
                "resolver": {
                    "managed": true, "method": "resolved", "works": true, "error": null,
                    "why": "nsswitch.conf has `resolve` before `dns`",
                },
            },
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
            "services": [{"name": "photos", "node": "alpha", "port": 8080, "healthy": true, "checked": true}],
            "pending": [{"name": "wiki", "reason": "the CA is not reached"}],
            "counters": {"dns_queries": 5},
            "overlay": {
                "interface": "im0", "filter": true, "routes": true,
                "containers": ["docker0 172.17.0.0/16"], "exceptions": [],
                "dropped_by_others": {"in4": 3},
                "dropped": {"arp_asked": 0, "leak": 2},
            },
            "tunnel": {"interface": "im0", "port": 51821},
        })
    );
}

#[test]
fn the_field_names_of_the_other_answers_are_those_that_scripts_read() {
    let peer = Peer {
        name: "beta".into(),
        path: Path::Relay,
        endpoint: "192.0.2.1:51819".parse().ok(),
        rtt_ms: Some(1.5),
        psk: true,
        seen_s: Some(2),
        tunnel: Some(PeerTunnel {
            endpoint: "192.0.2.1:51820".parse().ok(),
            handshake_s: None,
            rx_bytes: 1,
            tx_bytes: 2,
        }),
        device: false,
        addresses: vec!["10.9.0.3".parse().unwrap()],
    };
    assert_eq!(
        serde_json::to_value(peer).unwrap(),
        json!({
            "name": "beta", "path": "relay", "endpoint": "192.0.2.1:51819", "rtt_ms": 1.5,
            "psk": true, "seen_s": 2,
            "tunnel": {
                "endpoint": "192.0.2.1:51820", "handshake_s": null, "rx_bytes": 1, "tx_bytes": 2,
            },
            "device": false, "addresses": ["10.9.0.3"],
        })
    );
    assert_eq!(
        serde_json::to_value(sample_ca_status()).unwrap(),
        json!({
            "leader": "alpha", "term": 1, "roster": ["alpha"],
            "waiting": [{"node": "beta", "reason": "one more"}],
            "voters": [{"node": "alpha", "decides": true, "behind": 0, "active": null}],
            "issuers": [{
                "node": "alpha", "serial": "0b", "state": "in_force", "days_left": 1,
                "not_before": "1970-01-01T00:00:00Z", "not_after": "1970-01-02T00:00:00Z",
            }],
            "ledger": {"index": 3, "hash": "aa"}, "epoch": 2, "recovery": 0, "warnings": [],
            "findings": [],
        })
    );
    let expires = UnixTime::from_ms(1000);
    let invite = Invite {
        id: "00ff".into(),
        token: "tok".into(),
        command: "printf %s tok | agent join 192.0.2.1 --token -".into(),
        asking: "agent join 192.0.2.1 --token -".into(),
        expires,
        expires_ms: expires.ms(),
    };
    assert_eq!(
        serde_json::to_value(invite).unwrap(),
        json!({
            "id": "00ff", "token": "tok", "command": "printf %s tok | agent join 192.0.2.1 --token -",
            "asking": "agent join 192.0.2.1 --token -",
            "expires": "1970-01-01T00:00:01Z", "expires_ms": 1000,
        })
    );
    let service = ServiceRow {
        name: "photos".into(),
        node: "alpha".into(),
        port: 8080,
        proto: Protocol::Tcp,
        healthy: false,
        checked: true,
        check: Some("tcp".into()),
        granted: true,
        last_error: Some("connection refused".into()),
    };
    assert_eq!(
        serde_json::to_value(service).unwrap(),
        json!({
            "name": "photos", "node": "alpha", "port": 8080, "proto": "tcp", "healthy": false, "checked": true,
            "check": "tcp", "granted": true, "last_error": "connection refused",
        })
    );
    let certificate = CertRow {
        serial: "0a".into(),
        names: vec!["photos.in.example.org".into()],
        node: "alpha".into(),
        not_before: UnixTime::from_ms(0),
        not_after: UnixTime::from_ms(86_400_000),
        kind: CertKind::Service,
        revoked: false,
        renewal: None,
    };
    assert_eq!(
        serde_json::to_value(certificate).unwrap(),
        json!({
            "serial": "0a", "names": ["photos.in.example.org"], "node": "alpha",
            "not_before": "1970-01-01T00:00:00Z", "not_after": "1970-01-02T00:00:00Z",
            "kind": "service", "revoked": false, "renewal": null,
        })
    );
    let record = RecordRow {
        name: "tv.in.example.org.".into(),
        rtype: "A".into(),
        value: "192.0.2.9".into(),
        ttl_s: 30,
        public: false,
        owner: "alpha".into(),
        answered: true,
    };
    assert_eq!(
        serde_json::to_value(record).unwrap(),
        json!({
            "name": "tv.in.example.org.", "type": "A", "value": "192.0.2.9", "ttl": 30,
            "public": false, "owner": "alpha", "answered": true,
        })
    );
}

#[test]
fn a_refusal_of_a_kind_from_a_later_version_is_still_understood() {
    let error: ControlError =
        serde_json::from_value(json!({"code": "quota", "message": "no more"})).unwrap();
    assert_eq!(error, ControlError::new(ErrorCode::Internal, "no more"));
}
