//! Room on the disk of whoever decides: the last of it is kept for what takes
//! something away. An eviction must not wait until somebody has cleaned up.

use std::time::Duration;

use innermesh_proto::{
    codec,
    crypto::Sealed,
    ledger::{Batch, Request},
    limits,
};

use super::writer::Writer;
use crate::host::Mono;

/// With less than so many free bytes a CA node only decides what takes
/// something away: evictions, revocations, names and records that are given up.
pub const ROOM: u64 = 16 << 20;
/// What a node that follows leaves free for the rest of its state.
const LEAST: u64 = 256 << 10;
/// How long a look at the disk holds good.
const LOOK: Duration = Duration::from_secs(5);
/// How long leadership stays after it was handed on for want of room: another
/// may have no more of it.
const STAYS: Duration = Duration::from_secs(60);

/// What is known of it.
#[derive(Default)]
pub(super) struct Room {
    /// Whether there is little of it.
    pub tight: bool,
    /// When it is looked at again.
    next: Mono,
    /// When leadership may be handed on because of it.
    hand_over: Mono,
}

impl Room {
    /// Whether another is to lead because of it, now.
    pub fn hands_over(&mut self, now: Mono) -> bool {
        let due = self.tight && now >= self.hand_over;
        if due {
            self.hand_over = now + STAYS;
        }
        due
    }
}

impl Writer {
    /// Looks at the disk, now and then.
    pub async fn look_at_room(&mut self) {
        let now = self.host.clock.now();
        if now < self.room.next {
            return;
        }
        self.room.next = now + LOOK;
        // Who can't be asked is taken to have some.
        let free = self.host.disk.free().await.unwrap_or(u64::MAX);
        let tight = free < ROOM;
        if tight && !self.room.tight {
            tracing::error!(
                free_kib = free >> 10,
                "the disk is nearly full: only evictions, revocations and the like are decided here"
            );
        }
        self.room.tight = tight;
    }

    /// Whether what is to be written fits. A write that fails would end this
    /// node's part in the ledger until it is started anew; what isn't taken is
    /// there to be taken once there is room.
    pub async fn has_room_to_take(&mut self, batches: &[Batch]) -> bool {
        let bytes: usize = batches.iter().map(|batch| codec::encode(batch).len()).sum();
        let free = self.host.disk.free().await.unwrap_or(u64::MAX);
        free >= LEAST.saturating_add(bytes as u64)
    }

    /// Whether there is room for this request.
    pub async fn has_room_for(&mut self, request: &Sealed) -> bool {
        self.look_at_room().await;
        !self.room.tight
            || request
                .peek::<Request>(limits::REQUEST_BYTES)
                .is_ok_and(|request| request.takes_away())
    }
}
