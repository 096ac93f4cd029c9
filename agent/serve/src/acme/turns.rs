//! How much is done for one owner at a time: whoever asks for more waits for
//! what it asked before. Nobody waits for another.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::account_store::Owner;

/// Turns of each owner; there are no more owners than accounts.
pub(super) struct Turns {
    each: usize,
    owners: Mutex<BTreeMap<Owner, Arc<Semaphore>>>,
}

/// Ends when it is dropped.
pub(super) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// So many for each owner at a time.
    pub(super) fn new(each: usize) -> Self {
        Self {
            each,
            owners: Mutex::default(),
        }
    }

    /// Waits until it is the owner's turn; first come, first served.
    pub(super) async fn take(&self, owner: &Owner) -> Turn {
        let own = {
            let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever has or awaits a turn holds one too.
            owners.retain(|_, turns| Arc::strong_count(turns) > 1);
            let own = owners.entry(owner.clone());
            own.or_insert_with(|| Arc::new(Semaphore::new(self.each)))
                .clone()
        };
        Turn {
            // It is never closed.
            _permit: own.acquire_owned().await.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_owner_waits_for_its_own_and_not_for_others() {
        let turns = Turns::new(2);
        let (one, two) = (Owner::User(Some(1)), Owner::User(Some(2)));
        let first = turns.take(&one).await;
        let second = turns.take(&one).await;
        assert!(turns.take(&one).now_or_never().is_none());
        assert!(turns.take(&two).now_or_never().is_some());
        let mut third = Box::pin(turns.take(&one));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(third.now_or_never().is_some());
        // Nothing is kept of who has none.
        drop(second);
        let _other = turns.take(&two).await;
        let owners = turns.owners.lock().unwrap();
        assert_eq!(owners.keys().collect::<Vec<_>>(), [&two]);
    }
}
