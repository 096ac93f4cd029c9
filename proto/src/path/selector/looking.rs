//! Looking for a better way, and for another where the one in use is in question.

use std::{net::SocketAddr, time::Duration};

use super::{DEMAND, DOUBT, Doubt, Hunt, Output, SETTLED, Selector, Via};
use crate::{limits, path::tier};

/// When probes follow the first of a hunt; one second after the other from then on.
const ROUNDS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(1000),
];
/// Probes of a hunt to one place.
const ROUNDS_MOST: u32 = 12;
/// After hunts that found nothing, how long until the next, if there is demand.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
    Duration::from_secs(3600),
];
/// After which a doubt ends in which nobody answered.
pub(super) const DOUBT_ENDS: Duration = Duration::from_secs(5);
/// A way that fell silent so often within this time rests, and for how long.
const FALLS: usize = 3;
/// As [`FALLS`].
const FALLS_WITHIN: Duration = Duration::from_secs(600);
/// How long it rests.
const REST: Duration = Duration::from_secs(600);
/// Probes whose reply is waited for.
const PENDING: usize = 64;

impl Selector {
    /// Something of the peer's came by a better way than the one in use: it is asked at
    /// once whether it answers there, unless it just was.
    pub(super) fn answer_hunt(&mut self, via: Via, now: Duration) {
        let mut asked = self.probes.values().rev();
        if !asked.any(|(asked, at)| *asked == via && now < *at + ROUNDS[1]) {
            self.probe(via, now);
        }
        if self.hunt.is_none() {
            self.hunt_after = self.hunt_after.min(now);
            self.hunt_if_worth(now);
        }
    }

    pub(super) fn hunt_if_worth(&mut self, now: Duration) {
        let Some(in_use) = self.in_use else { return };
        let has_demand = self.traffic.is_some_and(|traffic| now < traffic + DEMAND);
        let may = now >= self.hunt_after && self.hunt.is_none();
        if may && has_demand && !self.is_best(in_use.via) {
            self.hunt = Some(Hunt {
                began: now,
                round: 0,
            });
            self.hunt_on(now);
        }
    }

    /// The round that is due. Those that passed meanwhile, as while the host slept, are
    /// left out.
    pub(super) fn hunt_on(&mut self, now: Duration) {
        let Some(mut hunt) = self.hunt.filter(|hunt| now >= round_at(*hunt)) else {
            return;
        };
        if hunt.round >= ROUNDS_MOST {
            self.hunt = None;
            let pause = PAUSES.get(self.failed_hunts).or(PAUSES.last());
            self.hunt_after = now + pause.copied().unwrap_or_default();
            self.failed_hunts += 1;
            return;
        }
        let in_use = self.in_use.map(|in_use| self.tier(in_use.via));
        let all = self.candidates.iter().chain(&self.reflexive);
        let worth = all.filter(|to| in_use.is_none_or(|in_use| tier(to) < in_use));
        let worth = worth.filter(|to| self.resting.get(to).is_none_or(|until| now >= *until));
        let worth: Vec<Via> = worth.map(|to| Via::Direct(*to)).collect();
        for via in worth {
            self.probe(via, now);
        }
        while now >= round_at(hunt) {
            hunt.round += 1;
        }
        self.hunt = Some(hunt);
    }

    fn probe(&mut self, via: Via, now: Duration) {
        let number = self.next_probe;
        self.next_probe = self.next_probe.wrapping_add(1);
        if self.probes.len() >= PENDING {
            self.probes.pop_first();
        }
        self.probes.insert(number, (via, now));
        self.outputs.push_back(Output::Probe(via, number));
    }

    pub(super) fn doubt(&mut self, now: Duration) {
        if self.doubt.is_some() || now < self.doubt_after {
            return;
        }
        self.doubt = Some(Doubt {
            began: now,
            asked_again: false,
            other: None,
        });
        self.ask_all(now);
    }

    /// Asks the way in use and the others whether they are there.
    fn ask_all(&mut self, now: Duration) {
        let all = self.everywhere();
        for via in all {
            self.probe(via, now);
        }
    }

    pub(super) fn end_doubt(&mut self, now: Duration) {
        let (Some(doubt), Some(in_use)) = (self.doubt, self.in_use) else {
            return;
        };
        if now < doubt.began + DOUBT {
            return;
        }
        if let Some(other) = doubt.other {
            if let Via::Direct(address) = in_use.via {
                self.fell(address, now);
            }
            self.take_up(other, now);
        } else if !doubt.asked_again {
            self.ask_all(now);
            if let Some(doubt) = &mut self.doubt {
                doubt.asked_again = true;
                // However late it is.
                doubt.began = doubt.began.max(now.saturating_sub(DOUBT));
            }
        } else if now >= doubt.began + DOUBT_ENDS {
            self.doubt = None;
            self.doubt_after = now + SETTLED;
        }
    }

    /// A way fell silent that worked.
    fn fell(&mut self, address: SocketAddr, now: Duration) {
        self.falls.retain(|(_, at)| now < *at + FALLS_WITHIN);
        self.falls.push_back((address, now));
        self.falls.truncate(FALLS * limits::CANDIDATES);
        let count = self
            .falls
            .iter()
            .filter(|(fell, _)| *fell == address)
            .count();
        self.resting.retain(|_, until| now < *until);
        if count >= FALLS {
            self.resting.insert(address, now + REST);
        }
    }
}

pub(super) fn round_at(hunt: Hunt) -> Duration {
    let round = usize::try_from(hunt.round).unwrap_or(usize::MAX);
    let after = ROUNDS.get(round).copied();
    let more = hunt.round.saturating_sub(ROUNDS.len() as u32 - 1);
    hunt.began + after.unwrap_or(ROUNDS[ROUNDS.len() - 1] + Duration::from_secs(more.into()))
}
