//! Who may set the policy, and which one may be in force.

use super::asking::AskingMember;
use crate::{
    ledger::{effect::Effect, policy::PolicyText, refusal::Refusal, state::State},
    policy::{self, Policy},
};

/// Only a policy whose own tests don't fail, so that none that does is ever in
/// force, whoever asked for it.
pub(super) fn rule_policy(
    state: &State,
    author: AskingMember<'_>,
    text: PolicyText,
) -> Result<Effect, Refusal> {
    author.require_admin()?;
    if state.policy().is_some_and(|held| held.text == text.0) {
        return Ok(Effect::Nothing);
    }
    let refuse = |error: policy::PolicyError| Refusal::Policy(error.to_string());
    let policy = Policy::parse(&text.0).map_err(refuse)?;
    policy::check(&policy, &state.directory()).map_err(refuse)?;
    Ok(Effect::Policy(Box::new((text.0, policy)), author.node))
}
