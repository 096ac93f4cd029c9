//! From requests to a batch: on the leader, when it knows all that was ever
//! decided and nothing else is on its way.

use std::{collections::BTreeSet, sync::Arc};

use innermesh_proto::{
    codec,
    crypto::Sealed,
    id::NodeId,
    ledger::{
        Author, Content, Decision, Draft, Entry, Outcome, Refusal, Request, RequestId, State,
        content::RosterChange,
    },
    limits,
};

use super::{
    bill::{Bill, Left},
    council::Flight,
    raft::Standing,
    voter::TICK,
    writer::Writer,
};
use crate::ca;

impl Writer {
    /// Whether requests that are asked of this node now will be decided by it.
    pub fn will_decide(&self) -> bool {
        self.standing().is_some_and(|standing| standing.leads) && self.may_lead()
    }

    fn standing(&self) -> Option<Standing> {
        self.voter.as_ref().map(|voter| voter.engine.standing())
    }

    /// Whether this node may propose a batch: it leads, has applied an entry of
    /// its own term and with it all before, and nothing is on its way.
    pub fn may_draft(&self) -> bool {
        let free = self.flight.is_none() && self.unproved.is_empty();
        let able = |standing: Standing| standing.established && standing.transferring.is_none();
        let me = self.me();
        free && self.will_decide()
            && self.standing().is_some_and(able)
            && self.current().roster.contains(&me)
    }

    /// Proposes the next batch if there is something to decide; `true` if the
    /// roster's log has work of it.
    pub fn decide(&mut self) -> std::io::Result<bool> {
        if self.confirm_refusals() {
            return Ok(true);
        }
        if !self.may_draft() {
            return Ok(false);
        }
        if self.change_roster() || self.raise_rules() {
            return Ok(true);
        }
        let due = self.host.clock.now() >= self.beat;
        if self.waiting.is_empty() && !due {
            return Ok(false);
        }
        let now = self.host.clock.now();
        let term = self.standing().map_or(0, |standing| standing.term);
        self.budgets.lead(term, now);
        let mut draft = self.draft();
        let mut replies = Vec::new();
        let mut refused = Vec::new();
        let mut judged = 0;
        while draft.has_room()
            && judged < limits::JUDGED
            && let Some(asked) = self.waiting.pop()
        {
            // Who asked may have turned to another by now.
            if asked.reply.is_closed() {
                continue;
            }
            judged += 1;
            match self.enter(&mut draft, asked.request, asked.is_recorded) {
                Ok(outcome) => replies.push((asked.reply, outcome)),
                Err(Left::Refused(refusal)) => refused.push((asked.reply, refusal)),
                Err(Left::Spent(wait)) => {
                    let _ = asked.reply.send(Err(super::ProposeError::Spent(wait)));
                }
            }
        }
        if draft.is_empty() && !due {
            // Nothing of it is written down.
            for (reply, outcome) in replies {
                let _ = reply.send(Ok(outcome));
            }
            for (reply, refusal) in refused {
                self.refusals.add(reply, refusal);
            }
            return Ok(self.confirm_refusals() || !self.waiting.is_empty());
        }
        // Once this batch is decided, so is that it follows from all before it.
        let refused = refused.into_iter();
        replies.extend(refused.map(|(reply, refusal)| (reply, Outcome::Refused(refusal))));
        let (state, batch) = draft.finish();
        let data = codec::encode(&batch);
        let Some(voter) = &mut self.voter else {
            return Ok(false);
        };
        match voter.engine.propose(data) {
            Ok(entry) => {
                self.flight = Some(Flight {
                    entry,
                    position: state.position,
                    state: Arc::new(state),
                    replies,
                    since: voter.ticks,
                });
                Ok(true)
            }
            Err(_) => {
                self.beat = self.beat.max(self.host.clock.now() + TICK);
                let leader = self.elsewhere();
                for (reply, _) in replies {
                    let _ = reply.send(Err(super::ProposeError::NotLeader(leader)));
                }
                Ok(false)
            }
        }
    }

    /// Proposes another roster; `false` when it can't be now.
    pub fn propose_roster(&mut self, voters: BTreeSet<NodeId>) -> bool {
        let Some(draft) = self.draft_own(&Content::Roster(RosterChange { voters })) else {
            return false;
        };
        let (state, batch) = draft.finish();
        let steps = self.steps(&state);
        let Some(voter) = &mut self.voter else {
            return false;
        };
        let proposed = voter.engine.propose_roster(&steps, codec::encode(&batch));
        let Ok(entry) = proposed else { return false };
        tracing::info!(roster = ?state.roster, "the roster is to change");
        self.flight = Some(Flight {
            entry,
            position: state.position,
            state: Arc::new(state),
            replies: Vec::new(),
            since: voter.ticks,
        });
        true
    }

    /// Proposes a batch of nothing but this node's own request.
    pub fn propose_own(&mut self, content: &Content) -> bool {
        let Some(draft) = self.draft_own(content) else {
            return false;
        };
        let (state, batch) = draft.finish();
        let Some(voter) = &mut self.voter else {
            return false;
        };
        let Ok(entry) = voter.engine.propose(codec::encode(&batch)) else {
            return false;
        };
        self.flight = Some(Flight {
            entry,
            position: state.position,
            state: Arc::new(state),
            replies: Vec::new(),
            since: voter.ticks,
        });
        true
    }

    fn draft_own(&self, content: &Content) -> Option<Draft> {
        let mut draft = self.draft();
        let mut id = [0; 16];
        self.host.keys.random(&mut id);
        let request = Request::seal(
            &*self.key,
            draft.state().mesh,
            RequestId(id),
            Author::Node(self.me()),
            draft.state().stamp_ms + limits::REQUEST_LIFETIME_MS,
            content,
        );
        let entry = Entry {
            request,
            attachment: Vec::new(),
        };
        if let Outcome::Refused(refusal) = draft.add(entry, &*self.host.keys) {
            tracing::warn!(%refusal, "what the leader proposes itself is refused");
            return None;
        }
        Some(draft)
    }

    /// The next batch, stamped with the time that this node proposes.
    fn draft(&self) -> Draft {
        let state: Arc<State> = self.current();
        let wall_ms = self.host.clock.wall_ms();
        let stamp_ms = self.next_stamp(&state);
        if stamp_ms < wall_ms {
            tracing::warn!(
                ahead_s = (wall_ms - stamp_ms) / 1000,
                "this machine's clock is ahead of its peers'; ledger time follows theirs"
            );
        }
        let mut draft = state.draft(stamp_ms);
        // So that a file that grows by bytes can begin anew.
        if self.archive.unhashed() >= self.sizes.unhashed {
            draft.hash_state();
        }
        draft
    }

    /// Adds the request to the draft, or refuses it. What is refused isn't
    /// written down, unless it `is_recorded`, its author is a member, and the
    /// rules remember it. Whoever has spent its budget isn't worth the check of a
    /// signature; only whose signature is right pays.
    fn enter(
        &mut self,
        draft: &mut Draft,
        request: Sealed,
        is_recorded: bool,
    ) -> Result<Outcome, Left> {
        let keys = self.host.keys.clone();
        let keys = &*keys;
        let is_recorded = is_recorded && draft.state().rules == 0;
        let bill = Bill::of(&request);
        self.check_budget(bill.as_ref())?;
        // Whether all voters know the rules is for who leads to see.
        let is_early = |request: Request| request.raises_rules();
        if request.peek(limits::REQUEST_BYTES).is_ok_and(is_early) {
            return Err(Refusal::Rules.into());
        }
        let attachment = match draft.decide(&request, keys) {
            Ok(Decision::Repeat(outcome)) => return Ok(outcome),
            Ok(Decision::Plain) => {
                self.pay(bill.as_ref(), Some(0))?;
                Vec::new()
            }
            Ok(Decision::Certificate(plan)) => {
                self.pay(bill.as_ref(), Some(limits::CERTIFICATE_LIKELY_BYTES))?;
                let Some(issuer) = self.issuer_at(draft.state().stamp_ms) else {
                    return Err(Refusal::Certificate(
                        "the CA node that leads has no issuer in force; an admin renews it with \
                         `agent ca promote`"
                            .into(),
                    )
                    .into());
                };
                let signed = issuer.sign_leaf(&plan, ca::random_serial(keys), keys);
                let der = signed.map_err(|error| Refusal::Certificate(error.to_string()))?;
                let more = der.len().saturating_sub(limits::CERTIFICATE_LIKELY_BYTES);
                self.pay_more(bill.as_ref(), more);
                der
            }
            Err(refusal) if refusal.is_anonymous() => return Err(refusal.into()),
            Err(refusal) => {
                self.pay(bill.as_ref(), is_recorded.then_some(0))?;
                if !is_recorded {
                    return Err(refusal.into());
                }
                Vec::new()
            }
        };
        let entry = Entry {
            request,
            attachment,
        };
        Ok(draft.add(entry, keys))
    }
}
