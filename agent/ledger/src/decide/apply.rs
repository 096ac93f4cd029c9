//! From the voters' log to the ledger: what is committed is applied, and what is
//! proved is to be written to the ledger's file, shown in views, and answered.

use std::sync::Arc;

use innermesh_proto::{
    crypto::Hash,
    ledger::{Batch, Position, State},
    rpc::method,
};

use super::{
    core::{Core, Step},
    error::ProposeError,
    outbox::Transmit,
    proofs::{Proved, Unproved},
    time::Now,
    voting::read_batch,
};
use crate::raft::{Entry, Message, Payload, Saved};

impl Core {
    /// What is to be written next, if anything. What [`Core::poll_transmit`]
    /// gives then goes out before that is begun.
    pub fn poll_step(&mut self) -> Option<Step> {
        loop {
            self.note_committed();
            let Some(voter) = self.voting.voter_mut() else {
                return self.take_proved();
            };
            voter.engine.lead_alone();
            let Some(work) = voter.engine.ready() else {
                return self.take_proved().or_else(|| self.compact());
            };
            self.send(work.send);
            match (work.base, work.write) {
                (Some(base), Some((hard, entries))) => {
                    return Some(Step::RewriteLog(Saved {
                        base,
                        hard,
                        entries,
                    }));
                }
                (None, Some((hard, entries))) => return Some(Step::AppendLog(hard, entries)),
                (_, None) => self.handle_log_written(),
            }
        }
    }

    /// What was to be written to the voters' log is there.
    pub fn handle_log_written(&mut self) {
        let Some(voter) = self.voting.voter_mut() else {
            return;
        };
        let written = voter.engine.written();
        if let Some(base) = written.restored {
            voter.position = base.position;
        }
        self.send(written.send);
        for entry in written.committed {
            self.apply(entry);
        }
    }

    /// Proved batches are on disk, the last of them at `state`.
    pub fn handle_stored(&mut self, state: Arc<State>, now: Now) {
        self.state = state;
        self.time.note_stamp(now);
        self.proofs.overtaken(self.state.position);
        self.answer();
    }

    /// There is nothing more to write: tells those whose refusal is shown to be
    /// right, and gives up a batch that can't come about any more.
    pub fn settle(&mut self) {
        let Some(standing) = self.voting.standing() else {
            return;
        };
        let shown = self.refusals.take_shown(&standing);
        self.tell_refused(shown);
        let hash_at = |index| self.hash_at(index);
        if !standing.leads || self.proposed.is_lost(&standing, hash_at) {
            self.give_up();
        }
    }

    fn take_proved(&mut self) -> Option<Step> {
        let proved: Vec<Proved> = self.proofs.take_proved();
        (!proved.is_empty()).then_some(Step::Store(proved))
    }

    fn compact(&mut self) -> Option<Step> {
        let durable = self.index.position().index;
        let engine = &mut self.voting.voter_mut()?.engine;
        let saved = engine.is_long().then(|| engine.compact(durable));
        saved.flatten().map(Step::RewriteLog)
    }

    fn send(&mut self, messages: Vec<Message>) {
        let voting = &self.voting;
        let messages = messages.into_iter().filter_map(|message| {
            Some(Transmit {
                to: voting.node(message.to)?,
                method: method::RAFT,
                body: message.encode(),
            })
        });
        self.out.send(messages);
    }

    /// Whoever signed a change of the roster had applied it, so one that is
    /// proved is committed, and as its request was drawn for it, no other entry
    /// has it. A voter that never heard so, as its power failed, may have nobody
    /// left to tell it: of two the other one goes as soon as this is proved.
    fn note_committed(&mut self) {
        let Some(voter) = self.voting.voter_mut() else {
            return;
        };
        if voter.position.index >= self.index.position().index {
            return;
        }
        let is_proved = |entry: &Entry| {
            let Payload::Roster { context, .. } = &entry.payload else {
                return false;
            };
            let position = read_batch(context).and_then(|batch| batch.position().ok());
            position.is_some_and(|at| self.index.hash_at(at.index) == Some(at.hash))
        };
        let entries = voter.engine.uncommitted();
        if let Some(entry) = entries.iter().rfind(|entry| is_proved(entry)) {
            voter.engine.is_committed(entry.index);
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
        let Some(voter) = self.voting.voter_mut() else {
            return;
        };
        if let Some(changes) = changes
            && !voter.engine.apply_roster(&changes)
        {
            tracing::warn!(?changes, "a change of the voters came to nothing");
        }
        voter.engine.applied(entry.index, voter.position);
    }

    /// Whether the batch follows the newest one of the log.
    fn apply_batch(&mut self, bytes: &[u8]) -> bool {
        let Some(before) = self.voting.voter().map(|voter| voter.position) else {
            return false;
        };
        let Some((batch, header)) = read_batch(bytes).and_then(|batch| {
            let header = batch.read_header().ok()?;
            Some((batch, header))
        }) else {
            return false;
        };
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
            self.apply_next(tip, batch, position)
        };
        if let Some(voter) = self.voting.voter_mut()
            && counts
        {
            voter.position = position;
        }
        counts
    }

    fn apply_next(&mut self, tip: Arc<State>, batch: Batch, position: Position) -> bool {
        let after = match self.proposed.state_at(position) {
            Some(state) => state,
            None => match tip.apply(&batch, &*self.keys) {
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
        self.voting.learn(&after);
        let unproved = Unproved {
            position,
            batch,
            before: tip,
            after,
            needed,
        };
        let told = self.proofs.push(unproved, &*self.key, &*self.keys);
        self.out.send(told);
        true
    }

    /// The hash of the batch at `index`, on disk or only applied.
    fn hash_at(&self, index: u64) -> Option<Hash> {
        let applied = self.proofs.hash_at(index);
        applied.or_else(|| self.index.hash_at(index))
    }

    /// Answers those who wait for the batch that this node proposed, once the
    /// ledger has come so far.
    fn answer(&mut self) {
        let Some(flight) = self.proposed.take_reached(self.index.position().index) else {
            return;
        };
        let hash = self.index.hash_at(flight.position.index);
        let is_decided = hash == Some(flight.position.hash);
        let leader = self.voting.elsewhere();
        for (ticket, outcome) in flight.replies {
            let answer = if is_decided {
                Ok(outcome)
            } else {
                // Another batch came in its place. Asked again, the request
                // is decided by whoever leads.
                Err(ProposeError::NotLeader(leader))
            };
            self.out.answer(ticket, answer);
        }
    }
}
