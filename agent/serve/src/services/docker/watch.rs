//! Follows Docker: hears what happens, looks at what it happened to, and looks at all
//! now and then, as Docker drops events for a reader that is slow for a moment.

use std::{path::PathBuf, time::Duration};

use futures_util::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use innermesh_control::finding::{Finding, code};
use innermesh_host::{Host, Mono, bucket::Bucket};
use tokio::sync::mpsc;

use super::{
    answer::ContainerId,
    client::{Client, DockerError, Told},
    tracker::{Outcome, Ticket, Tracker},
};
use crate::services::Registry;

/// How soon Docker is asked again that doesn't answer; each time later, up to the
/// second.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_AT_MOST: Duration = Duration::from_secs(15);
/// How long containers count as they were last seen while Docker doesn't answer: it
/// may be restarted and leave them running.
const UNKNOWN_AFTER: Duration = Duration::from_secs(60);
/// When all containers are listed after it was begun to listen: Docker may do so a
/// moment after it says so.
const SECOND_LIST: Duration = Duration::from_secs(1);
/// How often they are listed from then on.
const LIST: Duration = Duration::from_secs(300);
/// Inspections that run at the same time.
const INSPECTIONS: usize = 4;
/// For how long changes are taken together while containers are looked at.
const GATHER: Duration = Duration::from_millis(100);
/// How often what is announced may change: so often at once, and in an hour. A
/// container that is started again and again is no reason to wake the whole mesh.
const CHANGES: u64 = 60;
const CHANGES_PER_HOUR: u64 = 3600;
/// How long an agent that starts waits for the first look.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// Makes services of labelled containers.
pub struct DockerWatch {
    host: Host,
    registry: Registry,
    client: Client,
    tracker: Tracker,
    /// Since when Docker doesn't answer, and why.
    away: Option<(Mono, String)>,
    /// Since when something is to be published.
    changed_at: Option<Mono>,
    changes: Bucket,
}

/// What was asked for and is there.
enum Done {
    Listed(Result<Vec<ContainerId>, DockerError>),
    Inspected(ContainerId, Ticket, Outcome),
}

type Asked = FuturesUnordered<BoxFuture<'static, Done>>;

impl DockerWatch {
    /// Asks the Docker behind `socket` for what `registry` then holds.
    pub fn new(host: &Host, socket: PathBuf, registry: Registry) -> Self {
        Self {
            client: Client::new(host, socket),
            host: host.clone(),
            registry,
            tracker: Tracker::default(),
            away: None,
            changed_at: None,
            changes: Bucket::default(),
        }
    }

    /// Looks at what runs already, so that a restarted agent doesn't announce for a
    /// moment that it is gone. Takes half a second at most.
    pub async fn look_first(&mut self) {
        let clock = self.host.clock.clone();
        let looked = tokio::select! {
            looked = self.look() => looked,
            () = clock.sleep(FIRST_LOOK) => Err(DockerError::Late(FIRST_LOOK)),
        };
        self.tracker.interrupted();
        if let Err(error) = looked {
            self.lost(&error);
        }
        self.publish();
    }

    async fn look(&mut self) -> Result<(), DockerError> {
        self.tracker.listing();
        let list = self.client.list().await?;
        self.tracker.listed(list);
        while let Some((id, ticket)) = self.tracker.next() {
            let (id, ticket, outcome) = self.client.look(id, ticket).await;
            self.tracker.inspected(&id, ticket, outcome);
        }
        Ok(())
    }

    /// Follows Docker for as long as it is polled.
    pub async fn run(mut self) {
        let mut pause = AGAIN;
        loop {
            let error = self.follow().await;
            self.tracker.interrupted();
            if self.away.is_none() {
                pause = AGAIN;
            }
            self.lost(&error);
            self.publish();
            self.host.clock.sleep(pause).await;
            pause = (pause * 2).min(AGAIN_AT_MOST);
        }
    }

    fn lost(&mut self, error: &DockerError) {
        let why = error.to_string();
        if self.away.as_ref().is_none_or(|(_, before)| *before != why) {
            let socket = self.client.socket().display();
            tracing::warn!(%socket, why, "Docker doesn't tell which containers there are");
        }
        let now = self.host.clock.now();
        let since = self.away.as_ref().map_or(now, |(since, _)| *since);
        self.away = Some((since, why));
    }

    /// Until Docker tells nothing more, and why.
    async fn follow(&mut self) -> DockerError {
        let client = self.client.clone();
        let (tell, mut told) = mpsc::channel(64);
        let following = client.follow(&tell);
        tokio::pin!(following);
        let clock = self.host.clock.clone();
        let mut asked = Asked::new();
        let mut list_at: Option<Mono> = None;
        let mut is_second = false;
        loop {
            self.ask(&mut asked);
            let now = clock.now();
            let until = |at: Option<Mono>| {
                let wait = at.map(|at| clock.sleep(at.saturating_sub(now)));
                async move {
                    match wait {
                        Some(wait) => wait.await,
                        None => std::future::pending().await,
                    }
                }
            };
            tokio::select! {
                // What has ended is known before what was asked of it earlier.
                biased;
                Some(told) = told.recv() => match told {
                    Told::Listening => {
                        if self.away.take().is_some() {
                            tracing::info!("Docker tells which containers there are");
                        }
                        self.changed_at.get_or_insert(now);
                        list_at = Some(now);
                        is_second = true;
                    }
                    Told::Event(event) => {
                        tracing::debug!(?event, "Docker tells of a container");
                        self.tracker.event(event);
                        self.changed_at.get_or_insert(now);
                    }
                },
                ended = &mut following => {
                    while let Ok(Told::Event(event)) = told.try_recv() {
                        self.tracker.event(event);
                    }
                    return match ended {
                        Err(error) => error,
                    };
                }
                Some(done) = asked.next() => {
                    if let Err(error) = self.take(done, now) {
                        return error;
                    }
                }
                () = until(list_at) => {
                    self.tracker.listing();
                    let client = self.client.clone();
                    asked.push(async move { Done::Listed(client.list().await) }.boxed());
                    list_at = Some(now + if is_second { SECOND_LIST } else { LIST });
                    is_second = false;
                }
                () = until(self.publish_at(now)) => self.publish(),
            }
        }
    }

    /// Inspects what is due, a few at a time.
    fn ask(&mut self, asked: &mut Asked) {
        while asked.len() < INSPECTIONS
            && let Some((id, ticket)) = self.tracker.next()
        {
            let client = self.client.clone();
            asked.push(
                async move {
                    let (id, ticket, outcome) = client.look(id, ticket).await;
                    Done::Inspected(id, ticket, outcome)
                }
                .boxed(),
            );
        }
    }

    fn take(&mut self, done: Done, now: Mono) -> Result<(), DockerError> {
        match done {
            Done::Listed(list) => self.tracker.listed(list?),
            Done::Inspected(id, ticket, outcome) => self.tracker.inspected(&id, ticket, outcome),
        }
        self.changed_at.get_or_insert(now);
        Ok(())
    }

    /// When what changed is published: at once where nothing more is being looked at.
    fn publish_at(&self, now: Mono) -> Option<Mono> {
        let changed_at = self.changed_at?;
        let at = if self.tracker.is_busy() {
            changed_at + GATHER
        } else {
            now
        };
        let wait = self.changes.wait(1, CHANGES, CHANGES_PER_HOUR, now);
        Some(at.max(now + wait))
    }

    fn publish(&mut self) {
        self.changed_at = None;
        let now = self.host.clock.now();
        let away = self.away.as_ref();
        let is_known = away.is_none_or(|(since, _)| now < *since + UNKNOWN_AFTER);
        let own = self.registry.local_addresses();
        let mut containers = self.tracker.containers(&own, is_known);
        containers.findings.extend(away.map(|(_, why)| {
            let socket = self.client.socket().display();
            Finding::warning(
                code::DOCKER_UNREACHED,
                format!(
                    "Docker doesn't tell by {socket} which containers there are: {why}. Services by \
                     their labels stay as they were last seen"
                ),
                "Start Docker, or mend `socket` of [docker] in the configuration; it is tried again \
                 by itself",
            )
        }));
        if self.registry.set_containers(containers) {
            self.changes.take(1, CHANGES_PER_HOUR, now);
        }
    }
}
