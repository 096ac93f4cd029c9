//! How often one owner's changes are passed on: a flood by one of them reaches
//! the whole mesh no faster than that.

use std::{collections::BTreeMap, time::Duration};

use innermesh_proto::id::NodeId;

use crate::host::Mono;

/// Time between two changes of one owner that are passed on: 20 a second.
const INTERVAL: Duration = Duration::from_millis(50);

/// Whose changes were passed on within [`INTERVAL`], and when.
#[derive(Default)]
pub(super) struct Passing(BTreeMap<NodeId, Mono>);

impl Passing {
    /// Whether a change of `owner` may be passed on; it is, then.
    pub(super) fn begin(&mut self, owner: NodeId, now: Mono) -> bool {
        self.0.retain(|_, passed| now < *passed + INTERVAL);
        let may = !self.0.contains_key(&owner);
        if may {
            self.0.insert(owner, now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_s_changes_are_passed_on_20_times_a_second() {
        let mut passing = Passing::default();
        let (one, other) = (NodeId([1; 16]), NodeId([2; 16]));
        let at = Duration::from_millis;
        let passed = (0..1000).filter(|ms| passing.begin(one, at(*ms))).count();
        assert_eq!(passed, 20);
        assert!(passing.begin(other, at(999)));
    }

    #[test]
    fn owners_that_said_nothing_lately_are_forgotten() {
        let mut passing = Passing::default();
        for n in 0..100 {
            let owner = NodeId([n; 16]);
            assert!(passing.begin(owner, INTERVAL * n.into()));
            assert_eq!(passing.0.len(), 1);
        }
    }
}
