//! The one task that changes the ledger: where this node is in the roster it
//! takes part in deciding, where it follows it takes proved batches from peers,
//! and it acknowledges nothing before that is durable (S20).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use innermesh_proto::{
    certificate::Serial,
    crypto::{Sealed, Sign},
    id::NodeId,
    ledger::{
        Batch, BatchError, Outcome, Position, RULES, SignedGenesis, SignedRecovery, State, stamp,
    },
    limits,
    message::{Deciding, Endorse, IssuerKeys, Spenders},
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::{
    Council, ProposeError, TakeError,
    archive::Archive,
    budget::Budgets,
    council::Flight,
    file::Appender,
    install::{InstallError, Starts},
    proof::Unproved,
    queue::{Lane, Queue},
    raft::Message,
    recover::Lost,
    refuse::Refusals,
    room::Room,
    rotation::Rotation,
    sizes::Sizes,
    start::Start,
    versions::{Builds, Versions},
    voter::{Barred, Early, TICK, Voter},
};
use crate::{
    ca::issuer::Issuer,
    host::{Host, Mono},
};

/// How often the leader writes an empty batch when there is nothing else, so
/// that ledger time goes on.
const HEARTBEAT: Duration = Duration::from_secs(3600);

pub(super) enum Command {
    Propose(Asked),
    Take(Vec<Batch>, oneshot::Sender<Result<Position, TakeError>>),
    Clocks(Vec<u64>),
    Builds(Builds),
    KnownRules(u32),
    Raft(NodeId, Message),
    Endorse(NodeId, Endorse),
    Term(Duration),
    /// Asks for the keys of issuers.
    Keys(oneshot::Sender<Result<IssuerKeys, String>>),
    /// Asks how deciding goes.
    Deciding(oneshot::Sender<Deciding>),
    /// Asks whose requests were turned away.
    Spenders(oneshot::Sender<Spenders>),
    /// Begins anew from a peer's state.
    Start(Box<Start>, oneshot::Sender<Result<Position, InstallError>>),
    /// Votes no more: this node's state is older than what it has done.
    RolledBack,
    /// Goes on alone by what the root signed.
    Recover(SignedRecovery, oneshot::Sender<Result<Position, TakeError>>),
}

/// A request for the next batch.
pub(super) struct Asked {
    pub request: Sealed,
    /// Who delivered it.
    pub by: Lane,
    /// Whether a refusal is written down.
    pub is_recorded: bool,
    pub reply: Reply,
}

pub(super) type Reply = oneshot::Sender<Result<Outcome, ProposeError>>;

/// Tells a connected member something, at once or not at all.
pub trait Carrier: Send + Sync {
    /// A one-way message, by its [`innermesh_proto::rpc::method`].
    fn tell(&self, to: NodeId, method: u16, body: Vec<u8>);
}

pub(super) struct Writer {
    pub host: Host,
    pub key: Arc<dyn Sign>,
    /// What this node can sign with, now or later: the issuers that the newest
    /// state lists for it, aren't revoked, and whose keys are in its folder.
    pub issuers: Vec<Issuer>,
    /// What that follows from: the serials of all that are listed, and whether
    /// each is revoked; nothing before it was looked at.
    pub listed_issuers: Option<Vec<(Serial, bool)>>,
    pub genesis: SignedGenesis,
    pub file: Appender,
    pub archive: Arc<Archive>,
    pub state: watch::Sender<Arc<State>>,
    pub durable: watch::Sender<Position>,
    pub batches: broadcast::Sender<Arc<Batch>>,
    /// The newest states that others may start from.
    pub starts: Arc<Starts>,
    pub sizes: Sizes,
    /// What a recovery by the root left behind.
    pub lost: watch::Sender<Arc<Vec<Lost>>>,
    pub clocks: Vec<u64>,
    pub carrier: Arc<OnceLock<Arc<dyn Carrier>>>,
    pub council: watch::Sender<Council>,
    /// Part in deciding, if this node has one.
    pub voter: Option<Voter>,
    pub barred: Option<Barred>,
    /// Nodes by their numbers as voters, those included that the newest state
    /// no longer lists.
    pub numbers: BTreeMap<NodeId, u64>,
    /// Batches that the roster's log holds and that too few have signed yet.
    pub unproved: VecDeque<Unproved>,
    pub early: Early,
    /// The batch that this node proposed.
    pub flight: Option<Flight>,
    /// Requests for the next one.
    pub waiting: Queue<Asked>,
    /// Those that were refused, and wait for what shows that this node led.
    pub refusals: Refusals,
    /// How much each author may have decided.
    pub budgets: Budgets,
    /// Those whose messages of the roster's log are taken in.
    pub heard: watch::Sender<Arc<BTreeSet<NodeId>>>,
    pub versions: Versions,
    pub rotation: Rotation,
    pub room: Room,
    /// When the next empty batch is due.
    pub beat: Mono,
    /// When the newest stamp was first seen here, or this process began.
    pub stamped: Mono,
    /// That, with the stamp, for those who read.
    pub told_stamped: Arc<Mutex<Stamped>>,
}

/// A stamp, and when it was first seen.
pub(super) type Stamped = (u64, Mono);

impl Writer {
    pub async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        self.beat = self.first_beat();
        self.note_stamped();
        let started = match self.follow_roster().await {
            // One who decides alone does so from the first request on.
            Ok(()) => self.work().await,
            failed => failed,
        };
        if let Err(error) = started {
            return self.stop(error, queue).await;
        }
        self.tell_heard();
        self.tell_council();
        loop {
            let clock = self.host.clock.clone();
            let due = self.due();
            let left = due.map(|due| due.saturating_sub(clock.now()));
            let command = tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => Some(command),
                    None => return,
                },
                () = clock.sleep(left.unwrap_or_default()), if left.is_some() => None,
            };
            let done = self.turn(command, &mut queue).await;
            if let Err(error) = done {
                return self.stop(error, queue).await;
            }
        }
    }

    /// One command and those that wait behind it, then all that follows.
    async fn turn(
        &mut self,
        command: Option<Command>,
        queue: &mut mpsc::Receiver<Command>,
    ) -> std::io::Result<()> {
        let mut next = command;
        let mut taken = 0;
        while let Some(command) = next {
            self.take_in(command).await?;
            taken += 1;
            // Whatever else waits shares the one sync.
            next = if taken < limits::BATCH_ENTRIES {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        if self.voter.is_some() {
            self.look_at_room().await;
        }
        self.tick();
        self.work().await?;
        while self.decide()? {
            self.work().await?;
        }
        self.shorten().await?;
        self.tell_heard();
        self.tell_council();
        Ok(())
    }

    async fn take_in(&mut self, command: Command) -> std::io::Result<()> {
        match command {
            Command::Clocks(clocks) => self.clocks = clocks,
            Command::Builds(builds) => self.note_builds(builds),
            Command::KnownRules(rules) => self.versions.known = rules.min(RULES),
            Command::Term(term) => self.rotation.term = term,
            Command::Keys(reply) => {
                let _ = reply.send(self.offer_keys().await);
            }
            Command::Deciding(reply) => {
                let _ = reply.send(self.deciding());
            }
            Command::Spenders(reply) => {
                let _ = reply.send(self.spenders());
            }
            Command::Take(batches, reply) => self.take(batches, reply).await?,
            Command::Start(start, reply) => {
                let _ = reply.send(self.install(*start).await?);
            }
            Command::Recover(signed, reply) => {
                let done = self.recover(&signed).await?;
                let _ = reply.send(done.map_err(TakeError::Batch));
            }
            Command::RolledBack => self.roll_back().await?,
            Command::Raft(from, message) => self.hear(from, message),
            Command::Endorse(from, endorse) => self.hear_endorsement(from, endorse).await?,
            Command::Propose(asked) => self.take_request(asked).await,
        }
        Ok(())
    }

    /// Has a request wait for the next batch, if this node decides it.
    async fn take_request(&mut self, asked: Asked) {
        let error = if !self.will_decide() {
            ProposeError::NotLeader(self.elsewhere())
        } else if !self.has_room_for(&asked.request).await {
            ProposeError::Full
        } else {
            let left_out = self.waiting.push(asked.by, asked);
            if let Some(asked) = left_out {
                let _ = asked.reply.send(Err(ProposeError::Busy));
            }
            return;
        };
        let _ = asked.reply.send(Err(error));
    }

    /// When there is something to do without being told.
    fn due(&self) -> Option<Mono> {
        let voter = self.voter.as_ref()?;
        let tick = (!self.is_alone() || !self.unproved.is_empty()).then_some(voter.due);
        let beat = self.may_draft().then_some(self.beat);
        tick.into_iter().chain(beat).min()
    }

    /// Whether nobody else votes or waits to.
    fn is_alone(&self) -> bool {
        let alone = |voter: &Voter| voter.engine.is_alone();
        self.voter.as_ref().is_none_or(alone) && self.current().voters.len() <= 1
    }

    /// Moves the engine's time on. Of several ticks that a slow disk or a
    /// suspended machine swallowed only one counts: its peers didn't stop.
    fn tick(&mut self) {
        let now = self.host.clock.now();
        let Some(voter) = &mut self.voter else { return };
        if now < voter.due {
            return;
        }
        voter.due = now + TICK;
        voter.ticks += 1;
        if !voter.engine.is_alone() {
            voter.engine.tick();
        }
        let ticks = voter.ticks;
        self.keep_proving(ticks);
        self.keep_order(ticks);
    }

    /// When the first empty batch is due: at once where the newest one is older
    /// than they are apart, so that a leader that is often started anew keeps
    /// ledger time going.
    fn first_beat(&self) -> Mono {
        let clock = &self.host.clock;
        let age_ms = clock.wall_ms().saturating_sub(self.current().stamp_ms);
        clock.now() + HEARTBEAT.saturating_sub(Duration::from_millis(age_ms))
    }

    /// The stamp that this node would give a batch after `state` now.
    pub fn next_stamp(&self, state: &State) -> u64 {
        let wall_ms = self.host.clock.wall_ms();
        stamp::propose(state.stamp_ms, wall_ms, &self.clocks, self.elapsed_ms())
    }

    /// How much time has passed since the newest stamp was seen, in milliseconds.
    pub fn elapsed_ms(&self) -> u64 {
        let elapsed = self.host.clock.now().saturating_sub(self.stamped);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn note_stamped(&mut self) {
        self.stamped = self.host.clock.now();
        let mut told = self
            .told_stamped
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *told = (self.current().stamp_ms, self.stamped);
    }

    /// The newest proved state.
    pub fn current(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    pub fn me(&self) -> NodeId {
        self.key.public().node_id()
    }

    async fn take(
        &mut self,
        batches: Vec<Batch>,
        reply: oneshot::Sender<Result<Position, TakeError>>,
    ) -> std::io::Result<()> {
        if !self.has_room_to_take(&batches).await {
            let _ = reply.send(Err(TakeError::Full));
            return Ok(());
        }
        let mut result = self.follow_recovery(&batches).await?;
        let mut state = self.current();
        let mut taken = Vec::new();
        let batches = if result.is_ok() { batches } else { Vec::new() };
        for batch in batches {
            match self.step(&state, &batch) {
                Ok(None) => {}
                Ok(Some(next)) => {
                    state = Arc::new(next);
                    self.starts.note(&batch, &state);
                    taken.push(batch);
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if !taken.is_empty() {
            // A proved batch is true whether or not it is on this disk yet, so
            // views needn't wait for it. What this node tells others of its
            // position does (S20): that is what the archive lists.
            self.state.send_replace(state);
            self.store(taken, None).await?;
            self.overtaken();
            self.follow_roster().await?;
        }
        let position = self.current().position;
        let _ = reply.send(result.map(|()| position).map_err(TakeError::Batch));
        Ok(())
    }

    /// Appends proved batches to the file and tells of them, and of the state
    /// after them if that wasn't told yet.
    pub async fn store(
        &mut self,
        batches: Vec<Batch>,
        state: Option<Arc<State>>,
    ) -> std::io::Result<()> {
        let listed: Vec<&Batch> = batches.iter().collect();
        self.file.append(&listed, &self.archive).await?;
        if let Some(state) = state {
            self.state.send_replace(state);
        }
        self.durable.send_replace(self.archive.position());
        for batch in batches {
            // Nobody listening is fine: positions in heads repair.
            let _ = self.batches.send(Arc::new(batch));
        }
        self.note_stamped();
        self.beat = self.stamped + HEARTBEAT;
        Ok(())
    }

    /// The state after `batch`; none when it is held already.
    fn step(&mut self, state: &State, batch: &Batch) -> Result<Option<State>, BatchError> {
        let position = batch.position()?;
        if position.index <= state.position.index {
            if self
                .archive
                .hash_at(position.index)
                .is_some_and(|held| held != position.hash)
            {
                // Worth an alarm only if the roster really signed both.
                if state.has_proved(batch, &*self.host.keys) {
                    tracing::error!(
                        index = position.index,
                        "the roster signed two batches for one index"
                    );
                    return Err(BatchError::Fork(position.index));
                }
            }
            return Ok(None);
        }
        let header = batch.read_header()?;
        if header.rules > self.versions.known {
            state.check_proof(batch, &*self.host.keys)?;
            return Err(self.unknown_rules(header.rules));
        }
        // What this node applied itself needs only its proof checked.
        let applied = self
            .unproved
            .iter()
            .find(|unproved| unproved.position == position)
            .filter(|unproved| unproved.before.position == state.position);
        if let Some(unproved) = applied {
            unproved.before.check_proof(batch, &*self.host.keys)?;
            return if unproved.batch.entries == batch.entries {
                Ok(Some((*unproved.after).clone()))
            } else {
                Err(BatchError::Entries)
            };
        }
        state
            .next(batch, &*self.host.keys)
            .map(|(state, _)| Some(state))
    }

    /// A disk that failed once can't be trusted about what it kept: nothing is
    /// written, promised or said any more until the agent is started anew (S20).
    async fn stop(mut self, error: std::io::Error, mut queue: mpsc::Receiver<Command>) {
        tracing::error!(%error, "the ledger can't be written; it stays as it is until the agent is restarted");
        let stopped = || Err(ProposeError::Stopped(error.to_string()));
        self.voter = None;
        self.tell_council();
        let flight = self.flight.take().map(|flight| flight.replies);
        for (reply, _) in flight.into_iter().flatten() {
            let _ = reply.send(stopped());
        }
        let waiting = self.waiting.drain().map(|asked| asked.reply);
        for reply in waiting.chain(self.refusals.drain()) {
            let _ = reply.send(stopped());
        }
        while let Some(command) = queue.recv().await {
            match command {
                Command::Propose(asked) => {
                    let _ = asked.reply.send(stopped());
                }
                Command::Take(_, reply) | Command::Recover(_, reply) => {
                    let _ = reply.send(Err(TakeError::Stopped));
                }
                Command::Start(_, reply) => {
                    let _ = reply.send(Err(InstallError::Stopped));
                }
                Command::Keys(reply) => {
                    let _ = reply.send(Err(error.to_string()));
                }
                Command::Deciding(reply) => {
                    let _ = reply.send(Deciding::default());
                }
                Command::Spenders(reply) => {
                    let _ = reply.send(Spenders::default());
                }
                Command::Clocks(_)
                | Command::Builds(_)
                | Command::KnownRules(_)
                | Command::RolledBack
                | Command::Raft(..)
                | Command::Endorse(..)
                | Command::Term(_) => {}
            }
        }
    }
}
