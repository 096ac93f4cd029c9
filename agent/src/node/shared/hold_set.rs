//! This node's own holds, kept on disk, and which members are held by anybody.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use innermesh_proto::{
    codec,
    hold::{Hold, Suspensions},
    id::NodeId,
    limits,
};

use crate::host::Disk;

/// Where this node's own are kept.
const FILE: &str = "holds";

/// This node's holds, and the members that are held by anybody.
pub(crate) struct HoldSet {
    own: Mutex<Vec<Hold>>,
    held: Arc<Mutex<BTreeSet<NodeId>>>,
}

impl HoldSet {
    /// Those that were there at the last stop.
    pub async fn load(disk: &dyn Disk) -> Self {
        let own = match disk.read(Path::new(FILE)).await {
            Ok(bytes) => parse(&bytes.unwrap_or_default()),
            Err(error) => {
                tracing::error!(%error, "the holds can't be read; `agent evict` sets them anew");
                Vec::new()
            }
        };
        Self {
            own: Mutex::new(own),
            held: Arc::default(),
        }
    }

    pub fn own(&self) -> Vec<Hold> {
        lock(&self.own).clone()
    }

    /// Writes this node's own down, and has them stand in place of those before.
    ///
    /// # Errors
    /// The disk's; nothing was changed.
    pub async fn replace(&self, disk: &dyn Disk, holds: Vec<Hold>) -> std::io::Result<()> {
        let bytes = codec::encode(&holds);
        disk.replace(Path::new(FILE), &bytes).await?;
        *lock(&self.own) = holds;
        Ok(())
    }

    /// Who is held by anybody, now and each time after.
    pub fn held(&self) -> Arc<Mutex<BTreeSet<NodeId>>> {
        self.held.clone()
    }

    /// Takes note of who is held; whether that is news.
    pub fn note(&self, held: &Suspensions) -> bool {
        let nodes: BTreeSet<NodeId> = held.keys().copied().collect();
        let mut noted = lock(&self.held);
        let news = *noted != nodes;
        *noted = nodes;
        news
    }
}

/// The holds of a file; none where it can't be read.
pub fn parse(bytes: &[u8]) -> Vec<Hold> {
    let mut holds: Vec<Hold> = codec::decode(bytes, 1024).unwrap_or_default();
    holds.truncate(limits::HOLDS);
    holds
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
