//! A handle on this node's ledger: what it says, and what it is asked to do.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use innermesh_host::{Disk, Mono};
use innermesh_proto::{
    codec,
    crypto::{Hash, Sealed},
    id::NodeId,
    ledger::{Batch, Outcome, Position, SignedGenesis, SignedRecovery, State},
    limits,
    message::{IssuerKeys, RaftProgress, Spenders},
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::{
    archive::Archive,
    command::{Command, Proposal},
    decide::{Builds, InstallError, ProposeError, RaftStatus, TakeError, is_fork},
    furthest::Furthest,
    issuers::IssuerKeysError,
    past_index,
    raft::Message,
    recover::Lost,
    sender::PeerSender,
    start::{Offer, Start},
    starts::Starts,
    views::Watched,
};

/// A handle on this node's ledger.
#[derive(Clone)]
pub struct Ledger {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub me: NodeId,
    pub genesis: SignedGenesis,
    pub disk: Arc<dyn Disk>,
    pub archive: Arc<Archive>,
    pub watched: Watched,
    pub commands: mpsc::Sender<Command>,
    pub sender: Arc<OnceLock<Arc<dyn PeerSender>>>,
    pub starts: Arc<Starts>,
    pub furthest: Furthest,
    pub past: past_index::Past,
    /// Where the ledger stood when it was opened.
    pub opened_at: u64,
    pub was_damaged: bool,
}

impl Ledger {
    /// Has CA nodes hear each other over `sender`; only the first counts.
    pub fn connect(&self, sender: Arc<dyn PeerSender>) {
        let _ = self.inner.sender.set(sender);
    }

    /// How long one node leads, of ledger time.
    pub fn set_term(&self, term: Duration) {
        // A queue that is full at the start can't be.
        let _ = self.inner.commands.try_send(Command::Term(term));
    }

    /// This node's part in the voters' log, now and each time after.
    pub fn raft_status(&self) -> watch::Receiver<RaftStatus> {
        self.inner.watched.status.clone()
    }

    /// Takes in a message of the voters' log from the member `from`. What
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
        self.inner.watched.status.borrow().votes && self.inner.watched.heard.borrow().contains(from)
    }

    /// The first entry.
    pub fn genesis(&self) -> &SignedGenesis {
        &self.inner.genesis
    }

    /// The newest state.
    pub fn state(&self) -> Arc<State> {
        self.inner.watched.state.borrow().clone()
    }

    /// The newest state, and each after it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<State>> {
        self.inner.watched.state.clone()
    }

    /// The newest stamp, and how long ago it was first seen here, both in
    /// milliseconds.
    pub fn stamped(&self, now: Mono) -> (u64, u64) {
        let stamp_ms = self.state().stamp_ms;
        let (seen_ms, at) = self.inner.watched.stamped();
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
        self.inner.watched.durable.clone()
    }

    /// Batches as they become durable here.
    pub fn batches(&self) -> broadcast::Receiver<Arc<Batch>> {
        self.inner.watched.batches.subscribe()
    }

    /// Stored batches from index `from` on, about `bytes` of them at most, but
    /// at least one if there is one.
    ///
    /// # Errors
    /// The disk's.
    pub async fn range(&self, from: u64, bytes: usize) -> io::Result<Vec<Batch>> {
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
        batches.collect::<Result<_, _>>().map_err(io::Error::other)
    }

    /// As [`Ledger::range`], each batch as it is stored. No more is read than
    /// what is given, but for an index of the file it is in.
    ///
    /// # Errors
    /// The disk's.
    pub async fn encoded_range(&self, from: u64, bytes: usize) -> io::Result<Vec<Vec<u8>>> {
        if from > self.base() {
            return self.inner.archive.encoded_range(from, bytes).await;
        }
        self.inner.past.range(&*self.inner.disk, from, bytes).await
    }

    /// The hash of the header at `index`, if that is held here.
    pub fn hash_at(&self, index: u64) -> Option<Hash> {
        self.inner.archive.index().hash_at(index)
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
        let proposal = Proposal {
            request,
            by,
            is_recorded,
            reply,
        };
        self.inner
            .commands
            .try_send(Command::Propose(proposal))
            .map_err(|_| ProposeError::Busy)?;
        answer
            .await
            .unwrap_or_else(|_| Err(ProposeError::Stopped("its writer ended".into())))
    }

    /// Takes batches that a peer sent, in order; those that are held already
    /// are passed over.
    ///
    /// # Errors
    /// [`BatchError`](innermesh_proto::ledger::BatchError) of the first that doesn't follow; those before it stand.
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
        let status = self.inner.watched.status.borrow();
        let decides = status.votes || self.state().roster.contains(&self.inner.me);
        status.disabled.is_some() || !decides
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
    /// [`IssuerKeysError`].
    pub async fn issuer_keys(&self) -> Result<IssuerKeys, IssuerKeysError> {
        let (reply, answer) = oneshot::channel();
        let asked = self.inner.commands.send(Command::Keys(reply)).await;
        asked.map_err(|_| IssuerKeysError::Ended)?;
        answer.await.unwrap_or(Err(IssuerKeysError::Ended))
    }

    /// Who leads and how far the CA nodes are, as far as this node knows.
    pub async fn raft_progress(&self) -> RaftProgress {
        let (reply, answer) = oneshot::channel();
        let asked = self.inner.commands.send(Command::Progress(reply)).await;
        match asked {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => RaftProgress::default(),
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
        self.inner.watched.lost.borrow().clone()
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
    pub async fn recoveries_from(&self, number: u32) -> io::Result<Vec<Batch>> {
        let archive = &self.inner.archive;
        archive.recoveries_from(number, limits::RECOVERIES).await
    }

    /// Whether the state that a peer offers could be begun with, as far as its
    /// header tells: what isn't asked for costs nothing.
    ///
    /// # Errors
    /// [`InstallError`].
    pub(super) fn would_install(&self, offer: &Offer) -> Result<(), InstallError> {
        let now = self.state();
        if offer.index() <= now.position.index {
            return Err(InstallError::Old);
        }
        let led = offer.ends.iter().chain([&offer.at]);
        if is_fork(&now, offer.recovery(), led) {
            Err(InstallError::Fork)
        } else {
            Ok(())
        }
    }

    /// The newest state that others may start from, of a batch up to `most`.
    ///
    /// # Errors
    /// The disk's.
    pub async fn start_for(&self, most: u64) -> io::Result<Option<Arc<Start>>> {
        self.inner.starts.newest(&self.inner.archive, most).await
    }

    /// The one that was asked for last, if it is of this batch.
    pub async fn start_at(&self, index: u64) -> Option<Arc<Start>> {
        self.inner.starts.made(index).await
    }

    /// After which batch this node's file begins.
    pub fn base(&self) -> u64 {
        self.inner.archive.index().base()
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
        let _ = self.inner.commands.try_send(Command::PeerClocks(clocks));
    }
}
