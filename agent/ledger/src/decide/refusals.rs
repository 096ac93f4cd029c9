//! Refusals aren't written down: whoever is refused is told so once this node
//! knows that it led when it judged, and so judged by all that was ever decided.
//! What a leader that was deposed says in good faith may be wrong by then.

use innermesh_proto::ledger::Refusal;

use super::outbox::Ticket;
use crate::raft::{Engine, Standing};

type Refused = Vec<(Ticket, Refusal)>;

/// Those who are to be told.
#[derive(Default)]
pub struct Refusals {
    /// Judged after the entry in [`Refusals::confirming`] was proposed: that
    /// shows nothing about them.
    judged: Refused,
    confirming: Option<Confirming>,
}

/// An entry of the voters' log that shows who led when it was proposed.
struct Confirming {
    entry: u64,
    term: u64,
    replies: Refused,
}

/// What became of those who were refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// Nobody waits, or others are shown to be right first.
    Nothing,
    /// The voters' log is to show that this node led.
    Proposed,
    /// It is so: nobody else votes.
    Shown(Refused),
    /// This node doesn't lead.
    Lost(Refused),
}

impl Refusals {
    pub fn add(&mut self, ticket: Ticket, refusal: Refusal) {
        self.judged.push((ticket, refusal));
    }

    /// Has the voters' log show that this node led, where somebody waits for
    /// that. One entry at a time, for all who were refused before it.
    pub fn confirm(&mut self, engine: Option<&mut Engine>) -> Confirmed {
        if self.judged.is_empty() || self.confirming.is_some() {
            return Confirmed::Nothing;
        }
        let replies = std::mem::take(&mut self.judged);
        let Some(engine) = engine else {
            return Confirmed::Lost(replies);
        };
        let standing = engine.standing();
        if standing.leads && engine.votes_alone() {
            return Confirmed::Shown(replies);
        }
        match engine.confirm() {
            Ok(entry) => {
                self.confirming = Some(Confirming {
                    entry,
                    term: standing.term,
                    replies,
                });
                Confirmed::Proposed
            }
            Err(_) => Confirmed::Lost(replies),
        }
    }

    /// Takes those whose refusal is shown to be right by now.
    pub fn take_shown(&mut self, standing: &Standing) -> Refused {
        let shown = |confirming: &mut Confirming| {
            standing.leads
                && standing.term == confirming.term
                && standing.applied >= confirming.entry
        };
        let confirming = self.confirming.take_if(shown);
        confirming.map_or_else(Vec::new, |confirming| confirming.replies)
    }

    /// Gives up: those who wait, to be told something else.
    pub fn give_up(&mut self) -> impl Iterator<Item = Ticket> {
        let confirming = self.confirming.take().map(|confirming| confirming.replies);
        let all = confirming.into_iter().flatten();
        all.chain(std::mem::take(&mut self.judged))
            .map(|(ticket, _)| ticket)
    }
}
