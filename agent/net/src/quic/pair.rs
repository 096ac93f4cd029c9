//! Which of several connections between two nodes is in force. Both ends
//! decide it by themselves and must come to the same answer: nothing is
//! negotiated. Pure; knows nothing of QUIC.
//!
//! The rule: a peer that started anew beats its former self; of connections that
//! come about within [`RACE`] of each other, as both dial at once, the one dialed by the
//! smaller node id wins, and of several by one dialer the one it dialed last. One that
//! comes later wins: whoever dialed it has lost the one before, which this end may not
//! notice for long, as after a way that is lost in one direction. Each end knows the dialer's
//! serial number from its [`Hello`](innermesh_proto::rpc::Hello), so the order
//! in which handshakes end here or there doesn't matter.

use std::time::Duration;

use innermesh_proto::limits;

use crate::host::Mono;

/// How far apart two connections come about that both ends dialed at once: a dial takes
/// so long whose first packets are lost.
const RACE: Duration = Duration::from_secs(3);

/// What one connection has to say for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Whether the node with the smaller id dialed it.
    pub by_smaller: bool,
    /// The dialer's count of its connections.
    pub serial: u64,
    /// The peer's run of the agent, a random number.
    pub instance: u64,
    /// The order in which handshakes ended at this end.
    pub ordinal: u64,
    /// When its handshake ended at this end.
    pub since: Mono,
}

impl Claim {
    fn rank(&self) -> (bool, u64, u64) {
        (self.by_smaller, self.serial, self.ordinal)
    }

    /// Whether it came about after another was up for so long that both ends had it.
    fn is_after(&self, other: &Self) -> bool {
        self.since >= other.since + RACE
    }
}

/// The connections with one peer, the one in force first.
#[derive(Debug)]
pub struct Pair<L> {
    links: Vec<(Claim, L)>,
}

/// What an arrival changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrival<L> {
    /// Connections to the peer's former self: they lead nowhere.
    pub former: Vec<L>,
    /// Connections over [`limits::CONNECTIONS_PER_PEER`].
    pub excess: Vec<L>,
}

impl<L> Default for Pair<L> {
    fn default() -> Self {
        Self { links: Vec::new() }
    }
}

impl<L> Pair<L> {
    /// Takes a connection in. It may itself be among those put out.
    pub fn arrive(&mut self, claim: Claim, link: L) -> Arrival<L> {
        let newest_run = self
            .links
            .iter()
            .map(|(c, _)| c)
            .chain([&claim])
            .max_by_key(|c| c.ordinal)
            .map_or(claim.instance, |c| c.instance);
        self.links.push((claim, link));
        let (mut stay, former): (Vec<_>, Vec<_>) = self
            .links
            .drain(..)
            .partition(|(c, _)| c.instance == newest_run);
        stay.sort_by_key(|(c, _)| std::cmp::Reverse(c.rank()));
        // The newest comes first if it is later than all others, and all beside which it
        // was dialed with it.
        if let Some(newest) = stay.iter().map(|(c, _)| *c).max_by_key(|c| c.since) {
            stay.sort_by_key(|(c, _)| newest.is_after(c));
        }
        let excess = stay.split_off(stay.len().min(limits::CONNECTIONS_PER_PEER));
        self.links = stay;
        let bare = |links: Vec<(Claim, L)>| links.into_iter().map(|(_, link)| link).collect();
        Arrival {
            former: bare(former),
            excess: bare(excess),
        }
    }

    /// Takes out the connections that `gone` names.
    pub fn remove(&mut self, gone: impl Fn(&L) -> bool) {
        self.links.retain(|(_, link)| !gone(link));
    }

    /// The connection in force.
    pub fn active(&self) -> Option<&L> {
        self.links.first().map(|(_, link)| link)
    }

    /// All connections, the one in force first.
    pub fn links(&self) -> impl Iterator<Item = &L> {
        self.links.iter().map(|(_, link)| link)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(by_smaller: bool, serial: u64, instance: u64, ordinal: u64) -> Claim {
        Claim {
            by_smaller,
            serial,
            instance,
            ordinal,
            since: Mono::ZERO,
        }
    }

    #[test]
    fn of_two_dials_at_once_the_smaller_nodes_one_wins_in_either_order() {
        for order in [[true, false], [false, true]] {
            let mut pair = Pair::default();
            for (ordinal, by_smaller) in order.into_iter().enumerate() {
                let arrival = pair.arrive(claim(by_smaller, 1, 7, ordinal as u64), by_smaller);
                assert!(arrival.former.is_empty() && arrival.excess.is_empty());
            }
            assert_eq!(pair.active(), Some(&true));
            pair.remove(|by_smaller| *by_smaller);
            assert_eq!(pair.active(), Some(&false), "the other one takes over");
        }
    }

    #[test]
    fn a_peer_that_started_anew_beats_its_former_self_whoever_dialed() {
        let mut pair = Pair::default();
        pair.arrive(claim(true, 9, 7, 0), "old");
        let arrival = pair.arrive(claim(false, 1, 8, 1), "new");
        assert_eq!(arrival.former, ["old"]);
        assert_eq!(pair.active(), Some(&"new"));
        let late = pair.arrive(claim(true, 9, 7, 0), "late news of the old one");
        assert_eq!(late.former, ["late news of the old one"]);
        assert_eq!(pair.active(), Some(&"new"));
    }

    #[test]
    fn one_that_comes_later_wins_whoever_dialed() {
        let mut pair = Pair::default();
        let by = |by_smaller, ordinal, since_ms| Claim {
            since: Duration::from_millis(since_ms),
            ..claim(by_smaller, 1, 7, ordinal)
        };
        pair.arrive(by(true, 0, 0), "lost there");
        pair.arrive(by(false, 1, 2999), "dialed at once");
        assert_eq!(pair.active(), Some(&"lost there"));
        pair.arrive(by(false, 2, 20_000), "dialed anew");
        assert_eq!(pair.active(), Some(&"dialed anew"));
        // And of those that are dialed anew the smaller node's again.
        pair.arrive(by(true, 3, 20_050), "at the same time");
        assert_eq!(pair.active(), Some(&"at the same time"));
        assert_eq!(pair.links().count(), 4);
    }

    proptest! {
        #[test]
        fn both_ends_agree_whatever_the_order_of_arrival(
            dials in proptest::collection::btree_set((any::<bool>(), 1u64..50), 1..10),
            seed in any::<u64>(),
        ) {
            let there: Vec<_> = dials.iter().copied().collect();
            let mut back = there.clone();
            // A rotation and a reversal stand in for any other order.
            back.rotate_left(seed as usize % there.len());
            if seed & 1 == 1 {
                back.reverse();
            }
            let ends = [there, back].map(|order| {
                let mut pair = Pair::default();
                for (ordinal, (by_smaller, serial)) in order.into_iter().enumerate() {
                    pair.arrive(claim(by_smaller, serial, 1, ordinal as u64), (by_smaller, serial));
                    prop_assert!(pair.links().count() <= limits::CONNECTIONS_PER_PEER);
                }
                Ok(pair.active().copied())
            });
            let [a, b] = ends;
            prop_assert_eq!(a?, b?);
        }
    }
}
