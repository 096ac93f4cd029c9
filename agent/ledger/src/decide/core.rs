//! The core: where the subjects meet. What comes in goes to whom it concerns.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use innermesh_ca::Issuer;
use innermesh_host::{Mono, keys::Keys};
use innermesh_proto::{
    certificate::Serial,
    crypto::{Purpose, Sealed, Sign},
    id::NodeId,
    ledger::{Author, Request, Role, State},
    limits,
    message::{Endorse, RaftProgress, Spenders},
};

use super::{
    budget::Budgets,
    error::ProposeError,
    issuers::{Issuers, ListedIssuers},
    outbox::{Answer, Outbox, Ticket, Transmit},
    proofs::{Proofs, Proved},
    proposed::Proposed,
    queue::{Lane, Queue},
    refusals::Refusals,
    room::Room,
    roster,
    rotation::Rotation,
    status::{RaftStatus, VotingDisabled},
    time::{LedgerTime, Now},
    versions::{Builds, Versions},
    voting::{LogFollows, Part, Place, Voting},
};
use crate::{
    index::BatchIndex,
    raft::{Entry, Hard, Message, Saved, VoterId},
};

/// A request for the next batch.
pub struct Asked {
    pub request: Sealed,
    /// Who delivered it.
    pub by: Lane,
    /// Whether a refusal is written down.
    pub is_recorded: bool,
    pub ticket: Ticket,
}

/// What the pump is to write next, and what it is to call then.
pub enum Step {
    /// At the end of the voters' log, synced; then [`Core::handle_log_written`].
    AppendLog(Hard, Vec<Entry>),
    /// In place of the voters' log, synced; then the same.
    RewriteLog(Saved),
    /// At the end of the ledger's file, synced and listed in the index; then
    /// [`Core::handle_stored`].
    Store(Vec<Proved>),
}

/// What this node decides.
pub struct Core {
    pub(super) me: NodeId,
    pub(super) key: Arc<dyn Sign>,
    pub(super) keys: Arc<dyn Keys>,
    /// What is on disk.
    pub(super) index: Arc<BatchIndex>,
    /// After so many bytes of batches the next header has the state's hash.
    pub(super) most_unhashed: u64,
    /// The newest proved one.
    pub(super) state: Arc<State>,
    pub(super) time: LedgerTime,
    pub(super) voting: Voting,
    pub(super) proofs: Proofs,
    pub(super) proposed: Proposed,
    pub(super) waiting: Queue<Asked>,
    pub(super) refusals: Refusals,
    pub(super) budgets: Budgets,
    pub(super) versions: Versions,
    pub(super) issuers: Issuers,
    pub(super) out: Outbox,
    rotation: Rotation,
    room: Room,
}

impl Core {
    /// From the newest state that is on disk, of which `index` knows.
    pub fn new(
        key: Arc<dyn Sign>,
        keys: Arc<dyn Keys>,
        index: Arc<BatchIndex>,
        most_unhashed: u64,
        state: Arc<State>,
        now: Now,
    ) -> Self {
        let me = key.public().node_id();
        Self {
            me,
            key,
            keys,
            index,
            most_unhashed,
            time: LedgerTime::new(state.stamp_ms, now),
            state,
            voting: Voting::new(me),
            proofs: Proofs::default(),
            proposed: Proposed::default(),
            waiting: Queue::default(),
            refusals: Refusals::default(),
            budgets: Budgets::default(),
            versions: Versions::new(),
            issuers: Issuers::default(),
            out: Outbox::default(),
            rotation: Rotation::default(),
            room: Room::default(),
        }
    }

    /// The newest proved state.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// When the newest stamp was first seen here.
    pub fn stamp_seen(&self) -> Mono {
        self.time.seen()
    }

    /// The state after everything that the voters' log holds.
    pub(super) fn tip(&self) -> Arc<State> {
        self.proofs.newest().unwrap_or(&self.state).clone()
    }
}

/// What it is told.
impl Core {
    pub fn set_peer_clocks(&mut self, clocks: Vec<u64>) {
        self.time.set_peer_clocks(clocks);
    }

    pub fn set_builds(&mut self, builds: Builds) {
        self.versions.set_builds(builds);
    }

    pub fn set_known_rules(&mut self, rules: u32) {
        self.versions.set_known(rules);
    }

    /// How long one node leads, of ledger time.
    pub fn set_term(&mut self, term: Duration) {
        self.rotation.set_term(term);
    }

    /// Notes how many bytes are free on the disk.
    pub fn note_free(&mut self, free: u64, now: Now) {
        self.room.note_free(free, now.mono);
    }

    /// Of the issuers that are listed these can be signed with.
    pub fn set_issuers(&mut self, listed: ListedIssuers, usable: Vec<Issuer>) {
        self.issuers.set(listed, usable);
    }

    /// Has a request wait for the next batch, if this node decides it.
    pub fn handle_request(&mut self, asked: Asked, now: Now) {
        if !self.will_decide(now) {
            let leader = self.voting.elsewhere();
            self.out.send_elsewhere([asked.ticket], leader);
        } else if !self.room.is_enough_for(&asked.request) {
            self.out.answer(asked.ticket, Err(ProposeError::Full));
        } else if is_large(&asked.request) && !self.may_wait(&asked.request) {
            self.out.answer(asked.ticket, Err(ProposeError::Busy));
        } else if let Some(left_out) = self.waiting.push(asked.by, asked) {
            self.out.answer(left_out.ticket, Err(ProposeError::Busy));
        }
    }

    /// Whether a request that is larger than others may wait: few of them do, and
    /// each is an admin's, which isn't only stated.
    fn may_wait(&self, request: &Sealed) -> bool {
        let others = self.waiting.iter();
        let others = others.filter(|asked| is_large(&asked.request)).count();
        let author = Request::peek(request).ok().and_then(|it| match it.author {
            Author::Node(node) => self.state.members.get(&node),
            Author::Token(_) => None,
        });
        others < limits::POLICIES_WAITING
            && author.is_some_and(|author| {
                let mesh = &self.state.mesh;
                author.roles.contains(&Role::Admin)
                    && request.is_by(&*self.keys, &author.key, Purpose::Request, mesh)
            })
    }

    /// Takes a voter's message in.
    pub fn handle_raft(&mut self, from: NodeId, message: Message, now: Now) {
        let latest_ms = self.time.latest(self.state.stamp_ms, now);
        self.voting
            .hear(from, message, &self.index, now.wall_ms, latest_ms);
    }

    /// Takes a CA node's signature in. Gives the index of a batch that is on
    /// disk and that `from` wants, proved, in return.
    pub fn handle_endorsement(&mut self, from: NodeId, endorse: &Endorse) -> Option<u64> {
        let is_voter = self.voting.number_of(&from).is_some();
        let index = endorse.index;
        if index <= self.index.position().index {
            return (endorse.wanting && is_voter).then_some(index);
        }
        if self.proofs.has(index) {
            let told = self.proofs.hear(from, endorse, self.me, &*self.keys);
            self.out.send(told);
        } else if is_voter {
            let tip = self.tip().position.index;
            self.proofs.keep_early(from, endorse, tip);
        }
        None
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let voter = self.voting.voter_mut();
        let Some(ticks) = voter.and_then(|voter| voter.tick(now.mono)) else {
            return;
        };
        self.out.send(self.proofs.ask_again(ticks, self.me));
        if self.rotation.stands_again(now.mono) {
            self.tell_may_lead(now);
        }
        self.leave_stuck(ticks, now);
        if Rotation::looks(ticks) {
            self.tell_may_lead(now);
            if self.may_draft(now) {
                roster::sync_learners(&mut self.voting, &self.state);
            }
            self.hand_over(now);
        }
    }

    /// This node's state is older than what it has done: its log lacks what it
    /// promised, and it votes no more, also after a restart. One that decides
    /// alone promised nobody anything. Whether its log is to be removed.
    pub fn handle_rolled_back(&mut self) -> bool {
        let roster = &self.state.roster;
        if !roster.contains(&self.me) || roster.len() == 1 || self.voting.is_disabled() {
            return false;
        }
        self.give_up();
        self.voting.disable(VotingDisabled::RolledBack);
        true
    }

    /// The newest state is another: what that means for this node's log.
    pub fn follow_roster(&mut self) -> LogFollows {
        let tip = self.tip();
        self.voting.learn(&self.state);
        self.voting.learn(&tip);
        self.voting.follow(&self.state)
    }

    /// This node's log was looked at, as that of voter `id`.
    pub fn handle_log_opened(&mut self, id: VoterId, part: Part, now: Now) {
        match part {
            Part::Votes(saved) | Part::VotesAnew(saved) => {
                self.voting.start(id, saved, now.mono);
            }
            Part::Later => {}
            Part::Disabled(why) => self.voting.disable(why),
        }
    }

    /// The disk failed: nothing is promised any more.
    pub fn stop(&mut self) {
        self.voting.stop();
    }
}

/// What it is asked.
impl Core {
    /// When there is something to do without being told.
    pub fn poll_timeout(&self, now: Now) -> Option<Mono> {
        let voter = self.voting.voter()?;
        let is_idle = self.voting.is_alone(&self.state) && self.proofs.is_empty();
        let tick = (!is_idle).then_some(voter.due());
        let beat = self.may_draft(now).then(|| self.beat());
        tick.into_iter().chain(beat).min()
    }

    /// When this node, leading, is to write an empty batch.
    pub(super) fn beat(&self) -> Mono {
        self.time.beat(self.state.awaits_batch())
    }

    /// What is to be sent, at once.
    pub fn poll_transmit(&mut self) -> Vec<Transmit> {
        self.out.take_messages()
    }

    /// What those who asked are to be told.
    pub fn poll_answers(&mut self) -> Vec<(Ticket, Answer)> {
        self.out.take_answers()
    }

    /// The issuers that the newest state lists for this node, where they are
    /// others than before: [`Core::set_issuers`] says which can be used.
    pub fn poll_issuers(&self) -> Option<ListedIssuers> {
        self.issuers.changed(&self.state, self.me)
    }

    /// Whether the disk is to be looked at: [`Core::note_free`] says how much is
    /// free.
    pub fn wants_free(&self, now: Now) -> bool {
        self.room.is_look_due(now.mono)
    }

    pub fn is_voter(&self) -> bool {
        self.voting.voter().is_some()
    }

    /// Whether the newest state has this node as a CA node.
    pub fn is_ca(&self) -> bool {
        self.state.voters.contains_key(&self.me)
    }

    /// Up to which batch the voters' log is no longer needed.
    pub fn log_base(&self) -> Option<u64> {
        let voter = self.voting.voter()?;
        Some(voter.engine.base().position.index)
    }

    /// Where the ledger is as the log of voter `id` is opened.
    pub fn place(&self, id: VoterId) -> Place {
        let is_in_roster = self.state.roster.contains(&self.me);
        Place {
            id,
            is_in_roster,
            is_alone: is_in_roster && self.state.roster.len() == 1,
            position: self.state.position,
            base: self.index.base(),
            durable: self.index.position().index,
            is_noted_gone: false,
        }
    }

    pub fn status(&self) -> RaftStatus {
        self.voting.status(self.versions.beyond())
    }

    /// Whose messages of the voters' log are taken in: whoever has, or had
    /// lately, a number in it. Others' aren't even read.
    pub fn heard(&self) -> Option<&BTreeMap<NodeId, VoterId>> {
        self.voting.voter().map(|_| self.voting.numbers())
    }

    /// How far the voters are.
    pub fn progress(&self) -> RaftProgress {
        self.voting.progress(&self.state)
    }

    /// Whose requests were turned away lately.
    pub fn spenders(&self, now: Now) -> Spenders {
        if !self.will_decide(now) {
            return Spenders::default();
        }
        let spent = self.budgets.spent(now.mono);
        let ms = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Spenders {
            leads: true,
            nodes: spent
                .into_iter()
                .map(|(node, wait)| (node, ms(wait)))
                .collect(),
        }
    }

    /// Serials of the issuers that can be signed with.
    pub fn issuers(&self) -> Vec<Serial> {
        self.issuers.serials()
    }

    /// Whether requests that are asked of this node now will be decided by it.
    pub fn will_decide(&self, now: Now) -> bool {
        self.voting
            .standing()
            .is_some_and(|standing| standing.leads)
            && self.may_lead(now)
    }
}

/// Who leads.
impl Core {
    /// Whether this node may propose a batch: it leads, has applied an entry of
    /// its own term and with it all before, and nothing is on its way.
    pub(super) fn may_draft(&self, now: Now) -> bool {
        let is_free = self.proposed.is_none() && self.proofs.is_empty();
        let standing = self.voting.standing();
        is_free
            && self.will_decide(now)
            && standing.is_some_and(|own| own.established && own.transferring.is_none())
            && self.state.roster.contains(&self.me)
    }

    fn may_lead(&self, now: Now) -> bool {
        let now_ms = self.time.estimate(self.state.stamp_ms, now);
        self.issuers.may_lead(&self.state, self.me, now_ms)
    }

    /// Has the engine know it.
    pub fn tell_may_lead(&mut self, now: Now) {
        let able = !self.rotation.abstains() && self.may_lead(now);
        self.voting.set_may_lead(able);
    }

    /// Hands leadership to whose turn it is: at the end of a term of ledger
    /// time, when this node can't or may not go on, or when it is to leave.
    fn hand_over(&mut self, now: Now) {
        if !self.rotation.is_free(&self.voting, now.mono) {
            return;
        }
        let now_ms = self.time.estimate(self.state.stamp_ms, now);
        let order = self.rotation.order(&self.state, now_ms);
        let wanted = self.state.wanted_roster();
        let leaves = wanted.is_some_and(|roster| !roster.contains(&self.me));
        let stays = !leaves && self.may_lead(now) && !self.room.hands_over(now.mono);
        self.rotation
            .hand_over(&mut self.voting, order, self.me, stays);
    }

    /// A leader whose batch the others leave lying, as they do with one that is
    /// stamped too far ahead of their clocks, lets another lead.
    fn leave_stuck(&mut self, ticks: u64, now: Now) {
        let Some(voter) = self.voting.voter_mut() else {
            return;
        };
        let standing = voter.engine.standing();
        let is_stuck = self.proposed.is_stuck(ticks, standing.applied);
        if is_stuck && standing.leads && !voter.engine.is_alone() {
            tracing::warn!(
                "the other CA nodes don't accept this node's batch; is its clock right? Another \
                 is to lead"
            );
            voter.engine.set_may_lead(false);
            voter.engine.step_down();
            self.rotation.abstain(now.mono);
            self.give_up();
        }
    }

    /// Sends those who wait elsewhere.
    pub(super) fn give_up(&mut self) {
        let leader = self.voting.elsewhere();
        let proposed = self.proposed.give_up();
        let waiting = self.waiting.drain().map(|asked| asked.ticket);
        let all = proposed.chain(waiting).chain(self.refusals.give_up());
        self.out.send_elsewhere(all, leader);
    }
}

fn is_large(request: &Sealed) -> bool {
    request.bytes.len() > limits::REQUEST_BYTES
}
