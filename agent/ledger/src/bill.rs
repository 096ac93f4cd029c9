//! Who pays for a request, and how much: what the leader reads out of it before
//! it checks anything, and takes once its author is proved.

use std::time::Duration;

use innermesh_proto::{
    crypto::Sealed,
    id::NodeId,
    ledger::{Author, Content, Grant, Refusal, Request},
    limits,
    message::Spenders,
};

use super::{
    budget::{Class, Cost, Payer},
    writer::Writer,
};

/// Why a request isn't in the next batch. Nothing was changed.
pub(super) enum Left {
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
pub(super) struct Bill {
    payer: Payer,
    class: Class,
    cost: Cost,
    /// Who gave out the token that it is made with.
    inviter: Option<NodeId>,
}

impl Bill {
    /// None for what is no request: that is refused, and costs who delivers it.
    pub fn of(sealed: &Sealed) -> Option<Self> {
        let request: Request = sealed.peek(limits::REQUEST_BYTES).ok()?;
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

impl Writer {
    /// Whether whoever a request says that it is by has something left.
    pub fn check_budget(&mut self, bill: Option<&Bill>) -> Result<(), Left> {
        let Some(bill) = bill else { return Ok(()) };
        let now = self.host.clock.now();
        let checked = self.budgets.check(bill.payer, bill.class, bill.cost, now);
        checked.map_err(|wait| {
            self.budgets.note_denied(bill.payer, bill.class, now);
            Left::Spent(wait)
        })
    }

    /// Takes what a request costs, whose author is proved: with so many bytes
    /// beyond its own, or none at all where nothing is written. A machine that
    /// joins counts on its inviter, too.
    pub fn pay(&mut self, bill: Option<&Bill>, more: Option<usize>) -> Result<(), Left> {
        let Some(bill) = bill else { return Ok(()) };
        let now = self.host.clock.now();
        let cost = Cost {
            bytes: more.map_or(0, |more| bill.cost.bytes + more),
            ..bill.cost
        };
        let charged = self.budgets.charge(bill.payer, bill.class, cost, now);
        charged.map_err(Left::Spent)?;
        if let (Some(inviter), Some(_)) = (bill.inviter, more) {
            let inviter = Payer::Node(inviter);
            let charged = self.budgets.charge(inviter, bill.class, cost, now);
            charged.map_err(Left::Spent)?;
        }
        Ok(())
    }

    /// Takes bytes that weren't known before, also where there are too few.
    pub fn pay_more(&mut self, bill: Option<&Bill>, bytes: usize) {
        let Some(bill) = bill else { return };
        let now = self.host.clock.now();
        let payers = [Some(bill.payer), bill.inviter.map(Payer::Node)];
        for payer in payers.into_iter().flatten() {
            self.budgets.take_bytes(payer, bill.class, bytes, now);
        }
    }

    /// As [`super::Ledger::spenders`].
    pub fn spenders(&self) -> Spenders {
        if !self.will_decide() {
            return Spenders::default();
        }
        let spent = self.budgets.spent(self.host.clock.now());
        let ms = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Spenders {
            leads: true,
            nodes: spent
                .into_iter()
                .map(|(node, wait)| (node, ms(wait)))
                .collect(),
        }
    }
}
