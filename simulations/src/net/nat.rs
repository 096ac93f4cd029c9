//! Network address translation in front of a host: its own addresses aren't
//! reachable, and what it sends seems to come from a public one. Classes as in
//! RFC 3489 §5; in the terms of RFC 4787, mapping is endpoint-independent but
//! for the symmetric one, and filtering goes from none to address and port.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How long a mapping lives after the last datagram from inside; RFC 4787
/// §4.3 asks for two minutes at least, and many give less.
const LIFE: Duration = Duration::from_secs(60);
/// The first public port that is given.
const FIRST: u16 = 20_000;

/// What a NAT lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Everything to a mapped port.
    FullCone,
    /// From addresses that were sent to.
    Restricted,
    /// From addresses and ports that were sent to.
    PortRestricted,
    /// As port restricted, and with another public port for each destination.
    Symmetric,
}

impl Class {
    pub const ALL: [Self; 4] = [
        Self::FullCone,
        Self::Restricted,
        Self::PortRestricted,
        Self::Symmetric,
    ];
}

/// One router with NAT.
#[derive(Debug)]
pub(super) struct Nat {
    class: Class,
    public: IpAddr,
    next: u16,
    mappings: BTreeMap<u16, Mapping>,
}

#[derive(Debug)]
struct Mapping {
    inside: SocketAddr,
    /// The one destination of it, where there is only one.
    only: Option<SocketAddr>,
    sent_to: BTreeSet<SocketAddr>,
    used: Instant,
}

impl Nat {
    pub(super) fn new(class: Class, public: IpAddr) -> Self {
        Self {
            class,
            public,
            next: FIRST,
            mappings: BTreeMap::new(),
        }
    }

    /// The address that others see.
    pub(super) fn public(&self) -> IpAddr {
        self.public
    }

    /// Forgets all mappings, as when the router restarts: what comes next has
    /// other ports.
    pub(super) fn rebind(&mut self) {
        self.mappings.clear();
    }

    /// Where a datagram from inside seems to come from.
    pub(super) fn outward(
        &mut self,
        inside: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> SocketAddr {
        self.mappings.retain(|_, mapping| now < mapping.used + LIFE);
        let only = (self.class == Class::Symmetric).then_some(to);
        let known = self
            .mappings
            .iter()
            .find(|(_, mapping)| mapping.inside == inside && mapping.only == only);
        let port = known.map(|(port, _)| *port).unwrap_or_else(|| {
            self.next = self.next.checked_add(1).unwrap_or(FIRST);
            self.next
        });
        let mapping = self.mappings.entry(port).or_insert(Mapping {
            inside,
            only,
            sent_to: BTreeSet::new(),
            used: now,
        });
        mapping.used = now;
        mapping.sent_to.insert(to);
        SocketAddr::new(self.public, port)
    }

    /// To whom inside a datagram for a public port goes, if it is let in.
    pub(super) fn inward(&self, port: u16, from: SocketAddr, now: Instant) -> Option<SocketAddr> {
        let mapping = self.mappings.get(&port)?;
        let passes = match self.class {
            Class::FullCone => true,
            Class::Restricted => mapping.sent_to.iter().any(|to| to.ip() == from.ip()),
            Class::PortRestricted | Class::Symmetric => mapping.sent_to.contains(&from),
        };
        (passes && now < mapping.used + LIFE).then_some(mapping.inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, net::address};

    #[tokio::test(start_paused = true)]
    async fn each_class_lets_in_what_it_must() {
        let now = clock::now();
        let at = |host, port| SocketAddr::new(address(host), port);
        let inside = at(1, 500);
        let (peer, its_other_port, stranger) = (at(2, 1), at(2, 2), at(3, 1));
        for (class, passes) in Class::ALL.into_iter().zip([
            [true, true, true],
            [true, true, false],
            [true, false, false],
            [true, false, false],
        ]) {
            let mut nat = Nat::new(class, address(9));
            let seen = nat.outward(inside, peer, now);
            assert_eq!(seen.ip(), address(9));
            let again = nat.outward(inside, at(4, 4), now);
            assert_eq!(again == seen, class != Class::Symmetric, "{class:?}");
            for (from, passes) in [peer, its_other_port, stranger].into_iter().zip(passes) {
                let expected = passes.then_some(inside);
                assert_eq!(nat.inward(seen.port(), from, now), expected, "{class:?}");
            }
            assert_eq!(nat.inward(seen.port(), peer, now + LIFE), None);
            nat.rebind();
            assert_eq!(nat.inward(seen.port(), peer, now), None);
            assert_ne!(nat.outward(inside, peer, now), seen);
        }
    }
}
