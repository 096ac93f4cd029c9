//! Serves a [`Control`] as HTTP/1.1 with JSON over the control socket, and
//! settles who may ask what: reading is for everybody on this host, changing
//! for root and the user that the agent runs as (SO_PEERCRED, unix(7)).
//!
//! A web page can't reach a Unix socket, so there is no guard against
//! cross-site requests.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{
        DefaultBodyLimit, Path, Query, Request, State,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use hyper::{
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use innermesh_proto::{limits, name::Label};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;
use tracing::Instrument;

use super::{
    acme,
    api::{
        CertRequest, Control, ControlError, ErrorCode, Invite, InviteRequest, Issued, PingReply,
        QueryReport, ServiceAdded,
    },
    ca, renewals, routes,
    socket::Socket,
};
use crate::{
    host::Clock,
    listen::{self, Class, Listener, Place, Room, Shares, Source, Who},
    services::Spec,
    telemetry,
};

/// The header that carries a trace (W3C Trace Context §3.2).
pub(super) const TRACEPARENT: &str = "traceparent";

/// Serves until `shutdown` is ready; requests that run then are cut off.
pub async fn serve(
    socket: Socket,
    control: Arc<dyn Control>,
    clock: Arc<dyn Clock>,
    shutdown: impl Future<Output = ()>,
) {
    let router = router(control, clock.clone());
    serve_router(socket, router, clock, shutdown).await;
}

/// Tells whoever asks anything that it can't be answered yet, and why, until
/// `shutdown` is ready.
pub async fn serve_reason(
    socket: Socket,
    reason: impl Fn() -> String + Clone + Send + Sync + 'static,
    clock: Arc<dyn Clock>,
    shutdown: impl Future<Output = ()>,
) {
    let router = Router::new().fallback(move || {
        let reason = reason();
        async move { ControlError::new(ErrorCode::Unavailable, reason) }
    });
    serve_router(socket, router, clock, shutdown).await;
}

async fn serve_router(
    socket: Socket,
    router: Router,
    clock: Arc<dyn Clock>,
    shutdown: impl Future<Output = ()>,
) {
    let own = nix::unistd::geteuid().as_raw();
    let server = Server {
        router,
        clock: clock.clone(),
        own,
    };
    // No member reaches this socket.
    let shares = Shares {
        kept_member: 0,
        ..Shares::new(
            limits::CONTROL_CONNECTIONS,
            limits::CONTROL_PER_USER,
            limits::CONTROL_PER_USER,
        )
    };
    let room = Room::new(shares, clock.clone());
    let answer = move |stream, source, place| server.clone().answer(stream, source, place);
    tokio::select! {
        () = listen::serve("the control socket", socket, room, clock, answer) => {}
        () = shutdown => {}
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub uid: u32,
    own: u32,
}

impl Caller {
    fn may_change(self) -> bool {
        self.uid == 0 || self.uid == self.own
    }
}

/// Whoever may change things has places of its own, so that no user can keep
/// root out.
impl Listener for Socket {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Source)> {
        let (stream, _) = self.listener.accept().await?;
        let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
        let own = nix::unistd::geteuid().as_raw();
        let class = if uid.is_some_and(|uid| Caller { uid, own }.may_change()) {
            Class::Local
        } else {
            Class::Other
        };
        let who = Who::User(uid);
        Ok((stream, Source { class, who }))
    }
}

#[derive(Clone)]
struct Server {
    router: Router,
    clock: Arc<dyn Clock>,
    own: u32,
}

impl Server {
    async fn answer(self, stream: UnixStream, source: Source, place: Arc<Place>) {
        let Who::User(Some(uid)) = source.who else {
            return;
        };
        let caller = Caller { uid, own: self.own };
        let router = self.router.layer(Extension(caller));
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let working = place.working();
            let answer = TowerToHyperService::new(router.clone()).call(request);
            async move {
                let answer = answer.await;
                drop(working);
                answer
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(limits::CONTROL_IDLE_MS))
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            // A caller that went away is no news.
            _ = connection => {}
            () = self.clock.sleep(Duration::from_millis(limits::CONTROL_CONNECTION_MS)) => {}
        }
    }
}

#[derive(Clone)]
pub(super) struct Shared {
    pub control: Arc<dyn Control>,
    clock: Arc<dyn Clock>,
}

fn router(control: Arc<dyn Control>, clock: Arc<dyn Clock>) -> Router {
    let shared = Shared { control, clock };
    let reading = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/peers", get(peers))
        .route("/v1/ping", get(ping))
        .route("/v1/services", get(service_list))
        .route("/v1/certificates", get(cert_list))
        .route("/v1/dns/query", get(dns_query))
        .route("/v1/dns/zone", get(dns_zone))
        .merge(ca::reading())
        .merge(routes::reading());
    let changing = Router::new()
        .route("/v1/invites", post(invite))
        .route("/v1/services", post(service_add))
        .route("/v1/services/{name}", delete(service_rm))
        .route("/v1/certificates", post(cert_issue))
        .merge(acme::changing())
        .merge(ca::changing())
        .merge(routes::changing())
        .merge(renewals::changing())
        .route_layer(middleware::from_fn(only_trusted));
    reading
        .merge(changing)
        .fallback(async || {
            not_found("there is no such request; is the command newer than the agent?")
        })
        .method_not_allowed_fallback(async || not_found("there is no such request"))
        .layer(middleware::from_fn_with_state(shared.clone(), deadline))
        .layer(middleware::from_fn(traced))
        .layer(DefaultBodyLimit::max(limits::CONTROL_BODY_BYTES))
        .with_state(shared)
}

async fn only_trusted(
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    if caller.may_change() {
        return next.run(request).await;
    }
    let own = match caller.own {
        0 => String::new(),
        own => format!(", or as the agent's own user (id {own})"),
    };
    let message = format!(
        "user id {} may only look; run this as root{own}",
        caller.uid
    );
    ControlError::new(ErrorCode::Forbidden, message).into_response()
}

async fn traced(request: Request, next: Next) -> Response {
    let parent = request.headers().get(TRACEPARENT);
    let what = format!("{} {}", request.method(), request.uri().path());
    let span = telemetry::control_span(parent.and_then(|p| p.to_str().ok()), &what);
    next.run(request).instrument(span).await
}

async fn deadline(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    tokio::select! {
        response = next.run(request) => response,
        () = shared.clock.sleep(Duration::from_millis(limits::CONTROL_REQUEST_MS)) => {
            let message = "the agent took too long; it may still be done: look before trying again";
            ControlError::new(ErrorCode::Timeout, message).into_response()
        }
    }
}

fn not_found(message: &str) -> ControlError {
    ControlError::new(ErrorCode::NotFound, message)
}

pub(super) type Answer<T> = Result<Json<T>, ControlError>;

/// An answer that carries nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {}

async fn status(State(shared): State<Shared>) -> impl IntoResponse {
    Json(shared.control.status().await)
}

async fn peers(State(shared): State<Shared>) -> impl IntoResponse {
    Json(shared.control.peers().await)
}

#[derive(Serialize, Deserialize)]
pub(super) struct PingQuery {
    pub node: Label,
    pub count: u32,
}

async fn ping(
    State(shared): State<Shared>,
    query: Result<Query<PingQuery>, QueryRejection>,
) -> Answer<PingReply> {
    let Query(PingQuery { node, count }) = query.map_err(|e| invalid(e.body_text()))?;
    if !(1..=limits::PINGS).contains(&count) {
        return Err(invalid(format!("count must be 1 to {}", limits::PINGS)));
    }
    shared.control.ping(node, count).await.map(Json)
}

async fn invite(
    State(shared): State<Shared>,
    request: Result<Json<InviteRequest>, JsonRejection>,
) -> Answer<Invite> {
    shared.control.invite(body(request)?).await.map(Json)
}

async fn service_add(
    State(shared): State<Shared>,
    request: Result<Json<Spec>, JsonRejection>,
) -> Answer<ServiceAdded> {
    let service: Spec = body(request)?;
    service.validate().map_err(invalid)?;
    shared.control.service_add(service).await.map(Json)
}

#[derive(Serialize, Deserialize)]
pub(super) struct ReleaseQuery {
    #[serde(default)]
    pub release: bool,
}

async fn service_rm(
    State(shared): State<Shared>,
    name: Result<Path<Label>, PathRejection>,
    query: Result<Query<ReleaseQuery>, QueryRejection>,
) -> Answer<Done> {
    let Path(name) = name.map_err(|e| invalid(e.body_text()))?;
    let Query(ReleaseQuery { release }) = query.map_err(|e| invalid(e.body_text()))?;
    shared.control.service_rm(name, release).await?;
    Ok(Json(Done {}))
}

async fn service_list(State(shared): State<Shared>) -> impl IntoResponse {
    Json(shared.control.service_list().await)
}

async fn cert_issue(
    State(shared): State<Shared>,
    request: Result<Json<CertRequest>, JsonRejection>,
) -> Answer<Issued> {
    shared.control.cert_issue(body(request)?).await.map(Json)
}

async fn cert_list(State(shared): State<Shared>) -> impl IntoResponse {
    Json(shared.control.cert_list().await)
}

#[derive(Serialize, Deserialize)]
pub(super) struct DnsQuery {
    pub name: String,
    #[serde(rename = "type")]
    pub rtype: String,
}

async fn dns_query(
    State(shared): State<Shared>,
    query: Result<Query<DnsQuery>, QueryRejection>,
) -> Answer<QueryReport> {
    let Query(DnsQuery { name, rtype }) = query.map_err(|e| invalid(e.body_text()))?;
    shared.control.dns_query(name, rtype).await.map(Json)
}

/// The zone as one text.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ZoneText {
    pub zone: String,
}

async fn dns_zone(State(shared): State<Shared>) -> impl IntoResponse {
    let zone = shared.control.dns_zone().await;
    Json(ZoneText { zone })
}

pub(super) fn body<T: DeserializeOwned>(
    request: Result<Json<T>, JsonRejection>,
) -> Result<T, ControlError> {
    request
        .map(|Json(body)| body)
        .map_err(|e| invalid(e.body_text()))
}

pub(super) fn invalid(message: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorCode::Invalid, message)
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let status = match self.code {
            ErrorCode::Invalid => StatusCode::BAD_REQUEST,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Refused => StatusCode::CONFLICT,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Method};

    use super::*;
    use crate::control::tests::{FakeAgent, TokioClock};

    async fn code(caller: Caller, method: Method, path: &str) -> StatusCode {
        let router = router(Arc::new(FakeAgent::default()), Arc::new(TokioClock));
        let request = Request::builder().method(method).uri(path);
        TowerToHyperService::new(router.layer(Extension(caller)))
            .call(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
            .status()
    }

    #[tokio::test]
    async fn everybody_may_look_and_only_root_and_the_agent_s_user_may_change() {
        let caller = |uid| Caller { uid, own: 997 };
        for path in ["/v1/status", "/v1/services", "/v1/ca/root", "/v1/dns/zone"] {
            assert_eq!(code(caller(1000), Method::GET, path).await, StatusCode::OK);
        }
        let changes = [
            (Method::POST, "/v1/invites"),
            (Method::POST, "/v1/services"),
            (Method::DELETE, "/v1/services/photos"),
            (Method::POST, "/v1/certificates"),
            (Method::POST, "/v1/renewals"),
            (Method::POST, "/v1/renewals/now"),
            (Method::POST, "/v1/renewals/remove"),
            (Method::POST, "/v1/ca/keys"),
            (Method::POST, "/v1/ca/promote"),
            (Method::POST, "/v1/ca/demote"),
            (Method::POST, "/v1/ca/recovery"),
            (Method::POST, "/v1/ca/recover"),
        ];
        for (method, path) in changes {
            let refused = code(caller(1000), method.clone(), path).await;
            assert_eq!(refused, StatusCode::FORBIDDEN, "{path}");
            for uid in [0, 997] {
                let let_in = code(caller(uid), method.clone(), path).await;
                assert_ne!(let_in, StatusCode::FORBIDDEN, "{path}");
            }
        }
    }
}
