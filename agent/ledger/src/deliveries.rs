//! How many requests each node may deliver in a time: before anything of a
//! request is proved, whoever brings it is known by its connection, and its
//! signature costs a check.

use std::{collections::BTreeMap, time::Duration};

use innermesh_host::{Mono, bucket::Bucket};
use innermesh_proto::{id::NodeId, limits};

/// What each node delivers.
pub struct Deliveries {
    nodes: BTreeMap<NodeId, Bucket>,
    /// How many at once.
    most: u64,
    per_hour: u64,
}

impl Default for Deliveries {
    /// For the ledger.
    fn default() -> Self {
        Self::of(limits::DELIVERIES, limits::DELIVERIES_PER_HOUR)
    }
}

impl Deliveries {
    /// Each node may deliver `most` at once, and `per_hour` beyond those.
    pub fn of(most: u64, per_hour: u64) -> Self {
        Self {
            nodes: BTreeMap::new(),
            most,
            per_hour,
        }
    }

    /// Counts one.
    ///
    /// # Errors
    /// How long until there may be one; it isn't counted.
    pub fn count(&mut self, node: NodeId, now: Mono) -> Result<(), Duration> {
        if self.nodes.len() >= limits::MEMBERS {
            self.nodes.retain(|_, bucket| bucket.paid_at > now);
        }
        let bucket = self.nodes.entry(node).or_default();
        let (most, per_hour) = (self.most, self.per_hour);
        match bucket.wait(1, most, per_hour, now) {
            Duration::ZERO => {
                bucket.take(1, per_hour, now);
                Ok(())
            }
            wait => Err(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_that_delivers_too_much_waits_and_others_don_t() {
        let mut deliveries = Deliveries::default();
        let (one, other) = (NodeId([1; 16]), NodeId([2; 16]));
        for _ in 0..limits::DELIVERIES {
            assert_eq!(deliveries.count(one, at(9)), Ok(()));
        }
        let wait = deliveries.count(one, at(9)).expect_err("it is too much");
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(deliveries.count(other, at(9)), Ok(()));
        assert_eq!(deliveries.count(one, at(9) + wait), Ok(()));
    }
}
