//! From the roster's log to the ledger: what is committed is applied, and what
//! is proved ([`super::proof`]) is written to the ledger's file, shown in views,
//! and answered.

use std::sync::Arc;

use innermesh_proto::{
    crypto::Hash,
    id::NodeId,
    ledger::{Batch, Outcome, Position, State},
    message::{Deciding, VoterSeen},
    rpc::method,
};

use super::{
    Council, ProposeError,
    proof::Unproved,
    raft::{Change, Entry, Message, Payload, Rejected, Work},
    voter::{self, Barred, Start, read_batch},
    writer::{Reply, Writer},
};

/// The batch that this node proposed and those who wait for it.
pub(super) struct Flight {
    /// Where its entry is in the log.
    pub entry: u64,
    pub position: Position,
    pub state: Arc<State>,
    /// Who asked, and what they are to be told once it is proved.
    pub replies: Vec<(Reply, Outcome)>,
    /// Ticks since the start when it was proposed.
    pub since: u64,
}

impl Writer {
    /// The state after everything that the roster's log holds.
    pub fn tip(&self) -> Arc<State> {
        match self.unproved.back() {
            Some(unproved) => unproved.after.clone(),
            None => self.current(),
        }
    }

    /// Takes part in deciding if the newest state makes this node a CA node,
    /// and no longer if it doesn't.
    pub async fn follow_roster(&mut self) -> std::io::Result<()> {
        let state = self.current();
        let tip = self.tip();
        let known = state.voters.iter().chain(&tip.voters);
        self.numbers.extend(known.map(|(node, id)| (*node, *id)));
        let me = self.me();
        self.follow_issuers(&state).await;
        let Some(id) = state.voters.get(&me).copied() else {
            // Until the roster is without it, it still votes.
            if !state.roster.contains(&me) && (self.voter.is_some() || self.barred.is_some()) {
                tracing::info!("this node is no CA node any more");
                (self.voter, self.barred) = (None, None);
                let log = std::path::Path::new(super::raft::LOG);
                self.host.disk.remove(log).await?;
            }
            return Ok(());
        };
        if self
            .voter
            .as_ref()
            .is_some_and(|voter| voter.engine.id() != id)
        {
            self.voter = None;
        }
        if self.voter.is_none() && self.barred.is_none() {
            let disk = &*self.host.disk;
            let now = self.host.clock.now();
            match voter::start(disk, &state, me, id, &self.archive, now).await? {
                Start::Voter(voter) => self.voter = Some(*voter),
                Start::Later => {}
                Start::Barred(why) => {
                    tracing::error!("{why}");
                    self.barred = Some(why);
                }
            }
        }
        self.tell_may_lead();
        Ok(())
    }

    /// Votes no more, also after a restart: its log lacks what it promised. One
    /// that decides alone promised nobody anything.
    pub async fn roll_back(&mut self) -> std::io::Result<()> {
        let state = self.current();
        if !state.roster.contains(&self.me()) || state.roster.len() == 1 || self.barred.is_some() {
            return Ok(());
        }
        let why = Barred::RolledBack;
        tracing::error!("{why}");
        self.give_up();
        (self.voter, self.barred) = (None, Some(why));
        let log = std::path::Path::new(super::raft::LOG);
        self.host.disk.remove(log).await
    }

    /// Whom to ask instead of this node.
    pub fn elsewhere(&self) -> Option<NodeId> {
        self.leader().filter(|leader| *leader != self.me())
    }

    /// Who leads, as far as this node's part in the log tells.
    pub fn leader(&self) -> Option<NodeId> {
        let id = self.voter.as_ref()?.engine.standing().leader?;
        self.node(id)
    }

    pub fn node(&self, id: u64) -> Option<NodeId> {
        let mut numbers = self.numbers.iter();
        numbers.find(|(_, of)| **of == id).map(|(node, _)| *node)
    }

    pub fn tell_council(&self) {
        let standing = self.voter.as_ref().map(|voter| voter.engine.standing());
        let council = Council {
            leader: self.leader(),
            leads: standing.is_some_and(|standing| standing.leads),
            term: standing.map_or(0, |standing| standing.term),
            votes: standing.is_some(),
            barred: self.barred.clone(),
            unknown_rules: self.versions.beyond,
        };
        self.council.send_if_modified(|told| {
            let news = *told != council;
            if news && told.leader != council.leader {
                tracing::info!(leader = ?council.leader, term = council.term, "the CA leader");
            }
            *told = council;
            news
        });
    }

    /// Whose messages of the roster's log are taken in: whoever has, or had
    /// lately, a number in it. Others' aren't even read.
    pub fn tell_heard(&self) {
        self.heard.send_if_modified(|heard| {
            let news = self.voter.is_some() && !heard.iter().eq(self.numbers.keys());
            if news {
                *heard = Arc::new(self.numbers.keys().copied().collect());
            }
            news
        });
    }

    /// How deciding goes, as far as this node's part in it tells.
    pub fn deciding(&self) -> Deciding {
        let Some(voter) = &self.voter else {
            return Deciding::default();
        };
        let standing = voter.engine.standing();
        let seen = |id: u64| {
            let peer = voter.engine.peer(id).filter(|_| standing.leads)?;
            Some(VoterSeen {
                behind: standing.last.saturating_sub(peer.matched),
                active: peer.active || id == voter.engine.id(),
            })
        };
        let voters = &self.current().voters;
        let voters = voters.iter();
        Deciding {
            leader: self.leader(),
            term: standing.term,
            voters: voters
                .filter_map(|(node, id)| Some((*node, seen(*id)?)))
                .collect(),
        }
    }

    /// Takes a voter's message in.
    pub fn hear(&mut self, from: NodeId, message: Message) {
        // A removed node may never have heard of it: what it says is dropped,
        // and the ledger tells it.
        if self.numbers.get(&from) != Some(&message.from) {
            return;
        }
        let wall_ms = self.host.clock.wall_ms();
        // A stamp that goes no further than time did is right, whatever this
        // machine's clock says: of two voters one in 1970 would stop both.
        let went_on_ms = self.current().stamp_ms.saturating_add(self.elapsed_ms());
        let reach = self.archive.position();
        let Some(voter) = &mut self.voter else { return };
        if let Some(ahead_ms) = voter::ahead_of_time(&message, wall_ms, went_on_ms) {
            tracing::warn!(
                leader = ?from,
                ahead_s = ahead_ms / 1000,
                "a batch is stamped too far ahead of this machine's clock; it is not accepted"
            );
            return;
        }
        if let super::raft::Body::Snapshot(base) = &message.body {
            // The leader says it again until this node's ledger, which it
            // fetches as any other, is so far.
            let there = self.archive.hash_at(base.position.index);
            if base.position.index > reach.index || there != Some(base.position.hash) {
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

    /// Sends, writes, applies and proves until there is nothing more to do.
    pub async fn work(&mut self) -> std::io::Result<()> {
        loop {
            self.note_committed();
            let Some(voter) = &mut self.voter else {
                return self.prove().await;
            };
            voter.engine.lead_alone();
            let Some(work) = voter.engine.ready() else {
                let proved = self.unproved.len();
                self.prove().await?;
                // A proved batch may have changed who is in the roster.
                if self.unproved.len() == proved {
                    break;
                }
                continue;
            };
            self.carry_out(work).await?;
        }
        self.compact().await?;
        self.answer_refusals();
        self.check_flight();
        Ok(())
    }

    /// Whoever signed a change of the roster had applied it, so one that is
    /// proved is committed, and as its request was drawn for it, no other entry
    /// has it. A voter that never heard so, as its power failed, may have nobody
    /// left to tell it: of two the other one goes as soon as this is proved.
    fn note_committed(&mut self) {
        let Some(voter) = &mut self.voter else { return };
        if voter.position.index >= self.archive.position().index {
            return;
        }
        let is_proved = |entry: &Entry| {
            let Payload::Roster { context, .. } = &entry.payload else {
                return false;
            };
            let position = read_batch(context).and_then(|batch| batch.position().ok());
            position.is_some_and(|at| self.archive.hash_at(at.index) == Some(at.hash))
        };
        let entries = voter.engine.uncommitted();
        if let Some(entry) = entries.iter().rfind(|entry| is_proved(entry)) {
            voter.engine.is_committed(entry.index);
        }
    }

    async fn carry_out(&mut self, work: Work) -> std::io::Result<()> {
        self.send(work.send);
        let Some(voter) = &mut self.voter else {
            return Ok(());
        };
        match (work.base, work.write) {
            (Some(base), Some((hard, entries))) => {
                let saved = super::raft::Saved {
                    base,
                    hard,
                    entries,
                };
                voter.log.rewrite(&*self.host.disk, &saved).await?;
            }
            (_, Some((hard, entries))) => voter.log.write(hard, entries).await?,
            (_, None) => {}
        }
        let written = voter.engine.written();
        if let Some(base) = written.restored {
            voter.position = base.position;
        }
        self.send(written.send);
        for entry in written.committed {
            self.apply(entry);
        }
        Ok(())
    }

    fn send(&self, messages: Vec<Message>) {
        let Some(carrier) = self.carrier.get() else {
            return;
        };
        for message in messages {
            if let Some(node) = self.node(message.to) {
                carrier.tell(node, method::RAFT, message.encode());
            }
        }
    }

    /// Applies a committed entry: a batch that follows, or nothing. Every voter
    /// comes to the same.
    fn apply(&mut self, entry: Entry) {
        let changes = match entry.payload {
            Payload::Empty => None,
            Payload::Data(data) => {
                self.apply_batch(&data);
                None
            }
            Payload::Roster { changes, context } => {
                let counts = context.is_empty() || self.apply_batch(&context);
                counts.then_some(changes)
            }
        };
        let Some(voter) = &mut self.voter else { return };
        if let Some(changes) = changes
            && !voter.engine.apply_roster(&changes)
        {
            tracing::warn!(?changes, "a change of the voters came to nothing");
        }
        voter.engine.applied(entry.index, voter.position);
    }

    /// Whether the batch follows the newest one of the log.
    fn apply_batch(&mut self, bytes: &[u8]) -> bool {
        let Some(voter) = &self.voter else {
            return false;
        };
        let Some((batch, header)) = read_batch(bytes).and_then(|batch| {
            let header = batch.read_header().ok()?;
            Some((batch, header))
        }) else {
            return false;
        };
        let before = voter.position;
        let position = Position {
            index: header.index,
            hash: Hash::of(&batch.header),
        };
        if header.index != before.index + 1 || header.previous != before.hash {
            tracing::debug!(index = header.index, "an entry follows another batch");
            return false;
        }
        let tip = self.tip();
        let counts = if header.index <= tip.position.index {
            // This node's ledger is further: it was started anew, or took the
            // batch from a peer.
            self.hash_at(header.index) == Some(position.hash)
        } else {
            self.apply_next(&tip, batch, position)
        };
        if let Some(voter) = &mut self.voter
            && counts
        {
            voter.position = position;
        }
        counts
    }

    fn hash_at(&self, index: u64) -> Option<Hash> {
        let mut unproved = self.unproved.iter();
        let applied = unproved.find(|unproved| unproved.position.index == index);
        match applied {
            Some(unproved) => Some(unproved.position.hash),
            None => self.archive.hash_at(index),
        }
    }

    fn apply_next(&mut self, tip: &Arc<State>, batch: Batch, position: Position) -> bool {
        let own = self.flight.as_ref();
        let own = own.filter(|flight| flight.position == position);
        let after = match own {
            Some(flight) => flight.state.clone(),
            None => match tip.apply(&batch, &*self.host.keys) {
                Ok((state, _)) => Arc::new(state),
                Err(error) => {
                    tracing::warn!(index = position.index, %error, "a committed batch is passed over");
                    return false;
                }
            },
        };
        let Ok(needed) = tip.proof_needed(&batch) else {
            return false;
        };
        self.numbers
            .extend(after.voters.iter().map(|(node, id)| (*node, *id)));
        self.unproved.push_back(Unproved {
            position,
            batch,
            before: tip.clone(),
            after,
            needed,
        });
        self.endorse_newest();
        true
    }

    /// The ledger moved on past what this node applied: by a batch of a peer.
    pub fn overtaken(&mut self) {
        let position = self.current().position;
        self.unproved
            .retain(|unproved| unproved.position.index > position.index);
        let follows = |unproved: &Unproved| unproved.before.position == position;
        if !self.unproved.front().is_none_or(follows) {
            self.unproved.clear();
        }
        self.answer();
    }

    /// Answers those who wait for the batch that this node proposed, once the
    /// ledger has come so far.
    pub fn answer(&mut self) {
        let reached = |flight: &mut Flight| flight.position.index <= self.archive.position().index;
        let Some(flight) = self.flight.take_if(reached) else {
            return;
        };
        let decided = self.archive.hash_at(flight.position.index) == Some(flight.position.hash);
        for (reply, outcome) in flight.replies {
            let _ = reply.send(if decided {
                Ok(outcome)
            } else {
                // Another batch came in its place. Asked again, the request
                // is decided by whoever leads.
                Err(ProposeError::NotLeader(self.elsewhere()))
            });
        }
    }

    /// Gives up a batch that can't come about any more: this node doesn't lead,
    /// or its entry was passed over.
    fn check_flight(&mut self) {
        let Some(voter) = &self.voter else {
            return self.give_up();
        };
        let standing = voter.engine.standing();
        let lost = |flight: &Flight| {
            let applied = self.hash_at(flight.position.index) == Some(flight.position.hash);
            let passed_over = standing.applied >= flight.entry && !applied;
            !standing.leads && !applied || passed_over
        };
        if !standing.leads || self.flight.as_ref().is_some_and(lost) {
            self.give_up();
        }
    }

    /// Sends those who wait elsewhere.
    pub fn give_up(&mut self) {
        let leader = self.elsewhere();
        let flight = self.flight.take().map(|flight| flight.replies);
        let asked = flight.into_iter().flatten().map(|(reply, _)| reply);
        let waiting = self.waiting.drain().map(|asked| asked.reply);
        for reply in asked.chain(waiting).chain(self.refusals.drain()) {
            let _ = reply.send(Err(ProposeError::NotLeader(leader)));
        }
    }

    async fn compact(&mut self) -> std::io::Result<()> {
        let durable = self.archive.position().index;
        if let Some(voter) = &mut self.voter
            && voter.engine.is_long()
            && let Some(saved) = voter.engine.compact(durable)
        {
            voter.log.rewrite(&*self.host.disk, &saved).await?;
        }
        Ok(())
    }

    /// The steps that make the log's voters those of `state`, by number.
    pub fn steps(&self, state: &State) -> Vec<Change> {
        let Some(voter) = &self.voter else {
            return Vec::new();
        };
        let conf = voter.engine.conf();
        let numbers = |node: &NodeId| self.numbers.get(node).copied();
        let wanted: std::collections::BTreeSet<u64> =
            state.roster.iter().filter_map(numbers).collect();
        let waiting = state.waiting();
        let waits = |id: &u64| waiting.iter().any(|node| numbers(node) == Some(*id));
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
