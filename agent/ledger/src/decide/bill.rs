//! Who pays for a request, and how much: what the leader reads out of it before
//! it checks anything, and takes once its author is proved.

use std::time::Duration;

use innermesh_host::Mono;
use innermesh_proto::{
    crypto::Sealed,
    id::NodeId,
    ledger::{Author, Content, Grant, Refusal, Request},
    limits,
};

use super::budget::{Budgets, Class, Cost, Payer};

/// Why a request isn't in the next batch. Nothing was changed.
pub enum Left {
    Refused(Refusal),
    /// Its author has spent its budget for so long.
    Spent(Duration),
}

impl From<Refusal> for Left {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// As a request says itself.
pub struct Bill {
    payer: Payer,
    class: Class,
    cost: Cost,
    /// Who gave out the token that it is made with.
    inviter: Option<NodeId>,
}

impl Bill {
    /// None for what is no request: that is refused, and costs who delivers it.
    pub fn of(sealed: &Sealed) -> Option<Self> {
        let request = Request::peek(sealed).ok()?;
        let content = Content::decode(request.kind, &request.content)?;
        let grant = content
            .join()
            .and_then(|join| Grant::peek(&join.grant).ok());
        Some(Self {
            payer: match request.author {
                Author::Node(node) => Payer::Node(node),
                Author::Token(key) => Payer::Token(key),
            },
            class: Class::of(&request),
            cost: Cost {
                bytes: sealed.bytes.len() + limits::ENTRY_OVERHEAD_BYTES,
                more: grant
                    .as_ref()
                    .map_or(0, |grant| grant.uses.min(limits::TOKEN_USES)),
            },
            inviter: grant.map(|grant| grant.inviter),
        })
    }
}

impl Bill {
    /// Whether whoever the request says that it is by has something left.
    pub fn check(&self, budgets: &mut Budgets, now: Mono) -> Result<(), Left> {
        let checked = budgets.check(self.payer, self.class, self.cost, now);
        checked.map_err(|wait| {
            budgets.note_denied(self.payer, self.class, now);
            Left::Spent(wait)
        })
    }

    /// Takes what the request costs, whose author is proved: with so many bytes
    /// beyond its own, or none at all where nothing is written. A machine that
    /// joins counts on its inviter, too.
    pub fn pay(&self, budgets: &mut Budgets, more: Option<usize>, now: Mono) -> Result<(), Left> {
        let cost = Cost {
            bytes: more.map_or(0, |more| self.cost.bytes + more),
            ..self.cost
        };
        let charged = budgets.charge(self.payer, self.class, cost, now);
        charged.map_err(Left::Spent)?;
        if let (Some(inviter), Some(_)) = (self.inviter, more) {
            let inviter = Payer::Node(inviter);
            let charged = budgets.charge(inviter, self.class, cost, now);
            charged.map_err(Left::Spent)?;
        }
        Ok(())
    }

    /// Takes bytes that weren't known before, also where there are too few.
    pub fn pay_more(&self, budgets: &mut Budgets, bytes: usize, now: Mono) {
        let payers = [Some(self.payer), self.inviter.map(Payer::Node)];
        for payer in payers.into_iter().flatten() {
            budgets.take_bytes(payer, self.class, bytes, now);
        }
    }
}
