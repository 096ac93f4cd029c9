//! When newer rules come into force.

use crate::ledger::{refusal::Refusal, salts::SALTS_SINCE, state::State, version::RULES};

/// By one of the roster, one number after the other. That every voter knows
/// them is for whoever leads to find out before it proposes.
pub(super) fn rule_rules(state: &State, is_voter: bool, rules: u32) -> Result<u32, Refusal> {
    if !is_voter {
        return Err(Refusal::NotCa);
    }
    if rules != state.rules + 1 || rules > RULES {
        return Err(Refusal::Rules);
    }
    Ok(rules)
}

impl State {
    /// Raises the rules; what only the new ones keep is counted once.
    pub(in crate::ledger) fn raise_rules(&mut self, rules: u32, index: u64) {
        let before = self.rules;
        self.rules = rules;
        if before == 0 {
            self.let_stand(index);
            self.count_shares();
        }
        if before < SALTS_SINCE && rules >= SALTS_SINCE {
            self.begin_salts(index, before == 0);
        }
    }
}
