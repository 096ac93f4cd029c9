//! This node's part in the roster's log: whether it has one, where its log
//! starts, and what of a peer's message it takes.

use std::{collections::BTreeMap, path::Path, time::Duration};

use innermesh_proto::{
    codec,
    crypto::Signature,
    id::NodeId,
    ledger::{Batch, Position, State, stamp},
    limits,
};

use super::{
    archive::Archive,
    gone,
    raft::{
        Base, Body, Conf, DiskLog, Engine, Hard, LOG, LogError, Message, Payload, Saved, VoterId,
    },
};
use crate::host::{Disk, Mono};

/// A tick of the engine's.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Where a damaged log is put.
const DAMAGED: &str = "raft.log.damaged";

/// An engine with its file.
pub(super) struct Voter {
    pub engine: Engine,
    pub log: DiskLog,
    /// Where the ledger is after the log's newest applied entry: behind the
    /// ledger itself where that was fetched from peers.
    pub position: Position,
    /// When the next tick is due.
    pub due: Mono,
    /// Ticks since the start.
    pub ticks: u64,
}

/// Why a CA node takes no part in deciding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    /// Its log is damaged, and it may have promised what it no longer knows.
    #[error(
        "{0}: this node doesn't vote any more; have an admin `agent ca demote` it and then \
         `agent ca promote` it"
    )]
    Damaged(String),
    /// Its log is gone.
    #[error(
        "raft.log is missing: this node doesn't vote any more; have an admin `agent ca demote` it \
         and then `agent ca promote` it"
    )]
    Missing,
    /// Its ledger was damaged, and what it has of its log doesn't make up for
    /// that.
    #[error(
        "the ledger's files on this machine were damaged: it follows the ledger, and doesn't vote \
         any more; have an admin `agent ca demote` it and then `agent ca promote` it"
    )]
    Lost,
    /// The same, of a node that decided alone.
    #[error(
        "the ledger's files on this machine and its raft.log were damaged, and it was the only CA \
         node: it may have decided what it no longer knows, and decides nothing more. Once the \
         other nodes are connected, run `agent ca recover --root-key FILE` here"
    )]
    LostAlone,
    /// It is of an earlier time than what this node has done since.
    #[error(
        "this machine's state is older than what it has done, as after a restored snapshot or with \
         a second machine that has its key: it doesn't vote any more, as it may have promised what \
         it no longer knows; have an admin `agent ca demote` it and then `agent ca promote` it"
    )]
    RolledBack,
}

/// What became of starting.
pub(super) enum Start {
    /// It takes part.
    Voter(Box<Voter>),
    /// It will, once its ledger reaches further.
    Later,
    /// It won't.
    Barred(Barred),
}

/// Opens this node's log, or starts a new one where nothing can have been
/// promised: to one who only waits, and to one who decides alone.
pub(super) async fn start(
    disk: &dyn Disk,
    state: &State,
    me: NodeId,
    id: VoterId,
    archive: &Archive,
    now: Mono,
) -> std::io::Result<Start> {
    let decides = state.roster.contains(&me);
    let alone = decides && state.roster.len() == 1;
    let found = match DiskLog::open(disk).await {
        // Of another time as a CA node: it is a new voter since.
        Ok(Some((_, owner, _))) if owner != id => Ok(None),
        Ok(found) => Ok(found),
        Err(LogError::Io(error)) => return Err(error),
        Err(error @ LogError::Damaged(_)) => Err(error),
    };
    let (log, saved) = match found {
        Ok(Some((log, _, saved))) => (log, saved),
        Ok(None) if decides && !alone => return Ok(Start::Barred(Barred::Missing)),
        Err(error) if !alone => return Ok(Start::Barred(Barred::Damaged(error.to_string()))),
        _ if alone && gone::is_noted(disk, id).await? => {
            return Ok(Start::Barred(Barred::LostAlone));
        }
        other => {
            if let Err(error) = other {
                tracing::error!(%error, "this node decides alone: its log starts anew from its ledger");
                let bytes = disk.read(Path::new(LOG)).await?.unwrap_or_default();
                disk.replace(Path::new(DAMAGED), &bytes).await?;
            }
            if !alone {
                gone::forget(disk).await?;
            }
            let saved = first(state.position, id, alone);
            (DiskLog::create(disk, id, &saved).await?, saved)
        }
    };
    let base = saved.base.position;
    if base.index < archive.base() {
        // The ledger was fetched anew from a later state: what of the log was
        // applied to it can't be told.
        let why = if alone {
            Barred::LostAlone
        } else {
            Barred::Lost
        };
        return Ok(Start::Barred(why));
    }
    if base.index > archive.position().index {
        tracing::warn!(
            needed = base.index,
            held = archive.position().index,
            "the ledger's file lost what it held; taking it from peers before voting again"
        );
        return Ok(Start::Later);
    }
    match Engine::new(id, saved) {
        Ok(engine) => Ok(Start::Voter(Box::new(Voter {
            engine,
            log,
            position: base,
            due: now + TICK,
            ticks: 0,
        }))),
        Err(error) => Ok(Start::Barred(Barred::Damaged(format!(
            "raft.log can't be: {error}"
        )))),
    }
}

/// A log without entries: that of one who decides alone starts where its ledger
/// is, and the leader tells any other where it starts.
fn first(position: Position, id: VoterId, alone: bool) -> Saved {
    let (base, hard) = if alone {
        // Beyond everything that a lost log can have had: others may hold
        // entries of it.
        let base = 1 + (position.index << 16);
        let hard = Hard {
            term: 1,
            vote: 0,
            commit: base,
        };
        (base, hard)
    } else {
        (0, Hard::default())
    };
    Saved {
        base: Base {
            index: base,
            term: u64::from(alone),
            conf: if alone {
                Conf::sole(id)
            } else {
                Conf::default()
            },
            position,
        },
        hard,
        entries: Vec::new(),
    }
}

/// A batch as an entry carries it; none when it isn't one.
pub(super) fn read_batch(bytes: &[u8]) -> Option<Batch> {
    let mut batch: Batch = codec::decode(bytes, limits::RAFT_ENTRY_BYTES).ok()?;
    // Signatures come later, each from its own node.
    batch.proof.clear();
    Some(batch)
}

/// How much the latest stamp among a message's batches is ahead of this node's
/// clock, in milliseconds, where that is more than a leader may be and ledger
/// time can't have come to it (`went_on_ms`) either.
pub(super) fn ahead_of_time(message: &Message, wall_ms: u64, went_on_ms: u64) -> Option<u64> {
    let Body::Append { entries, .. } = &message.body else {
        return None;
    };
    let stamps = entries.iter().filter_map(|entry| {
        let batch = match &entry.payload {
            Payload::Data(data) => read_batch(data)?,
            Payload::Roster { context, .. } => read_batch(context)?,
            Payload::Empty => return None,
        };
        Some(batch.read_header().ok()?.stamp_ms)
    });
    let latest = stamps.max()?;
    let most = went_on_ms.max(wall_ms.saturating_add(stamp::SKEW_MS));
    (latest > most).then(|| latest - wall_ms)
}

/// Signatures for batches that aren't applied here yet, by index and node.
pub(super) type Early = BTreeMap<u64, BTreeMap<NodeId, Signature>>;
