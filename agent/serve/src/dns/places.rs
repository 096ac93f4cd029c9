//! So many at a time, and of these so many of one address.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Places that are taken one by one. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    most_of_one: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// One that is taken until it is dropped.
#[derive(Debug)]
pub(super) struct Taking {
    places: Places,
    address: IpAddr,
}

impl Places {
    pub fn new(most: usize, most_of_one: usize) -> Self {
        Self(Arc::new(Inner {
            most,
            most_of_one,
            taken: Mutex::default(),
        }))
    }

    /// `None` where all are taken, or this address has its share.
    pub fn take(&self, address: IpAddr) -> Option<Taking> {
        let mut taken = self.taken();
        let of_one = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.all >= self.0.most || of_one >= self.0.most_of_one {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, of_one + 1);
        drop(taken);
        let places = self.clone();
        Some(Taking { places, address })
    }

    /// How many are taken.
    #[cfg(test)]
    pub fn all(&self) -> usize {
        self.taken().all
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing in here panics half-way.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        match taken.by_address.get_mut(&self.address) {
            Some(of_one) if *of_one > 1 => *of_one -= 1,
            _ => drop(taken.by_address.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_its_share_and_leaves_the_rest_to_others() {
        let places = Places::new(5, 3);
        let ip = |last| IpAddr::from([192, 0, 2, last]);
        let mut first: Vec<Taking> = (0..3).filter_map(|_| places.take(ip(1))).collect();
        assert_eq!(first.len(), 3);
        assert!(places.take(ip(1)).is_none(), "it has its share");
        let others: Vec<Taking> = (2..4).filter_map(|n| places.take(ip(n))).collect();
        assert_eq!(others.len(), 2);
        assert!(places.take(ip(9)).is_none(), "all are taken");
        first.pop();
        assert!(places.take(ip(1)).is_some());
        drop((first, others));
        assert!(places.taken().by_address.is_empty());
        assert_eq!(places.taken().all, 0);
    }
}
