//! How often strangers of one network are answered alike over UDP, where nothing says
//! that they are who they seem. The table has a fixed size: who comes from very many
//! networks shares places with others, and frees none.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use innermesh_host::{Mono, keys::Keys};
use innermesh_proto::limits;

use super::{
    SLIP,
    answer::Kind,
    cookie::{random, siphash},
};

/// Places among which a network's own is looked for.
const WAYS: usize = 4;
/// Locks, so that threads seldom wait for each other.
const SHARDS: usize = 64;
const SETS: usize = limits::SINKHOLE_DNS_COUNTED / WAYS / SHARDS;
/// What may come at once.
const BURST: Duration = Duration::from_secs(1);
const EACH: Duration = Duration::from_nanos(1_000_000_000 / limits::SINKHOLE_DNS_RATE as u64);

/// What is done with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    /// Something shorter is sent in its place.
    Slip,
    Drop,
}

/// Counts answers.
#[derive(Debug)]
pub(super) struct ResponseLimit {
    key: [u64; 2],
    shards: Vec<Mutex<Vec<[Counter; WAYS]>>>,
}

/// One network and kind of answer.
#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    tag: u32,
    over: u32,
    /// When all that was sent is made up for (the GCRA's theoretical arrival time).
    until: Duration,
}

impl ResponseLimit {
    pub fn new(keys: &dyn Keys) -> Self {
        let shard = || Mutex::new(vec![[Counter::default(); WAYS]; SETS]);
        Self {
            key: random(keys),
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
        }
    }

    /// One more answer of a kind, to a network of strangers.
    pub fn look(&self, source: IpAddr, kind: Kind, now: Mono) -> Verdict {
        let hash = siphash(self.key, &[&network(source), &[kind as u8]]);
        // Three parts of a hash that have nothing to do with each other.
        let [s0, s1, p0, p1, tag @ ..] = hash.to_le_bytes();
        let shard = usize::from(u16::from_le_bytes([s0, s1])) % SHARDS;
        let place = usize::from(u16::from_le_bytes([p0, p1])) % SETS;
        let Some(shard) = self.shards.get(shard) else {
            return Verdict::Drop;
        };
        let mut sets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(set) = sets.get_mut(place) else {
            return Verdict::Drop;
        };
        counter(set, u32::from_le_bytes(tag)).map_or(Verdict::Drop, |counter| counter.count(now))
    }
}

impl Counter {
    fn count(&mut self, now: Mono) -> Verdict {
        let from = self.until.max(now);
        if from + EACH <= now + BURST {
            self.until = from + EACH;
            self.over = 0;
            return Verdict::Send;
        }
        self.over = self.over.wrapping_add(1);
        if self.over % SLIP == 1 {
            Verdict::Slip
        } else {
            Verdict::Drop
        }
    }
}

/// Its own, or the one that has been idle for longest, with what counts against that: a
/// flood from many networks makes nobody's place free.
fn counter(set: &mut [Counter; WAYS], tag: u32) -> Option<&mut Counter> {
    let own = set.iter().position(|counter| counter.tag == tag);
    let idle = || {
        let all = set.iter().enumerate();
        all.min_by_key(|(_, counter)| counter.until)
            .map(|(at, _)| at)
    };
    let place = own.or_else(idle)?;
    let counter = set.get_mut(place)?;
    counter.tag = tag;
    Some(counter)
}

/// The /24 or /56 that an address is in, told apart from each other.
fn network(source: IpAddr) -> [u8; 8] {
    match source {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            [a, b, c, 0, 0, 0, 0, 4]
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, ..] = ip.octets();
            [a, b, c, d, e, f, g, 6]
        }
    }
}

#[cfg(test)]
mod tests {
    use innermesh_host::keys::SystemKeys;

    use super::*;

    fn count(limit: &ResponseLimit, source: &str, kind: Kind, at_ms: u64, times: u32) -> [u32; 3] {
        let mut all = [0; 3];
        for _ in 0..times {
            let at = Duration::from_millis(at_ms);
            let verdict = limit.look(source.parse().unwrap(), kind, at);
            all[verdict as usize] += 1;
        }
        all
    }

    #[test]
    fn a_network_has_so_many_answers_of_a_kind_a_second_and_every_second_one_over_it_slips() {
        let limit = ResponseLimit::new(&SystemKeys);
        let rate = limits::SINKHOLE_DNS_RATE;
        let count = |source, kind, at_ms, times| count(&limit, source, kind, at_ms, times);
        assert_eq!(count("192.0.2.1", Kind::Answer, 0, rate + 10), [rate, 5, 5]);
        // The same network; another kind; another network.
        assert_eq!(count("192.0.2.200", Kind::Answer, 0, 10), [0, 5, 5]);
        assert_eq!(count("192.0.2.1", Kind::NoData, 0, rate), [rate, 0, 0]);
        assert_eq!(count("192.0.3.1", Kind::Answer, 0, rate), [rate, 0, 0]);
        assert_eq!(count("2001:db8::1", Kind::Answer, 0, rate), [rate, 0, 0]);
        assert_eq!(count("2001:db8:0:ff::1", Kind::Answer, 0, 2), [0, 1, 1]);
        assert_eq!(count("2001:db8:0:100::1", Kind::Answer, 0, 1), [1, 0, 0]);
        // Half a second later half of them are back, and never more than all.
        assert_eq!(
            count("192.0.2.1", Kind::Answer, 500, rate),
            [rate / 2, 5, 5]
        );
        assert_eq!(
            count("192.0.2.1", Kind::Answer, 9500, rate + 2),
            [rate, 1, 1]
        );
    }

    #[test]
    fn a_flood_from_very_many_networks_frees_nobody() {
        let limit = ResponseLimit::new(&SystemKeys);
        let rate = limits::SINKHOLE_DNS_RATE;
        let victim = "192.0.2.1";
        assert_eq!(count(&limit, victim, Kind::Answer, 0, rate), [rate, 0, 0]);
        for n in 0..200_000_u32 {
            let [a, b, c, _] = (n << 8).to_be_bytes();
            let source = IpAddr::from([a | 64, b, c, 1]);
            for _ in 0..2 {
                limit.look(source, Kind::Answer, Duration::ZERO);
            }
        }
        let sent = count(&limit, victim, Kind::Answer, 0, 100)[0];
        assert!(sent <= rate, "{sent}");
    }
}
