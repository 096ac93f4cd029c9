//! Room on the disk of whoever decides: the last of it is kept for what takes
//! something away. An eviction must not wait until somebody has cleaned up.

use std::time::Duration;

use innermesh_host::Mono;
use innermesh_proto::{crypto::Sealed, ledger::Request};

/// With less than so many free bytes a CA node only decides what takes
/// something away: evictions, revocations, names and records that are given up.
pub const ROOM: u64 = 16 << 20;
/// What a node that follows leaves free for the rest of its state.
pub const LEAST: u64 = 256 << 10;
/// How long a look at the disk holds good.
const LOOK: Duration = Duration::from_secs(5);
/// How long leadership stays after it was handed on for want of room: another
/// may have no more of it.
const STAYS: Duration = Duration::from_secs(60);

/// What is known of it.
#[derive(Default)]
pub struct Room {
    /// Whether there is little of it.
    is_tight: bool,
    /// When it is looked at again.
    next: Mono,
    /// When leadership may be handed on because of it.
    hand_over: Mono,
}

impl Room {
    /// Whether the disk is to be looked at again.
    pub fn is_look_due(&self, now: Mono) -> bool {
        now >= self.next
    }

    /// Notes how many bytes are free.
    pub fn note_free(&mut self, free: u64, now: Mono) {
        self.next = now + LOOK;
        let is_tight = free < ROOM;
        if is_tight && !self.is_tight {
            tracing::error!(
                free_kib = free >> 10,
                "the disk is nearly full: only evictions, revocations and the like are decided here"
            );
        }
        self.is_tight = is_tight;
    }

    /// Whether another is to lead because of it, now.
    pub fn hands_over(&mut self, now: Mono) -> bool {
        let due = self.is_tight && now >= self.hand_over;
        if due {
            self.hand_over = now + STAYS;
        }
        due
    }

    /// Whether there is room for this request.
    pub fn is_enough_for(&self, request: &Sealed) -> bool {
        !self.is_tight || Request::peek(request).is_ok_and(|request| request.takes_away())
    }
}
