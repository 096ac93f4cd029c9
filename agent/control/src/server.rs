//! Serves a [`Control`] as HTTP/1.1 with JSON over the control socket, and
//! settles who may ask what: reading is for everybody on this host, changing
//! for root and the user that the agent runs as (SO_PEERCRED, unix(7)).
//!
//! A web page can't reach a Unix socket, so there is no guard against
//! cross-site requests.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, RawPathParams, RawQuery, Request, State,
        rejection::{BytesRejection, RawPathParamsRejection},
    },
    http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use hyper::{
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use innermesh_proto::limits;
use tokio::net::UnixStream;
use tracing::Instrument;

use super::{
    all::{Control, Route, routes},
    error::{ControlError, ErrorCode},
    request::Received,
    socket::Socket,
};
use innermesh_host::{
    Clock,
    listen::{self, Class, Listener, Place, Room, Shares, Source, Who},
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
struct Caller {
    uid: u32,
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
struct Shared {
    control: Arc<dyn Control>,
    clock: Arc<dyn Clock>,
}

fn router(control: Arc<dyn Control>, clock: Arc<dyn Clock>) -> Router {
    let shared = Shared { control, clock };
    let mut router = Router::new();
    for route in routes() {
        router = mount(router, route);
    }
    router
        .fallback(async || {
            not_found("there is no such request; is the command newer than the agent?")
        })
        .method_not_allowed_fallback(async || not_found("there is no such request"))
        .layer(middleware::from_fn_with_state(shared.clone(), deadline))
        .layer(middleware::from_fn(traced))
        .layer(DefaultBodyLimit::max(limits::CONTROL_BODY_BYTES))
        .with_state(shared)
}

fn mount(router: Router<Shared>, route: Route) -> Router<Shared> {
    let path = route.path;
    let body = DefaultBodyLimit::max(route.body_bytes);
    // Every method of a request has a filter.
    let filter = MethodFilter::try_from(route.method.clone()).unwrap_or(MethodFilter::POST);
    let route = Arc::new(route);
    let handler = move |State(shared): State<Shared>,
                        Extension(caller): Extension<Caller>,
                        captures: Result<RawPathParams, RawPathParamsRejection>,
                        RawQuery(query): RawQuery,
                        headers: HeaderMap,
                        body: Result<Bytes, BytesRejection>| async move {
        if route.changes && !caller.may_change() {
            let message = "read-only access; use sudo";
            return Err(ControlError::new(ErrorCode::Forbidden, message));
        }
        let captures = captures.map_err(|e| invalid(e.body_text()))?;
        let body = body.map_err(|e| invalid(e.body_text()))?;
        if route.method == Method::POST && !body.is_empty() && !is_json(&headers) {
            return Err(invalid("a body needs `Content-Type: application/json`"));
        }
        let request = (route.read)(&Received {
            captures: captures.iter().collect(),
            query: query.as_deref().unwrap_or_default(),
            body: &body,
        })?;
        if route.changes {
            shared.control.may_change().await?;
        }
        let reply = shared.control.answer(request, caller.uid).await?;
        Ok(([(CONTENT_TYPE, "application/json")], reply.into_bytes()))
    };
    router.route(path, on(filter, handler).layer(body))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
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

fn invalid(message: impl std::fmt::Display) -> ControlError {
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
    use axum::body::Body;

    use super::*;
    use crate::testing::{FakeAgent, TokioClock};

    async fn code(caller: Caller, method: Method, path: &str) -> StatusCode {
        let router = router(Arc::new(FakeAgent::new()), Arc::new(TokioClock));
        let request = Request::builder().method(method).uri(path);
        TowerToHyperService::new(router.layer(Extension(caller)))
            .call(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
            .status()
    }

    #[tokio::test]
    async fn everybody_may_look_and_only_root_and_the_agent_s_user_may_change() {
        for route in routes() {
            let path = route.path.replace(['{', '}'], "");
            for (uid, trusted) in [(1000, false), (0, true), (997, true)] {
                let code = code(Caller { uid, own: 997 }, route.method.clone(), &path).await;
                let may = trusted || !route.changes;
                assert_eq!(
                    code != StatusCode::FORBIDDEN,
                    may,
                    "{uid} {} {path}",
                    route.method
                );
            }
        }
    }

    /// An agent that can't keep anything.
    struct Homeless;

    #[async_trait::async_trait]
    impl Control for Homeless {
        async fn answer(
            &self,
            request: crate::all::AnyRequest,
            uid: u32,
        ) -> Result<crate::request::Reply, ControlError> {
            FakeAgent::new().answer(request, uid).await
        }

        async fn may_change(&self) -> Result<(), ControlError> {
            Err(ControlError::new(ErrorCode::Unavailable, "gone"))
        }
    }

    #[tokio::test]
    async fn where_nothing_can_be_kept_every_change_is_refused_and_looking_goes_on() {
        let agent: Arc<dyn Control> = Arc::new(Homeless);
        let leave = agent.ask(crate::node::LeaveRequest {}).await;
        assert_eq!(leave.unwrap_err().code, ErrorCode::Unavailable);
        assert!(agent.ask(crate::node::StatusRequest {}).await.is_ok());
        let router = router(agent, Arc::new(TokioClock));
        for (path, method, expected) in [
            ("/v1/status", Method::GET, StatusCode::OK),
            ("/v1/leave", Method::POST, StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let caller = Caller { uid: 0, own: 0 };
            let request = Request::builder().method(method).uri(path);
            let answer = TowerToHyperService::new(router.clone().layer(Extension(caller)))
                .call(request.body(Body::empty()).unwrap())
                .await;
            assert_eq!(answer.unwrap().status(), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn whoever_may_only_look_is_answered_when_they_do() {
        for path in ["/v1/status", "/v1/ca", "/v1/ca/root"] {
            let code = code(
                Caller {
                    uid: 1000,
                    own: 997,
                },
                Method::GET,
                path,
            )
            .await;
            assert_eq!(code, StatusCode::OK, "{path}");
        }
    }
}
