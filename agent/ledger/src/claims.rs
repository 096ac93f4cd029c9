//! What peers claim of their ledgers, unproved, and who is asked because of it.
//! Pure: what is known and the time lead to whom to ask next. A claim whose
//! look led to nothing costs its peer a pause, and nobody else anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use innermesh_proto::{id::NodeId, limits};

use crate::host::Mono;

/// Peers that are asked at the same time.
const SOURCES: usize = 3;
/// How long nothing may come of those that are asked before one more is.
const HEDGE: Duration = Duration::from_secs(1);
/// The first pause of a peer that gave nothing, or too slowly. It doubles from
/// one to the next, as an honest peer may only have been cut off.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The same for a peer whose answer was proved false: no honest one gives such.
const FALSE_MIN: Duration = Duration::from_secs(60);
const FALSE_MAX: Duration = Duration::from_secs(3600);

/// What is to be asked of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// For batches up to this index, or a state.
    CatchUp(u64),
    /// Whether the root gave the ledger another roster.
    Recovery,
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The ledger here went on, and what was claimed is held.
    Done,
    /// It went on, and there is more.
    More,
    /// There was nothing behind the claim.
    Nothing,
    /// No answer in time, or in parts.
    Slow,
    /// An answer that nobody honest gives.
    False,
    /// The peer isn't connected, doesn't let this node ask now, or this node
    /// can't take what it has: the peer did nothing wrong.
    NotNow,
}

#[derive(Clone, Copy, Debug, Default)]
struct Claim {
    /// The highest index that it claims.
    index: u64,
    /// It holds another history.
    differs: bool,
    /// It isn't asked before.
    not_before: Mono,
    /// Times in a row that nothing came of asking it.
    failures: u32,
    /// Times that an answer was proved false.
    lies: u32,
}

/// The claims, one of each peer at most.
#[derive(Default)]
pub(super) struct Claims {
    of: BTreeMap<NodeId, Claim>,
    running: BTreeMap<NodeId, Task>,
    /// When somebody was asked last, or something came of it.
    moved: Mono,
    /// Where the ledger was then.
    held: u64,
}

impl Claims {
    fn of(&mut self, peer: NodeId) -> Option<&mut Claim> {
        let room = self.of.len() < limits::MEMBERS;
        (room || self.of.contains_key(&peer)).then(|| self.of.entry(peer).or_default())
    }

    /// A peer claims to have batches up to this index.
    pub fn ahead(&mut self, peer: NodeId, index: u64) {
        if let Some(claim) = self.of(peer) {
            claim.index = claim.index.max(index);
        }
    }

    /// A peer claims another history.
    pub fn differs(&mut self, peer: NodeId) {
        if let Some(claim) = self.of(peer) {
            claim.differs = true;
        }
    }

    /// Forgets those who are no members any more.
    pub fn keep(&mut self, is_member: impl Fn(&NodeId) -> bool) {
        self.of.retain(|node, _| is_member(node));
    }

    /// Whom to ask now, and for what, where the ledger here is at `held`: peers
    /// that are connected, the roster's first, then those of whom most came.
    /// One of the roster needn't wait for others to fail.
    pub fn next(
        &mut self,
        now: Mono,
        held: u64,
        connected: &BTreeSet<NodeId>,
        is_voter: impl Fn(&NodeId) -> bool,
    ) -> Option<(NodeId, Task)> {
        if held != self.held {
            (self.held, self.moved) = (held, now);
        }
        if self.running.len() >= SOURCES {
            return None;
        }
        let open = self.of.iter().filter(|(node, claim)| {
            (claim.differs || claim.index > held)
                && now >= claim.not_before
                && connected.contains(node)
                && !self.running.contains_key(node)
        });
        let (node, claim) =
            open.min_by_key(|(node, claim)| (!is_voter(node), claim.lies, claim.failures, **node))?;
        let node = *node;
        let waited = now >= self.moved + HEDGE * u32::try_from(self.running.len()).unwrap_or(1);
        let first_voter = is_voter(&node) && !self.running.keys().any(&is_voter);
        if !waited && !first_voter {
            return None;
        }
        let task = if claim.differs {
            Task::Recovery
        } else {
            Task::CatchUp(claim.index)
        };
        self.running.insert(node, task);
        self.moved = now;
        Some((node, task))
    }

    /// When [`Claims::next`] may give another without being told of anything.
    pub fn due(&self, now: Mono, connected: &BTreeSet<NodeId>) -> Option<Mono> {
        if self.running.len() >= SOURCES {
            return None;
        }
        let hedge = self.moved + HEDGE * u32::try_from(self.running.len()).unwrap_or(1);
        let open = self.of.iter().filter(|(node, claim)| {
            (claim.differs || claim.index > self.held)
                && connected.contains(node)
                && !self.running.contains_key(node)
        });
        open.map(|(_, claim)| claim.not_before.max(hedge))
            .min()
            .map(|at| at.max(now))
    }

    /// What came of asking `peer`. A claim that came to nothing is used up.
    pub fn done(&mut self, now: Mono, peer: NodeId, end: End) {
        let task = self.running.remove(&peer);
        let Some(claim) = self.of.get_mut(&peer) else {
            return;
        };
        if task == Some(Task::Recovery) {
            claim.differs = false;
        } else if !matches!(end, End::Done | End::More) {
            claim.index = 0;
        }
        match end {
            End::Done | End::More => {
                self.moved = now;
                claim.failures = 0;
            }
            End::NotNow => claim.not_before = now + PAUSE_MIN,
            End::Nothing | End::Slow => {
                claim.not_before = now + doubled(PAUSE_MIN, claim.failures, PAUSE_MAX);
                claim.failures = claim.failures.saturating_add(1);
            }
            End::False => {
                claim.not_before = now + doubled(FALSE_MIN, claim.lies, FALSE_MAX);
                claim.lies = claim.lies.saturating_add(1);
            }
        }
    }
}

fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(100);

    fn node(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    fn all() -> BTreeSet<NodeId> {
        (0..9).map(node).collect()
    }

    fn nobody(_: &NodeId) -> bool {
        false
    }

    #[test]
    fn who_decides_is_asked_first_and_at_once() {
        let mut claims = Claims::default();
        claims.ahead(node(1), 9);
        let voter = |node: &NodeId| *node == self::node(7);
        let first = claims.next(T, 3, &all(), voter);
        assert_eq!(first, Some((node(1), Task::CatchUp(9))));
        claims.ahead(node(2), 9);
        assert_eq!(claims.next(T, 3, &all(), voter), None);
        claims.ahead(node(7), 5);
        let next = claims.next(T, 3, &all(), voter);
        assert_eq!(next, Some((node(7), Task::CatchUp(5))));
    }

    #[test]
    fn who_gives_nothing_keeps_nobody_waiting_for_more_than_a_moment() {
        let mut claims = Claims::default();
        for number in 1..=5 {
            claims.ahead(node(number), 9);
        }
        let mut now = T;
        let mut asked = Vec::new();
        for _ in 0..100 {
            asked.extend(claims.next(now, 3, &all(), nobody));
            now += Duration::from_millis(100);
        }
        assert_eq!(asked.len(), SOURCES);
        assert_eq!(claims.due(now, &all()), None);
        claims.done(now, node(1), End::Slow);
        let next = claims.next(now, 3, &all(), nobody);
        assert_eq!(next, Some((node(4), Task::CatchUp(9))));
    }

    #[test]
    fn as_long_as_something_comes_nobody_else_is_asked() {
        let mut claims = Claims::default();
        claims.ahead(node(1), 1000);
        claims.ahead(node(2), 1000);
        let mut now = T;
        assert!(claims.next(now, 0, &all(), nobody).is_some());
        for held in 1..200 {
            now += Duration::from_millis(900);
            assert_eq!(claims.next(now, held, &all(), nobody), None);
        }
    }

    #[test]
    fn a_false_claim_is_looked_at_less_and_less_and_a_lie_for_an_hour() {
        for (end, most, looks) in [
            (End::Nothing, PAUSE_MAX, 120..130),
            (End::False, FALSE_MAX, 6..8),
        ] {
            let mut claims = Claims::default();
            let (mut now, mut count, mut last) = (T, 0, T);
            while now < T + Duration::from_secs(3600) {
                claims.ahead(node(1), u64::MAX);
                if claims.next(now, 3, &all(), nobody).is_some() {
                    claims.done(now, node(1), end);
                    assert!(now - last <= most + HEDGE);
                    (count, last) = (count + 1, now);
                }
                now += Duration::from_millis(100);
            }
            assert!(looks.contains(&count), "{end:?}: {count}");
        }
    }

    #[test]
    fn what_was_claimed_once_is_used_up() {
        let mut claims = Claims::default();
        claims.ahead(node(1), 9);
        assert!(claims.next(T, 3, &all(), nobody).is_some());
        claims.done(T, node(1), End::Nothing);
        let later = T + Duration::from_secs(60);
        assert_eq!(claims.next(later, 3, &all(), nobody), None);
        assert_eq!(claims.due(later, &all()), None);
        claims.differs(node(1));
        let next = claims.next(later, 3, &all(), nobody);
        assert_eq!(next, Some((node(1), Task::Recovery)));
    }

    #[test]
    fn no_more_claims_are_kept_than_there_may_be_members() {
        let mut claims = Claims::default();
        for number in 0..2 * limits::MEMBERS as u64 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            claims.ahead(NodeId(id), 9);
        }
        assert_eq!(claims.of.len(), limits::MEMBERS);
        claims.keep(|_| false);
        assert!(claims.of.is_empty());
    }
}
