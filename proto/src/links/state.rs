//! One link of this node: offered, up, silent, down, and up again.
//!
//! Each end numbers its attempts; a link is up for the end whose newest attempt the other
//! has stated. Whoever loses the link begins another attempt, which takes the other end's
//! link away too. So a link is never up at one end alone for longer than packets take, or
//! [`DOWN`] where none come through.

use std::{collections::VecDeque, time::Duration};

use super::{
    BEAT, DOWN, Order, PROBE, QUIET, SPARE, UNWANTED,
    wire::{Beat, Flags},
};
use crate::limits;

/// For so long a link that went down is offered each 1 to 1.5 s, then each [`OFFER_LATE`].
const OFFER_SOON: Duration = Duration::from_secs(10);
const OFFER_LATE: Duration = Duration::from_secs(5);
/// Losses within this time make the next attempt wait.
const LOSSES_WITHIN: Duration = Duration::from_secs(300);
/// Losses that are remembered; with so many the wait is the longest, 63 s.
const LOSSES: usize = 7;
/// How long a peer is remembered that was heard and has no link.
const CALLER: Duration = Duration::from_secs(10);
/// How long a peer that had no room isn't asked again.
const REFUSED: Duration = Duration::from_secs(60);
/// For how long after a peer's last packet acknowledgements stand for others: they come
/// from its transport, whatever becomes of what is above that.
const ACKS_FOR: Duration = Duration::from_secs(1);
/// How long a link that waited may take to form before its node is judged without it.
const FORMING: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Clone, Debug)]
pub struct Link {
    /// Spreads what links do over time; below [`BEAT`].
    phase: Duration,
    /// Which end beats first.
    is_first: bool,
    mine: u32,
    theirs: u32,
    is_up: bool,
    /// The last packet, and when the peer was last known to be there.
    spoke: Duration,
    heard: Duration,
    /// When the next beat or offer is due.
    next: Duration,
    /// When the peer is probed unless it is heard before.
    probe: Duration,
    /// Since when this attempt is offered.
    since: Duration,
    may_form: Duration,
    losses: VecDeque<Duration>,
    is_wanted: bool,
    /// It is there in case that another fails, and isn't named before.
    is_spare: bool,
    is_wanted_there: bool,
    /// Whether this node's ledger has reached the peer's position, since the link is up.
    is_ready: bool,
    is_ready_there: bool,
    peer_head: Order,
    /// The epoch, once this node names the link, and since when it does.
    named: Option<(Order, Duration)>,
    /// Whether the peer's head has named this node since.
    was_named: bool,
    unwanted_since: Option<Duration>,
    refused_until: Duration,
    answers: Answers,
}

/// What a packet changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub came_up: bool,
    pub went_down: bool,
    /// A packet is to be sent now.
    pub answer: bool,
    /// This node names the link from now on.
    pub named: bool,
}

/// What is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    pub send: Option<Flags>,
    pub went_down: bool,
    /// Neither end has wanted it for [`UNWANTED`]; the peer is to hear so.
    pub release: bool,
}

/// Why a link is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It failed, or the peer dropped it: the more often, the longer until the next.
    Failure,
    /// By agreement, or with a goodbye.
    Agreed,
}

impl Link {
    /// `attempt` should be above all that this node used with the peer in earlier runs.
    pub fn new(is_first: bool, phase: Duration, attempt: u32, now: Duration) -> Self {
        Self {
            phase,
            is_first,
            mine: attempt,
            theirs: 0,
            is_up: false,
            spoke: now,
            heard: now,
            next: now,
            probe: now,
            since: now,
            may_form: Duration::ZERO,
            losses: VecDeque::new(),
            is_wanted: false,
            is_spare: false,
            is_wanted_there: false,
            is_ready: false,
            is_ready_there: false,
            peer_head: (0, 0),
            named: None,
            was_named: false,
            unwanted_since: None,
            refused_until: Duration::ZERO,
            answers: Answers::new(now),
        }
    }

    pub fn is_up(&self) -> bool {
        self.is_up
    }

    pub fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Where the peer's newest head stands, as its packets say.
    pub fn peer_head(&self) -> Order {
        self.peer_head
    }

    /// The epoch, if this node names the link.
    pub fn epoch(&self) -> Option<Order> {
        self.named.map(|(epoch, _)| epoch)
    }

    /// Since when this node names it.
    pub fn named_since(&self) -> Option<Duration> {
        self.named.map(|(_, since)| since)
    }

    pub fn note_named_by_peer(&mut self) {
        self.was_named = self.named.is_some();
    }

    pub fn was_named_by_peer(&self) -> bool {
        self.was_named
    }

    /// Whether the next on the ring is to be dialed beside it.
    pub fn is_silent(&self, now: Duration) -> bool {
        now >= self.heard + SPARE
    }

    /// Whether it failed lately, and is down.
    pub fn is_lost(&self, now: Duration) -> bool {
        let last = self.losses.back();
        !self.is_up && last.is_some_and(|last| now < *last + LOSSES_WITHIN)
    }

    /// For how long this attempt has been offered.
    pub fn forming_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    /// Whether it waits, as it failed again and again, while the peer is heard.
    pub fn waits(&self, now: Duration) -> bool {
        let forms = self.may_form + FORMING;
        !self.is_up && self.losses.len() > 1 && now < forms && now < self.heard + DOWN
    }

    /// Whether the peer said lately that it has no room.
    pub fn is_refused(&self, now: Duration) -> bool {
        now < self.refused_until
    }

    /// Whether nothing has to be remembered of it.
    pub fn is_spent(&self, now: Duration) -> bool {
        let last = self.losses.back().copied();
        let forgotten = last.is_none_or(|last| now >= last + LOSSES_WITHIN)
            && now >= self.heard + CALLER
            && now >= self.refused_until;
        !self.is_up && !self.is_wanted && forgotten
    }

    /// Whether this node has it for a neighbour; `is_spare`: in case that another fails.
    pub fn set_wanted(&mut self, is_wanted: bool, is_spare: bool, now: Duration) {
        if is_wanted && !self.is_wanted && !self.is_up {
            self.since = now.max(self.may_form);
            self.next = now;
        }
        let was_needed = self.is_needed();
        self.is_wanted = is_wanted;
        self.is_spare = is_spare;
        if self.is_up && self.is_needed() && !was_needed {
            // The peer is to hear so, and to say that it is ready.
            self.next = now;
        }
    }

    fn is_needed(&self) -> bool {
        self.is_wanted && !self.is_spare
    }

    /// There is a connection: what is to be said can be.
    pub fn connected(&mut self, now: Duration) {
        if !self.is_up {
            self.since = now.max(self.may_form);
            self.next = now;
        }
    }

    /// The state that a packet states.
    pub fn stamp(&self, beat: &mut Beat, now: Duration) {
        beat.mine = self.mine;
        beat.yours = if now >= self.may_form { self.theirs } else { 0 };
        beat.flags = beat
            .flags
            .with(Flags::READY, self.is_ready)
            .with(Flags::WANTS, self.is_needed());
    }

    /// Takes a packet of the peer's. `is_reached`: the ledger held here reaches the
    /// position that it states. `has_room`: the link would be taken up. `known` is where
    /// the peer's head stands here.
    pub fn hear(
        &mut self,
        beat: &Beat,
        (is_reached, has_room): (bool, bool),
        known: Option<Order>,
        now: Duration,
    ) -> Heard {
        let mut heard = Heard::default();
        let is_end = beat.flags.has(Flags::RELEASE) || beat.flags.has(Flags::LEAVING);
        if self.is_up && beat.mine != self.theirs {
            if !is_after(beat.mine, self.theirs) {
                // It was overtaken by what came before it.
                return heard;
            }
            let loss = if is_end { Loss::Agreed } else { Loss::Failure };
            self.lose(loss, now);
            heard.went_down = true;
        }
        self.spoke = now;
        self.heard = now;
        self.probe = now + QUIET;
        self.is_wanted_there = beat.flags.has(Flags::WANTS) && !is_end;
        self.peer_head = self.peer_head.max(beat.head);
        if beat.flags.has(Flags::FULL) {
            self.refused_until = now + REFUSED;
        }
        let takes = (has_room || self.is_wanted) && !is_end;
        self.theirs = if takes { beat.mine } else { 0 };
        let answers = beat.flags.has(Flags::ASK) && self.answers.take(now);
        heard.answer = answers;
        if takes && beat.yours == self.mine && now >= self.may_form {
            self.agree(beat, is_reached, known, &mut heard, now);
        }
        heard
    }

    /// The peer's transport has acknowledged a beat that was sent then.
    pub fn acknowledged(&mut self, sent: Duration) {
        let heard = sent.min(self.spoke + ACKS_FOR);
        if self.is_up && heard > self.heard {
            self.heard = heard;
            self.probe = self.probe.max(heard + QUIET);
        }
    }

    /// The peer states this very attempt.
    fn agree(
        &mut self,
        beat: &Beat,
        is_reached: bool,
        known: Option<Order>,
        heard: &mut Heard,
        now: Duration,
    ) {
        if !self.is_up {
            self.is_up = true;
            self.unwanted_since = None;
            let turn = if self.is_first { BEAT / 2 } else { BEAT };
            self.next = now + turn + self.phase / 2;
            heard.came_up = true;
        }
        if beat.flags.has(Flags::TURN) {
            self.next = now + BEAT;
        }
        // A spare that isn't needed after all is of no use to name.
        let is_needed = self.is_needed() || self.is_wanted_there;
        if is_reached && !self.is_ready && is_needed {
            self.is_ready = true;
            heard.answer = true;
        }
        self.is_ready_there |= beat.flags.has(Flags::READY);
        if self.is_ready && self.is_ready_there && self.named.is_none() {
            // Its heads so far can't name this node: it hadn't heard that both may.
            let epoch = known.unwrap_or_default().max(self.peer_head);
            self.named = Some((epoch, now));
            self.was_named = false;
            heard.named = true;
        }
    }

    /// Gives the link up and begins the next attempt.
    pub fn lose(&mut self, loss: Loss, now: Duration) {
        self.is_up = false;
        self.named = None;
        self.was_named = false;
        self.is_ready = false;
        self.is_ready_there = false;
        self.is_wanted_there = false;
        self.unwanted_since = None;
        // 0 stands for none.
        self.mine = self.mine.wrapping_add(1).max(1);
        self.theirs = 0;
        self.since = now;
        self.next = now;
        if loss == Loss::Agreed {
            return;
        }
        self.losses.retain(|at| now < *at + LOSSES_WITHIN);
        let before = u32::try_from(self.losses.len()).unwrap_or(u32::MAX);
        let wait = 2u64.saturating_pow(before.min(6)) - 1;
        self.may_form = now + Duration::from_secs(wait);
        self.since = self.may_form;
        if self.losses.len() == LOSSES {
            self.losses.pop_front();
        }
        self.losses.push_back(now);
    }

    /// This node stood still: the silence says nothing of the peer, and it is asked.
    pub fn excuse(&mut self, pause: Duration, now: Duration) {
        if self.is_up {
            self.heard = self.heard.max(now);
            self.probe = now;
            return;
        }
        let waited = self.waits(now.saturating_sub(pause));
        self.heard = (self.heard + pause).min(now);
        if waited {
            self.may_form = self.may_form.max(now);
            self.next = now;
        }
    }

    /// What is due at `now`.
    pub fn poll(&mut self, now: Duration) -> Due {
        let mut due = Due::default();
        if !self.is_up {
            if self.is_wanted && now >= self.next {
                due.send = Some(Flags::ASK);
                self.next = now + self.offer_pause(now);
            }
            return due;
        }
        let silence = now.saturating_sub(self.heard);
        if silence >= DOWN {
            self.lose(Loss::Failure, now);
            due.went_down = true;
            return due;
        }
        let is_turn = now >= self.next;
        if is_turn {
            self.next = now + 2 * BEAT;
        }
        let is_probe = now >= self.probe;
        if is_probe {
            self.probe = now + PROBE;
        }
        if is_turn || is_probe {
            let flags = Flags::ASK.with(Flags::TURN, is_turn);
            due.send = Some(flags.with(Flags::ACKS, is_turn && !is_probe));
        }
        if self.is_wanted || self.is_wanted_there {
            self.unwanted_since = None;
        } else {
            let since = *self.unwanted_since.get_or_insert(now);
            due.release = now >= since + UNWANTED;
        }
        due
    }

    /// When [`Link::poll`] has something to do.
    pub fn next_due(&self) -> Option<Duration> {
        if !self.is_up {
            return self.is_wanted.then_some(self.next);
        }
        Some(self.next.min(self.probe).min(self.heard + DOWN))
    }

    fn offer_pause(&self, now: Duration) -> Duration {
        let usual = Duration::from_secs(1) + self.phase * 3 / 4;
        if now < self.may_form {
            // Whether the peer is there is asked all the same.
            return usual.min(self.may_form - now);
        }
        let age = now.saturating_sub(self.since);
        if age < 3 * PROBE {
            PROBE
        } else if age < OFFER_SOON {
            usual
        } else {
            OFFER_LATE
        }
    }
}

/// Whether an attempt is later than another; they may wrap.
fn is_after(one: u32, other: u32) -> bool {
    let ahead = one.wrapping_sub(other);
    ahead != 0 && ahead < u32::MAX / 2
}

/// How many packets of one peer are answered.
#[derive(Clone, Copy, Debug)]
struct Answers {
    left: u32,
    at: Duration,
}

impl Answers {
    fn new(now: Duration) -> Self {
        let left = limits::LINK_ANSWERS;
        Self { left, at: now }
    }

    fn take(&mut self, now: Duration) -> bool {
        let each = Duration::from_secs(1) / limits::LINK_ANSWERS_PER_S;
        let gained = now.saturating_sub(self.at).as_millis() / each.as_millis();
        if gained > 0 {
            let gained = u32::try_from(gained).unwrap_or(u32::MAX);
            self.left = limits::LINK_ANSWERS.min(self.left.saturating_add(gained));
            self.at += each * gained.min(limits::LINK_ANSWERS);
            if self.left == limits::LINK_ANSWERS {
                self.at = now;
            }
        }
        let may = self.left > 0;
        self.left -= u32::from(may);
        may
    }
}
