//! Answers on their way, and field names that scripts rely on.

use std::sync::Arc;

use innermesh_host::UnixTime;
use innermesh_proto::{limits, zone::Protocol};
use serde_json::json;

use super::each::{label, wish};
use crate::{
    all::Control,
    ca::*,
    certificates::*,
    client::{Client, ClientError},
    error::{ControlError, ErrorCode},
    members::*,
    node::*,
    records::*,
    renewals::*,
    services::*,
    testing::{FakeAgent, sample_ca_root, sample_ca_status, sample_status, served},
};

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
                "addresses": ["10.9.0.53:53"],
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
                 "roles": ["admin"], "live": true, "path": "direct", "linked": false,
                 "through": [], "relay": null, "tcp": false, "held": false},
                {"name": "beta", "id": "abcd", "addresses": ["10.9.0.2", "fd00::2"],
                 "roles": ["admin"], "live": false, "path": "none", "linked": false,
                 "through": [], "relay": null, "tcp": false, "held": false},
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
            "tunnel": {
                "interface": "im0", "port": 51821, "relay": "gamma",
                "places": ["192.0.2.1:51820"],
            },
        })
    );
}

#[test]
fn the_field_names_of_the_other_answers_are_those_that_scripts_read() {
    let peer = Peer {
        name: "beta".into(),
        path: Path::Relay,
        linked: true,
        through: vec!["gamma".into()],
        endpoint: "192.0.2.1:51819".parse().ok(),
        tcp: true,
        rtt_ms: Some(1.5),
        psk: true,
        pair_key: Some(PairKey::PostQuantum),
        seen_s: Some(2),
        live_by: Some(LiveBy::Neighbours),
        tunnel: Some(PeerTunnel {
            endpoint: "192.0.2.1:51820".parse().ok(),
            handshake_s: None,
            rx_bytes: 1,
            tx_bytes: 2,
            way: Some(TunnelWay {
                path: Path::Relay,
                at: None,
                relay: Some("gamma".into()),
                announced: false,
                rtt_us: Some(900),
                why: Some("nothing came back".into()),
            }),
        }),
        device: false,
        addresses: vec!["10.9.0.3".parse().unwrap()],
    };
    assert_eq!(
        serde_json::to_value(peer).unwrap(),
        json!({
            "name": "beta", "path": "relay", "linked": true, "through": ["gamma"],
            "endpoint": "192.0.2.1:51819", "tcp": true, "rtt_ms": 1.5,
            "psk": true, "pair_key": "post-quantum", "seen_s": 2, "live_by": "neighbours",
            "tunnel": {
                "endpoint": "192.0.2.1:51820", "handshake_s": null, "rx_bytes": 1, "tx_bytes": 2,
                "way": {
                    "path": "relay", "at": null, "relay": "gamma", "announced": false,
                    "rtt_us": 900, "why": "nothing came back",
                },
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
        service_type: "https".parse().ok(),
        healthy: false,
        checked: true,
        check: Some("tcp".into()),
        granted: true,
        last_error: Some("connection refused".into()),
    };
    assert_eq!(
        serde_json::to_value(service).unwrap(),
        json!({
            "name": "photos", "node": "alpha", "port": 8080, "proto": "tcp", "type": "https", "healthy": false, "checked": true,
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
        sinkholes: Vec::new(),
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
