use futures_util::FutureExt;

use super::{super::*, cluster::position, disk::MemDisk};
use crate::raft::file::parse;

fn base(index: u64) -> Base {
    Base {
        index,
        term: 1,
        conf: Conf::sole(1),
        position: position(0),
    }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        payload: Payload::Data(vec![index as u8, term as u8]),
    }
}

fn hard(term: u64) -> Hard {
    Hard {
        term,
        vote: 1,
        commit: 1,
    }
}

/// A log whose last frame replaces two entries by one.
fn disk() -> MemDisk {
    let disk = MemDisk::default();
    let saved = Saved {
        base: base(1),
        hard: hard(1),
        entries: vec![entry(2, 1)],
    };
    let write = async {
        let mut log = DiskLog::create(&disk, 1, &saved).await.unwrap();
        log.write(hard(1), vec![entry(3, 1), entry(4, 1)])
            .await
            .unwrap();
        log.write(hard(2), vec![entry(3, 2)]).await.unwrap();
    };
    write.now_or_never().unwrap();
    disk
}

#[test]
fn a_later_frame_replaces_what_it_overlaps() {
    let (id, saved, _, _) = parse(&disk().bytes(LOG)).unwrap();
    assert_eq!(id, 1);
    assert_eq!(saved.hard, hard(2));
    assert_eq!(saved.entries, [entry(2, 1), entry(3, 2)]);
}

#[test]
fn a_log_cut_anywhere_is_what_it_was_before_the_torn_write() {
    let whole = disk().bytes(LOG);
    let mut lengths = Vec::new();
    for length in (0..whole.len()).rev() {
        let Ok((_, saved, end, _)) = parse(&whole[..length]) else {
            // Not even its first frame: it never appeared so.
            assert!(lengths.len() >= 3);
            break;
        };
        assert!(end <= length);
        if lengths.last() != Some(&saved.entries.len()) {
            lengths.push(saved.entries.len());
        }
    }
    assert_eq!(lengths[..3], [3, 1, 0]);
}

#[test]
fn damage_in_the_middle_is_told_and_nothing_is_cut() {
    let whole = disk().bytes(LOG);
    for at in 12..whole.len() - 60 {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        match parse(&bytes) {
            Err(LogError::Damaged(_)) => {}
            Err(error) => panic!("at {at}: {error}"),
            // Only a length that now reaches beyond the end looks torn.
            Ok((_, saved, _, _)) => assert!(saved.entries.len() < 2, "at {at}"),
        }
    }
    let disk = MemDisk::default();
    let mut bytes = whole.clone();
    bytes[20] ^= 1;
    disk.put(LOG, bytes.clone());
    let opened = DiskLog::open(&disk).now_or_never().unwrap();
    assert!(matches!(opened, Err(LogError::Damaged(0))));
    assert_eq!(disk.bytes(LOG), bytes);
}

#[test]
fn a_torn_tail_is_cut_before_anything_is_appended() {
    let disk = disk();
    let mut bytes = disk.bytes(LOG);
    bytes.truncate(bytes.len() - 1);
    disk.put(LOG, bytes);
    let append = async {
        let (mut log, _, saved) = DiskLog::open(&disk).await.unwrap().unwrap();
        assert_eq!(saved.entries.len(), 3);
        log.write(hard(3), vec![entry(5, 3)]).await.unwrap();
        let (_, _, saved) = DiskLog::open(&disk).await.unwrap().unwrap();
        assert_eq!(saved.entries.len(), 4);
        disk.fail();
        assert!(log.write(hard(3), Vec::new()).await.is_err());
    };
    append.now_or_never().unwrap();
}

#[test]
fn a_log_starts_where_it_was_compacted() {
    let saved = Saved {
        base: base(1),
        hard: hard(1),
        entries: Vec::new(),
    };
    let mut engine = Engine::new(1, saved).unwrap();
    engine.lead_alone();
    for n in 0..3 {
        engine.propose(vec![n]).unwrap();
        while engine.ready().is_some() {
            for entry in engine.written().committed {
                engine.applied(entry.index, position(entry.index));
            }
        }
    }
    engine.propose(vec![9]).unwrap();
    engine.ready().unwrap();
    engine.written();
    assert_eq!(engine.compact(4), None);
    let saved = engine.compact(5).unwrap();
    assert_eq!((saved.base.index, saved.entries.len()), (5, 1));
    let again = Engine::new(1, saved).unwrap().standing();
    assert_eq!((again.applied, again.last), (5, 6));
}
