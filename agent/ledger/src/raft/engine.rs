//! One voter.

#![allow(missing_docs, reason = "the names say it")]

use std::collections::BTreeMap;

use innermesh_proto::{codec, crypto::Hash, ledger::Position, limits};
use raft::{
    Config, GetEntriesContext, ProgressState, RawNode, ReadOnlyOption, SnapshotStatus, StateRole,
};

use super::{
    check::{self, Own, Rejected},
    convert,
    message::{Base, Change, Conf, Entry, Hard, Message, VoterId},
    store::{Saved, Store},
};

/// Ticks between heartbeats.
const HEARTBEAT: usize = 5;
/// Ticks without a leader after which the first of the voters stands; it is
/// also how long a voter stays true to the leader that it last heard.
const ELECTION: usize = 15;
/// Ticks by which each further one waits longer, so that votes don't split.
const RANK: usize = 4;
/// No voter waits so long.
const LONGEST: usize = 35;
/// Ticks after which a snapshot that wasn't taken is sent again.
const SNAPSHOT: u32 = 10;

/// A voter's part in Raft. Its caller keeps time, sends and writes.
pub struct Engine {
    node: RawNode<Store>,
    id: VoterId,
    may_lead: bool,
    /// How long each voter that was sent a snapshot hasn't taken it, in ticks.
    snapshots: BTreeMap<VoterId, u32>,
    /// What [`Engine::ready`] gave and [`Engine::written`] is to end.
    ready: Option<raft::Ready>,
}

/// What is to be done now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// To send at once: they acknowledge nothing.
    pub send: Vec<Message>,
    /// The log starts anew from here, instead of what is on disk.
    pub base: Option<Base>,
    /// To write and sync, if any.
    pub write: Option<(Hard, Vec<Entry>)>,
}

/// What follows from it, once it is on disk.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub send: Vec<Message>,
    /// The log started anew from here: what was applied up to it no longer
    /// comes one by one.
    pub restored: Option<Base>,
    /// To apply, in this order.
    pub committed: Vec<Entry>,
}

/// Where this voter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The newest term known.
    pub term: u64,
    /// Who leads, if that is known.
    pub leader: Option<VoterId>,
    /// Whether this voter does.
    pub leads: bool,
    /// Whether it leads and has applied an entry of its own term: it knows
    /// everything that was ever committed.
    pub established: bool,
    /// The last entry.
    pub last: u64,
    /// The last entry that is applied.
    pub applied: u64,
    /// To whom it is handing over.
    pub transferring: Option<VoterId>,
}

/// What the leader knows of another voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The last entry that it is known to have.
    pub matched: u64,
    /// Whether it was heard of lately.
    pub active: bool,
}

/// A proposal that came to nothing: this voter doesn't lead, or is handing
/// over, or another change of the voters is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proposal was dropped")]
pub struct Dropped;

impl Engine {
    /// The voter `id`, from what its log holds: that must start with where it
    /// was applied, [`Saved::base`].
    ///
    /// # Errors
    /// [`Rejected::Conf`] or [`Rejected::Entries`] when that can't be.
    pub fn new(id: VoterId, saved: Saved) -> Result<Self, Rejected> {
        let base = &saved.base;
        if base.index > 0 || base.conf != Conf::default() {
            check::check_conf(&base.conf)?;
        }
        check::check_entries(base.index, base.term, limits::RAFT_NUMBER, &saved.entries)?;
        let config = Config {
            id,
            election_tick: ELECTION,
            heartbeat_tick: HEARTBEAT,
            min_election_tick: ELECTION,
            max_election_tick: LONGEST,
            applied: base.index,
            max_size_per_msg: limits::RAFT_APPEND_BYTES as u64,
            max_inflight_msgs: limits::RAFT_INFLIGHT,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, Store::new(saved), &logger);
        let mut engine = Self {
            node: node.map_err(|_| Rejected::Conf)?,
            id,
            may_lead: true,
            snapshots: BTreeMap::new(),
            ready: None,
        };
        engine.set_timeout();
        Ok(engine)
    }

    pub fn id(&self) -> VoterId {
        self.id
    }

    /// A voter that may not lead votes and never stands.
    pub fn set_may_lead(&mut self, may_lead: bool) {
        self.may_lead = may_lead;
        self.set_timeout();
    }

    /// A tenth of a second has passed.
    pub fn tick(&mut self) {
        let raft = &self.node.raft;
        let last = raft.election_elapsed + 1 >= LONGEST - 1;
        if self.may_lead || raft.state == StateRole::Leader || !last {
            self.node.tick();
        }
        self.set_timeout();
        self.repeat_snapshots();
        self.leave_joint();
    }

    /// Stands at once where nobody else votes.
    pub fn lead_alone(&mut self) {
        if self.may_lead && self.is_alone() && self.node.raft.state != StateRole::Leader {
            // It can't fail: at worst this voter stays what it is.
            let _ = self.node.campaign();
            self.set_timeout();
        }
    }

    /// Whether nobody else votes or waits to: then there is nothing to do
    /// between proposals.
    pub fn is_alone(&self) -> bool {
        let conf = self.conf();
        conf == Conf::sole(self.id)
    }

    /// Takes a message in.
    ///
    /// # Errors
    /// [`Rejected`] when no correct voter says that; nothing was changed.
    pub fn step(&mut self, message: Message) -> Result<(), Rejected> {
        let raft = &self.node.raft;
        let own = Own {
            id: self.id,
            term: raft.term,
            last: raft.raft_log.last_index(),
            leader: raft.leader_id,
            leads: raft.state == StateRole::Leader,
        };
        check::check(&message, &own)?;
        if !self.may_lead && message.body == super::message::Body::TimeoutNow {
            return Ok(());
        }
        // What the library still refuses (an answer of a voter that it doesn't
        // know yet) is dropped as if it had been lost.
        let _ = self.node.step(convert::message_in(message));
        self.set_timeout();
        Ok(())
    }

    /// Has the leader append an entry; gives its index.
    ///
    /// # Errors
    /// [`Dropped`]; also afterwards the entry may be lost.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<u64, Dropped> {
        if self.node.raft.state != StateRole::Leader {
            return Err(Dropped);
        }
        self.node.propose(Vec::new(), data).map_err(|_| Dropped)?;
        Ok(self.node.raft.raft_log.last_index())
    }

    /// Has the leader append an entry that says nothing; gives its index. Once
    /// that is applied, and this voter leads in the same term still, nobody can
    /// have led after it when this was called: what it knew then was all that
    /// was ever decided (Raft, section 6.4). Library and paper ask by heartbeats
    /// that carry a context, which earlier versions' don't.
    ///
    /// # Errors
    /// [`Dropped`]; also afterwards the entry may be lost.
    pub fn confirm(&mut self) -> Result<u64, Dropped> {
        self.propose(Vec::new())
    }

    /// Whether nobody else votes: then whatever it knows is all there is.
    pub fn votes_alone(&self) -> bool {
        let conf = self.conf();
        !conf.is_joint() && conf.voters.len() == 1 && conf.voters.contains(&self.id)
    }

    /// Has the leader append a change of the voters; gives its index. With more
    /// than one step it goes through a joint configuration, which ends by
    /// itself.
    ///
    /// # Errors
    /// [`Dropped`]; also afterwards the change may be lost: propose it again
    /// until it is seen.
    pub fn propose_roster(&mut self, changes: &[Change], context: Vec<u8>) -> Result<u64, Dropped> {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || raft.has_pending_conf() || self.conf().is_joint() {
            return Err(Dropped);
        }
        let change = convert::change_v2(changes);
        let proposed = self.node.propose_conf_change(context, change);
        proposed.map_err(|_| Dropped)?;
        Ok(self.node.raft.raft_log.last_index())
    }

    /// Has the leader hand over to `to`: it takes effect when that voter leads,
    /// or not at all.
    pub fn transfer_leader(&mut self, to: VoterId) {
        if self.node.raft.state == StateRole::Leader {
            self.node.transfer_leader(to);
        }
    }

    /// Leads no more: the others find another after a while.
    pub fn step_down(&mut self) {
        let term = self.node.raft.term;
        if self.node.raft.state == StateRole::Leader {
            self.node.raft.become_follower(term, 0);
            self.set_timeout();
        }
    }

    /// What is to be done now, if anything.
    pub fn ready(&mut self) -> Option<Work> {
        if self.ready.is_some() || !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        let base = if ready.snapshot().is_empty() {
            None
        } else {
            convert::snapshot_out(ready.snapshot())
        };
        let write = ready.must_sync().then(|| {
            let hard = self.node.raft.hard_state();
            let entries = ready.entries().iter().map(convert::entry_out);
            (convert::hard_out(&hard), entries.collect())
        });
        let send = out(ready.take_messages());
        self.ready = Some(ready);
        Some(Work { send, base, write })
    }

    /// [`Work::write`] is on disk.
    pub fn written(&mut self) -> Written {
        let Some(mut ready) = self.ready.take() else {
            return Written::default();
        };
        let restored = if ready.snapshot().is_empty() {
            None
        } else {
            convert::snapshot_out(ready.snapshot())
        };
        let entries = ready.take_entries();
        let store = self.node.mut_store();
        if let Some(base) = &restored {
            store.restore(base.clone());
        }
        store.append(entries);
        let mut send = out(ready.take_persisted_messages());
        let mut committed = ready.take_committed_entries();
        let mut light = self.node.advance_append(ready);
        send.extend(out(light.take_messages()));
        committed.extend(light.take_committed_entries());
        let hard = self.node.raft.hard_state();
        self.node.mut_store().set_hard(hard);
        if let Some(base) = &restored {
            self.node.advance_apply_to(base.index);
        }
        Written {
            send,
            restored,
            committed: committed.iter().map(convert::entry_out).collect(),
        }
    }

    /// Puts a committed change of the voters into force; `false` when it can't
    /// be, at every voter alike, and nothing was changed.
    pub fn apply_roster(&mut self, changes: &[Change]) -> bool {
        let change = convert::change_v2(changes);
        let applied = self.node.apply_conf_change(&change).is_ok();
        self.set_timeout();
        applied
    }

    /// The committed entry at `index` is applied, or passed over; the ledger is
    /// at `position` after it.
    pub fn applied(&mut self, index: u64, position: Position) {
        let conf = self.conf();
        self.node.mut_store().set_applied(index, conf, position);
        self.node.advance_apply_to(index);
        self.leave_joint();
    }

    /// What the log holds and this voter doesn't know to be committed.
    pub fn uncommitted(&self) -> Vec<Entry> {
        let log = &self.node.raft.raft_log;
        let rest = (log.committed + 1, log.last_index() + 1);
        let entries = if rest.0 < rest.1 {
            log.slice(rest.0, rest.1, None, GetEntriesContext::empty(false))
        } else {
            return Vec::new();
        };
        let entries = entries.unwrap_or_default();
        entries.iter().map(convert::entry_out).collect()
    }

    /// The entry at `index`, which the log holds, is committed: its voters have
    /// said so outside the log.
    pub fn is_committed(&mut self, index: u64) {
        let log = &mut self.node.raft.raft_log;
        if index <= log.last_index() {
            log.commit_to(index);
        }
    }

    /// Forgets what is applied, if the ledger is proved and on disk as far as
    /// that reaches, which is to `durable`; gives what the file holds then.
    pub fn compact(&mut self, durable: u64) -> Option<Saved> {
        let store = self.node.mut_store();
        let applied = store.applied();
        if applied.index <= store.base().index || applied.position.index > durable {
            return None;
        }
        store.compact();
        Some(store.saved())
    }

    /// Whether the log is long enough to be compacted.
    pub fn is_long(&self) -> bool {
        let (entries, bytes) = self.node.store().size();
        entries >= limits::RAFT_LOG_ENTRIES || bytes >= limits::RAFT_LOG_BYTES
    }

    /// Where the log starts.
    pub fn base(&self) -> &Base {
        self.node.store().base()
    }

    /// Who votes, by what is applied.
    pub fn conf(&self) -> Conf {
        convert::conf_out(&self.node.raft.prs().conf().to_conf_state())
    }

    /// Where this voter stands.
    pub fn standing(&self) -> Standing {
        let raft = &self.node.raft;
        let leads = raft.state == StateRole::Leader;
        Standing {
            term: raft.term,
            leader: (raft.leader_id != 0).then_some(raft.leader_id),
            leads,
            established: leads && raft.apply_to_current_term(),
            last: raft.raft_log.last_index(),
            applied: raft.raft_log.applied,
            transferring: raft.lead_transferee,
        }
    }

    /// What the leader knows of `id`.
    pub fn peer(&self, id: VoterId) -> Option<Peer> {
        let progress = self.node.raft.prs().get(id)?;
        Some(Peer {
            matched: progress.matched,
            active: progress.recent_active,
        })
    }

    /// The library draws its timeout at random whenever its role changes; ours
    /// depends on voter and term alone.
    fn set_timeout(&mut self) {
        let term = self.node.raft.term;
        let place = |id: VoterId| Hash::of(&codec::encode(&(term, id)));
        let mine = place(self.id);
        let voters = self.conf().all_voters();
        let rank = voters.into_iter().filter(|id| place(*id) < mine).count();
        let timeout = if self.may_lead {
            (ELECTION + RANK * rank).min(LONGEST - 1)
        } else {
            LONGEST - 1
        };
        self.node.raft.set_randomized_election_timeout(timeout);
    }

    /// A snapshot that was lost, or that its receiver's ledger wasn't far
    /// enough for, is sent again: the library waits for it for ever.
    fn repeat_snapshots(&mut self) {
        let waiting: Vec<VoterId> = match self.node.raft.state {
            StateRole::Leader => {
                let all = self.node.raft.prs().iter();
                let waits = all.filter(|(_, peer)| peer.state == ProgressState::Snapshot);
                waits.map(|(id, _)| *id).collect()
            }
            _ => Vec::new(),
        };
        self.snapshots.retain(|id, _| waiting.contains(id));
        for id in waiting {
            let ticks = self.snapshots.entry(id).or_default();
            *ticks += 1;
            if *ticks >= SNAPSHOT {
                *ticks = 0;
                self.node.report_snapshot(id, SnapshotStatus::Failure);
            }
        }
    }

    /// The library's leader ends a joint configuration only if it led already
    /// when that began.
    fn leave_joint(&mut self) {
        let raft = &self.node.raft;
        if raft.state == StateRole::Leader && !raft.has_pending_conf() && self.conf().is_joint() {
            // Dropped: the next tick tries again.
            let _ = self
                .node
                .propose_conf_change(Vec::new(), convert::change_v2(&[]));
        }
    }
}

/// In the order of voters, and for each as it was said: the library's own order
/// depends on the history of its tables.
fn out(messages: Vec<raft::eraftpb::Message>) -> Vec<Message> {
    let mut out: Vec<Message> = messages.iter().filter_map(convert::message_out).collect();
    out.sort_by_key(|message| message.to);
    out
}
