//! A peer's batches, taken in.

use innermesh_proto::{crypto::Verify, id::NodeId, ledger::Batch};

use super::{decide::TakeError, ledger::Ledger};

/// Takes batches that a peer pushed or was asked for. If the roster signed the
/// last of them and it isn't held then, this node knows that it is behind.
///
/// # Errors
/// [`TakeError`] of the first that isn't taken.
pub async fn take(
    ledger: &Ledger,
    verify: &dyn Verify,
    from: NodeId,
    batches: Vec<Batch>,
) -> Result<(), TakeError> {
    let last = batches.last().map(|batch| Batch {
        header: batch.header.clone(),
        entries: Vec::new(),
        proof: batch.proof.clone(),
    });
    let taken = ledger.take(batches).await;
    if let (Err(error), Some(last)) = (&taken, last) {
        ledger.note_proved(&last, verify);
        if let TakeError::Batch(error) = error {
            tracing::warn!(peer = ?from, %error, "a peer's batch was refused");
        }
    }
    taken.map(|_| ())
}
