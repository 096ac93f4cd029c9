//! A ledger's file read from its start and checked on the way, batch by batch,
//! without an agent.

use innermesh_proto::{
    crypto::Verify,
    ledger::{AuditEvent, Batch, BatchError, Position, State},
};

use super::file::Loaded;

/// How far a ledger's file is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The batch that it begins behind: 0 for the genesis, else one whose state
    /// the rosters since the genesis vouch for.
    pub base: u64,
    /// Batches that are proved by their rosters and follow from each other.
    pub batches: u64,
    /// The last of them.
    pub position: Position,
    /// What is wrong after that one, and where.
    pub problem: Option<String>,
}

/// Checks what files that go on from each other hold, from the genesis on, and
/// tells `each` thing that happened, in order, as far as it is right.
///
/// # Panics
/// Without a file.
pub fn check(files: &[Loaded], verify: &dyn Verify, mut each: impl FnMut(AuditEvent)) -> Checked {
    let loaded = &files[0];
    let mut checked = Checked {
        base: 0,
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
        each(genesis.describe());
    }
    if let Some(start) = &loaded.start {
        match start.open(&loaded.genesis, verify) {
            Ok(begun) => state = begun,
            Err(error) => {
                checked.problem = Some(format!(
                    "the state that it begins with is not right: {error}"
                ));
                return checked;
            }
        }
        checked.base = state.position.index;
        checked.position = state.position;
    }
    for (file, n) in files
        .iter()
        .flat_map(|file| (0..file.batches.len()).map(move |n| (file, n)))
    {
        let batch = &file.batches[n];
        let held = batch
            .position()
            .is_ok_and(|at| at.index <= state.position.index);
        if held && !std::ptr::eq(file, loaded) {
            // Two files may have it.
            continue;
        }
        match next(&state, batch, verify, &mut each) {
            Ok(after) => state = after,
            Err(error) => {
                checked.problem = Some(format!(
                    "batch {} at byte {} is not right: {error}",
                    state.position.index + 1,
                    file.offset(n)
                ));
                return checked;
            }
        }
        checked.batches += 1;
        checked.position = state.position;
    }
    let damage = files.iter().find_map(|file| file.damage);
    checked.problem = damage.map(|at| {
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
    each: &mut impl FnMut(AuditEvent),
) -> Result<State, BatchError> {
    state.check_proof(batch, verify)?;
    let (after, events) = state.describe(batch, verify)?;
    events.into_iter().for_each(each);
    Ok(after)
}
