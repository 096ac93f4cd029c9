//! How many TLS handshakes a source may begin: each costs this host a signature and a
//! key exchange, and its client next to nothing.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use innermesh_host::{
    Mono,
    bucket::Bucket,
    listen::{Class, Source, Who},
};
use innermesh_proto::limits;

use super::source::group;

/// What sources began lately.
#[derive(Default)]
pub(super) struct Handshakes(Mutex<State>);

#[derive(Default)]
struct State {
    /// Of all that are neither this host nor members.
    others: Bucket,
    each: BTreeMap<IpAddr, Bucket>,
}

impl Handshakes {
    /// Whether one more may begin, which counts then. Programs of this host have no
    /// bound: they share its processors anyway.
    pub fn begin(&self, source: &Source, now: Mono) -> bool {
        let Who::Address(address) = source.who else {
            return true;
        };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match source.class {
            Class::Local => true,
            Class::Member => state.begin_one(address, now),
            Class::Other => {
                const MOST: u64 = limits::DNS_HANDSHAKES_OF_OTHERS;
                const PER_HOUR: u64 = limits::DNS_HANDSHAKES_OF_OTHERS_PER_HOUR;
                let may = state.others.wait(1, MOST, PER_HOUR, now).is_zero()
                    && state.begin_one(group(address), now);
                if may {
                    state.others.take(1, PER_HOUR, now);
                }
                may
            }
        }
    }
}

impl State {
    fn begin_one(&mut self, address: IpAddr, now: Mono) -> bool {
        const MOST: u64 = limits::DNS_HANDSHAKES_PER_ADDRESS;
        const PER_HOUR: u64 = limits::DNS_HANDSHAKES_PER_ADDRESS_PER_HOUR;
        if self.each.len() >= limits::DNS_HANDSHAKE_SOURCES && !self.each.contains_key(&address) {
            // One that is full again needs no place.
            self.each.retain(|_, bucket| bucket.paid_at > now);
            if self.each.len() >= limits::DNS_HANDSHAKE_SOURCES {
                return false;
            }
        }
        let bucket = self.each.entry(address).or_default();
        let may = bucket.wait(1, MOST, PER_HOUR, now).is_zero();
        if may {
            bucket.take(1, PER_HOUR, now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv6Addr, time::Duration};

    use super::*;

    const NOW: Mono = Duration::from_secs(100);

    fn source(class: Class, address: &str) -> Source {
        let who = Who::Address(address.parse().unwrap());
        Source { class, who }
    }

    fn begun(handshakes: &Handshakes, source: &Source, now: Mono) -> u64 {
        let all = 0..100_000;
        all.take_while(|_| handshakes.begin(source, now)).count() as u64
    }

    #[test]
    fn a_source_has_its_share_and_it_comes_back() {
        let handshakes = Handshakes::default();
        let lan = source(Class::Other, "192.168.1.9");
        let share = limits::DNS_HANDSHAKES_PER_ADDRESS;
        assert_eq!(begun(&handshakes, &lan, NOW), share);
        assert_eq!(begun(&handshakes, &lan, NOW), 0);
        let other = source(Class::Other, "192.168.1.10");
        assert_eq!(begun(&handshakes, &other, NOW), share);
        let second = NOW + Duration::from_secs(1);
        let back = limits::DNS_HANDSHAKES_PER_ADDRESS_PER_HOUR / 3600;
        assert_eq!(begun(&handshakes, &lan, second), back);
    }

    #[test]
    fn addresses_of_a_64_are_one_source_and_all_others_take_nothing_from_members() {
        let handshakes = Handshakes::default();
        let one = source(Class::Other, "2001:db8::1");
        begun(&handshakes, &one, NOW);
        let same = source(Class::Other, "2001:db8::2");
        assert_eq!(begun(&handshakes, &same, NOW), 0);
        let lan = (0..=255).map(|n| source(Class::Other, &format!("192.168.1.{n}")));
        let all: u64 = lan.map(|source| begun(&handshakes, &source, NOW)).sum();
        let spent = limits::DNS_HANDSHAKES_PER_ADDRESS;
        assert_eq!(all, limits::DNS_HANDSHAKES_OF_OTHERS - spent);
        let member = source(Class::Member, "10.77.0.7");
        assert_eq!(begun(&handshakes, &member, NOW), spent);
        let local = source(Class::Local, "127.0.0.1");
        assert_eq!(begun(&handshakes, &local, NOW), 100_000);
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let handshakes = Handshakes::default();
        for n in 0..limits::DNS_HANDSHAKE_SOURCES {
            let address = Ipv6Addr::from(n as u128);
            let member = source(Class::Member, &address.to_string());
            assert!(handshakes.begin(&member, NOW));
        }
        let late = source(Class::Member, "10.77.0.7");
        assert!(!handshakes.begin(&late, NOW));
        assert!(handshakes.begin(&late, NOW + Duration::from_secs(1)));
    }
}
