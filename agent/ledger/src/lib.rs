//! The ledger on this node: its file, its newest state, and, on the node that
//! leads, the one place where requests become batches. What a request may
//! change is decided in [`innermesh_proto::ledger`]; how batches travel
//! between nodes is [`follow`]'s.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod archive;
mod behind;
mod bill;
pub mod budget;
mod claims;
pub mod client;
mod council;
mod decide;
pub mod file;
pub mod follow;
mod frames;
mod gone;
pub mod history;
mod install;
mod issuers;
pub mod past;
mod past_index;
mod proof;
mod queue;
pub mod raft;
mod recover;
mod refuse;
mod room;
mod rotation;
mod sizes;
mod source;
pub mod start;
mod stored;
mod versions;
mod voter;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use innermesh_ca as ca;
use innermesh_host as host;
use innermesh_net::{gossip, quic};
use innermesh_proto::{
    codec,
    crypto::{Sealed, Sign},
    id::NodeId,
    ledger::{
        Batch, BatchError, GenesisError, Outcome, Position, SignedGenesis, SignedRecovery, State,
    },
    limits,
    message::{Deciding, IssuerKeys, Spenders},
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub use self::{
    gone::note as note_gone, install::InstallError, recover::Lost, room::ROOM, sizes::Sizes,
    stored::Stored, versions::Builds, voter::Barred, writer::Carrier,
};

use self::{
    archive::Archive,
    behind::Proved,
    budget::Budgets,
    file::FileError,
    install::Starts,
    queue::Queue,
    raft::Message,
    refuse::Refusals,
    room::Room,
    rotation::Rotation,
    start::{Start, StartError},
    versions::Versions,
    writer::{Asked, Command, Stamped, Writer},
};
use innermesh_host::{Disk, Host, Mono};

/// Commands that may wait for the writer.
const QUEUE: usize = 1024;
/// Batches that a slow subscriber may lag behind before it must look them up.
const RECENT: usize = 256;
/// How long one node leads, of ledger time, unless it is told otherwise.
const TERM: Duration = Duration::from_secs(6 * 3600);

/// A handle on this node's ledger.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    me: NodeId,
    genesis: SignedGenesis,
    disk: Arc<dyn Disk>,
    archive: Arc<Archive>,
    state: watch::Receiver<Arc<State>>,
    durable: watch::Receiver<Position>,
    batches: broadcast::Sender<Arc<Batch>>,
    commands: mpsc::Sender<Command>,
    carrier: Arc<OnceLock<Arc<dyn Carrier>>>,
    council: watch::Receiver<Council>,
    heard: watch::Receiver<Arc<BTreeSet<NodeId>>>,
    starts: Arc<Starts>,
    lost: watch::Receiver<Arc<Vec<Lost>>>,
    stamped: Arc<Mutex<Stamped>>,
    proved: Proved,
    past: past_index::Past,
    /// Where the ledger stood when it was opened.
    opened_at: u64,
    was_damaged: bool,
}

/// This node's part in deciding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Council {
    /// Who leads, as far as it is known here: only CA nodes know.
    pub leader: Option<NodeId>,
    /// Whether this node does.
    pub leads: bool,
    /// How often a leader was elected so far.
    pub term: u64,
    /// Whether this node takes part: it votes, or waits to.
    pub votes: bool,
    /// Why it doesn't although it is a CA node.
    pub barred: Option<Barred>,
    /// The rules that the ledger follows, where this node doesn't know them and
    /// so can't follow it.
    pub unknown_rules: Option<u32>,
}

/// Why the ledger can't be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file can't be read or isn't whole.
    #[error(transparent)]
    File(#[from] FileError),
    /// It doesn't start with the genesis of a mesh.
    #[error("the ledger file doesn't start with a mesh: {0}")]
    Genesis(#[from] GenesisError),
    /// The state that it begins with can't be used by this build.
    #[error("the ledger file can't be used: {0}")]
    Start(#[from] StartError),
}

/// Why a request got no answer. It may or may not have been applied; asking
/// again with the same request is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node doesn't lead; this one does, as far as it is known.
    #[error("this node doesn't decide the ledger")]
    NotLeader(Option<NodeId>),
    /// Too many requests wait.
    #[error("the ledger is busy; try again")]
    Busy,
    /// The disk of the node that decides is nearly full.
    #[error(
        "the disk of the CA node that leads is nearly full: until there is room it takes only \
         what takes something away, such as an eviction"
    )]
    Full,
    /// The author's budget is spent for so long.
    #[error("{}", client::spent(.0))]
    Spent(Duration),
    /// The ledger's disk failed, and it stopped writing.
    #[error("the ledger can't be written: {0}")]
    Stopped(String),
}

impl Ledger {
    /// Writes the first frame of a new ledger.
    ///
    /// # Errors
    /// [`FileError`]; an existing ledger stands.
    pub async fn create(host: &Host, genesis: &SignedGenesis) -> Result<(), FileError> {
        file::create(&*host.disk, genesis).await
    }

    /// Opens the ledger, cuts a torn tail, applies what it holds, and starts
    /// its writer. A CA node signs with the issuers that the ledger lists and
    /// whose keys are in its folder.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn open(host: &Host, key: Arc<dyn Sign>) -> Result<Self, LedgerError> {
        Stored::read(host).await?.open(host, key).await
    }

    /// As [`Ledger::open`], with files of other sizes.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn open_with(
        host: &Host,
        key: Arc<dyn Sign>,
        sizes: Sizes,
    ) -> Result<Self, LedgerError> {
        Stored::read(host).await?.open_with(host, key, sizes).await
    }
}

impl Stored {
    /// Cuts what can't be used, and starts the ledger's writer.
    ///
    /// # Errors
    /// The disk's.
    pub async fn open(self, host: &Host, key: Arc<dyn Sign>) -> Result<Ledger, LedgerError> {
        self.open_with(host, key, Sizes::default()).await
    }

    async fn open_with(
        self,
        host: &Host,
        key: Arc<dyn Sign>,
        sizes: Sizes,
    ) -> Result<Ledger, LedgerError> {
        let me = key.public().node_id();
        let damage = self.damage;
        let was_damaged = damage.is_some() || self.is_refetched;
        if let Some(at) = damage {
            tracing::error!(
                at,
                "the ledger file is damaged; taking the rest from peers again"
            );
            gone::note(&*host.disk, &self.state, me)
                .await
                .map_err(FileError::Io)?;
        }
        let Self {
            loaded,
            state,
            starts,
            kept,
            ..
        } = self;
        let (archive, file) = loaded.reopen(&*host.disk, kept).await?;
        let archive = Arc::new(archive);
        let opened_at = state.position.index;
        let (commands, queue) = mpsc::channel(QUEUE);
        let (state_sender, state) = watch::channel(Arc::new(state));
        let (durable_sender, durable) = watch::channel(archive.position());
        let (batches, _) = broadcast::channel(RECENT);
        let carrier = Arc::new(OnceLock::new());
        let (council_sender, council) = watch::channel(Council::default());
        let (heard_sender, heard) = watch::channel(Arc::default());
        let stamped = Arc::new(Mutex::new((0, Duration::ZERO)));
        let lost = recover::load(&*host.disk).await.map_err(FileError::Io)?;
        let (lost_sender, lost) = watch::channel(Arc::new(lost));
        let genesis = loaded.genesis;
        let writer = Writer {
            host: host.clone(),
            key,
            genesis: genesis.clone(),
            starts: starts.clone(),
            sizes,
            lost: lost_sender,
            issuers: Vec::new(),
            listed_issuers: None,
            file,
            archive: archive.clone(),
            state: state_sender,
            durable: durable_sender,
            batches: batches.clone(),
            clocks: Vec::new(),
            carrier: carrier.clone(),
            council: council_sender,
            voter: None,
            barred: None,
            numbers: BTreeMap::new(),
            unproved: VecDeque::new(),
            early: BTreeMap::new(),
            flight: None,
            waiting: Queue::default(),
            refusals: Refusals::default(),
            budgets: Budgets::default(),
            heard: heard_sender,
            versions: Versions::new(),
            rotation: Rotation {
                term: TERM,
                ..Rotation::default()
            },
            room: Room::default(),
            beat: Duration::ZERO,
            stamped: Duration::ZERO,
            told_stamped: stamped.clone(),
        };
        host.tasks.spawn(writer.run(queue));
        Ok(Ledger {
            inner: Arc::new(Inner {
                me,
                genesis,
                disk: host.disk.clone(),
                archive,
                state,
                durable,
                batches,
                commands,
                carrier,
                council,
                heard,
                starts,
                lost,
                stamped,
                proved: Proved::default(),
                past: past_index::Past::default(),
                opened_at,
                was_damaged,
            }),
        })
    }
}

impl Ledger {
    /// Has CA nodes hear each other over `carrier`; only the first counts.
    pub fn connect(&self, carrier: Arc<dyn Carrier>) {
        let _ = self.inner.carrier.set(carrier);
    }

    /// How long one node leads, of ledger time.
    pub fn set_term(&self, term: Duration) {
        // A queue that is full at the start can't be.
        let _ = self.inner.commands.try_send(Command::Term(term));
    }

    /// This node's part in deciding, now and each time after.
    pub fn council(&self) -> watch::Receiver<Council> {
        self.inner.council.clone()
    }

    /// Takes in a message of the roster's log from the member `from`. What
    /// isn't one, or comes when too much waits, is dropped as if it were lost.
    pub fn hear_raft(&self, from: NodeId, bytes: &[u8]) {
        if !self.hears(&from) {
            return;
        }
        match Message::decode(bytes) {
            Ok(message) => {
                let _ = self.inner.commands.try_send(Command::Raft(from, message));
            }
            Err(error) => {
                tracing::warn!(peer = ?from, %error, "a voter's message can't be read");
            }
        }
    }

    /// Takes in the signature of the member `from` over a batch.
    pub fn hear_endorsement(&self, from: NodeId, bytes: &[u8]) {
        if !self.hears(&from) {
            return;
        }
        if let Ok(endorse) = codec::decode(bytes, 1024) {
            let _ = self
                .inner
                .commands
                .try_send(Command::Endorse(from, endorse));
        }
    }

    /// Whether both take part in deciding. Any member can send such messages,
    /// and they are not to cost anything, or take a voter's place in the queue.
    fn hears(&self, from: &NodeId) -> bool {
        self.inner.council.borrow().votes && self.inner.heard.borrow().contains(from)
    }

    /// The first entry.
    pub fn genesis(&self) -> &SignedGenesis {
        &self.inner.genesis
    }

    /// The newest state.
    pub fn state(&self) -> Arc<State> {
        self.inner.state.borrow().clone()
    }

    /// The newest state, and each after it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<State>> {
        self.inner.state.clone()
    }

    /// The newest stamp, and how long ago it was first seen here, both in
    /// milliseconds.
    pub fn stamped(&self, now: Mono) -> (u64, u64) {
        let stamp_ms = self.state().stamp_ms;
        let stamped = self.inner.stamped.lock();
        let (seen_ms, at) = *stamped.unwrap_or_else(PoisonError::into_inner);
        // A newer one was seen just now.
        let elapsed = if seen_ms == stamp_ms {
            now.saturating_sub(at)
        } else {
            Duration::ZERO
        };
        (
            stamp_ms,
            u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        )
    }

    /// How far the ledger is on this node's disk, now and each time after. A
    /// follower's newest state may be ahead of it by the time of a write.
    pub fn durable(&self) -> watch::Receiver<Position> {
        self.inner.durable.clone()
    }

    /// Batches as they become durable here.
    pub fn batches(&self) -> broadcast::Receiver<Arc<Batch>> {
        self.inner.batches.subscribe()
    }

    /// Stored batches from index `from` on, about `bytes` of them at most, but
    /// at least one if there is one.
    ///
    /// # Errors
    /// The disk's.
    pub async fn range(&self, from: u64, bytes: usize) -> std::io::Result<Vec<Batch>> {
        if from > self.base() {
            return self.inner.archive.range(from, bytes).await;
        }
        let encoded = self
            .inner
            .past
            .range(&*self.inner.disk, from, bytes)
            .await?;
        let batches = encoded
            .iter()
            .map(|raw| codec::decode(raw, limits::BATCH_BYTES));
        batches
            .collect::<Result<_, _>>()
            .map_err(std::io::Error::other)
    }

    /// As [`Ledger::range`], each batch as it is stored. No more is read than
    /// what is given, but for an index of the file it is in.
    ///
    /// # Errors
    /// The disk's.
    pub async fn encoded_range(&self, from: u64, bytes: usize) -> std::io::Result<Vec<Vec<u8>>> {
        if from > self.base() {
            return self.inner.archive.encoded_range(from, bytes).await;
        }
        self.inner.past.range(&*self.inner.disk, from, bytes).await
    }

    /// The hash of the header at `index`, if that is held here.
    pub fn hash_at(&self, index: u64) -> Option<innermesh_proto::crypto::Hash> {
        self.inner.archive.hash_at(index)
    }

    /// Has a request decided and written down by this node; answers when it is
    /// durable.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose(&self, request: Sealed) -> Result<Outcome, ProposeError> {
        self.propose_by(None, request, false).await
    }

    /// As [`Ledger::propose`], for a request that the member `by` delivered. A
    /// refusal is written down if it `is_recorded`.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose_by(
        &self,
        by: Option<NodeId>,
        request: Sealed,
        is_recorded: bool,
    ) -> Result<Outcome, ProposeError> {
        let (reply, answer) = oneshot::channel();
        let asked = Asked {
            request,
            by,
            is_recorded,
            reply,
        };
        self.inner
            .commands
            .try_send(Command::Propose(asked))
            .map_err(|_| ProposeError::Busy)?;
        answer
            .await
            .unwrap_or_else(|_| Err(ProposeError::Stopped("its writer ended".into())))
    }

    /// Takes batches that a peer sent, in order; those that are held already
    /// are passed over.
    ///
    /// # Errors
    /// [`BatchError`] of the first that doesn't follow; those before it stand.
    pub async fn take(&self, batches: Vec<Batch>) -> Result<Position, TakeError> {
        let (reply, answer) = oneshot::channel();
        self.inner
            .commands
            .send(Command::Take(batches, reply))
            .await
            .map_err(|_| TakeError::Stopped)?;
        answer.await.unwrap_or(Err(TakeError::Stopped))
    }

    /// The index of the newest batch that was held when it was opened.
    pub fn opened_at(&self) -> u64 {
        self.inner.opened_at
    }

    /// Whether what this node held of it was damaged when it was opened, and
    /// had to be taken from peers again.
    pub fn was_damaged(&self) -> bool {
        self.inner.was_damaged
    }

    /// Whether this node may begin anew with another's state: one that takes
    /// part in deciding, or will again, needs every batch.
    pub fn may_begin_anew(&self) -> bool {
        let council = self.inner.council.borrow();
        let decides = council.votes || self.state().roster.contains(&self.inner.me);
        council.barred.is_some() || !decides
    }

    /// This node's state is older than what it has done: a CA node votes no
    /// more.
    pub async fn roll_back(&self) {
        // A writer that has ended votes no more either.
        let _ = self.inner.commands.send(Command::RolledBack).await;
    }

    /// The public keys of this node's issuers: those that it can sign with, and
    /// new ones for issuers that the root is to sign. The private ones stay in
    /// its folder.
    ///
    /// # Errors
    /// Why they can't be had.
    pub async fn issuer_keys(&self) -> Result<IssuerKeys, String> {
        let (reply, answer) = oneshot::channel();
        let stopped = || "the ledger's writer ended".to_string();
        let asked = self.inner.commands.send(Command::Keys(reply)).await;
        asked.map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Who leads and how far the CA nodes are, as far as this node knows.
    pub async fn deciding(&self) -> Deciding {
        let (reply, answer) = oneshot::channel();
        let asked = self.inner.commands.send(Command::Deciding(reply)).await;
        match asked {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => Deciding::default(),
        }
    }

    /// Whose requests were turned away lately, if this node leads.
    pub async fn spenders(&self) -> Spenders {
        let (reply, answer) = oneshot::channel();
        let asked = self.inner.commands.send(Command::Spenders(reply)).await;
        match asked {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => Spenders::default(),
        }
    }

    /// Goes on alone from this node's newest batch, by what the root signed,
    /// where the roster is lost for good.
    ///
    /// # Errors
    /// [`TakeError::Batch`] when that isn't signed for this node and this place;
    /// nothing was changed.
    pub async fn recover(&self, signed: SignedRecovery) -> Result<Position, TakeError> {
        let (reply, answer) = oneshot::channel();
        let asked = self.inner.commands.send(Command::Recover(signed, reply));
        asked.await.map_err(|_| TakeError::Stopped)?;
        answer.await.unwrap_or(Err(TakeError::Stopped))
    }

    /// What recoveries by the root left behind of what was held here.
    pub fn lost(&self) -> Arc<Vec<Lost>> {
        self.inner.lost.borrow().clone()
    }

    /// Members that a lost roster evicted, as far as it was held here: they stay
    /// cut off until the ledger has decided about them again.
    pub fn kept_out(&self) -> BTreeSet<NodeId> {
        let state = self.state();
        let lost = self.lost();
        let nodes = lost.iter().flat_map(|lost| lost.nodes.iter().copied());
        nodes
            .filter(|node| state.members.contains_key(node))
            .collect()
    }

    /// The batches of recoveries by the root with this number or a higher one.
    ///
    /// # Errors
    /// The disk's.
    pub async fn recoveries_from(&self, number: u32) -> std::io::Result<Vec<Batch>> {
        let archive = &self.inner.archive;
        archive.recoveries_from(number, limits::RECOVERIES).await
    }

    /// The newest state that others may start from, of a batch up to `most`.
    ///
    /// # Errors
    /// The disk's.
    pub async fn start_for(&self, most: u64) -> std::io::Result<Option<Arc<Start>>> {
        self.inner.starts.newest(&self.inner.archive, most).await
    }

    /// The one that was asked for last, if it is of this batch.
    pub async fn start_at(&self, index: u64) -> Option<Arc<Start>> {
        self.inner.starts.made(index).await
    }

    /// After which batch this node's file begins.
    pub fn base(&self) -> u64 {
        self.inner.archive.base()
    }

    /// Begins anew from a peer's state, which is further.
    ///
    /// # Errors
    /// [`InstallError`]; nothing was changed.
    pub async fn install(&self, start: Start) -> Result<Position, InstallError> {
        let (reply, answer) = oneshot::channel();
        let asked = self
            .inner
            .commands
            .send(Command::Start(Box::new(start), reply));
        asked.await.map_err(|_| InstallError::Stopped)?;
        answer.await.unwrap_or(Err(InstallError::Stopped))
    }

    /// Tells the leader which rules other nodes' builds know.
    pub fn set_builds(&self, builds: Builds) {
        // When the queue is full the next look tells it again.
        let _ = self.inner.commands.try_send(Command::Builds(builds));
    }

    /// Goes along with these rules at most, and tells nobody of newer ones.
    pub fn set_known_rules(&self, rules: u32) {
        // A queue that is full at the start can't be.
        let _ = self.inner.commands.try_send(Command::KnownRules(rules));
    }

    /// Tells the leader what its peers' clocks say: wall time in milliseconds,
    /// with the monotonic time at which it was so.
    pub fn set_peer_clocks(&self, clocks: Vec<u64>) {
        // When the queue is full the next renewal tells it again.
        let _ = self.inner.commands.try_send(Command::Clocks(clocks));
    }
}

/// Why batches were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TakeError {
    /// One of them isn't the next; those before it were taken.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The writer stopped after a failure of the disk; nothing was changed.
    #[error("the ledger can't be written")]
    Stopped,
    /// The disk is full; nothing was changed.
    #[error("the disk is full")]
    Full,
}
