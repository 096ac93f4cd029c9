//! What the connections of one transport share, and the steps that make one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use innermesh_proto::{
    id::NodeId,
    limits,
    rpc::{Hello, close},
};
use quinn::{Connection, ConnectionError, Incoming};
use tokio::sync::Semaphore;
use tracing::debug;

use super::{
    counters::Tally,
    endpoint::Configs,
    error::DialError,
    half_open::HalfOpen,
    lane::Lanes,
    link::{Link, Origin, plain},
    pace::{self, Paces},
    registry::Registry,
    serve,
    transport::{Caller, Handler, Membership, MembershipCheck},
};
use crate::{
    host::{Clock, tasks::Tasks, within},
    listen::{Place, Room, Source},
    tls,
};

pub(super) struct Core {
    pub(super) me: NodeId,
    /// This run of the agent.
    pub(super) instance: u64,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: Tasks,
    pub(super) endpoint: quinn::Endpoint,
    pub(super) lanes: Lanes,
    pub(super) configs: Configs,
    pub(super) client: ArcSwap<quinn::ClientConfig>,
    pub(super) membership: Arc<dyn MembershipCheck>,
    /// Methods that are open to strangers.
    pub(super) open: BTreeSet<u16>,
    pub(super) handler: OnceLock<Arc<dyn Handler>>,
    pub(super) registry: Arc<Registry>,
    pub(super) paces: Paces,
    /// Room for answers to each peer that has a key, see [`Core::answers`].
    pub(super) answers: Mutex<BTreeMap<NodeId, Weak<Semaphore>>>,
    /// Places of peers that are no members.
    pub(super) strangers: Arc<Room>,
    pub(super) tally: Arc<Tally>,
    pub(super) dials: Semaphore,
    pub(super) handshakes: AtomicUsize,
    pub(super) half_open: HalfOpen,
    pub(super) serials: AtomicU64,
    pub(super) ordinals: AtomicU64,
}

/// The peer's membership was revoked.
pub(super) struct Revoked;

impl Core {
    /// How long the next stream of this connection waits.
    pub(super) fn pause(&self, link: &Link) -> Option<Duration> {
        self.paced(link)
            .and_then(|node| self.paces.wait(node, self.clock.now()))
    }

    pub(super) fn count_stream(&self, link: &Link) {
        if let Some(node) = self.paced(link) {
            self.paces.count(node, 1, self.clock.now());
        }
    }

    /// Counts bytes on one.
    pub(super) fn count_bytes(&self, link: &Link, bytes: usize) {
        let work = pace::work(bytes);
        if let Some(node) = self.paced(link).filter(|_| work > 0) {
            self.paces.count(node, work, self.clock.now());
        }
    }

    /// Whose work is counted: strangers have few streams and little time.
    fn paced(&self, link: &Link) -> Option<NodeId> {
        let node = link.node.filter(|_| link.is_registered())?;
        let handler = self.handler.get()?;
        (!handler.is_free(&node)).then_some(node)
    }

    /// Takes connections in until the endpoint is closed.
    pub(super) async fn accept(self: Arc<Self>) {
        while let Some(incoming) = self.endpoint.accept().await {
            let pending = self.handshakes.load(Ordering::Acquire);
            let proved = incoming.remote_address_validated();
            if pending >= limits::HANDSHAKES {
                self.tally.handshakes_refused.add();
                // To an address that wasn't proved not even a refusal is sent.
                if proved {
                    incoming.refuse()
                } else {
                    incoming.ignore()
                }
            } else if pending >= limits::HANDSHAKES_BEFORE_RETRY && !proved && incoming.may_retry()
            {
                self.tally.retries_sent.add();
                // Only an Incoming that may not retry fails here.
                let _ = incoming.retry();
            } else {
                self.handshakes.fetch_add(1, Ordering::AcqRel);
                let core = self.clone();
                self.tasks.spawn(async move {
                    let welcomed = core.welcome(incoming).await;
                    core.handshakes.fetch_sub(1, Ordering::AcqRel);
                    match welcomed {
                        Some((connection, Membership::Member)) => {
                            core.start(connection, false, 0, None);
                        }
                        Some((connection, _)) => core.seat(connection).await,
                        None => {}
                    }
                });
            }
        }
    }

    /// One handshake by a peer, and whether there is room for who it is.
    async fn welcome(&self, incoming: Incoming) -> Option<(Connection, Membership)> {
        let limit = Duration::from_millis(limits::HANDSHAKE_MS);
        let from = self.outer(incoming.remote_address()).ip();
        let handshake = async { incoming.accept()?.await };
        let connection = match within(&*self.clock, limit, handshake).await {
            Some(Ok(connection)) => connection,
            failed => {
                if matches!(failed, None | Some(Err(ConnectionError::TimedOut))) {
                    self.half_open.note(from, self.clock.now());
                }
                debug!(error = ?failed.map(|r| r.err()), "a handshake failed");
                self.tally.handshakes_failed.add();
                return None;
            }
        };
        self.tally.handshakes_accepted.add();
        let key = tls::peer_key(&connection);
        match key.map_or(Membership::Unknown, |key| self.membership.check(&key)) {
            Membership::Member
                if !key.is_some_and(|k| self.registry.has_room_for(&k.node_id())) =>
            {
                self.tally.handshakes_refused.add();
                connection.close(close::PARTED.into(), b"too many connections");
                None
            }
            membership @ (Membership::Member | Membership::Unknown) => {
                Some((connection, membership))
            }
            Membership::Revoked => {
                self.tally.revoked.add();
                connection.close(close::REVOKED.into(), b"");
                None
            }
        }
    }

    /// Where a peer's packets come from; over a lane, where its TCP connection does.
    fn outer(&self, remote: SocketAddr) -> SocketAddr {
        self.lanes.from(&remote).unwrap_or_else(|| plain(remote))
    }

    /// Serves a stranger once there is a place for it. It waits behind its
    /// handshake, so that those who wait hold up nobody's.
    async fn seat(self: &Arc<Self>, connection: Connection) {
        let source = Source::other(self.outer(connection.remote_address()).ip());
        let place = tokio::select! {
            place = self.strangers.enter(source) => place,
            _ = connection.closed() => return,
        };
        match place {
            Some(place) => {
                self.start(connection, false, 0, Some(Arc::new(place)));
            }
            None => {
                self.tally.strangers_refused.add();
                connection.close(close::STRANGER.into(), b"no room");
            }
        }
    }

    /// One handshake by us.
    pub(super) async fn connect(
        &self,
        to: SocketAddr,
        config: quinn::ClientConfig,
    ) -> Result<Connection, DialError> {
        let limit = Duration::from_millis(limits::HANDSHAKE_MS);
        let handshake = async {
            let _turn = self.dials.acquire().await;
            let connecting = self.endpoint.connect_with(config, to, tls::SERVER_NAME);
            Ok(connecting.map_err(|e| cannot_dial(&e))?.await?)
        };
        let result = within(&*self.clock, limit, handshake)
            .await
            .unwrap_or(Err(DialError::Timeout));
        match &result {
            Ok(_) => self.tally.dials.add(),
            Err(_) => self.tally.dials_failed.add(),
        }
        result
    }

    /// Starts to serve a connection whose handshake ended.
    pub(super) fn start(
        self: &Arc<Self>,
        connection: Connection,
        dialed: bool,
        serial: u64,
        place: Option<Arc<Place>>,
    ) -> Arc<Link> {
        let origin = Origin {
            dialed,
            serial,
            ordinal: self.ordinals.fetch_add(1, Ordering::Relaxed),
            since: self.clock.now(),
            lane: self.lanes.from(&connection.remote_address()),
        };
        let answers = self.answers(tls::peer_key(&connection).map(|key| key.node_id()));
        let (link, outgoing) = Link::new(connection, origin, place, answers);
        let hello = Hello {
            instance: self.instance,
            serial,
        };
        self.registry.track(&link);
        self.tasks.spawn(
            link.clone()
                .send_notices(hello, outgoing, self.tally.clone()),
        );
        self.tasks.spawn(serve::run(self.clone(), link.clone()));
        link
    }

    /// Room for answers that the peer hasn't taken yet, in KiB: what a member
    /// has is shared by all of its connections.
    fn answers(&self, node: Option<NodeId>) -> Arc<Semaphore> {
        let room = |bytes: usize| Arc::new(Semaphore::new(bytes / 1024));
        let Some(node) = node else {
            return room(limits::ANSWER_BYTES_PER_STRANGER);
        };
        let mut all = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answers) = all.get(&node).and_then(Weak::upgrade) {
            return answers;
        }
        all.retain(|_, answers| answers.strong_count() > 0);
        let answers = room(limits::ANSWER_BYTES_PER_PEER);
        all.insert(node, Arc::downgrade(&answers));
        answers
    }

    /// Registers a connection whose peer is a member and has introduced itself.
    pub(super) fn settle(&self, link: &Arc<Link>) {
        if let (Some(node), Some(hello)) = (link.node, link.hello.get())
            && !link.is_registered()
            && node != self.me
            && self.membership(link) == Membership::Member
        {
            self.registry.register(node, link, *hello);
        }
    }

    /// What the peer is, by the ledger at this moment.
    pub(super) fn membership(&self, link: &Link) -> Membership {
        link.key
            .map_or(Membership::Unknown, |key| self.membership.check(&key))
    }

    /// The peer as a caller, by the ledger at this moment.
    pub(super) fn caller(&self, link: &Link) -> Result<Caller, Revoked> {
        let node = match self.membership(link) {
            Membership::Member => link.node,
            Membership::Unknown => None,
            Membership::Revoked => return Err(Revoked),
        };
        Ok(Caller {
            node,
            key: link.key,
            remote: link.outer(),
            exporter: link.exporter,
        })
    }

    pub(super) fn revoke(&self, link: &Link) {
        self.tally.revoked.add();
        link.close(close::REVOKED, "");
    }
}

fn cannot_dial(error: &quinn::ConnectError) -> DialError {
    match error {
        quinn::ConnectError::EndpointStopping => DialError::Closed,
        other => DialError::Address(other.to_string()),
    }
}
