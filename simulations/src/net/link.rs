//! What lies between two hosts, and what it does to a datagram.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::place::HostId;
use crate::random::Random;

/// One direction between two hosts. Probabilities are from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// How long a datagram is under way at least, in milliseconds.
    pub latency_ms: u64,
    /// How much longer it may be, in milliseconds.
    pub jitter_ms: u64,
    /// Share of datagrams that are lost.
    pub loss: f64,
    /// Share that arrives twice.
    pub duplicate: f64,
    /// Share that is held back for 50 ms, past those sent later.
    pub reorder: f64,
    /// Largest datagram that passes, in bytes; larger ones vanish.
    pub mtu: usize,
    /// Whether anything passes.
    pub up: bool,
}

/// How long a datagram out of order is held back.
const HELD_BACK: Duration = Duration::from_millis(50);
/// Ethernet's 1500 bytes without the headers of IPv6 and UDP.
pub const LARGEST: usize = 1452;

/// A packet that every link takes: QUIC's smallest (RFC 9000, section 14).
const PACKET: usize = 1200;
/// Packets of one message for each of which it is drawn whether it is lost.
const PACKETS: usize = 64;

impl Link {
    fn is_up(&self) -> bool {
        self.up && self.loss < 1.0
    }
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency_ms: 5,
            jitter_ms: 0,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            mtu: LARGEST,
            up: true,
        }
    }
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Under way.
    Sent,
    /// Lost by chance.
    Lost,
    /// Under way twice.
    Duplicated,
    /// Under way behind later ones.
    Reordered,
    /// The link is down.
    Cut,
    /// Longer than the link takes.
    TooLarge,
    /// Nobody is there.
    Nowhere,
    /// A router with NAT doesn't let it in.
    Filtered,
}

impl Fate {
    /// Its name in counters and traces.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Cut => "cut",
            Self::TooLarge => "too large",
            Self::Nowhere => "nowhere",
            Self::Filtered => "filtered",
        }
    }
}

/// All links of a network: one for every ordered pair of hosts.
#[derive(Debug)]
pub(super) struct Links {
    random: Random,
    usual: Link,
    links: BTreeMap<(HostId, HostId), Link>,
}

impl Links {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random::named(seed, "links"),
            usual: Link::default(),
            links: BTreeMap::new(),
        }
    }

    pub(super) fn set_usual(&mut self, link: Link) {
        self.usual = link;
    }

    pub(super) fn set(&mut self, from: HostId, to: HostId, link: Link) {
        self.links.insert((from, to), link);
    }

    pub(super) fn cut(&mut self, from: HostId, to: HostId) {
        let usual = self.usual;
        self.links.entry((from, to)).or_insert(usual).up = false;
    }

    pub(super) fn heal(&mut self) {
        self.usual = Link::default();
        self.links.clear();
    }

    /// Whether something passes everywhere, sooner or later.
    pub(super) fn are_up(&self) -> bool {
        self.links.values().chain([&self.usual]).all(Link::is_up)
    }

    pub(super) fn is_up(&self, from: HostId, to: HostId) -> bool {
        self.between(from, to).is_up()
    }

    /// How long a datagram may be under way.
    pub(super) fn latency(&self, from: HostId, to: HostId) -> Duration {
        let link = self.between(from, to);
        Duration::from_millis(link.latency_ms + link.jitter_ms)
    }

    fn between(&self, from: HostId, to: HostId) -> &Link {
        // Asked for each message: most worlds have no link of their own.
        if self.links.is_empty() {
            &self.usual
        } else {
            self.links.get(&(from, to)).unwrap_or(&self.usual)
        }
    }

    /// What becomes of so many bytes, in packets that pass every link: after
    /// which time the last one arrives, or how many bytes were lost.
    pub(super) fn pass_all(
        &mut self,
        from: HostId,
        to: HostId,
        length: usize,
    ) -> (Fate, Result<Duration, usize>) {
        let packets = if self.between(from, to).loss > 0.0 {
            length.div_ceil(PACKET).clamp(1, PACKETS)
        } else {
            1
        };
        let (mut worst, mut last, mut lost) = (Fate::Sent, Duration::ZERO, 0);
        for _ in 0..packets {
            let (fate, times) = self.pass(from, to, length.min(PACKET));
            match times.into_iter().min() {
                Some(time) => last = last.max(time),
                None => lost += 1,
            }
            worst = match (worst, fate) {
                (Fate::Lost, _) | (_, Fate::Lost) => Fate::Lost,
                (worst, fate) => worst.max(fate),
            };
        }
        match lost {
            0 => (worst, Ok(last)),
            _ => (worst, Err((length * lost).div_ceil(packets))),
        }
    }

    /// What becomes of a datagram, and after which times it arrives.
    pub(super) fn pass(
        &mut self,
        from: HostId,
        to: HostId,
        length: usize,
    ) -> (Fate, Vec<Duration>) {
        let link = *self.between(from, to);
        if !link.up {
            return (Fate::Cut, Vec::new());
        }
        if length > link.mtu.min(LARGEST) {
            return (Fate::TooLarge, Vec::new());
        }
        let random = &mut self.random;
        if random.chance(link.loss) {
            return (Fate::Lost, Vec::new());
        }
        let mut time = || {
            Duration::from_millis(link.latency_ms)
                + Duration::from_micros(random.below(link.jitter_ms * 1000))
        };
        let first = time();
        let second = time();
        if self.random.chance(link.duplicate) {
            (Fate::Duplicated, vec![first, second])
        } else if self.random.chance(link.reorder) {
            (Fate::Reordered, vec![first + HELD_BACK])
        } else {
            (Fate::Sent, vec![first])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(link: Link, seed: u64) -> Vec<(Fate, Vec<Duration>)> {
        let mut links = Links::new(seed);
        links.set_usual(link);
        (0..1000)
            .map(|_| links.pass(HostId(1), HostId(2), 100))
            .collect()
    }

    #[test]
    fn a_seed_decides_what_becomes_of_each_datagram() {
        let bad = Link {
            loss: 0.2,
            duplicate: 0.1,
            reorder: 0.1,
            jitter_ms: 20,
            ..Link::default()
        };
        assert_eq!(fates(bad, 1), fates(bad, 1));
        assert_ne!(fates(bad, 1), fates(bad, 2));
        let count = |fate| fates(bad, 1).iter().filter(|(f, _)| *f == fate).count();
        assert!((150..250).contains(&count(Fate::Lost)));
        assert!((50..120).contains(&count(Fate::Duplicated)));
        assert!((40..120).contains(&count(Fate::Reordered)));
    }

    #[test]
    fn links_are_cut_one_way_and_swallow_what_is_too_large() {
        let mut links = Links::new(1);
        let (a, b) = (HostId(1), HostId(2));
        links.cut(a, b);
        assert_eq!(links.pass(a, b, 1).0, Fate::Cut);
        assert_eq!(links.pass(b, a, 1).0, Fate::Sent);
        let narrow = Link {
            mtu: 1200,
            ..Link::default()
        };
        links.set(b, a, narrow);
        assert_eq!(links.pass(b, a, 1201).0, Fate::TooLarge);
        links.heal();
        assert_eq!(links.pass(a, b, LARGEST).0, Fate::Sent);
        assert_eq!(links.pass(b, a, LARGEST).0, Fate::Sent);
    }
}
