//! The WireGuard key that this node's device has.

use innermesh_proto::tunnel::TunnelKey;
use tokio::sync::{Mutex, MutexGuard, watch};

/// The key in use, and one change at a time.
pub(crate) struct OwnKey {
    in_use: watch::Sender<TunnelKey>,
    changing: Mutex<()>,
}

impl OwnKey {
    /// The device has this one.
    pub fn new(key: TunnelKey) -> Self {
        Self {
            in_use: watch::Sender::new(key),
            changing: Mutex::default(),
        }
    }

    /// The key that the device has.
    pub fn get(&self) -> TunnelKey {
        *self.in_use.borrow()
    }

    /// The device has another one now.
    pub fn set(&self, key: TunnelKey) {
        self.in_use.send_replace(key);
    }

    /// Waits until nobody else changes it.
    pub async fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }
}
