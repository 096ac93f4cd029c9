//! Ledger time on this node: what its clock, its peers' clocks and the newest
//! stamp say, and when the leader is to move it on.

use std::time::Duration;

use innermesh_host::Mono;
use innermesh_proto::ledger::stamp;

/// How often the leader writes an empty batch when there is nothing else, so
/// that ledger time goes on.
const HEARTBEAT: Duration = Duration::from_secs(3600);

/// When something is handled, by this node's two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    pub mono: Mono,
    /// Milliseconds since 1970; may be wrong and may jump.
    pub wall_ms: u64,
}

#[derive(Default)]
pub struct LedgerTime {
    /// What peers' clocks say: wall time in milliseconds.
    peer_clocks: Vec<u64>,
    /// When the newest stamp was first seen here, or this process began.
    seen: Mono,
    /// When the next empty batch is due.
    beat: Mono,
    /// The voters' log didn't take one: it is tried again then.
    postponed: Mono,
}

impl LedgerTime {
    /// The first empty batch is due at once where the newest one is older than
    /// they are apart, so that a leader that is often started anew keeps ledger
    /// time going.
    pub fn new(stamp_ms: u64, now: Now) -> Self {
        let age_ms = now.wall_ms.saturating_sub(stamp_ms);
        Self {
            peer_clocks: Vec::new(),
            seen: now.mono,
            beat: now.mono + HEARTBEAT.saturating_sub(Duration::from_millis(age_ms)),
            postponed: now.mono,
        }
    }

    pub fn set_peer_clocks(&mut self, clocks: Vec<u64>) {
        self.peer_clocks = clocks;
    }

    /// The stamp that this node would give a batch now.
    pub fn next_stamp(&self, stamp_ms: u64, now: Now) -> u64 {
        stamp::propose(
            stamp_ms,
            now.wall_ms,
            &self.peer_clocks,
            self.elapsed_ms(now),
        )
    }

    /// What this node holds for the ledger's time, in milliseconds.
    pub fn estimate(&self, stamp_ms: u64, now: Now) -> u64 {
        stamp::estimate(
            stamp_ms,
            now.wall_ms,
            &self.peer_clocks,
            self.elapsed_ms(now),
        )
    }

    /// As far as ledger time can have gone on since the newest stamp, whatever
    /// any clock says.
    pub fn latest(&self, stamp_ms: u64, now: Now) -> u64 {
        stamp_ms.saturating_add(self.elapsed_ms(now))
    }

    fn elapsed_ms(&self, now: Now) -> u64 {
        let elapsed = now.mono.saturating_sub(self.seen);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    /// When the newest stamp was first seen.
    pub fn seen(&self) -> Mono {
        self.seen
    }

    pub fn note_stamp(&mut self, now: Now) {
        self.seen = now.mono;
        self.beat = now.mono + HEARTBEAT;
    }

    /// When an empty batch is due; at once where the newest state `awaits` one.
    pub fn beat(&self, awaits: bool) -> Mono {
        if awaits {
            self.postponed
        } else {
            self.beat.max(self.postponed)
        }
    }

    pub fn postpone_beat(&mut self, until: Mono) {
        self.postponed = until;
    }
}
