//! From requests to a batch: on the leader, when it knows all that was ever
//! decided and nothing else is on its way.

use std::{collections::BTreeSet, sync::Arc};

use innermesh_proto::{
    codec,
    id::NodeId,
    ledger::{
        Author, Content, Draft, Entry, Outcome, Refusal, Request, RequestId, content::RosterChange,
    },
    limits,
};

use super::{
    bill::Left, core::Core, error::ProposeError, judge::Judge, outbox::Ticket, proposed::Flight,
    refusals::Confirmed, roster, time::Now, voting::TICK,
};
use crate::raft::{Dropped, Engine};

/// Those who are to be told what became of their requests.
type Replies<T> = Vec<(Ticket, T)>;

impl Core {
    /// Proposes the next batch if there is something to decide; `true` if the
    /// voters' log has work of it. Requests of those who no longer wait, as
    /// they turned to another, are passed over.
    pub fn poll_decision(&mut self, now: Now, waits: impl Fn(Ticket) -> bool) -> bool {
        if self.confirm_refusals() {
            return true;
        }
        if !self.may_draft(now) {
            return false;
        }
        if self.change_roster(now) || self.raise_rules(now) {
            return true;
        }
        let is_due = now.mono >= self.beat();
        if self.waiting.is_empty() && !is_due {
            return false;
        }
        let mut draft = self.draft(now);
        let (mut replies, refused) = self.fill(&mut draft, now, waits);
        if draft.is_empty() && !is_due {
            // Nothing of it is written down.
            for (ticket, outcome) in replies {
                self.out.answer(ticket, Ok(outcome));
            }
            for (ticket, refusal) in refused {
                self.refusals.add(ticket, refusal);
            }
            return self.confirm_refusals() || !self.waiting.is_empty();
        }
        // Once this batch is decided, so is that it follows from all before it.
        let refused = refused.into_iter();
        replies.extend(refused.map(|(ticket, refusal)| (ticket, Outcome::Refused(refusal))));
        let proposed = self.propose(draft, replies, Engine::propose);
        if let Err(replies) = proposed {
            self.time.postpone_beat(now.mono + TICK);
            let leader = self.voting.elsewhere();
            let tickets = replies.into_iter().map(|(ticket, _)| ticket);
            self.out.send_elsewhere(tickets, leader);
            return false;
        }
        true
    }

    /// Adds what waits to the draft: who is told what once that is decided, and
    /// who is refused without being written down.
    fn fill(
        &mut self,
        draft: &mut Draft,
        now: Now,
        waits: impl Fn(Ticket) -> bool,
    ) -> (Replies<Outcome>, Replies<Refusal>) {
        let term = self.voting.standing().map_or(0, |standing| standing.term);
        self.budgets.lead(term, now.mono);
        let mut judge = Judge {
            keys: &*self.keys,
            issuers: &self.issuers,
            budgets: &mut self.budgets,
            now: now.mono,
        };
        let (mut replies, mut refused) = (Vec::new(), Vec::new());
        let mut judged = 0;
        while draft.has_room()
            && judged < limits::JUDGED
            && let Some(asked) = self.waiting.pop()
        {
            let ticket = asked.ticket;
            if !waits(ticket) {
                // Nobody hears it; the ticket is used up.
                self.out.answer(ticket, Err(ProposeError::Busy));
                continue;
            }
            judged += 1;
            match judge.enter(draft, asked.request, asked.is_recorded) {
                Ok(outcome) => replies.push((ticket, outcome)),
                Err(Left::Refused(refusal)) => refused.push((ticket, refusal)),
                Err(Left::Spent(wait)) => {
                    self.out.answer(ticket, Err(ProposeError::Spent(wait)));
                }
            }
        }
        (replies, refused)
    }

    /// Has the voters' log take the batch. Where it doesn't, gives back who
    /// waits for it.
    fn propose(
        &mut self,
        draft: Draft,
        replies: Replies<Outcome>,
        how: impl FnOnce(&mut Engine, Vec<u8>) -> Result<u64, Dropped>,
    ) -> Result<(), Replies<Outcome>> {
        let (state, batch) = draft.finish();
        let Some(voter) = self.voting.voter_mut() else {
            return Err(replies);
        };
        let Ok(entry) = how(&mut voter.engine, codec::encode(&batch)) else {
            return Err(replies);
        };
        self.proposed.set(Flight {
            entry,
            position: state.position,
            state: Arc::new(state),
            replies,
            since: voter.ticks(),
        });
        Ok(())
    }

    /// Proposes the roster that the ledger wants, if it is time; `true` when it
    /// did.
    fn change_roster(&mut self, now: Now) -> bool {
        let Some(voters) = roster::due(&self.voting, &self.state, self.me) else {
            return false;
        };
        self.propose_roster(voters, now)
    }

    fn propose_roster(&mut self, voters: BTreeSet<NodeId>, now: Now) -> bool {
        let content = Content::Roster(RosterChange { voters });
        let Some(draft) = self.draft_own(&content, now) else {
            return false;
        };
        let steps = self.voting.steps(draft.state());
        let roster = draft.state().roster.clone();
        let change = |engine: &mut Engine, context| engine.propose_roster(&steps, context);
        let is_proposed = self.propose(draft, Vec::new(), change).is_ok();
        if is_proposed {
            tracing::info!(?roster, "the roster is to change");
        }
        is_proposed
    }

    /// Proposes the next rules if it is time; `true` when it did.
    fn raise_rules(&mut self, now: Now) -> bool {
        let (state, me) = (&self.state, self.me);
        let due = self
            .versions
            .due(state.rules, state.voters.keys(), me, now.mono);
        let Some(rules) = due else { return false };
        let Some(draft) = self.draft_own(&Content::Rules(rules), now) else {
            return false;
        };
        let is_proposed = self.propose(draft, Vec::new(), Engine::propose).is_ok();
        if is_proposed {
            tracing::info!(rules, "the rules of the ledger are to be raised");
        }
        is_proposed
    }

    /// A batch of nothing but this node's own request.
    fn draft_own(&self, content: &Content, now: Now) -> Option<Draft> {
        let mut draft = self.draft(now);
        let mut id = [0; 16];
        self.keys.random(&mut id);
        let request = Request::seal(
            &*self.key,
            draft.state().mesh,
            RequestId(id),
            Author::Node(self.me),
            draft.state().stamp_ms + limits::REQUEST_LIFETIME_MS,
            content,
        );
        let entry = Entry {
            request,
            attachment: Vec::new(),
        };
        if let Outcome::Refused(refusal) = draft.add(entry, &*self.keys) {
            tracing::warn!(%refusal, "what the leader proposes itself is refused");
            return None;
        }
        Some(draft)
    }

    /// The next batch, stamped with the time that this node proposes.
    fn draft(&self, now: Now) -> Draft {
        let stamp_ms = self.time.next_stamp(self.state.stamp_ms, now);
        if stamp_ms < now.wall_ms {
            tracing::warn!(
                ahead_s = (now.wall_ms - stamp_ms) / 1000,
                "this machine's clock is ahead of its peers'; ledger time follows theirs"
            );
        }
        let mut draft = self.state.draft(stamp_ms);
        // So that a file that grows by bytes can begin anew.
        if self.index.unhashed() >= self.most_unhashed {
            draft.hash_state();
        }
        draft
    }

    /// Has the voters' log show that this node led, where somebody waits to be
    /// refused; `true` if the log has work of it.
    fn confirm_refusals(&mut self) -> bool {
        let engine = self.voting.voter_mut().map(|voter| &mut voter.engine);
        match self.refusals.confirm(engine) {
            Confirmed::Nothing => return false,
            Confirmed::Proposed => return true,
            Confirmed::Shown(refused) => self.tell_refused(refused),
            Confirmed::Lost(refused) => {
                let leader = self.voting.elsewhere();
                let tickets = refused.into_iter().map(|(ticket, _)| ticket);
                self.out.send_elsewhere(tickets, leader);
            }
        }
        false
    }

    pub(super) fn tell_refused(&mut self, refused: Replies<Refusal>) {
        for (ticket, refusal) in refused {
            self.out.answer(ticket, Ok(Outcome::Refused(refusal)));
        }
    }
}
