//! The WireGuard key that this node's device has.

use std::sync::{Mutex as StdMutex, PoisonError};

use innermesh_proto::{crypto::Hash, tunnel::TunnelKey};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    host::{keys::Keys, sealed::SealError},
    tunnel::{generate_private_key, public_key},
};

/// The key in use, and one change at a time.
pub(crate) struct OwnKey {
    in_use: StdMutex<([u8; 32], TunnelKey)>,
    changing: Mutex<()>,
}

impl OwnKey {
    /// The device has this private key.
    pub fn new(private: [u8; 32]) -> Self {
        Self {
            in_use: StdMutex::new((private, public_key(&private))),
            changing: Mutex::default(),
        }
    }

    /// The public half of the key that the device has.
    pub fn get(&self) -> TunnelKey {
        self.lock().1
    }

    /// The device has another private key now.
    pub fn set(&self, private: &[u8; 32]) {
        *self.lock() = (*private, public_key(private));
    }

    /// Another private key that only who has the key in use can make; it is another
    /// once that one is.
    pub fn derived(&self, about: &[u8]) -> [u8; 32] {
        let (private, _) = *self.lock();
        let of = [b"innermesh derived key".as_slice(), &private, about].concat();
        generate_private_key(Hash::of(&of).0)
    }

    /// Opens what was sealed to the key in use.
    ///
    /// # Errors
    /// [`SealError::Foreign`].
    pub fn open(
        &self,
        keys: &dyn Keys,
        about: &[u8],
        sealed: &[u8],
    ) -> Result<[u8; 32], SealError> {
        let (private, _) = *self.lock();
        keys.open(&private, about, sealed)
    }

    /// Waits until nobody else changes it.
    pub async fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// A panic of another holder leaves a whole key behind, as it is assigned at
    /// once.
    fn lock(&self) -> std::sync::MutexGuard<'_, ([u8; 32], TunnelKey)> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
