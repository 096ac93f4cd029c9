//! What the core has to say to others, in order, until the pump passes it on.

use innermesh_proto::{codec, id::NodeId, ledger::Outcome, message::Endorse, rpc::method};

use super::error::ProposeError;

/// Stands for whoever waits for a request's answer; the pump knows whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

pub type Answer = Result<Outcome, ProposeError>;

/// A one-way message to a connected member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    pub to: NodeId,
    /// Of [`innermesh_proto::rpc::method`].
    pub method: u16,
    pub body: Vec<u8>,
}

impl Transmit {
    pub fn endorsement(to: NodeId, endorse: &Endorse) -> Self {
        Self {
            to,
            method: method::ENDORSE,
            body: codec::encode(endorse),
        }
    }
}

#[derive(Default)]
pub struct Outbox {
    messages: Vec<Transmit>,
    answers: Vec<(Ticket, Answer)>,
}

impl Outbox {
    pub fn send(&mut self, messages: impl IntoIterator<Item = Transmit>) {
        self.messages.extend(messages);
    }

    pub fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.answers.push((ticket, answer));
    }

    pub fn send_elsewhere(
        &mut self,
        tickets: impl IntoIterator<Item = Ticket>,
        leader: Option<NodeId>,
    ) {
        for ticket in tickets {
            self.answer(ticket, Err(ProposeError::NotLeader(leader)));
        }
    }

    pub fn take_messages(&mut self) -> Vec<Transmit> {
        std::mem::take(&mut self.messages)
    }

    pub fn take_answers(&mut self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut self.answers)
    }
}
