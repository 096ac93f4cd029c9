//! The way of one pair, chosen by what was heard: the first that answers is used, a
//! better one as soon as it answered, and another where the one in use has gone silent.
//! Both ends run it; what each is told to have heard, the tunnel authenticated (S30).

mod looking;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use self::looking::{DOUBT_ENDS, round_at};
use super::{Tier, tier};
use crate::limits;

/// After a handshake was sent everywhere: when it is sent again.
const AGAIN: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(1000),
];
/// Candidates that a handshake is sent to.
const STARTED: usize = 4;
/// How long data may go out with nothing coming in before the way is in question.
const UNANSWERED: Duration = Duration::from_secs(1);
/// How long the way in question has to answer before another that did is used.
const DOUBT: Duration = Duration::from_millis(600);
/// Within which a way counts as heard although another is.
const FRESH: Duration = Duration::from_secs(1);
/// Between two changes of way within one tier.
const SETTLED: Duration = Duration::from_secs(30);
/// Traffic of this age still is demand.
const DEMAND: Duration = Duration::from_secs(60);

/// A way to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// Straight to an address.
    Direct(SocketAddr),
    /// By the relay that the peer is connected with.
    Relay,
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A packet or a handshake.
    Traffic,
    /// A probe that wants a reply, by its number.
    Probe(u64),
    /// The reply to one of this end's.
    Reply(u64),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send the handshake that is under way there.
    Handshake(Via),
    /// Send a probe there.
    Probe(Via, u64),
    /// Send a reply there.
    Reply(Via, u64),
    /// Send by that way from now on.
    Use(Via),
    /// Have the peer told, by one of its neighbours, that it is looked for.
    AskPunch,
}

#[derive(Clone, Copy, Debug)]
struct InUse {
    via: Via,
    since: Duration,
    heard: Duration,
    /// Since when data went out with nothing coming in.
    unanswered: Option<Duration>,
}

/// A handshake that is sent everywhere.
#[derive(Clone, Copy, Debug)]
struct Start {
    began: Duration,
    step: usize,
}

#[derive(Clone, Copy, Debug)]
struct Hunt {
    began: Duration,
    round: u32,
}

/// The way in use is asked whether it is there, beside others.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    began: Duration,
    asked_again: bool,
    /// The best of the others that answered.
    other: Option<Via>,
}

/// How a pair stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The way in use.
    pub via: Option<Via>,
    /// The round trip by it, where it was measured.
    pub rtt: Option<Duration>,
    /// Whether the peer announces the address in use; else what came from there showed
    /// it.
    pub is_announced: bool,
    /// Why it isn't a straight one; `None` too where nobody asked for one yet.
    pub why_not: Option<WhyNot>,
}

/// Why a pair doesn't go straight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// No address of the peer is known.
    NoPlace,
    /// A way is being looked for.
    Looking,
    /// Nothing came back.
    NoAnswer {
        /// Addresses that were tried.
        places: usize,
        /// How often a way was looked for in vain.
        times: usize,
        /// The next time is no sooner, and when there is traffic.
        again: Duration,
    },
}

/// See the module. Times are since any fixed moment, and never go back.
#[derive(Clone, Debug)]
pub struct Selector {
    candidates: Vec<SocketAddr>,
    /// Where the peer's probes came from that it doesn't announce.
    reflexive: VecDeque<SocketAddr>,
    has_relay: bool,
    in_use: Option<InUse>,
    start: Option<Start>,
    hunt: Option<Hunt>,
    failed_hunts: usize,
    /// The next is begun no sooner.
    hunt_after: Duration,
    doubt: Option<Doubt>,
    /// No doubt before something was heard again, or this time.
    doubt_after: Duration,
    /// When packets last went either way.
    traffic: Option<Duration>,
    probes: BTreeMap<u64, (Via, Duration)>,
    /// The round trip by the way in use, as it was last measured.
    rtt: Option<Duration>,
    next_probe: u64,
    falls: VecDeque<(SocketAddr, Duration)>,
    resting: BTreeMap<SocketAddr, Duration>,
    outputs: VecDeque<Output>,
}

impl Selector {
    /// One that knows nothing. Its probes are numbered from `first` on, which nobody
    /// should guess.
    pub fn new(first: u64) -> Self {
        Self {
            candidates: Vec::new(),
            reflexive: VecDeque::new(),
            has_relay: false,
            in_use: None,
            start: None,
            hunt: None,
            failed_hunts: 0,
            hunt_after: Duration::ZERO,
            doubt: None,
            doubt_after: Duration::ZERO,
            traffic: None,
            probes: BTreeMap::new(),
            rtt: None,
            next_probe: first,
            falls: VecDeque::new(),
            resting: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Where the peer may be from now on, and whether there is a relay.
    pub fn set_remote(&mut self, candidates: &[SocketAddr], has_relay: bool, now: Duration) {
        let candidates = candidates.iter().take(limits::CANDIDATES);
        let candidates: Vec<SocketAddr> = candidates.copied().collect();
        if candidates == self.candidates && has_relay == self.has_relay {
            return;
        }
        let is_new = candidates
            .iter()
            .any(|candidate| !self.candidates.contains(candidate));
        self.candidates = candidates;
        self.has_relay = has_relay;
        if is_new {
            self.failed_hunts = 0;
            self.hunt_after = now;
            self.hunt_if_worth(now);
        }
    }

    /// The way in use.
    pub fn in_use(&self) -> Option<Via> {
        self.in_use.map(|in_use| in_use.via)
    }

    /// The tunnel begins a handshake, as packets wait or a session ends; `heard` is when
    /// something came last by the way in use.
    pub fn handshake(&mut self, heard: Option<Duration>, now: Duration) {
        self.traffic = Some(now);
        if let Some(in_use) = &mut self.in_use {
            in_use.heard = in_use.heard.max(heard.unwrap_or_default());
        }
        if let Some(in_use) = &self.in_use
            && now < in_use.heard + SETTLED
            && in_use.unanswered.is_none()
        {
            self.outputs.push_back(Output::Handshake(in_use.via));
            return;
        }
        self.start(now);
        if !self.has_relay {
            self.outputs.push_back(Output::AskPunch);
        }
    }

    /// The peer looks for this node, as one of this node's neighbours says: what is sent
    /// now meets what it sends. Whether a handshake is to be begun for that.
    pub fn punch(&mut self, now: Duration) -> bool {
        let is_heard = self.in_use.is_some_and(|in_use| now < in_use.heard + FRESH);
        if is_heard || self.start.is_some() {
            return false;
        }
        self.hunt_after = now;
        true
    }

    fn start(&mut self, now: Duration) {
        self.start = Some(Start {
            began: now,
            step: 0,
        });
        for via in self.everywhere() {
            self.outputs.push_back(Output::Handshake(via));
        }
    }

    /// Where a handshake is sent: the way that worked last, the best candidates, and the
    /// relay.
    fn everywhere(&self) -> Vec<Via> {
        let last = self.in_use.map(|in_use| in_use.via);
        let mut all: Vec<Via> = last.into_iter().collect();
        let direct = self.candidates.iter().chain(&self.reflexive);
        for via in direct.take(STARTED).map(|address| Via::Direct(*address)) {
            if !all.contains(&via) {
                all.push(via);
            }
        }
        if self.has_relay && !all.contains(&Via::Relay) {
            all.push(Via::Relay);
        }
        all
    }

    /// Packets went by the way in use: when something was heard last by it, and since
    /// when nothing is although data goes out.
    pub fn traffic(
        &mut self,
        heard: Option<Duration>,
        unanswered: Option<Duration>,
        now: Duration,
    ) {
        self.traffic = Some(now);
        self.refresh(heard, unanswered);
        self.hunt_if_worth(now);
    }

    /// As [`Selector::traffic`], of the packets that passed before.
    pub fn refresh(&mut self, heard: Option<Duration>, unanswered: Option<Duration>) {
        if let Some(in_use) = &mut self.in_use {
            if heard.is_some_and(|heard| heard > in_use.heard) {
                in_use.heard = heard.unwrap_or(in_use.heard);
                self.doubt = None;
                self.doubt_after = Duration::ZERO;
            }
            in_use.unanswered = unanswered;
        }
    }

    /// Something authentic came by a way.
    pub fn heard(&mut self, via: Via, what: Heard, now: Duration) {
        if let Heard::Probe(number) = what {
            self.outputs.push_back(Output::Reply(via, number));
            self.note_reflexive(via);
        }
        let asked = match what {
            Heard::Reply(number) => self.probes.remove(&number),
            _ => None,
        };
        let answered = asked.filter(|(asked, _)| *asked == via);
        let rtt = answered.map(|(_, at)| now.saturating_sub(at));
        let is_answer = rtt.is_some();
        let Some(in_use) = &mut self.in_use else {
            self.take_up(via, now);
            return;
        };
        if in_use.via == via {
            // The peer may be asking because nothing comes to it.
            if matches!(what, Heard::Probe(_)) {
                return;
            }
            in_use.heard = now;
            in_use.unanswered = None;
            self.rtt = rtt.or(self.rtt);
            self.doubt = None;
            self.doubt_after = Duration::ZERO;
            self.start = None;
            self.hunt_if_worth(now);
            return;
        }
        let in_use = *in_use;
        let better = self.tier(via) < self.tier(in_use.via);
        let silent = now >= in_use.heard + FRESH;
        match what {
            Heard::Probe(_) if better => self.answer_hunt(via, now),
            Heard::Probe(_) => {}
            Heard::Reply(_) if !is_answer => {}
            Heard::Reply(_) => {
                if better || self.start.is_some() {
                    self.take_up(via, now);
                    self.rtt = rtt;
                } else if silent {
                    self.note_other(via, now);
                }
            }
            // The peer has chosen this way, or moved.
            Heard::Traffic => {
                let is_settled = now >= in_use.since + SETTLED || in_use.unanswered.is_some();
                let same = self.tier(via) == self.tier(in_use.via);
                if self.start.is_some() || same && silent && is_settled {
                    self.take_up(via, now);
                } else if better {
                    // What comes by a way need not get back by it.
                    self.answer_hunt(via, now);
                } else if silent {
                    self.doubt(now);
                    self.note_other(via, now);
                }
            }
        }
    }

    /// Another way answered while the one in use is in question.
    fn note_other(&mut self, via: Via, now: Duration) {
        let Some(doubt) = self.doubt else { return };
        let is_first = doubt
            .other
            .is_none_or(|other| self.tier(via) < self.tier(other));
        if is_first && let Some(doubt) = &mut self.doubt {
            doubt.other = Some(via);
        }
        self.end_doubt(now);
    }

    fn take_up(&mut self, via: Via, now: Duration) {
        let unanswered = None;
        self.in_use = Some(InUse {
            via,
            since: now,
            heard: now,
            unanswered,
        });
        (self.start, self.doubt, self.rtt) = (None, None, None);
        self.doubt_after = Duration::ZERO;
        self.outputs.push_back(Output::Use(via));
        if self.is_best(via) {
            self.hunt = None;
            self.failed_hunts = 0;
        } else {
            self.hunt_if_worth(now);
        }
    }

    fn tier(&self, via: Via) -> Tier {
        match via {
            Via::Direct(address) => tier(&address),
            Via::Relay => Tier::Relayed,
        }
    }

    /// Whether no candidate promises a better way.
    fn is_best(&self, via: Via) -> bool {
        let in_use = self.tier(via);
        let all = self.candidates.iter().chain(&self.reflexive);
        !all.map(tier).any(|candidate| candidate < in_use)
    }

    fn note_reflexive(&mut self, via: Via) {
        let Via::Direct(address) = via else { return };
        if self.candidates.contains(&address) || self.reflexive.contains(&address) {
            return;
        }
        if self.reflexive.len() >= limits::REFLEXIVE {
            self.reflexive.pop_front();
        }
        self.reflexive.push_back(address);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        if let Some(start) = self.start
            && let Some(after) = AGAIN.get(start.step)
            && now >= start.began + *after
        {
            let again = self.everywhere().into_iter();
            let last = self.in_use.map(|in_use| in_use.via);
            let has_relay = self.has_relay;
            let again = again.filter(|via| !has_relay || *via == Via::Relay || Some(*via) == last);
            self.outputs.extend(again.map(Output::Handshake));
            let overdue = AGAIN.iter().filter(|after| now >= start.began + **after);
            let step = overdue.count();
            self.start = (step < AGAIN.len()).then_some(Start { step, ..start });
        }
        self.hunt_on(now);
        let unanswered = self.in_use.and_then(|in_use| in_use.unanswered);
        if unanswered.is_some_and(|since| now >= since + UNANSWERED) {
            self.doubt(now);
        }
        self.end_doubt(now);
    }

    /// When [`Selector::handle_timeout`] is to be called at the latest; `None` for a pair
    /// that is silent.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let start = self.start.and_then(|start| {
            let after = AGAIN.get(start.step)?;
            Some(start.began + *after)
        });
        let hunt = self.hunt.map(round_at);
        let doubt = self.doubt.map(|doubt| match doubt.asked_again {
            false => doubt.began + DOUBT,
            true => doubt.began + DOUBT_ENDS,
        });
        let unanswered = self.in_use.and_then(|in_use| in_use.unanswered);
        let question = unanswered.map(|since| (since + UNANSWERED).max(self.doubt_after));
        let question = question.filter(|_| self.doubt.is_none());
        [start, hunt, doubt, question].into_iter().flatten().min()
    }

    /// How the pair stands.
    pub fn report(&self, now: Duration) -> Report {
        let via = self.in_use();
        let is_straight = matches!(via, Some(Via::Direct(_)));
        let candidates = self.candidates.len() + self.reflexive.len();
        let why = if candidates == 0 {
            WhyNot::NoPlace
        } else if self.hunt.is_some() || self.start.is_some() {
            WhyNot::Looking
        } else {
            WhyNot::NoAnswer {
                places: candidates,
                times: self.failed_hunts,
                again: self.hunt_after.saturating_sub(now),
            }
        };
        Report {
            via,
            rtt: self.rtt,
            is_announced: match via {
                Some(Via::Direct(at)) => self.candidates.contains(&at),
                _ => false,
            },
            why_not: (!is_straight && self.traffic.is_some()).then_some(why),
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
