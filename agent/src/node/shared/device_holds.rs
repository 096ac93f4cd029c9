//! The devices that this node cuts off until the ledger has removed them, kept on
//! disk.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use innermesh_proto::{codec, ledger::device::DeviceId, limits};

use crate::host::Disk;

const FILE: &str = "device-holds";
/// Bytes of the file at most.
const BYTES: usize = 1024;

/// This node's holds on devices.
pub(crate) struct DeviceHolds(Mutex<BTreeSet<DeviceId>>);

impl DeviceHolds {
    /// Those that were there at the last stop.
    pub async fn load(disk: &dyn Disk) -> Self {
        let own = match disk.read(Path::new(FILE)).await {
            Ok(bytes) => parse(&bytes.unwrap_or_default()),
            Err(error) => {
                tracing::error!(%error, "devices that were to be removed can't be read");
                BTreeSet::new()
            }
        };
        Self(Mutex::new(own))
    }

    pub fn own(&self) -> BTreeSet<DeviceId> {
        self.lock().clone()
    }

    /// Writes them down, and has them stand in place of those before.
    ///
    /// # Errors
    /// The disk's; nothing was changed.
    pub async fn replace(&self, disk: &dyn Disk, holds: BTreeSet<DeviceId>) -> std::io::Result<()> {
        let bytes = codec::encode(&holds);
        disk.replace(Path::new(FILE), &bytes).await?;
        *self.lock() = holds;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<DeviceId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The holds of a file; none where it can't be read.
fn parse(bytes: &[u8]) -> BTreeSet<DeviceId> {
    let holds: BTreeSet<DeviceId> = codec::decode(bytes, BYTES).unwrap_or_default();
    holds.into_iter().take(limits::DEVICE_HOLDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_may_be_fit_the_file_and_what_is_no_file_of_ours_has_none() {
        let all: BTreeSet<DeviceId> = (0..=limits::DEVICE_HOLDS as u8)
            .map(|n| DeviceId([n; 16]))
            .collect();
        let read = parse(&codec::encode(&all));
        assert_eq!(read.len(), limits::DEVICE_HOLDS);
        for bytes in [&b""[..], b"\xff", &[7; 4096]] {
            assert!(parse(bytes).is_empty());
        }
    }
}
