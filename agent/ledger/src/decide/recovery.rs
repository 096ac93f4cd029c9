//! The root's recoveries: which history counts where the root gave the ledger a
//! new roster.

use innermesh_proto::{
    crypto::Verify,
    ledger::{Batch, BatchError, Position, SignedRecovery, State},
    limits,
};

use crate::index::BatchIndex;

/// A place to go back to.
pub struct Rewind {
    /// The number of the recovery that goes on from there.
    pub number: u32,
    /// The batch after which it does.
    pub index: u64,
    /// Its first batch.
    pub batch: Batch,
}

/// What a batch says of the recovery that it is, unchecked.
struct Led {
    number: u32,
    place: Position,
    signed: SignedRecovery,
}

impl Led {
    fn of(batch: &Batch) -> Option<(Position, Self)> {
        let signed = batch.read_header().ok()?.recovery?;
        let (number, place) = signed.claims()?;
        let led = Self {
            number,
            place,
            signed,
        };
        Some((batch.position().ok()?, led))
    }
}

/// If these batches are another history, which the root led on from an earlier
/// place than this node's: where to go back to. The history with the highest
/// recovery counts.
///
/// # Errors
/// Where it parts from this one isn't told, or the root signed two recoveries
/// with one number.
pub fn to_follow(
    batches: &[Batch],
    state: &State,
    index: &BatchIndex,
    verify: &dyn Verify,
) -> Result<Option<Rewind>, BatchError> {
    let led: Vec<(&Batch, Position, Led)> = batches
        .iter()
        .filter_map(|batch| Led::of(batch).map(|(at, led)| (batch, at, led)))
        .filter(|(_, at, _)| index.hash_at(at.index) != Some(at.hash))
        // Each may cost the check of a signature.
        .take(limits::RECOVERIES)
        .collect();
    let is_held = |at: &Position| index.hash_at(at.index).is_some();
    let parts = |(_, at, led): &&(&Batch, Position, Led)| {
        let here = led.place.index >= index.base()
            && index.hash_at(led.place.index) == Some(led.place.hash);
        here && is_held(at)
    };
    let Some((batch, at, first)) = led.iter().find(parts) else {
        return if led.iter().any(|(_, at, _)| is_held(at)) {
            // It parts from this one at a place that isn't told.
            Err(BatchError::Recovery)
        } else {
            Ok(None)
        };
    };
    let by_root = |led: &Led| led.signed.open(&state.root.spki, verify).is_some();
    let newest = led
        .iter()
        .filter(|(_, _, led)| led.place.index >= first.place.index && by_root(led))
        .map(|(_, _, led)| led.number)
        .max();
    match newest {
        Some(newest) if newest == state.recovery => {
            tracing::error!(
                number = newest,
                "the root signed two recoveries with one number; run `agent ca recover` again \
                 on the node that is to go on"
            );
            return Err(BatchError::Fork(at.index));
        }
        // One that is over, said again.
        Some(newest) if newest < state.recovery => return Ok(None),
        Some(_) if by_root(first) => {}
        _ => return Err(BatchError::Recovery),
    }
    Ok(Some(Rewind {
        number: first.number,
        index: first.place.index,
        batch: (*batch).clone(),
    }))
}

/// Whether a state to which these batches led lacks what `now` knows of the
/// root's recoveries. Where the root led the ledger on from an earlier place
/// than this node's, the node goes back there first.
pub fn is_fork<'b>(now: &State, recovery: u32, mut led: impl Iterator<Item = &'b Batch>) -> bool {
    let leads_back = |batch: &Batch| {
        let recovery = batch.read_header().ok().and_then(|header| header.recovery);
        recovery
            .and_then(|signed| signed.claims())
            .is_some_and(|(number, place)| {
                number > now.recovery && place != now.position && place.index <= now.position.index
            })
    };
    recovery < now.recovery || led.any(leads_back)
}
