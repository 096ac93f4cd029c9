//! Connects this node with the members that it needs: those that its links want, those
//! that something is asked of, the other CA nodes where it is one, and all where some may
//! not go by links. By the endpoints that they announce, the paths that worked before,
//! and, when nothing else is known, the seeds that it joined by. What isn't used any more
//! is closed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use innermesh_proto::{
    endpoint::{self, is_lane, is_plausible},
    id::NodeId,
    ledger::State,
    limits,
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    gossip::{Gossip, known},
    host::{Host, Mono, state_folder, until_next},
    ledger::Ledger,
    node::{follow::membership::Membership, shared::handles::Handles},
    quic::{Demand, DialError, PeerEvent, Transport},
};

/// How often it is looked whom to dial.
const TICK: Duration = Duration::from_millis(500);
/// How often it is found out anew who isn't connected although nothing is known
/// to have changed.
const LOOK: Duration = Duration::from_secs(10);
/// How often it is looked which connections are used, and for how long one may not be
/// that serves no link.
const SWEEP: Duration = Duration::from_secs(5);
const UNUSED: Duration = Duration::from_secs(60);
/// Dials under way at once.
const PARALLEL: usize = 16;
/// The first pause after a dial that failed; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long an address that didn't answer is remembered after its pause.
const FORGOTTEN: Duration = Duration::from_secs(120);
/// How long the node with the greater id leaves the dialing to the other: one
/// of two connections would be thrown away.
const COURTESY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DialTarget {
    Member(NodeId),
    Seed(SocketAddr),
}

/// Connects with whom this node isn't connected.
pub(crate) struct Dialer {
    host: Host,
    me: NodeId,
    ledger: Ledger,
    transport: Transport,
    gossip: Gossip,
    membership: Arc<Membership>,
    seeds: Vec<SocketAddr>,
    paths: BTreeMap<NodeId, SocketAddr>,
    attempts: BTreeMap<DialTarget, Attempt>,
    /// Addresses from which no agent ever answered: whoever announces them,
    /// they are left alone for longer and longer.
    silent: BTreeMap<IpAddr, Attempt>,
    /// Addresses that are being dialed: of those that nobody knows, once at a
    /// time, however many members announce them.
    trying: BTreeSet<IpAddr>,
    dialing: BTreeSet<DialTarget>,
    /// Members that aren't connected, as of `looked`.
    lacking: BTreeSet<NodeId>,
    looked: Option<(Mono, Arc<State>)>,
    demands: mpsc::Receiver<Demand>,
    /// Who waits for a connection with whom.
    waiting: BTreeMap<NodeId, Vec<oneshot::Sender<()>>>,
    /// With whom links need a connection: they keep pauses of their own.
    linking: BTreeSet<NodeId>,
    /// When each connection was last seen in use.
    used: BTreeMap<NodeId, Mono>,
    swept: Mono,
    started: Mono,
}

#[derive(Clone, Copy)]
struct Attempt {
    failures: u32,
    next: Mono,
}

/// What came of a dial.
struct Dialed {
    target: DialTarget,
    result: Result<(NodeId, SocketAddr), DialError>,
    tried: BTreeSet<IpAddr>,
    /// Of these, the addresses that didn't answer.
    silent: Vec<IpAddr>,
}

impl Dialer {
    pub async fn new(node: &Handles, membership: Arc<Membership>) -> Self {
        Self {
            seeds: state_folder::load_seeds(&*node.host.disk).await,
            paths: known::paths(&*node.host.disk).await,
            attempts: BTreeMap::new(),
            silent: BTreeMap::new(),
            trying: BTreeSet::new(),
            dialing: BTreeSet::new(),
            lacking: BTreeSet::new(),
            looked: None,
            demands: node.transport.demands(node.host.clock.clone()),
            waiting: BTreeMap::new(),
            linking: BTreeSet::new(),
            used: BTreeMap::new(),
            swept: node.host.clock.now(),
            started: node.host.clock.now(),
            host: node.host.clone(),
            me: node.me,
            ledger: node.ledger.clone(),
            transport: node.transport.clone(),
            gossip: node.gossip.clone(),
            membership,
        }
    }

    /// Dials for as long as the agent runs.
    pub async fn run(mut self) {
        let mut events = self.transport.events();
        let mut dials = JoinSet::new();
        let mut tick = self.started;
        loop {
            let now = self.host.clock.now();
            if now >= tick {
                self.sweep(now);
                self.dial(&mut dials);
                tick = now + until_next(TICK, now);
            }
            let clock = self.host.clock.clone();
            let gossip = self.gossip.clone();
            tokio::select! {
                () = clock.sleep(tick.saturating_sub(now)) => {}
                () = gossip.dial_wanted() => {
                    self.linking.extend(gossip.take_dials());
                    self.dial(&mut dials);
                }
                Some(demand) = self.demands.recv() => {
                    if self.take(demand) {
                        self.dial(&mut dials);
                    }
                }
                Some(done) = dials.join_next() => {
                    if let Ok(done) = done {
                        self.silent(&done);
                        self.done(done.target, done.result);
                    }
                }
                event = events.recv() => match event {
                    Ok(PeerEvent::Up(node)) => {
                        self.lacking.remove(&node);
                        self.connected(node);
                        self.membership.note(node, false);
                        let gossip = self.gossip.clone();
                        self.host.tasks.spawn(async move { gossip.greet(node).await });
                    }
                    Ok(PeerEvent::Twin(remote)) => self.gossip.meet_twin(remote),
                    Ok(PeerEvent::Down(_)) | Err(RecvError::Lagged(_)) => self.looked = None,
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    /// Takes in who needs a connection. Whether somebody is to be dialed for it.
    fn take(&mut self, demand: Demand) -> bool {
        let Demand { node, connected } = demand;
        if self.transport.is_connected(node) {
            // Who doesn't wait any more needs no answer.
            let _ = connected.send(());
            return false;
        }
        let now = self.host.clock.now();
        let is_member = self.ledger.state().members.contains_key(&node);
        let target = DialTarget::Member(node);
        let rests = self.attempts.get(&target).is_some_and(|at| now < at.next);
        let waiting: usize = self.waiting.values().map(Vec::len).sum();
        let may = is_member && (!rests || self.dialing.contains(&target));
        if !may || waiting >= limits::DIAL_DEMANDS {
            return false;
        }
        self.waiting.entry(node).or_default().push(connected);
        true
    }

    /// A member is connected, whoever dialed.
    fn connected(&mut self, node: NodeId) {
        self.attempts.remove(&DialTarget::Member(node));
        self.linking.remove(&node);
        for waits in self.waiting.remove(&node).into_iter().flatten() {
            let _ = waits.send(());
        }
    }

    /// A member can't be connected with now.
    fn failed(&mut self, node: NodeId) {
        self.linking.remove(&node);
        self.waiting.remove(&node);
        self.gossip.note_dial_failed(node);
    }

    /// Parts from those with whom no connection is needed any more.
    fn sweep(&mut self, now: Mono) {
        if now < self.swept + SWEEP {
            return;
        }
        self.swept = now;
        let state = self.ledger.state();
        self.attempts.retain(|_, at| now < at.next + FORGOTTEN);
        let attempts = &self.attempts;
        self.transport.retain(
            |node| state.members.contains_key(node),
            |node| attempts.contains_key(&DialTarget::Member(*node)),
        );
        let connected = self.transport.paths();
        self.used.retain(|node, _| connected.contains_key(node));
        for node in self.transport.take_used() {
            self.used.insert(node, now);
        }
        let keeps_all = self.gossip.connects_all();
        for (node, at) in connected {
            self.transport.note_reached(node, at);
            let used = *self.used.entry(node).or_insert(now);
            let decide = state.roster.contains(&self.me) && state.roster.contains(&node);
            let is_kept = keeps_all || decide || self.gossip.keeps_link(&node);
            // Who opened a lane says how long it is needed.
            if is_kept || is_lane(&at) || self.is_relay_between(&node) {
                self.used.insert(node, now);
            } else if now >= used + UNUSED {
                // The next one begins anew.
                self.used.remove(&node);
                self.transport.disconnect(node, "it isn't used");
            }
        }
    }

    /// Whether one of this node and another is the other's relay.
    fn is_relay_between(&self, node: &NodeId) -> bool {
        let leans = self.gossip.read(|table| {
            let body = table.get(node)?.body.as_ref()?;
            body.announcement.places.relay
        });
        leans == Some(self.me) || self.gossip.own().places.relay == Some(*node)
    }

    fn dial(&mut self, dials: &mut JoinSet<Dialed>) {
        let now = self.host.clock.now();
        for (target, addresses) in self.wanted(now) {
            if dials.len() >= PARALLEL {
                return;
            }
            let is_linking =
                matches!(target, DialTarget::Member(node) if self.linking.contains(&node));
            let due = self
                .attempts
                .get(&target)
                .is_none_or(|attempt| now >= attempt.next);
            if !due && !is_linking || self.dialing.contains(&target) {
                continue;
            }
            let addresses = self.worth_dialing(addresses, now);
            if addresses.is_empty() {
                if let DialTarget::Member(node) = target {
                    self.failed(node);
                }
                continue;
            }
            if self.dialing.insert(target) {
                let transport = self.transport.clone();
                let ips = addresses.iter().map(|address| address.ip().to_canonical());
                let tried: BTreeSet<IpAddr> = ips.collect();
                self.trying.extend(&tried);
                dials.spawn(async move {
                    let expect = match target {
                        DialTarget::Member(node) => Some(node),
                        DialTarget::Seed(_) => None,
                    };
                    let mut result = Err(DialError::Timeout);
                    let mut silent = Vec::new();
                    for address in addresses {
                        let dialed = transport.dial(address, expect).await;
                        result = dialed.map(|node| (node, address));
                        match &result {
                            Ok(_) => break,
                            Err(DialError::Timeout) => silent.push(address.ip().to_canonical()),
                            Err(_) => {}
                        }
                    }
                    Dialed {
                        target,
                        result,
                        tried,
                        silent,
                    }
                });
            }
        }
    }

    /// A few of these addresses, each where a peer may be and none twice. One
    /// that never answered is tried again after a pause, by whomever it is
    /// announced: a member could name a stranger's, and all others would dial.
    fn worth_dialing(&self, addresses: Vec<SocketAddr>, now: Mono) -> Vec<SocketAddr> {
        let overlay = endpoint::overlay(&self.ledger.state());
        let own = self.gossip.own_endpoints();
        let loopback = own.iter().any(|own| own.ip().is_loopback());
        let mut chosen: Vec<SocketAddr> = Vec::new();
        let mut quiet: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for address in addresses {
            let ip = address.ip().to_canonical();
            let waits = self.trying.contains(&ip)
                || self.silent.get(&ip).is_some_and(|silent| now < silent.next);
            let is_known = self
                .paths
                .values()
                .any(|path| path.ip().to_canonical() == ip);
            if chosen.len() < limits::DIALED_ADDRESSES
                && is_plausible(&address, &overlay, loopback)
                && (is_known
                    || !waits
                        && quiet
                            .get(&ip)
                            .is_none_or(|ports| *ports < limits::DIALED_PORTS))
            {
                *quiet.entry(ip).or_default() += 1;
                chosen.push(address);
            }
        }
        chosen
    }

    fn silent(&mut self, done: &Dialed) {
        let now = self.host.clock.now();
        self.trying.retain(|ip| !done.tried.contains(ip));
        let connected = self.transport.paths();
        self.silent
            .retain(|_, silent| now < silent.next + FORGOTTEN);
        for ip in &done.silent {
            let answers = connected
                .values()
                .any(|path| path.ip().to_canonical() == *ip);
            if answers || self.silent.len() >= limits::MEMBERS * limits::ENDPOINTS {
                self.silent.remove(ip);
                continue;
            }
            let failures = self.silent.get(ip).map_or(0, |silent| silent.failures);
            let pause = (PAUSE_MIN * 2u32.saturating_pow(failures.min(8))).min(PAUSE_MAX);
            let silent = Attempt {
                failures: failures + 1,
                next: now + self.jittered(pause),
            };
            self.silent.insert(*ip, silent);
        }
    }

    /// Finds out who isn't connected, unless nothing changed since: in a large
    /// mesh that costs more than all else that an idle agent does.
    fn look(&mut self, now: Mono) {
        let state = self.ledger.state();
        if let Some((looked, before)) = &self.looked
            && Arc::ptr_eq(before, &state)
            && now < *looked + LOOK
        {
            return;
        }
        let connected = self.transport.peers();
        let members = state.members.keys().copied();
        self.lacking = members
            .filter(|node| *node != self.me && connected.binary_search(node).is_err())
            .collect();
        self.looked = Some((now, state));
    }

    /// Of those that aren't connected, whom this node needs.
    fn needed(&self) -> Vec<NodeId> {
        let state = self.ledger.state();
        let is_alone = self.transport.peers().is_empty();
        let needs_all = is_alone || self.gossip.connects_all();
        let decides = state.roster.contains(&self.me);
        let lacking = self.lacking.iter().filter(|node| {
            needs_all
                || self.linking.contains(*node)
                || self.waiting.contains_key(*node)
                || decides && state.roster.contains(*node)
        });
        lacking.copied().collect()
    }

    /// Whom to dial, and where.
    fn wanted(&mut self, now: Mono) -> Vec<(DialTarget, Vec<SocketAddr>)> {
        self.look(now);
        let me = self.me;
        let mut wanted = Vec::new();
        let reached = self.transport.reached();
        for node in &self.needed() {
            let waits = *node < me
                && now < self.started + COURTESY
                && !self.linking.contains(node)
                && !self.waiting.contains_key(node);
            // It may have connected just now.
            if waits || self.transport.is_connected(*node) {
                continue;
            }
            let announced = self.gossip.read(|table| {
                let body = table.get(node)?.body.as_ref()?;
                Some(body.announcement.quic.clone())
            });
            let path = reached.get(node).or_else(|| self.paths.get(node));
            let mut addresses: Vec<SocketAddr> = path.copied().into_iter().collect();
            for address in announced.unwrap_or_default() {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            wanted.push((DialTarget::Member(*node), addresses));
        }
        if !self.lacking.is_empty() && self.transport.peers().is_empty() {
            wanted.extend(
                self.seeds
                    .iter()
                    .map(|seed| (DialTarget::Seed(*seed), vec![*seed])),
            );
        }
        wanted
    }

    fn done(&mut self, target: DialTarget, result: Result<(NodeId, SocketAddr), DialError>) {
        self.dialing.remove(&target);
        match result {
            Ok((node, at)) => {
                self.attempts.remove(&target);
                self.transport.note_reached(node, at);
                // One that isn't a member here is connected as soon as it is.
                if self.transport.is_connected(node) {
                    self.connected(node);
                }
            }
            Err(error) => {
                tracing::debug!(?target, %error, "a peer could not be dialed");
                if matches!(error, DialError::Expired) {
                    self.membership.wanted.notify_one();
                }
                if let DialTarget::Member(node) = target {
                    self.failed(node);
                    self.transport.note_failed(node, self.host.clock.now());
                    if matches!(error, DialError::Evicted) {
                        self.membership.note(node, true);
                    }
                }
                let failures = self
                    .attempts
                    .get(&target)
                    .map_or(0, |attempt| attempt.failures);
                let pause = (PAUSE_MIN * 2u32.saturating_pow(failures.min(8))).min(PAUSE_MAX);
                let attempt = Attempt {
                    failures: failures + 1,
                    next: self.host.clock.now() + self.jittered(pause),
                };
                self.attempts.insert(target, attempt);
            }
        }
    }

    /// Half to all of `pause`: a mesh that starts at once doesn't dial in step.
    fn jittered(&self, pause: Duration) -> Duration {
        let mut byte = [0; 1];
        self.host.keys.random(&mut byte);
        pause / 2 + pause * u32::from(byte[0]) / 512
    }
}
