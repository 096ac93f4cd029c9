//! Which exit this node uses, kept on disk: a person said so here, and no other node.

use std::{
    io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use innermesh_proto::{filter::LanAccess, id::NodeId};
use serde::{Deserialize, Serialize};

use crate::host::Disk;

const FILE: &str = "exit.json";
/// Bytes of the file at most.
const BYTES: usize = 1024;

/// An exit, and what goes past it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChosenExit {
    /// None where it can't be told any more which one it was: then nothing reaches the
    /// internet until somebody says what is to be.
    pub node: Option<NodeId>,
    #[serde(default)]
    pub lan: LanAccess,
}

/// The choice. None where this node uses no exit.
#[derive(Default)]
pub(crate) struct ExitSetting(Mutex<Option<ChosenExit>>);

impl ExitSetting {
    pub fn get(&self) -> Option<ChosenExit> {
        *self.lock()
    }

    /// Takes up what was chosen before the last stop.
    pub async fn load(&self, disk: &dyn Disk) {
        let chosen = match disk.read(Path::new(FILE)).await {
            Ok(bytes) => bytes.map(|bytes| parse(&bytes)),
            Err(error) => {
                tracing::error!(%error, "which exit is used can't be read");
                Some(UNKNOWN)
            }
        };
        *self.lock() = chosen;
    }

    /// Writes it down, and has it be so.
    ///
    /// # Errors
    /// The disk's; it is as it was.
    pub async fn set(&self, disk: &dyn Disk, chosen: Option<ChosenExit>) -> io::Result<()> {
        match &chosen {
            Some(chosen) => {
                let bytes = serde_json::to_vec_pretty(chosen)?;
                disk.replace(Path::new(FILE), &bytes).await?;
            }
            None => disk.remove(Path::new(FILE)).await?,
        }
        *self.lock() = chosen;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<ChosenExit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some exit: whoever chose one wanted nothing to leave by another way.
const UNKNOWN: ChosenExit = ChosenExit {
    node: None,
    lan: LanAccess::Keep,
};

fn parse(bytes: &[u8]) -> ChosenExit {
    let read = serde_json::from_slice(bytes).ok();
    read.filter(|_| bytes.len() <= BYTES).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::disk::SystemDisk;

    #[tokio::test]
    async fn a_choice_outlives_the_agent_and_a_file_that_cannot_be_read_opens_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(folder.path().to_owned());
        let setting = ExitSetting::default();
        setting.load(&disk).await;
        assert_eq!(setting.get(), None);
        let chosen = ChosenExit {
            node: Some(NodeId([7; 16])),
            lan: LanAccess::Cut,
        };
        setting.set(&disk, Some(chosen)).await.unwrap();
        let next = ExitSetting::default();
        next.load(&disk).await;
        assert_eq!(next.get(), Some(chosen));
        for bad in [&b""[..], b"{}", b"null", &[b' '; 2000]] {
            std::fs::write(folder.path().join(FILE), bad).unwrap();
            next.load(&disk).await;
            let read = next.get();
            assert_eq!(read.and_then(|it| it.node), None, "{bad:?}");
            assert!(read.is_some(), "{bad:?}");
        }
        next.set(&disk, None).await.unwrap();
        next.load(&disk).await;
        assert_eq!(next.get(), None);
    }
}
