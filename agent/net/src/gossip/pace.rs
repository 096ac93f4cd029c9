//! How far apart gossip rounds are: as the leases of heads need it. They grow
//! with the mesh, but a head that was signed in a smaller one has a shorter one.

use std::time::Duration;

use crate::host::Mono;

/// How long after a mesh has grown heads with shorter leases count: each node
/// states a new one within a third of its old one. A member that goes on to
/// state a short one can't make all others gossip more.
const SETTLED: Duration = Duration::from_secs(60);

/// What is known of the mesh's growth.
pub(super) struct Pace {
    renewal: Duration,
    grown: Mono,
}

impl Pace {
    /// For a node that starts: it can't tell how long the mesh has had its size.
    pub(super) fn new(now: Mono) -> Self {
        Self {
            renewal: Duration::ZERO,
            grown: now,
        }
    }

    /// The time between renewals that rounds have to fit, where heads are
    /// renewed each `renewal` and the shortest lease in force is `shortest`.
    pub(super) fn fit(
        &mut self,
        renewal: Duration,
        shortest: impl FnOnce() -> Duration,
        now: Mono,
    ) -> Duration {
        if renewal > self.renewal {
            self.grown = now;
        }
        self.renewal = renewal;
        if now < self.grown + SETTLED {
            renewal.min(shortest() / 3)
        } else {
            renewal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_that_grows_keeps_its_pace_while_short_leases_are_in_force() {
        let at = Duration::from_secs;
        let mut pace = Pace::new(at(0));
        assert_eq!(pace.fit(at(2), || at(6), at(0)), at(2));
        assert_eq!(pace.fit(at(15), || at(6), at(10)), at(2));
        assert_eq!(pace.fit(at(15), || at(21), at(20)), at(7));
        assert_eq!(pace.fit(at(15), || at(45), at(30)), at(15));
        // One that goes on to state a short lease is left alone with it.
        assert_eq!(pace.fit(at(15), || at(3), at(31)), at(1));
        assert_eq!(pace.fit(at(15), || at(3), at(70)), at(15));
        // And a mesh that shrinks is quicker at once.
        assert_eq!(pace.fit(at(3), || at(45), at(80)), at(3));
    }
}
