//! This node's vote: whether it has one, what its part of the voters' log says,
//! and what of a peer's message counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use innermesh_host::Mono;
use innermesh_proto::{
    codec,
    id::NodeId,
    ledger::{Batch, Position, State, stamp},
    limits,
    message::{RaftProgress, VoterSeen},
};

use super::status::{RaftStatus, VotingDisabled};
use crate::{
    index::BatchIndex,
    raft::{
        Base, Body, Change, Conf, Engine, Hard, Message, Payload, Rejected, Saved, Standing,
        VoterId,
    },
};

/// A tick of the engine's.
pub const TICK: Duration = Duration::from_millis(100);

/// An engine, and how far its log is applied.
pub struct Voter {
    pub engine: Engine,
    /// Where the ledger is after the log's newest applied entry: behind the
    /// ledger itself where that was fetched from peers.
    pub position: Position,
    /// When the next tick is due.
    due: Mono,
    /// Ticks since the start.
    ticks: u64,
}

impl Voter {
    fn new(engine: Engine, now: Mono) -> Self {
        Self {
            position: engine.base().position,
            engine,
            due: now + TICK,
            ticks: 0,
        }
    }

    pub fn due(&self) -> Mono {
        self.due
    }

    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Moves the engine's time on; gives the number of the tick, if one was due.
    /// Of several that a slow disk or a suspended machine swallowed only one
    /// counts: its peers didn't stop.
    pub fn tick(&mut self, now: Mono) -> Option<u64> {
        if now < self.due {
            return None;
        }
        self.due = now + TICK;
        self.ticks += 1;
        if !self.engine.is_alone() {
            self.engine.tick();
        }
        Some(self.ticks)
    }
}

/// What the newest state says about this node's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFollows {
    /// Nothing is to be done.
    AsItIs,
    /// It is to be opened or made, as that of this voter.
    Open(VoterId),
    /// It is to be removed: this node is no CA node any more.
    Remove,
}

/// This node's part in the voters' log.
pub struct Voting {
    me: NodeId,
    voter: Option<Voter>,
    disabled: Option<VotingDisabled>,
    /// Nodes by their numbers as voters, those included that the newest state
    /// no longer lists.
    numbers: BTreeMap<NodeId, VoterId>,
}

impl Voting {
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            voter: None,
            disabled: None,
            numbers: BTreeMap::new(),
        }
    }

    pub fn voter(&self) -> Option<&Voter> {
        self.voter.as_ref()
    }

    pub fn voter_mut(&mut self) -> Option<&mut Voter> {
        self.voter.as_mut()
    }

    pub fn standing(&self) -> Option<Standing> {
        self.voter.as_ref().map(|voter| voter.engine.standing())
    }

    pub fn is_disabled(&self) -> bool {
        self.disabled.is_some()
    }

    pub fn numbers(&self) -> &BTreeMap<NodeId, VoterId> {
        &self.numbers
    }

    pub fn number_of(&self, node: &NodeId) -> Option<VoterId> {
        self.numbers.get(node).copied()
    }

    pub fn node(&self, id: VoterId) -> Option<NodeId> {
        let mut numbers = self.numbers.iter();
        numbers.find(|(_, of)| **of == id).map(|(node, _)| *node)
    }

    /// Learns the numbers of the voters of `state`.
    pub fn learn(&mut self, state: &State) {
        let voters = state.voters.iter();
        self.numbers.extend(voters.map(|(node, id)| (*node, *id)));
    }

    /// Who leads, as far as this node's part in the log tells.
    pub fn leader(&self) -> Option<NodeId> {
        self.node(self.standing()?.leader?)
    }

    /// Whom to ask instead of this node.
    pub fn elsewhere(&self) -> Option<NodeId> {
        self.leader().filter(|leader| *leader != self.me)
    }

    /// Whether nobody else votes or waits to.
    pub fn is_alone(&self, state: &State) -> bool {
        let alone = |voter: &Voter| voter.engine.is_alone();
        self.voter.as_ref().is_none_or(alone) && state.voters.len() <= 1
    }

    pub fn status(&self, unknown_rules: Option<u32>) -> RaftStatus {
        let standing = self.standing();
        RaftStatus {
            leader: self.leader(),
            leads: standing.is_some_and(|standing| standing.leads),
            term: standing.map_or(0, |standing| standing.term),
            votes: standing.is_some(),
            disabled: self.disabled.clone(),
            unknown_rules,
        }
    }

    /// How far the voters of `state` are, as far as this node's part tells.
    pub fn progress(&self, state: &State) -> RaftProgress {
        let Some(voter) = &self.voter else {
            return RaftProgress::default();
        };
        let standing = voter.engine.standing();
        let seen = |id: u64| {
            let peer = voter.engine.peer(id).filter(|_| standing.leads)?;
            Some(VoterSeen {
                behind: standing.last.saturating_sub(peer.matched),
                active: peer.active || id == voter.engine.id(),
            })
        };
        let voters = state.voters.iter();
        RaftProgress {
            leader: self.leader(),
            term: standing.term,
            voters: voters
                .filter_map(|(node, id)| Some((*node, seen(*id)?)))
                .collect(),
        }
    }

    /// Votes if the newest state makes this node a CA node, and no longer if it
    /// doesn't: what that means for its log.
    pub fn follow(&mut self, state: &State) -> LogFollows {
        let Some(id) = state.voters.get(&self.me).copied() else {
            // Until the roster is without it, it still votes.
            let took_part = self.voter.is_some() || self.disabled.is_some();
            if state.roster.contains(&self.me) || !took_part {
                return LogFollows::AsItIs;
            }
            tracing::info!("this node is no CA node any more");
            (self.voter, self.disabled) = (None, None);
            return LogFollows::Remove;
        };
        // Of another time as a CA node: it is a new voter since.
        self.voter.take_if(|voter| voter.engine.id() != id);
        if self.voter.is_none() && self.disabled.is_none() {
            LogFollows::Open(id)
        } else {
            LogFollows::AsItIs
        }
    }

    /// Votes by what its log holds.
    pub fn start(&mut self, id: VoterId, saved: Saved, now: Mono) {
        match Engine::new(id, saved) {
            Ok(engine) => self.voter = Some(Voter::new(engine, now)),
            Err(error) => {
                let why = format!("raft.log can't be: {error}");
                self.disable(VotingDisabled::Damaged(why));
            }
        }
    }

    /// Votes no more until it is another voter.
    pub fn disable(&mut self, why: VotingDisabled) {
        tracing::error!("{why}");
        (self.voter, self.disabled) = (None, Some(why));
    }

    /// Nothing of the log counts any more.
    pub fn leave(&mut self) {
        *self = Self::new(self.me);
    }

    /// Votes no more, as its disk failed.
    pub fn stop(&mut self) {
        self.voter = None;
    }

    pub fn set_may_lead(&mut self, may_lead: bool) {
        if let Some(voter) = &mut self.voter {
            voter.engine.set_may_lead(may_lead);
        }
    }

    /// Takes a voter's message in. `latest_ms` is as far as ledger time can have
    /// come: a stamp that goes no further is right, whatever this machine's
    /// clock says. Of two voters one in 1970 would else stop both.
    pub fn hear(
        &mut self,
        from: NodeId,
        message: Message,
        index: &BatchIndex,
        wall_ms: u64,
        latest_ms: u64,
    ) {
        // A removed node may never have heard of it: what it says is dropped,
        // and the ledger tells it.
        if self.numbers.get(&from) != Some(&message.from) {
            return;
        }
        let Some(voter) = &mut self.voter else { return };
        if let Some(ahead_ms) = ahead_of_time(&message, wall_ms, latest_ms) {
            tracing::warn!(
                leader = ?from,
                ahead_s = ahead_ms / 1000,
                "a batch is stamped too far ahead of this machine's clock; it is not accepted"
            );
            return;
        }
        if let Body::Snapshot(base) = &message.body {
            // The leader says it again until this node's ledger, which it
            // fetches as any other, is so far.
            let there = index.hash_at(base.position.index);
            if base.position.index > index.position().index || there != Some(base.position.hash) {
                return;
            }
        }
        match voter.engine.step(message) {
            Ok(()) | Err(Rejected::NotLeader) => {}
            Err(Rejected::Ahead) => tracing::error!(
                peer = ?from,
                "the leader counts on entries that this node's log doesn't hold: its disk lost \
                 them; have an admin demote and promote this node"
            ),
            Err(error) => tracing::warn!(peer = ?from, %error, "a voter's message was dropped"),
        }
    }

    /// The steps that make the log's voters those of `state`, by number.
    pub fn steps(&self, state: &State) -> Vec<Change> {
        let Some(voter) = &self.voter else {
            return Vec::new();
        };
        let conf = voter.engine.conf();
        let wanted: BTreeSet<VoterId> = state
            .roster
            .iter()
            .filter_map(|node| self.number_of(node))
            .collect();
        let waiting = state.waiting();
        let waits = |id: &VoterId| waiting.iter().any(|node| self.number_of(node) == Some(*id));
        let added = wanted.difference(&conf.voters).map(|id| Change::Voter(*id));
        let gone = conf.voters.difference(&wanted).map(|id| {
            if waits(id) {
                Change::Learner(*id)
            } else {
                Change::Remove(*id)
            }
        });
        added.chain(gone).collect()
    }
}

/// What this node's disk says of its log.
#[derive(Debug)]
pub enum FoundLog {
    /// There is none, or that of another time as a CA node.
    Nothing,
    /// What it holds.
    Saved(Saved),
    /// Why it can't be used.
    Damaged(String),
}

/// Where the ledger is when a log is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub id: VoterId,
    /// Whether the roster has this node.
    pub is_in_roster: bool,
    /// Whether the roster has nobody else.
    pub is_alone: bool,
    /// Where the newest state is.
    pub position: Position,
    /// After which batch the ledger's file begins.
    pub base: u64,
    /// The newest batch in it.
    pub durable: u64,
    /// Whether it is noted that this voter's ledger was damaged, and nothing
    /// has made up for that.
    pub is_noted_gone: bool,
}

impl Place {
    /// Whether [`Place::is_noted_gone`] is worth asking for.
    pub fn may_be_gone(&self, found: &FoundLog) -> bool {
        self.is_alone && !matches!(found, FoundLog::Saved(_))
    }
}

/// This node's part in deciding.
#[derive(Debug)]
pub enum Part {
    /// It votes by what its log holds.
    Votes(Saved),
    /// It votes by a log that is to be written first: nothing can have been
    /// promised by one who only waits, or who is the only voter.
    VotesAnew(Saved),
    /// It will vote once its ledger reaches further.
    Later,
    /// It won't.
    Disabled(VotingDisabled),
}

/// What follows from the log that was found.
pub fn part(found: FoundLog, place: &Place) -> Part {
    let (saved, is_new) = match found {
        FoundLog::Saved(saved) => (saved, false),
        FoundLog::Nothing if place.is_in_roster && !place.is_alone => {
            return Part::Disabled(VotingDisabled::Missing);
        }
        FoundLog::Damaged(why) if !place.is_alone => {
            return Part::Disabled(VotingDisabled::Damaged(why));
        }
        _ if place.is_alone && place.is_noted_gone => {
            return Part::Disabled(VotingDisabled::LostAlone);
        }
        FoundLog::Nothing => (first_log(place), true),
        FoundLog::Damaged(error) => {
            tracing::error!(%error, "this node decides alone: its log starts anew from its ledger");
            (first_log(place), true)
        }
    };
    let needed = saved.base.position.index;
    if needed < place.base {
        // The ledger was fetched anew from a later state: what of the log was
        // applied to it can't be told.
        return Part::Disabled(if place.is_alone {
            VotingDisabled::LostAlone
        } else {
            VotingDisabled::Lost
        });
    }
    if needed > place.durable {
        tracing::warn!(
            needed,
            held = place.durable,
            "the ledger's file lost what it held; taking it from peers before voting again"
        );
        return Part::Later;
    }
    if is_new {
        Part::VotesAnew(saved)
    } else {
        Part::Votes(saved)
    }
}

/// A log without entries: that of the only voter starts where its ledger is,
/// and the leader tells any other where it starts.
fn first_log(place: &Place) -> Saved {
    let (base, hard) = if place.is_alone {
        // Beyond everything that a lost log can have had: others may hold
        // entries of it.
        let base = 1 + (place.position.index << 16);
        let hard = Hard {
            term: 1,
            vote: 0,
            commit: base,
        };
        (base, hard)
    } else {
        (0, Hard::default())
    };
    Saved {
        base: Base {
            index: base,
            term: u64::from(place.is_alone),
            conf: if place.is_alone {
                Conf::sole(place.id)
            } else {
                Conf::default()
            },
            position: place.position,
        },
        hard,
        entries: Vec::new(),
    }
}

/// A batch as an entry carries it; none when it isn't one.
pub fn read_batch(bytes: &[u8]) -> Option<Batch> {
    let mut batch: Batch = codec::decode(bytes, limits::RAFT_ENTRY_BYTES).ok()?;
    // Signatures come later, each from its own node.
    batch.proof.clear();
    Some(batch)
}

/// How much the latest stamp among a message's batches is ahead of this node's
/// clock, in milliseconds, where that is more than a leader may be and ledger
/// time can't have come to it (`latest_ms`) either.
fn ahead_of_time(message: &Message, wall_ms: u64, latest_ms: u64) -> Option<u64> {
    let Body::Append { entries, .. } = &message.body else {
        return None;
    };
    let stamps = entries.iter().filter_map(|entry| {
        let batch = match &entry.payload {
            Payload::Data(data) => read_batch(data)?,
            Payload::Roster { context, .. } => read_batch(context)?,
            Payload::Empty => return None,
        };
        Some(batch.read_header().ok()?.stamp_ms)
    });
    let latest = stamps.max()?;
    let most = latest_ms.max(wall_ms.saturating_add(stamp::SKEW_MS));
    (latest > most).then(|| latest - wall_ms)
}
