//! The states that others may start from, and the one that this node's own file
//! is to begin with next.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use innermesh_proto::{
    ledger::{Batch, Snapshot, State},
    limits,
};

use super::{archive::Archive, start::Start};

/// States that are kept for others: the newest may be of a later batch than a
/// joining machine can use.
const KEPT: usize = 2;

/// The newest states whose hashes are proved. Each costs what it doesn't share
/// with later ones.
#[derive(Default)]
pub struct Starts {
    states: Mutex<VecDeque<(Batch, Arc<State>)>>,
    next: Mutex<NextStart>,
    made: tokio::sync::Mutex<BTreeMap<u64, Arc<Start>>>,
}

/// The state that this node's own file is to begin with next.
#[derive(Default)]
struct NextStart {
    /// After which batch it begins now.
    base: u64,
    found: Option<(Batch, Arc<State>)>,
}

impl NextStart {
    fn note(&mut self, at: &Batch, state: &Arc<State>) {
        if self.found.is_none() && state.position.index >= self.base + limits::LEDGER_KEPT {
            self.found = Some((at.clone(), state.clone()));
        }
    }
}

impl Starts {
    /// Keeps the state after `batch`, if its header has the hash of it.
    pub fn note(&self, batch: &Batch, state: &Arc<State>) {
        if batch
            .read_header()
            .is_ok_and(|header| header.state.is_some())
        {
            lock(&self.next).note(batch, state);
            let mut states = lock(&self.states);
            states.push_back((batch.clone(), state.clone()));
            while states.len() > KEPT {
                states.pop_front();
            }
        }
    }

    /// This node's file begins after batch `base`.
    pub fn begin(&self, base: u64) {
        let mut next = lock(&self.next);
        *next = NextStart { base, found: None };
        for (at, state) in &*lock(&self.states) {
            next.note(at, state);
        }
    }

    /// The state that the file is to begin with now, where its newest batch is
    /// `newest`: once enough batches lie behind one, or the file `is_long`,
    /// whatever lies behind it.
    pub fn to_begin_with(&self, newest: u64, is_long: bool) -> Option<(Batch, Arc<State>)> {
        let next = lock(&self.next);
        let due =
            |found: &&(Batch, Arc<State>)| newest >= found.1.position.index + limits::LEDGER_KEPT;
        if let Some(found) = next.found.as_ref().filter(due) {
            return Some(found.clone());
        }
        if !is_long {
            return None;
        }
        let states = lock(&self.states);
        let mut states = states.iter();
        states
            .find(|(_, state)| state.position.index > next.base)
            .cloned()
    }

    /// None of them counts any more.
    pub fn forget(&self) {
        lock(&self.states).clear();
        lock(&self.next).found = None;
    }

    /// The newest that isn't of a later batch than `most`.
    ///
    /// # Errors
    /// The disk's.
    pub async fn newest(&self, archive: &Archive, most: u64) -> io::Result<Option<Arc<Start>>> {
        let found = {
            let states = lock(&self.states);
            let mut states = states.iter().rev();
            states
                .find(|(_, state)| state.position.index <= most)
                .cloned()
        };
        let Some((at, state)) = found else {
            return Ok(None);
        };
        let index = state.position.index;
        // However many ask, each is made once.
        let mut made = self.made.lock().await;
        if let Some(made) = made.get(&index) {
            return Ok(Some(made.clone()));
        }
        let bytes = Snapshot::of(&state).bytes;
        if bytes.len() > limits::SNAPSHOT_BYTES {
            return Ok(None);
        }
        let ends = archive.ends(index).await?;
        let start = Arc::new(Start { ends, at, bytes });
        while made.len() >= KEPT {
            made.pop_first();
        }
        made.insert(index, start.clone());
        Ok(Some(start))
    }

    /// The one that was asked for and is of this batch.
    pub async fn made(&self, index: u64) -> Option<Arc<Start>> {
        self.made.lock().await.get(&index).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
