//! What the pump shows of the ledger, and what readers see of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use innermesh_host::Mono;
use innermesh_proto::{
    id::NodeId,
    ledger::{Batch, Position, State},
};
use tokio::sync::{broadcast, watch};

use super::{decide::RaftStatus, recover::Lost};

/// Batches that a slow subscriber may lag behind before it must look them up.
const RECENT: usize = 256;

/// A stamp, and when it was first seen.
type Stamped = (u64, Mono);

/// The pump's half.
pub struct Views {
    state: watch::Sender<Arc<State>>,
    durable: watch::Sender<Position>,
    batches: broadcast::Sender<Arc<Batch>>,
    status: watch::Sender<RaftStatus>,
    /// Those whose messages of the voters' log are taken in.
    heard: watch::Sender<Arc<BTreeSet<NodeId>>>,
    lost: watch::Sender<Arc<Vec<Lost>>>,
    stamped: Arc<Mutex<Stamped>>,
}

/// The readers' half.
pub struct Watched {
    pub state: watch::Receiver<Arc<State>>,
    pub durable: watch::Receiver<Position>,
    pub batches: broadcast::Sender<Arc<Batch>>,
    pub status: watch::Receiver<RaftStatus>,
    pub heard: watch::Receiver<Arc<BTreeSet<NodeId>>>,
    pub lost: watch::Receiver<Arc<Vec<Lost>>>,
    stamped: Arc<Mutex<Stamped>>,
}

/// Both halves, of a ledger that was just read.
pub fn views(state: Arc<State>, durable: Position, lost: Vec<Lost>) -> (Views, Watched) {
    let (state, state_seen) = watch::channel(state);
    let (durable, durable_seen) = watch::channel(durable);
    let (batches, _) = broadcast::channel(RECENT);
    let (status, status_seen) = watch::channel(RaftStatus::default());
    let (heard, heard_seen) = watch::channel(Arc::default());
    let (lost, lost_seen) = watch::channel(Arc::new(lost));
    let stamped = Arc::new(Mutex::default());
    let watched = Watched {
        state: state_seen,
        durable: durable_seen,
        batches: batches.clone(),
        status: status_seen,
        heard: heard_seen,
        lost: lost_seen,
        stamped: stamped.clone(),
    };
    let views = Views {
        state,
        durable,
        batches,
        status,
        heard,
        lost,
        stamped,
    };
    (views, watched)
}

impl Views {
    /// Shows the newest proved state, if it is another.
    pub fn show_state(&self, state: &Arc<State>) {
        self.state.send_if_modified(|shown| {
            let is_other = !Arc::ptr_eq(shown, state);
            if is_other {
                *shown = state.clone();
            }
            is_other
        });
    }

    /// Shows how far the ledger is on disk.
    pub fn show_durable(&self, position: Position) {
        self.durable.send_replace(position);
    }

    /// Shows a batch that is on disk.
    pub fn show_batch(&self, batch: Batch) {
        // Nobody listening is fine: positions in heads repair.
        let _ = self.batches.send(Arc::new(batch));
    }

    /// Shows this node's part in the voters' log, if it is another.
    pub fn show_status(&self, status: RaftStatus) {
        self.status.send_if_modified(|shown| {
            let is_other = *shown != status;
            if is_other && shown.leader != status.leader {
                tracing::info!(leader = ?status.leader, term = status.term, "the CA leader");
            }
            *shown = status;
            is_other
        });
    }

    /// Shows whose messages of the voters' log are taken in.
    pub fn show_heard(&self, numbers: &BTreeMap<NodeId, u64>) {
        self.heard.send_if_modified(|shown| {
            let is_other = !shown.iter().eq(numbers.keys());
            if is_other {
                *shown = Arc::new(numbers.keys().copied().collect());
            }
            is_other
        });
    }

    /// Shows when the newest stamp was first seen.
    pub fn show_stamped(&self, stamp_ms: u64, seen: Mono) {
        *self.stamped.lock().unwrap_or_else(PoisonError::into_inner) = (stamp_ms, seen);
    }

    /// What recoveries by the root left behind.
    pub fn lost(&self) -> Arc<Vec<Lost>> {
        self.lost.borrow().clone()
    }

    pub fn show_lost(&self, lost: Vec<Lost>) {
        self.lost.send_replace(Arc::new(lost));
    }
}

impl Watched {
    /// A stamp that was seen, and when that was first.
    pub fn stamped(&self) -> (u64, Mono) {
        *self.stamped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
