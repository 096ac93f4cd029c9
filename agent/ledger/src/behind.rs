//! Whether this node is known to be behind: a header that the rosters signed
//! names a place that its ledger hasn't come to. What peers only claim says
//! nothing.

use innermesh_proto::{crypto::Verify, ledger::Batch};

use super::ledger::Ledger;

impl Ledger {
    /// Notes that there is this batch, if it is further than this node is and
    /// the roster that is in force here signed it.
    pub fn note_proved(&self, batch: &Batch, verify: &dyn Verify) {
        let state = self.state();
        let Ok(at) = batch.position() else { return };
        let place = (state.recovery, at.index);
        let is_new = at.index > state.position.index && place > self.inner.furthest.get();
        if is_new && state.has_proved(batch, verify) {
            self.inner.furthest.note(place);
        }
    }

    /// Notes a place that the rosters since the genesis vouch for.
    pub(super) fn note_proved_at(&self, recovery: u32, index: u64) {
        self.inner.furthest.note((recovery, index));
    }

    /// Notes a place that this node had come to before its files were damaged.
    pub fn note_had(&self, recovery: u32, index: u64) {
        self.inner.furthest.note((recovery, index));
    }

    /// The place that this node is known to be behind, if it is.
    pub fn behind(&self) -> Option<u64> {
        let state = self.state();
        let (recovery, index) = self.inner.furthest.get();
        let is_behind = (recovery, index) > (state.recovery, state.position.index);
        is_behind.then_some(index)
    }
}
