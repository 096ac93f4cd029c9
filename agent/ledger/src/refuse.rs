//! Refusals aren't written down: whoever is refused is told so once this node
//! knows that it led when it judged, and so judged by all that was ever decided.
//! What a leader that was deposed says in good faith may be wrong by then.

use innermesh_proto::ledger::{Outcome, Refusal};

use super::{
    ProposeError,
    writer::{Reply, Writer},
};

/// Those who are to be told.
#[derive(Default)]
pub(super) struct Refusals {
    /// Judged after the entry in [`Refusals::confirming`] was proposed: that
    /// shows nothing about them.
    judged: Vec<(Reply, Refusal)>,
    confirming: Option<Confirming>,
}

/// An entry of the voters' log that shows who led when it was proposed.
struct Confirming {
    entry: u64,
    term: u64,
    replies: Vec<(Reply, Refusal)>,
}

impl Refusals {
    pub fn add(&mut self, reply: Reply, refusal: Refusal) {
        self.judged.push((reply, refusal));
    }

    /// All that wait, to be told something else.
    pub fn drain(&mut self) -> impl Iterator<Item = Reply> {
        let confirming = self.confirming.take().map(|confirming| confirming.replies);
        let all = confirming.into_iter().flatten();
        all.chain(std::mem::take(&mut self.judged))
            .map(|(reply, _)| reply)
    }
}

impl Writer {
    /// Has the roster's log show that this node led, where somebody waits for
    /// that; `true` if the log has work of it. One entry at a time, for all who
    /// were refused before it.
    pub fn confirm_refusals(&mut self) -> bool {
        if self.refusals.judged.is_empty() || self.refusals.confirming.is_some() {
            return false;
        }
        let replies = std::mem::take(&mut self.refusals.judged);
        let Some(voter) = &mut self.voter else {
            self.send_elsewhere(replies);
            return false;
        };
        let standing = voter.engine.standing();
        if standing.leads && voter.engine.votes_alone() {
            tell(replies);
            return false;
        }
        match voter.engine.confirm() {
            Ok(entry) => {
                self.refusals.confirming = Some(Confirming {
                    entry,
                    term: standing.term,
                    replies,
                });
                true
            }
            Err(_) => {
                self.send_elsewhere(replies);
                false
            }
        }
    }

    /// Tells those whose refusal is shown to be right by now.
    pub fn answer_refusals(&mut self) {
        let Some(voter) = &self.voter else { return };
        let standing = voter.engine.standing();
        let shown = |confirming: &mut Confirming| {
            standing.leads
                && standing.term == confirming.term
                && standing.applied >= confirming.entry
        };
        if let Some(confirming) = self.refusals.confirming.take_if(shown) {
            tell(confirming.replies);
        }
    }

    fn send_elsewhere(&self, replies: Vec<(Reply, Refusal)>) {
        let leader = self.elsewhere();
        for (reply, _) in replies {
            let _ = reply.send(Err(ProposeError::NotLeader(leader)));
        }
    }
}

fn tell(replies: Vec<(Reply, Refusal)>) {
    for (reply, refusal) in replies {
        let _ = reply.send(Ok(Outcome::Refused(refusal)));
    }
}
