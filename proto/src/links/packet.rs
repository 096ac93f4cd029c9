//! Beats as packets. In a quiet mesh one says what the one before did: most of them state
//! only that, in a fifth of the bytes, and most answers aren't sent at all, as the
//! transport acknowledges what they would answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Order, Place,
    wire::{Beat, Flags},
};
use crate::{
    codec::{self, CodecError},
    limits,
};

/// The first byte: a whole beat, or one that says the same as the last whole one. Others
/// are for newer builds.
const WHOLE: u8 = 1;
const SAME: u8 = 2;
/// How often what is new is said whole: one packet may be lost.
const TWICE: u32 = 2;
/// After so many that say the same, one is whole.
const IN_A_ROW: u32 = 7;
/// By how much a clock may differ from what follows from the last whole beat.
const CLOCK_OFF_MS: u64 = 500;

#[derive(Serialize, Deserialize)]
struct Same {
    flags: Flags,
    mine: u32,
    yours: u32,
}

/// What whole beats say beside the state of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    head: Order,
    digest: [u8; 16],
    position: Place,
}

impl Said {
    fn of(beat: &Beat) -> Self {
        Self {
            head: beat.head,
            digest: beat.digest,
            position: beat.position,
        }
    }
}

/// A whole beat, and when it was sent or came.
#[derive(Clone, Debug)]
struct Last {
    said: Said,
    mine: u32,
    clock_ms: u64,
    at: Duration,
}

impl Last {
    fn new(beat: &Beat, at: Duration) -> Self {
        Self {
            said: Said::of(beat),
            mine: beat.mine,
            clock_ms: beat.clock_ms,
            at,
        }
    }

    fn clock_ms(&self, now: Duration) -> u64 {
        let age = now.saturating_sub(self.at);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.clock_ms.saturating_add(age_ms)
    }
}

/// Whether a datagram is a packet of a link.
pub fn is_packet(datagram: &[u8]) -> bool {
    matches!(datagram, [WHOLE | SAME, ..])
}

/// How this end sees the link: its flags, its attempt and the peer's.
type Stated = (Flags, u32, u32);

fn stated(beat: &Beat) -> Stated {
    let kinds = [Flags::ASK, Flags::TURN, Flags::ACKS];
    let flags = kinds.iter();
    let flags = flags.fold(beat.flags, |flags, kind| flags.without(*kind));
    (flags, beat.mine, beat.yours)
}

/// What was sent to one peer over one connection.
#[derive(Clone, Debug, Default)]
pub struct PacketWriter {
    last: Option<Last>,
    /// How often what was said last was said whole, and how often not since.
    whole: u32,
    same: u32,
    /// How often in a row the link was stated so.
    stated: Option<(Stated, u32)>,
    /// The beat to be answered, where its acknowledgement may do.
    asked: Option<Beat>,
}

impl PacketWriter {
    /// A beat came from the peer. Whoever probes may have missed what others would
    /// refer to.
    pub fn note_heard(&mut self, beat: &Beat) {
        if beat.flags.has(Flags::ASK) && !beat.flags.has(Flags::TURN) {
            *self = Self::default();
        }
        self.asked = beat.flags.has(Flags::ACKS).then(|| beat.clone());
    }

    /// The packet for this beat; none where it answers a peer that knows all of it, and
    /// whose own beat says the same.
    pub fn write(&mut self, beat: &Beat, now: Duration) -> Option<Vec<u8>> {
        let is_said = self.last.as_ref().is_some_and(|last| {
            last.said == Said::of(beat)
                && last.mine == beat.mine
                && last.clock_ms(now).abs_diff(beat.clock_ms) <= CLOCK_OFF_MS
        });
        let asked = self.asked.take();
        let stated = stated(beat);
        let times = match self.stated {
            Some((before, times)) if before == stated => times,
            _ => 0,
        };
        let is_known = is_said && self.whole >= TWICE && is_usual(beat.flags);
        if is_known && times >= TWICE && asked.is_some_and(|asked| is_answered(&asked, beat)) {
            return None;
        }
        self.stated = Some((stated, times.saturating_add(1)));
        if is_known && self.same < IN_A_ROW {
            self.same += 1;
            let same = Same {
                flags: beat.flags,
                mine: beat.mine,
                yours: beat.yours,
            };
            return Some([&[SAME][..], &codec::encode(&same)].concat());
        }
        self.whole = if is_said {
            self.whole.saturating_add(1)
        } else {
            1
        };
        self.same = 0;
        self.last = Some(Last::new(beat, now));
        Some([&[WHOLE][..], &beat.encode()].concat())
    }
}

/// Whether an answer would tell whoever asked nothing: both see the link alike, and have
/// the same heads and ledger.
fn is_answered(asked: &Beat, answer: &Beat) -> bool {
    !answer.flags.has(Flags::ASK)
        && (asked.mine, asked.yours) == (answer.yours, answer.mine)
        && (asked.digest, asked.position) == (answer.digest, answer.position)
}

/// Whether it is a beat in turn, or an answer to one.
fn is_usual(flags: Flags) -> bool {
    let usual = [
        Flags::ASK,
        Flags::TURN,
        Flags::READY,
        Flags::WANTS,
        Flags::ACKS,
    ];
    let usual = usual.iter();
    let usual = usual.fold(Flags::default(), |all, flag| all.with(*flag, true));
    usual.has_all(flags) && (flags.has(Flags::TURN) || !flags.has(Flags::ASK))
}

/// What came from one peer over one connection.
#[derive(Clone, Debug, Default)]
pub struct PacketReader {
    last: Option<Last>,
}

/// Why a packet says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// It begins as no packet of a link does.
    #[error("no packet of a link")]
    Kind,
    /// It refers to a beat that never came.
    #[error("what it repeats didn't come")]
    Unknown,
    /// It isn't a beat.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl PacketReader {
    /// The beat of a packet. Where the last whole one was lost it has what the one
    /// before said: its sender was heard all the same.
    ///
    /// # Errors
    /// [`PacketError`]; nothing was noted.
    pub fn read(&mut self, packet: &[u8], now: Duration) -> Result<Beat, PacketError> {
        match packet.split_first() {
            Some((&WHOLE, rest)) => {
                let beat = Beat::decode(rest)?;
                self.last = Some(Last::new(&beat, now));
                Ok(beat)
            }
            Some((&SAME, rest)) => {
                let (same, _) = codec::decode_front::<Same>(rest, limits::LINK_PACKET_BYTES)?;
                let last = self.last.as_ref();
                // What was said before the link was lost says nothing of this one.
                let last = last.filter(|last| last.mine == same.mine);
                let last = last.ok_or(PacketError::Unknown)?;
                let Said {
                    head,
                    digest,
                    position,
                } = last.said;
                Ok(Beat {
                    flags: same.flags,
                    mine: same.mine,
                    yours: same.yours,
                    head,
                    digest,
                    position,
                    clock_ms: last.clock_ms(now),
                })
            }
            _ => Err(PacketError::Kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ms, *};

    fn beat(n: u8) -> Beat {
        Beat {
            flags: Flags::READY,
            mine: 65_537,
            yours: 65_539,
            head: (40, 2000),
            digest: [n; 16],
            position: Place {
                index: 60_000,
                hash: [7; 16],
            },
            clock_ms: 1_800_000_000_000,
        }
    }

    /// The same, so much later.
    fn later(beat: &Beat, ms: u64) -> Beat {
        Beat {
            clock_ms: beat.clock_ms + ms,
            ..beat.clone()
        }
    }

    #[test]
    fn what_is_said_again_is_small_and_reads_as_if_it_was_whole() {
        let (mut writer, mut reader) = (PacketWriter::default(), PacketReader::default());
        let mut sizes = Vec::new();
        for n in 0..20 {
            let beat = later(&beat(1), n * 1333);
            let packet = writer.write(&beat, ms(n * 1333)).unwrap();
            assert_eq!(reader.read(&packet, ms(n * 1333)), Ok(beat));
            sizes.push(packet.len());
        }
        let small = sizes.iter().filter(|size| **size == 13).count();
        assert_eq!(small, 16, "{sizes:?}");
    }

    #[test]
    fn whatever_changes_is_said_whole_twice() {
        let other = |change: fn(&mut Beat)| {
            let mut other = later(&beat(1), 9000);
            change(&mut other);
            other
        };
        for changed in [
            other(|beat| beat.digest = [2; 16]),
            other(|beat| beat.head.1 += 1),
            other(|beat| beat.position.index += 1),
            other(|beat| beat.mine += 1),
            other(|beat| beat.clock_ms += 60_000),
        ] {
            let mut writer = PacketWriter::default();
            let at = |n: u64| ms(1000 * n);
            for n in 0..5 {
                let _ = writer.write(&later(&beat(1), 1000 * n), at(n));
            }
            let sizes: Vec<usize> = (0..3)
                .map(|n| {
                    let beat = later(&changed, 1000 * n);
                    writer.write(&beat, at(9 + n)).unwrap().len()
                })
                .collect();
            assert!(
                sizes[0] > 40 && sizes[1] > 40 && sizes[2] < 20,
                "{sizes:?} of {changed:?}"
            );
        }
        let mut writer = PacketWriter::default();
        for n in 0..5 {
            let _ = writer.write(&later(&beat(1), n), ms(n));
        }
        let mut asks = later(&beat(1), 5);
        asks.flags = Flags::ASK.with(Flags::TURN, true);
        let packet = writer.write(&asks, ms(5)).unwrap();
        assert!(packet.len() < 20, "a beat in turn");
        asks.flags = Flags::ASK;
        assert!(writer.write(&asks, ms(5)).unwrap().len() > 40, "a probe");
    }

    #[test]
    fn a_sender_is_heard_although_what_it_repeats_was_lost() {
        let (mut writer, mut reader) = (PacketWriter::default(), PacketReader::default());
        let first = beat(1);
        let _ = reader.read(&writer.write(&first, ms(0)).unwrap(), ms(0));
        for n in 0..2 {
            let _ = writer.write(&later(&beat(2), n), ms(n));
        }
        let packet = writer.write(&later(&beat(2), 2), ms(2)).unwrap();
        assert!(packet.len() < 20);
        assert_eq!(reader.read(&packet, ms(2)), Ok(later(&beat(1), 2)));
        let mut new = PacketReader::default();
        assert_eq!(new.read(&packet, ms(2)), Err(PacketError::Unknown));
        let mut before = PacketReader::default();
        let attempt = Beat {
            mine: first.mine - 1,
            ..first
        };
        let packet_before = PacketWriter::default().write(&attempt, ms(0)).unwrap();
        let _ = before.read(&packet_before, ms(0));
        assert_eq!(before.read(&packet, ms(2)), Err(PacketError::Unknown));
        assert_eq!(new.read(&[], ms(2)), Err(PacketError::Kind));
        assert_eq!(new.read(&[3, 1, 2], ms(2)), Err(PacketError::Kind));
        assert!(matches!(
            reader.read(&packet[..3], ms(2)),
            Err(PacketError::Codec(_))
        ));
    }

    /// Two ends that know all of each other: what `one` asks, and what `other` answers.
    fn acquainted() -> (PacketWriter, Beat, Beat) {
        let mut writer = PacketWriter::default();
        let answer = beat(1);
        for n in 0..4 {
            let beat = later(&answer, 1000 * n);
            assert!(writer.write(&beat, ms(1000 * n)).is_some());
        }
        let mut asks = later(&answer, 4000);
        (asks.mine, asks.yours) = (answer.yours, answer.mine);
        let flags = [Flags::ASK, Flags::TURN, Flags::ACKS];
        let all = flags.iter();
        asks.flags = all.fold(asks.flags, |all, flag| all.with(*flag, true));
        (writer, asks, later(&answer, 4000))
    }

    #[test]
    fn an_answer_that_tells_nothing_is_left_to_the_acknowledgement() {
        let (mut writer, asks, answer) = acquainted();
        for _ in 0..30 {
            writer.note_heard(&asks);
            assert_eq!(writer.write(&answer, ms(4000)), None);
        }
        // A beat in turn is none.
        writer.note_heard(&asks);
        let beat = Beat {
            flags: asks.flags,
            ..answer
        };
        assert!(writer.write(&beat, ms(4000)).is_some());
    }

    #[test]
    fn an_answer_is_sent_where_either_end_may_not_know_all() {
        type Change = fn(&mut Beat);
        let asked: [Change; 6] = [
            |it| it.flags = it.flags.without(Flags::ACKS),
            |it| it.flags = it.flags.without(Flags::TURN),
            |it| it.mine += 1,
            |it| it.yours -= 1,
            |it| it.digest = [9; 16],
            |it| it.position.index -= 1,
        ];
        for change in asked {
            let (mut writer, mut asks, answer) = acquainted();
            change(&mut asks);
            writer.note_heard(&asks);
            assert!(writer.write(&answer, ms(4000)).is_some(), "{asks:?}");
        }
        // What this end says anew is sent twice, then it may be left out.
        let answered: [Change; 4] = [
            |it| it.flags = it.flags.with(Flags::WANTS, true),
            |it| it.head.1 += 1,
            |it| it.clock_ms += 60_000,
            |it| it.flags = it.flags.without(Flags::READY),
        ];
        for change in answered {
            let (mut writer, asks, mut answer) = acquainted();
            change(&mut answer);
            let sent = [0, 1, 2].map(|n| {
                writer.note_heard(&asks);
                writer.write(&later(&answer, n), ms(4000 + n)).is_some()
            });
            assert_eq!(sent, [true, true, false], "{answer:?}");
        }
    }
}
