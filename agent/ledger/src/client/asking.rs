//! One request under way with one or several of those who decide, and when
//! what one of them says is the last word.
//!
//! A request has an id, so that several may hold it and it is applied once. But
//! a refusal isn't written down: another copy, judged later by another leader,
//! may be done. So a refusal is final only if, when it was judged, every other
//! copy was gone. A node that has answered holds none that it could still
//! propose, at most one in the voters' log; and whoever has shown that it leads
//! knows what of the log was decided, and that the rest never will be. A node
//! that didn't answer may hold one for as long as the request is good for. Then
//! only this node's own ledger says what became of it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use innermesh_proto::{
    codec,
    crypto::Sealed,
    id::NodeId,
    ledger::{Author, Outcome, Refusal, Request, RequestId, State},
    message::Propose,
};
use tokio::sync::watch;

use super::{ATTEMPT, Client, SubmitError, Told, relay::Brought};
use crate::host::Mono;

/// How long a node may be silent until another one is asked beside it: a leader
/// that died says nothing, and the others soon know better.
const HEDGE: Mono = Mono::from_millis(300);
/// How long a node that gave no decision isn't asked again.
const PAUSE: Mono = Mono::from_millis(250);

/// A request under way. Whoever isn't the leader says who may be.
pub(super) struct Asking<'a> {
    client: &'a Client,
    request: &'a Sealed,
    /// By what the ledger knows it again.
    key: Option<(Author, RequestId)>,
    body: Vec<u8>,
    calls: FuturesUnordered<BoxFuture<'a, NodeAnswer>>,
    /// Whom there is a call to.
    busy: BTreeSet<NodeId>,
    /// When whoever gave no decision may be asked again.
    rests: BTreeMap<NodeId, Mono>,
    copies: Copies,
    /// When the asker's patience ends.
    end: Mono,
    /// Until when the leader takes nothing of the author's.
    spent_until: Mono,
    /// Why it was refused, while that isn't final.
    refused: Option<Refusal>,
    states: watch::Receiver<std::sync::Arc<State>>,
    /// Who is likely to lead, by the last who said.
    hint: Option<NodeId>,
    /// Why there is no decision yet.
    why: String,
}

/// What a node made of a request.
struct NodeAnswer {
    node: NodeId,
    /// When it was asked, see [`Copies`].
    begun: u64,
    told: Told,
    /// Who brought the request there.
    via: Option<NodeId>,
}

/// Which copies of a request there are, in an order of events.
#[derive(Default)]
struct Copies {
    events: u64,
    /// The newest end of a call.
    last_end: u64,
    /// Whether a call ended and its node may hold a copy.
    is_one_lost: bool,
}

impl Copies {
    fn begin(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    /// A call that began at `begun` has ended; whether its copy was the only
    /// one all the time, with `open` others on their way now.
    fn end(&mut self, begun: u64, open: usize) -> bool {
        let was_alone = open == 0 && self.last_end < begun && !self.is_one_lost;
        self.events += 1;
        self.last_end = self.events;
        was_alone
    }
}

impl<'a> Asking<'a> {
    pub fn new(client: &'a Client, request: &'a Sealed, end: Mono) -> Self {
        let body = codec::encode(&Propose {
            request: request.clone(),
        });
        let read = Request::peek(request);
        Self {
            client,
            request,
            key: read.ok().map(|request| (request.author, request.id)),
            body,
            calls: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            rests: BTreeMap::new(),
            copies: Copies::default(),
            end,
            spent_until: Mono::ZERO,
            refused: None,
            states: client.ledger.subscribe(),
            hint: client.hint(),
            why: "it doesn't answer in time".into(),
        }
    }

    /// What the asker is told when its patience ends.
    pub fn give_up(self) -> SubmitError {
        match self.refused {
            Some(refusal) => SubmitError::Unsettled(refusal),
            None => SubmitError::Unreachable(self.why),
        }
    }

    pub async fn until_decided(&mut self) -> Result<(Outcome, Option<NodeId>), SubmitError> {
        let me = self.client.me();
        let clock = &self.client.host.clock;
        loop {
            if let Some(outcome) = self.in_own_ledger() {
                return Ok((outcome, None));
            }
            let now = clock.now();
            let pause = match self.ask_next(now) {
                Next::Asked => HEDGE,
                Next::Rests(until) => until.saturating_sub(now),
                Next::Nobody => ATTEMPT,
            };
            let answer = tokio::select! {
                Some(answer) = self.calls.next() => answer,
                Ok(()) = self.states.changed(), if self.refused.is_some() => continue,
                () = clock.sleep(pause) => continue,
            };
            self.busy.remove(&answer.node);
            self.rests.insert(answer.node, clock.now() + PAUSE);
            let was_alone = self.copies.end(answer.begun, self.busy.len());
            // Whoever brings a request can bring it again.
            self.copies.is_one_lost |= answer.via.is_some();
            match answer.told {
                Told::Outcome(Outcome::Refused(refusal))
                    if answer.via.is_some() && refusal != Refusal::NotMember =>
                {
                    return Err(SubmitError::Relayed(refusal));
                }
                // Whoever is no member gets no copy done either; who leaves may
                // have lost the answer to its own request.
                Told::Outcome(Outcome::Refused(refusal))
                    if !was_alone && refusal != Refusal::NotMember =>
                {
                    // It is asked again once it holds the only copy.
                    self.rests.remove(&answer.node);
                    self.hint = Some(answer.node);
                    self.refused = Some(refusal);
                }
                Told::Outcome(outcome) => {
                    let from = Some(answer.node).filter(|node| *node != me);
                    self.client.remember(from);
                    return Ok((outcome, answer.via.or(from)));
                }
                Told::Elsewhere(leader) => {
                    self.hint = leader;
                    self.why = self.client.nobody_leads();
                }
                Told::Stopped(error) => return Err(error.into()),
                Told::Spent(wait) => {
                    // Once: of many that wait for one place most wait in vain.
                    let until = clock.now().saturating_add(wait);
                    if until >= self.end || self.spent_until > Mono::ZERO {
                        return Err(SubmitError::Spent(wait));
                    }
                    self.spent_until = until;
                }
                Told::Failed(why) => self.why = why,
                Told::Lost(why) => {
                    self.copies.is_one_lost = true;
                    self.why = why;
                }
            }
        }
    }

    /// What this node's own ledger says became of the request, where nothing
    /// else can be believed.
    fn in_own_ledger(&mut self) -> Option<Outcome> {
        self.refused.as_ref()?;
        let (author, id) = self.key?;
        let state = self.states.borrow_and_update();
        state.outcome_of(author, id).cloned()
    }

    /// Asks one more node, if there is one: this one if it has a vote, then
    /// whoever is likely to lead, else any. Once it was refused, one at a time,
    /// and none where that wouldn't be final either.
    fn ask_next(&mut self, now: Mono) -> Next {
        if self.refused.is_some() && (!self.busy.is_empty() || self.copies.is_one_lost) {
            return Next::Nobody;
        }
        if now < self.spent_until {
            return Next::Rests(self.spent_until);
        }
        let me = self.client.me();
        let roster = &self.client.ledger.state().roster;
        let idle = roster.iter().filter(|node| !self.busy.contains(node));
        let rest = |node: &NodeId| self.rests.get(node).copied().unwrap_or_default();
        let order = |node: &NodeId| (rest(node), *node != me, Some(*node) != self.hint);
        let due = idle.clone().filter(|node| rest(node) <= now);
        let likely = self
            .hint
            .filter(|hint| due.clone().any(|node| node == hint));
        let own = due.clone().find(|node| **node == me).copied();
        let own = own.filter(|_| self.refused.is_none());
        let any = || due.min_by_key(|node| order(node)).copied();
        let Some(node) = own.or(likely).or_else(any) else {
            let until = idle.map(rest).min();
            return until.map_or(Next::Nobody, Next::Rests);
        };
        // By way of others only where that is the only way: whoever brings a request
        // has a copy of it.
        let transport = &self.client.transport;
        let relays = likely == Some(node) || !roster.iter().any(|n| transport.is_connected(*n));
        self.busy.insert(node);
        let begun = self.copies.begin();
        let (client, request, body) = (self.client, self.request.clone(), self.body.clone());
        self.calls.push(Box::pin(async move {
            let Brought { told, via } = if node == client.me() {
                Brought::directly(client.decide_here(request).await)
            } else {
                client.pass_on(node, &request, body, relays).await
            };
            NodeAnswer {
                node,
                begun,
                told,
                via,
            }
        }));
        Next::Asked
    }
}

/// Whether there was a node to ask.
enum Next {
    Asked,
    /// Those without a call rest until then.
    Rests(Mono),
    /// There is a call to each, or none is to be asked.
    Nobody,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_only_where_no_other_copy_was_on_its_way_meanwhile() {
        let mut copies = Copies::default();
        let only = copies.begin();
        assert!(copies.end(only, 0), "one after the other");
        let (one, other) = (copies.begin(), copies.begin());
        assert!(!copies.end(one, 1), "the other may still be judged");
        assert!(!copies.end(other, 0), "it may have been judged before");
        let again = copies.begin();
        assert!(copies.end(again, 0), "asked again, alone");
        copies.is_one_lost = true;
        let lost = copies.begin();
        assert!(!copies.end(lost, 0), "a copy is lost, and not gone");
    }
}
