//! A Docker of its own making, as far as it is asked: containers, images without
//! labels, and events.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use super::id;
use crate::services::tests::World;

type Body = BoxBody<Bytes, Infallible>;

/// Clones are the same.
#[derive(Clone, Default)]
pub struct Fake(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    events: broadcast::Sender<String>,
    /// Changes whenever all connections are to end.
    round: watch::Sender<u64>,
    followers: watch::Sender<usize>,
    connections: AtomicUsize,
}

#[derive(Default)]
struct State {
    containers: BTreeMap<u16, Value>,
    hangs: bool,
    floods: bool,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            events: broadcast::Sender::new(4096),
            round: watch::Sender::default(),
            followers: watch::Sender::default(),
            connections: AtomicUsize::new(0),
        }
    }
}

impl Fake {
    /// Answers on the world's sockets from now on.
    pub fn up(&self, world: &World) {
        let fake = self.clone();
        let accept = move |stream| {
            fake.0.connections.fetch_add(1, Ordering::Relaxed);
            let service = {
                let fake = fake.clone();
                service_fn(move |request| fake.clone().answer(request))
            };
            let mut round = fake.0.round.subscribe();
            tokio::spawn(async move {
                tokio::select! {
                    _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
                    _ = round.changed() => {}
                }
            });
        };
        *world.unix.lock().unwrap() = Some(Box::new(accept));
    }

    /// Is no more.
    pub fn down(&self, world: &World) {
        *world.unix.lock().unwrap() = None;
        self.drop_connections();
    }

    pub fn drop_connections(&self) {
        self.0.followers.send_replace(0);
        self.0.round.send_modify(|round| *round += 1);
    }

    /// Waits until somebody follows its events.
    pub async fn followed(&self) {
        let mut followers = self.0.followers.subscribe();
        let _ = followers.wait_for(|count| *count > 0).await.unwrap();
    }

    pub fn start(&self, number: u16, inspection: Value) {
        self.change(number, inspection, "start");
    }

    pub fn change(&self, number: u16, inspection: Value, action: &str) {
        self.add(number, inspection);
        self.tell(number, action);
    }

    pub fn end(&self, number: u16) {
        self.remove(number);
        self.tell(number, "die");
    }

    /// Without an event.
    pub fn add(&self, number: u16, inspection: Value) {
        self.lock().containers.insert(number, inspection);
    }

    /// Without an event.
    pub fn remove(&self, number: u16) {
        self.lock().containers.remove(&number);
    }

    pub fn hang(&self, hangs: bool) {
        self.lock().hangs = hangs;
    }

    /// Has its lists have no end.
    pub fn flood(&self, floods: bool) {
        self.lock().floods = floods;
    }

    fn tell(&self, number: u16, action: &str) {
        let line = format!(
            "{{\"Type\": \"container\", \"Action\": \"{action}\", \"Actor\": {{\"ID\": \"{}\"}}}}\n",
            id(number)
        );
        // Nobody may follow.
        let _ = self.0.events.send(line);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        assert_eq!(request.method(), hyper::Method::GET);
        if self.lock().hangs {
            return std::future::pending().await;
        }
        Ok(match request.uri().path() {
            "/containers/json" if self.lock().floods => {
                let more = stream::repeat(Bytes::from_static(&[b' '; 65536]));
                Response::new(BodyExt::boxed(StreamBody::new(
                    more.map(|it| Ok(Frame::data(it))),
                )))
            }
            "/containers/json" => {
                let all = self.lock().containers.keys().copied().collect::<Vec<_>>();
                let rows = all
                    .into_iter()
                    .map(|it| serde_json::json!({ "Id": id(it) }));
                json(rows.collect())
            }
            "/events" => self.follow(),
            path if path.starts_with("/images/sha256:") => {
                json(serde_json::json!({ "Config": { "Labels": null } }))
            }
            path => {
                let state = self.lock();
                let mut found = state.containers.iter();
                let found = found.find(|(it, _)| path == format!("/containers/{}/json", id(**it)));
                match found {
                    Some((_, inspection)) => json(inspection.clone()),
                    None => {
                        let mut none = json(serde_json::json!({ "message": "No such container" }));
                        *none.status_mut() = StatusCode::NOT_FOUND;
                        none
                    }
                }
            }
        })
    }

    fn follow(&self) -> Response<Body> {
        let heard = self.0.events.subscribe();
        self.0.followers.send_modify(|count| *count += 1);
        let events = stream::unfold(heard, |mut heard| async move {
            let line = heard.recv().await.ok()?;
            Some((Ok(Frame::data(Bytes::from(line))), heard))
        });
        Response::new(BodyExt::boxed(StreamBody::new(events)))
    }
}

fn json(value: Value) -> Response<Body> {
    Response::new(Full::new(Bytes::from(value.to_string())).boxed())
}
