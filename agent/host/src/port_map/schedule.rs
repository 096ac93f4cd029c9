//! When a router is asked, and for what.

use std::{net::Ipv4Addr, time::Duration};

use super::{Epoch, Gateway, Granted, LIFETIME, MapError, Seen};
use crate::Mono;

/// The pause after a try in vain; it doubles, as most routers that don't map won't later.
const PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 60);
/// How often a router that maps is asked whether it still does.
const LOOK: Duration = Duration::from_secs(120);
/// The least between two renewals, however short a router's lifetimes are.
const LEAST: Duration = Duration::from_secs(30);

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Nothing yet.
    Wait,
    /// Find out how the router is asked, and have it map. What was mapped counts no more.
    Find,
    /// Ask whether it is as it was.
    Look,
    /// Renew what it maps.
    Renew,
}

/// When a router is asked, and for what.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    gateway: Option<Gateway>,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Unmapped {
        next: Mono,
        pause: Duration,
    },
    Mapped {
        renew: Mono,
        ends: Option<Mono>,
        look: Mono,
        epoch: Option<Epoch>,
        external: Ipv4Addr,
    },
}

impl Default for Stage {
    fn default() -> Self {
        Self::Unmapped {
            next: Mono::ZERO,
            pause: PAUSE,
        }
    }
}

impl Schedule {
    /// What is to be done with the router that there is now. Another one, or this host at
    /// another address, begins anew: what was mapped leads elsewhere.
    pub fn next(&mut self, now: Mono, gateway: Option<Gateway>) -> Todo {
        if gateway != self.gateway {
            *self = Self {
                gateway,
                stage: Stage::default(),
            };
        }
        if self.gateway.is_none() {
            return Todo::Wait;
        }
        match &self.stage {
            Stage::Unmapped { next, .. } if now < *next => Todo::Wait,
            Stage::Unmapped { .. } => Todo::Find,
            Stage::Mapped {
                ends: Some(ends), ..
            } if now >= *ends => {
                self.stage = Stage::default();
                Todo::Find
            }
            Stage::Mapped { renew, .. } if now >= *renew => Todo::Renew,
            Stage::Mapped { look, .. } if now >= *look => Todo::Look,
            Stage::Mapped { .. } => Todo::Wait,
        }
    }

    /// When it is asked next where nothing is mapped.
    pub fn next_find(&self) -> Option<Mono> {
        match (&self.gateway, &self.stage) {
            (Some(_), Stage::Unmapped { next, .. }) => Some(*next),
            _ => None,
        }
    }

    /// Nothing could be mapped.
    pub fn failed(&mut self, now: Mono) {
        let pause = match self.stage {
            Stage::Unmapped { pause, .. } => pause,
            Stage::Mapped { .. } => PAUSE,
        };
        self.stage = Stage::Unmapped {
            next: now + pause,
            pause: (pause * 2).min(LONGEST_PAUSE),
        };
    }

    /// All of these are mapped from now on.
    pub fn mapped(&mut self, now: Mono, granted: &[Granted]) {
        let lifetimes = granted.iter().filter_map(|granted| granted.lifetime);
        let shortest = lifetimes.min();
        // A router that promises years may begin anew before.
        let half = shortest.unwrap_or(LIFETIME).min(LIFETIME) / 2;
        let epoch = granted.iter().find_map(|granted| granted.epoch);
        let Some(first) = granted.first() else {
            return;
        };
        self.stage = Stage::Mapped {
            renew: now + half.max(LEAST),
            ends: shortest.map(|shortest| now + shortest.max(LEAST * 2)),
            look: now + LOOK,
            epoch: epoch.map(|seconds| Epoch::new(seconds, now)),
            external: *first.external.ip(),
        };
    }

    /// The router answered nothing, or what means nothing: it may be starting. What it maps
    /// counts until it ends. `false` where that was refused, and counts no more.
    pub fn renewal_failed(&mut self, now: Mono, why: &MapError) -> bool {
        if let MapError::Refused(..) = why {
            self.failed(now);
            return false;
        }
        if let Stage::Mapped { renew, ends, .. } = &mut self.stage {
            // RFC 6887 §11.2.1: at half of what is left each time.
            let left = ends.map_or(LIFETIME, |ends| ends.saturating_sub(now));
            *renew = now + (left / 2).max(LEAST);
        }
        true
    }

    /// What came of looking, with whether all mappings are `there`. `true` where they are to
    /// be renewed at once.
    pub fn looked(&mut self, now: Mono, seen: Option<&Seen>, there: bool) -> bool {
        let Stage::Mapped {
            look,
            epoch,
            external,
            ..
        } = &mut self.stage
        else {
            return false;
        };
        *look = now + LOOK;
        let Some(seen) = seen else {
            return false;
        };
        let moved = seen.external.is_some_and(|ip| ip != *external);
        let goes_on = match (&*epoch, seen.epoch) {
            (Some(epoch), Some(seconds)) => epoch.goes_on(seconds, now),
            _ => true,
        };
        if let Some(seconds) = seen.epoch {
            *epoch = Some(Epoch::new(seconds, now));
        }
        moved || !goes_on || !there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port_map::{Protocol, Refusal};

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn gateway(own: u8) -> Option<Gateway> {
        Some(Gateway {
            router: Ipv4Addr::new(192, 168, 1, 1),
            own: Ipv4Addr::new(192, 168, 1, own),
        })
    }

    fn granted(seconds: u64, epoch: u32) -> Granted {
        Granted {
            external: "203.0.113.7:51820".parse().unwrap(),
            lifetime: Some(s(seconds)),
            epoch: Some(epoch),
        }
    }

    fn mapped(seconds: u64) -> Schedule {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.next(s(0), gateway(7)), Todo::Find);
        schedule.mapped(s(0), &[granted(seconds, 50), granted(seconds + 9, 50)]);
        schedule
    }

    #[test]
    fn a_router_that_maps_nothing_is_asked_less_and_less() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.next(s(0), None), Todo::Wait);
        let mut now = s(0);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(schedule.next(now, gateway(7)), Todo::Find);
            schedule.failed(now);
            let next = schedule.next_find().unwrap();
            assert_eq!(schedule.next(next - s(1), gateway(7)), Todo::Wait);
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1800, 1800, 1800]);
        // Another network is another router, also where both have one address.
        assert_eq!(schedule.next(now - s(1), gateway(8)), Todo::Find);
    }

    #[test]
    fn a_mapping_is_renewed_at_half_its_life_and_counts_to_its_end() {
        let mut schedule = mapped(600);
        assert_eq!(schedule.next(s(119), gateway(7)), Todo::Wait);
        assert_eq!(schedule.next(s(120), gateway(7)), Todo::Look);
        assert!(!schedule.looked(s(120), None, true));
        assert_eq!(schedule.next(s(121), gateway(7)), Todo::Wait);
        assert_eq!(schedule.next(s(300), gateway(7)), Todo::Renew);
        let silent = MapError::Silent(Protocol::Pcp);
        for (now, next) in [(300, 450), (450, 525), (525, 562)] {
            assert!(schedule.renewal_failed(s(now), &silent));
            let soon = schedule.next(s(next - 1), gateway(7));
            assert_ne!(soon, Todo::Renew, "{now}");
            assert_eq!(schedule.next(s(next + 1), gateway(7)), Todo::Renew);
        }
        assert_eq!(schedule.next(s(600), gateway(7)), Todo::Find);
        schedule.failed(s(600));
        assert_eq!(schedule.next_find(), Some(s(630)));
    }

    #[test]
    fn what_is_refused_or_elsewhere_counts_no_more() {
        let mut schedule = mapped(600);
        let refused = MapError::Refused(Protocol::Pcp, Refusal::NotAuthorized);
        assert!(!schedule.renewal_failed(s(300), &refused));
        assert_eq!(schedule.next_find(), Some(s(330)));
        let mut schedule = mapped(600);
        assert_eq!(schedule.next(s(10), gateway(8)), Todo::Find);
        let mut schedule = mapped(600);
        assert_eq!(schedule.next(s(10), None), Todo::Wait);
        assert_eq!(schedule.next(s(11), gateway(7)), Todo::Find);
    }

    #[test]
    fn a_router_that_began_anew_or_lost_a_mapping_is_asked_at_once() {
        let ip = Ipv4Addr::new(203, 0, 113, 7);
        let seen = |external, epoch| Seen { external, epoch };
        for (seen, there, lost) in [
            (seen(None, Some(170)), true, false),
            (seen(Some(ip), Some(171)), true, false),
            (seen(Some(ip), None), true, false),
            (seen(None, Some(3)), true, true),
            (seen(Some(Ipv4Addr::new(203, 0, 113, 8)), None), true, true),
            (seen(Some(ip), None), false, true),
        ] {
            let mut schedule = mapped(7200);
            let told = schedule.looked(s(120), Some(&seen), there);
            assert_eq!(told, lost, "{seen:?} {there}");
        }
        // Once: the renewal that follows has an epoch of its own.
        let mut schedule = mapped(7200);
        let anew = seen(None, Some(3));
        assert!(schedule.looked(s(120), Some(&anew), true));
        schedule.mapped(s(121), &[granted(7200, 4)]);
        assert!(!schedule.looked(s(241), Some(&seen(None, Some(124))), true));
    }

    #[test]
    fn lifetimes_of_nothing_and_of_years_are_bounded() {
        let mut schedule = mapped(0);
        assert_eq!(schedule.next(s(29), gateway(7)), Todo::Wait);
        assert_eq!(schedule.next(s(30), gateway(7)), Todo::Renew);
        let mut schedule = mapped(u64::from(u32::MAX) - 9);
        schedule.looked(s(3599), None, true);
        assert_eq!(schedule.next(s(3599), gateway(7)), Todo::Wait);
        assert_eq!(schedule.next(s(3600), gateway(7)), Todo::Renew);
    }
}
