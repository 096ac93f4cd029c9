//! A ledger's file read from its start and checked on the way, batch by batch,
//! without an agent.

use innermesh_proto::{
    crypto::Verify,
    ledger::{Batch, BatchError, Position, Sentence, State},
};

use super::file::Loaded;

/// How far a ledger's file is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Batches that are proved by their rosters and follow from each other.
    pub batches: u64,
    /// The last of them.
    pub position: Position,
    /// What is wrong after that one, and where.
    pub problem: Option<String>,
}

/// Checks what a file holds from the genesis on, and tells `each` thing that
/// happened, in order, as far as it is right.
pub fn check(loaded: &Loaded, verify: &dyn Verify, mut each: impl FnMut(Sentence)) -> Checked {
    let mut checked = Checked {
        batches: 0,
        position: loaded.genesis.position(),
        problem: None,
    };
    let mut state = match State::genesis(&loaded.genesis, verify) {
        Ok(state) => state,
        Err(error) => {
            checked.problem = Some(format!("the first entry is not right: {error}"));
            return checked;
        }
    };
    if let Ok(genesis) = loaded.genesis.peek() {
        each(genesis.told());
    }
    for (n, batch) in loaded.batches.iter().enumerate() {
        match next(&state, batch, verify, &mut each) {
            Ok(after) => state = after,
            Err(error) => {
                checked.problem = Some(format!(
                    "batch {} at byte {} is not right: {error}",
                    state.position.index + 1,
                    loaded.offset(n)
                ));
                return checked;
            }
        }
        checked.batches += 1;
        checked.position = state.position;
    }
    checked.problem = loaded.damage.map(|at| {
        format!(
            "the file is damaged at byte {at}, after batch {}",
            state.position.index
        )
    });
    checked
}

fn next(
    state: &State,
    batch: &Batch,
    verify: &dyn Verify,
    each: &mut impl FnMut(Sentence),
) -> Result<State, BatchError> {
    state.check_proof(batch, verify)?;
    let (after, sentences) = state.told(batch, verify)?;
    sentences.into_iter().for_each(each);
    Ok(after)
}
