//! The furthest place of the ledger that this node knows of.

use std::sync::{Mutex, PoisonError};

/// The furthest place that was proved: the number of the root's recovery that
/// led to it, and its index.
#[derive(Default)]
pub struct Furthest(Mutex<(u32, u64)>);

impl Furthest {
    pub fn note(&self, place: (u32, u64)) {
        let mut furthest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *furthest = place.max(*furthest);
    }

    pub fn get(&self) -> (u32, u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
