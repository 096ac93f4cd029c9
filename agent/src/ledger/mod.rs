//! The ledger on this node: its file, its newest state, and, on the node that
//! leads, the one place where requests become batches. What a request may
//! change is decided in [`innermesh_proto::ledger`]; how batches travel
//! between nodes is [`follow`]'s.

pub mod client;
pub mod file;
pub mod follow;
mod frames;
pub mod raft;
mod writer;

use std::sync::Arc;

use innermesh_proto::{
    crypto::{Sealed, Sign},
    ledger::{Batch, BatchError, GenesisError, Outcome, Position, SignedGenesis, State},
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use self::{
    file::{Archive, FileError},
    writer::{Command, Writer},
};
use crate::{ca::issuer::Issuer, host::Host};

/// Proposals and fetched ranges that may wait for the writer.
const QUEUE: usize = 1024;
/// Batches that a slow subscriber may lag behind before it must look them up.
const RECENT: usize = 256;

/// A handle on this node's ledger.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    genesis: SignedGenesis,
    archive: Arc<Archive>,
    state: watch::Receiver<Arc<State>>,
    durable: watch::Receiver<Position>,
    batches: broadcast::Sender<Arc<Batch>>,
    commands: mpsc::Sender<Command>,
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
    /// A stored batch doesn't follow from those before it.
    #[error("the ledger file is damaged: {0}")]
    Batch(#[from] BatchError),
    /// This node decides alone, and its file is damaged in the middle.
    #[error(
        "the ledger file is damaged at byte {0}, and this node is the only CA node: restore \
         {1}/ledger from a backup, or from another member's copy, then start again"
    )]
    DamagedCa(u64, String),
}

/// Why a request got no answer. It may or may not have been applied; asking
/// again with the same request is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node doesn't lead.
    #[error("this node doesn't decide the ledger")]
    NotLeader,
    /// Too many requests wait.
    #[error("the ledger is busy; try again")]
    Busy,
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
    /// its writer. With an `issuer`, this node can lead.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn open(
        host: &Host,
        key: Arc<dyn Sign>,
        issuer: Option<Issuer>,
    ) -> Result<Self, LedgerError> {
        let loaded = file::load(&*host.disk).await?;
        let me = key.public().node_id();
        let mut state = State::genesis(&loaded.genesis, &*host.keys)?;
        let mut damage = loaded.damage;
        let mut kept = 0;
        for batch in &loaded.batches {
            match state.next(batch, &*host.keys) {
                Ok((next, _)) => state = next,
                Err(error) => {
                    tracing::error!(%error, "a stored batch doesn't apply");
                    damage = Some(loaded.offset(kept));
                    break;
                }
            }
            kept += 1;
        }
        if let Some(at) = damage {
            if state.roster.contains(&me) {
                let root = host.disk.root().display().to_string();
                return Err(LedgerError::DamagedCa(at, root));
            }
            tracing::error!(
                at,
                "the ledger file is damaged; taking the rest from peers again"
            );
        }
        let (archive, file) = loaded.reopen(&*host.disk, kept).await?;
        let archive = Arc::new(archive);
        let (commands, queue) = mpsc::channel(QUEUE);
        let (state_sender, state) = watch::channel(Arc::new(state));
        let (durable_sender, durable) = watch::channel(archive.position());
        let (batches, _) = broadcast::channel(RECENT);
        let writer = Writer {
            host: host.clone(),
            key,
            issuer,
            file,
            archive: archive.clone(),
            state: state_sender,
            durable: durable_sender,
            batches: batches.clone(),
            clocks: Default::default(),
        };
        let genesis = loaded.genesis;
        host.tasks.spawn(writer.run(queue));
        Ok(Self {
            inner: Arc::new(Inner {
                genesis,
                archive,
                state,
                durable,
                batches,
                commands,
            }),
        })
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
        self.inner.archive.range(from, bytes).await
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
        let (reply, answer) = oneshot::channel();
        self.inner
            .commands
            .try_send(Command::Propose(request, reply))
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
}

/// The issuer certificate that the stored ledger gives `node`, DER.
///
/// # Errors
/// [`LedgerError`] when the file can't be used.
pub async fn issuer_of(
    host: &Host,
    node: innermesh_proto::id::NodeId,
) -> Result<Option<Vec<u8>>, LedgerError> {
    let loaded = file::load(&*host.disk).await?;
    let state = State::genesis(&loaded.genesis, &*host.keys)?;
    let newest = state
        .issuers_of(node)
        .max_by_key(|issuer| issuer.certificate.not_after_ms);
    Ok(newest.map(|issuer| issuer.certificate.der().to_vec()))
}
