//! So many at a time, and of these so many of one address. Who waits for one gets
//! it in turn with the other addresses.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

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
    /// Each address with the first who waits in front; none that is empty.
    waiting: BTreeMap<IpAddr, VecDeque<oneshot::Sender<Taking>>>,
    /// Who got the last place that was waited for.
    last: Option<IpAddr>,
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
        self.take_of(&mut self.taken(), address)
    }

    /// Waits for one. It is for the caller to bound how long, and how many wait.
    pub async fn wait(&self, address: IpAddr) -> Taking {
        loop {
            let turn = {
                let mut taken = self.taken();
                if let Some(taking) = self.take_of(&mut taken, address) {
                    return taking;
                }
                let (give, turn) = oneshot::channel();
                taken.waiting.entry(address).or_default().push_back(give);
                turn
            };
            let mut waiting = Waiting {
                places: self,
                address,
                turn: Some(turn),
            };
            if let Some(turn) = &mut waiting.turn
                && let Ok(taking) = turn.await
            {
                return taking;
            }
        }
    }

    fn take_of(&self, taken: &mut Taken, address: IpAddr) -> Option<Taking> {
        let of_one = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.all >= self.0.most || of_one >= self.0.most_of_one {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, of_one + 1);
        let places = self.clone();
        Some(Taking { places, address })
    }

    /// Who waits and can have a place, and that place.
    fn next_who_waits(&self, taken: &mut Taken) -> Option<(oneshot::Sender<Taking>, Taking)> {
        let has_room = |address: &IpAddr| {
            let of_one = taken.by_address.get(address).copied().unwrap_or(0);
            of_one < self.0.most_of_one
        };
        let behind = taken.last.map_or(Bound::Unbounded, Bound::Excluded);
        let address = taken
            .waiting
            .range((behind, Bound::Unbounded))
            .chain(&taken.waiting)
            .map(|(address, _)| *address)
            .find(has_room)?;
        let taking = self.take_of(taken, address)?;
        taken.last = Some(address);
        let queue = taken.waiting.get_mut(&address)?;
        let give = queue.pop_front();
        if queue.is_empty() {
            taken.waiting.remove(&address);
        }
        Some((give?, taking))
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
        let next = self.places.next_who_waits(&mut taken);
        drop(taken);
        if let Some((give, taking)) = next {
            // Who stopped waiting just now leaves it to the next.
            drop(give.send(taking));
        }
    }
}

/// Leaves the queue when it is given up.
struct Waiting<'p> {
    places: &'p Places,
    address: IpAddr,
    turn: Option<oneshot::Receiver<Taking>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // A place that was given meanwhile goes back first.
        self.turn = None;
        let mut taken = self.places.taken();
        if let Some(queue) = taken.waiting.get_mut(&self.address) {
            queue.retain(|give| !give.is_closed());
            if queue.is_empty() {
                taken.waiting.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

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

    #[tokio::test]
    async fn who_waits_gets_a_place_in_turn_with_the_other_addresses() {
        let places = Places::new(2, 1);
        let ip = |last| IpAddr::from([192, 0, 2, last]);
        let (first, second) = (places.take(ip(1)).unwrap(), places.take(ip(2)).unwrap());
        // Three of one address, then one each of two others.
        let mut waiting: Vec<_> = [1, 1, 1, 3, 4]
            .map(|last| Box::pin(places.wait(ip(last))))
            .into();
        for wait in &mut waiting {
            assert!(wait.now_or_never().is_none());
        }
        drop(first);
        let given = [0, 1, 2, 3, 4].map(|n| waiting[n].as_mut().now_or_never());
        assert_eq!(
            given.each_ref().map(Option::is_some),
            [true, false, false, false, false]
        );
        drop(second);
        let then = [1, 2, 3, 4].map(|n| waiting[n].as_mut().now_or_never());
        assert_eq!(
            then.each_ref().map(Option::is_some),
            [false, false, true, false]
        );
        // One that is given up leaves its turn to the next.
        drop(waiting.remove(1));
        drop(then);
        assert!(
            waiting[3].as_mut().now_or_never().is_some(),
            "the last address"
        );
        drop(given);
        assert!(
            waiting[1].as_mut().now_or_never().is_some(),
            "and its second again"
        );
        drop(waiting);
        assert_eq!(places.taken().all, 0);
        assert!(places.taken().waiting.is_empty());
    }
}
