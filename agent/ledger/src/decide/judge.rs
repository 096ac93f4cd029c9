//! What becomes of one request of the next batch.

use innermesh_ca as ca;
use innermesh_host::{Mono, keys::Keys};
use innermesh_proto::{
    crypto::Sealed,
    ledger::{Decision, Draft, Entry, Outcome, Refusal, Request},
    limits,
};

use super::{
    bill::{Bill, Left},
    budget::Budgets,
    issuers::Issuers,
};

/// With what requests are judged.
pub struct Judge<'a> {
    pub keys: &'a dyn Keys,
    pub issuers: &'a Issuers,
    pub budgets: &'a mut Budgets,
    pub now: Mono,
}

impl Judge<'_> {
    /// Adds the request to the draft, or refuses it. What is refused isn't
    /// written down, unless it `is_recorded`, its author is a member, and the
    /// rules remember it. Whoever has spent its budget isn't worth the check of a
    /// signature; only whose signature is right pays.
    pub fn enter(
        &mut self,
        draft: &mut Draft,
        request: Sealed,
        is_recorded: bool,
    ) -> Result<Outcome, Left> {
        let is_recorded = is_recorded && draft.state().rules == 0;
        let bill = Bill::of(&request);
        if let Some(bill) = &bill {
            bill.check(self.budgets, self.now)?;
        }
        // Whether all voters know the rules is for who leads to see.
        let is_early = |request: Request| request.raises_rules();
        if Request::peek(&request).is_ok_and(is_early) {
            return Err(Refusal::Rules.into());
        }
        let attachment = match draft.decide(&request, self.keys) {
            Ok(Decision::Repeat(outcome)) => return Ok(outcome),
            Ok(Decision::Plain) => {
                self.pay(bill.as_ref(), Some(0))?;
                Vec::new()
            }
            Ok(Decision::Certificate(plan)) => {
                self.pay(bill.as_ref(), Some(limits::CERTIFICATE_LIKELY_BYTES))?;
                let Some(issuer) = self.issuers.at(draft.state().stamp_ms) else {
                    return Err(Refusal::Certificate(
                        "the CA node that leads has no issuer in force; an admin renews it with \
                         `agent ca promote`"
                            .into(),
                    )
                    .into());
                };
                let signed = issuer.sign_leaf(&plan, ca::random_serial(self.keys), self.keys);
                let der = signed.map_err(|error| Refusal::Certificate(error.to_string()))?;
                if let Some(bill) = &bill {
                    let more = der.len().saturating_sub(limits::CERTIFICATE_LIKELY_BYTES);
                    bill.pay_more(self.budgets, more, self.now);
                }
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
        Ok(draft.add(entry, self.keys))
    }

    fn pay(&mut self, bill: Option<&Bill>, more: Option<usize>) -> Result<(), Left> {
        bill.map_or(Ok(()), |bill| bill.pay(self.budgets, more, self.now))
    }
}
