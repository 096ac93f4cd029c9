//! What this node sends, and what it makes of others' tables.

use std::time::Duration;

use super::{Effect, Links};
use crate::{
    crypto::Hash,
    id::NodeId,
    links::{
        BEAT, ms,
        wire::{Beat, Flags},
    },
};

/// With no head for so long, tables that differ aren't on their way to be the same.
const STILL: Duration = ms(400);
/// Time between two repairs over one link. Where one brought nothing (the heads that
/// differ aren't taken here) it doubles, up to [`REPAIR_GAP_MAX`].
const REPAIR_GAP: Duration = ms(500);
const REPAIR_GAP_MAX: Duration = ms(32_000);

impl Links {
    pub(super) fn send(&mut self, peer: NodeId, flags: Flags, now: Duration) {
        if !self.connected.contains(&peer) {
            return;
        }
        let mut beat = Beat {
            flags,
            head: self.own,
            digest: self.digest.total(),
            position: self.position,
            clock_ms: self.clock_ms,
            ..Beat::default()
        };
        if let Some(link) = self.links.get(&peer) {
            link.stamp(&mut beat, now);
        }
        self.effects.push_back(Effect::Send(peer, beat));
    }

    /// Repairs what pushes missed, where a peer's table stays another.
    pub(super) fn compare_tables(&mut self, peer: NodeId, beat: &Beat, now: Duration) {
        let tables = self.tables.entry(peer).or_default();
        if beat.position != self.position || beat.digest == self.digest.total() {
            tables.differ = 0;
            if beat.position == self.position {
                tables.fruitless = 0;
                self.settle(now);
            }
            return;
        }
        tables.differ += 1;
        let is_still = self.head_at.is_none_or(|at| now >= at + STILL);
        let gap = REPAIR_GAP * 2u32.pow(tables.fruitless.min(6));
        let gap = gap.min(REPAIR_GAP_MAX);
        let may = tables.repaired.is_none_or(|at| now >= at + gap);
        // Where both see it, one of them asks.
        let patience = if self.me < peer { 1 } else { 3 };
        if may && (is_still && tables.differ >= patience || tables.differ > patience) {
            tables.differ = 0;
            tables.repaired = Some(now);
            self.effects.push_back(Effect::Repair(peer));
        }
    }
}

/// When within [`BEAT`] a link begins to beat: a mesh that starts at once doesn't beat in
/// step.
pub(super) fn phase(one: &NodeId, other: &NodeId) -> Duration {
    let (first, second) = (one.min(other), one.max(other));
    let hash = Hash::of(&[&b"phase"[..], &first.0, &second.0].concat());
    let part = u32::from(hash.0[0]) << 8 | u32::from(hash.0[1]);
    BEAT * part / 0x1_0000
}

/// By how much this end's pauses before it dials the other are shorter, of 256.
pub(super) fn spread(me: &NodeId, other: &NodeId) -> u8 {
    Hash::of(&[&b"spread"[..], &me.0, &other.0].concat()).0[0]
}
