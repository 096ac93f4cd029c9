//! What a connection may send, and how long.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_proto::limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::raw;
use crate::{
    all::{AnyRequest, Control},
    ca::*,
    client::ClientError,
    error::{ControlError, ErrorCode},
    node::*,
    request::Reply,
    testing::{FakeAgent, served},
};

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
