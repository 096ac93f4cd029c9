//! How much work a member may make this node do by what it sends, over all of
//! its connections: beyond that its streams wait where they cost nothing, in
//! QUIC's window, until it is their turn.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use innermesh_proto::{id::NodeId, limits};

use crate::host::{Mono, bucket::Bucket};

/// What each member has used up.
#[derive(Default)]
pub(super) struct Paces {
    members: Mutex<BTreeMap<NodeId, Bucket>>,
}

impl Paces {
    /// Counts one stream, or bytes on it as the streams that they are worth.
    pub(super) fn count(&self, node: NodeId, work: u64, now: Mono) {
        let members = self.members.lock();
        let mut members = members.unwrap_or_else(PoisonError::into_inner);
        if members.len() >= limits::MEMBERS {
            members.retain(|_, bucket| bucket.paid_at > now);
        }
        let bucket = members.entry(node).or_default();
        bucket.take(work, limits::PEER_WORK_PER_HOUR, now);
    }

    /// How long its next stream waits.
    pub(super) fn wait(&self, node: NodeId, now: Mono) -> Option<Duration> {
        let members = self.members.lock();
        let members = members.unwrap_or_else(PoisonError::into_inner);
        let bucket = members.get(&node)?;
        let (most, per_hour) = (limits::PEER_WORK, limits::PEER_WORK_PER_HOUR);
        let wait = bucket.wait(1, most, per_hour, now);
        (wait > Duration::ZERO).then_some(wait)
    }
}

/// What so many bytes of a frame are worth.
pub(super) fn work(bytes: usize) -> u64 {
    (bytes / limits::PEER_WORK_BYTES) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_sends_without_end_waits_and_no_other() {
        let paces = Paces::default();
        let (one, other) = (NodeId([1; 16]), NodeId([2; 16]));
        let now = Duration::from_secs(5);
        for _ in 0..limits::PEER_WORK {
            assert_eq!(paces.wait(one, now), None);
            paces.count(one, 1, now);
        }
        let wait = paces.wait(one, now).expect("it is too much");
        assert!(wait < Duration::from_millis(100), "{wait:?}");
        assert_eq!(paces.wait(other, now), None);
        assert_eq!(paces.wait(one, now + wait), None);
        // A frame of a megabyte is worth many small ones.
        paces.count(one, work(1 << 20), now + wait);
        let wait = paces.wait(one, now + wait).expect("it is too much");
        assert!(wait > Duration::from_millis(500), "{wait:?}");
    }
}
