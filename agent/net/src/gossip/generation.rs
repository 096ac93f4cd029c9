//! The generation counter: two checksummed slots, written in turn, so that a
//! torn write leaves the other. It rises at each start, durably, before
//! anything is announced under it (S2).

use std::{io, path::Path};

use innermesh_proto::crypto::Hash;

use crate::host::Disk;

const SLOTS: [&str; 2] = ["generation.a", "generation.b"];

/// Takes the next generation.
///
/// # Errors
/// The disk's; or both slots are damaged, which no single crash can do: a
/// lower generation than before would be refused by every peer.
pub async fn next(disk: &dyn Disk) -> io::Result<u64> {
    let mut newest = None;
    let mut damaged = 0;
    for slot in SLOTS {
        match disk.read(Path::new(slot)).await? {
            None => {}
            Some(bytes) => match parse(&bytes) {
                Some(value) => newest = newest.max(Some(value)),
                None => damaged += 1,
            },
        }
    }
    if newest.is_none() && damaged > 0 {
        return Err(io::Error::other(
            "the generation counter is damaged; join the mesh anew with a fresh state folder",
        ));
    }
    // A damaged slot may have held the number after the newest, in use by then.
    // The second one after that is written over it.
    let next = newest.map_or(1, |value| value.saturating_add(1 + 2 * damaged));
    let slot = SLOTS[usize::from(next.is_multiple_of(2))];
    disk.replace(Path::new(slot), &encode(next)).await?;
    Ok(next)
}

/// Takes a generation above one that was announced before and that this
/// folder doesn't know of, as it is an older copy.
///
/// # Errors
/// The disk's; or there is none above it.
pub async fn raise(disk: &dyn Disk, above: u64) -> io::Result<u64> {
    let next = above
        .checked_add(1)
        .filter(|next| *next < u64::MAX)
        .ok_or_else(|| io::Error::other("there is no generation above the one announced"))?;
    let slot = SLOTS[usize::from(next.is_multiple_of(2))];
    disk.replace(Path::new(slot), &encode(next)).await?;
    Ok(next)
}

fn encode(value: u64) -> Vec<u8> {
    let bytes = value.to_le_bytes();
    [&bytes[..], &Hash::of(&bytes).0[..8]].concat()
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let (value, check) = bytes.split_first_chunk::<8>()?;
    (Hash::of(value).0[..8] == *check)
        .then(|| u64::from_le_bytes(*value))
        // The highest is no honest counter's, and nothing could follow it.
        .filter(|value| *value < u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::disk::SystemDisk;

    #[tokio::test]
    async fn it_rises_at_each_start_and_survives_a_torn_slot() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(folder.path().to_owned());
        assert_eq!(next(&disk).await.unwrap(), 1);
        assert_eq!(next(&disk).await.unwrap(), 2);
        // What the torn slot held may have been announced: it isn't used again.
        disk.replace(Path::new(SLOTS[0]), b"torn").await.unwrap();
        assert_eq!(next(&disk).await.unwrap(), 5);
        assert_eq!(
            next(&disk).await.unwrap(),
            6,
            "the torn slot is whole again"
        );
    }

    #[tokio::test]
    async fn it_is_raised_above_what_was_announced_and_stays_there() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(folder.path().to_owned());
        next(&disk).await.unwrap();
        assert_eq!(raise(&disk, 7).await.unwrap(), 8);
        assert_eq!(next(&disk).await.unwrap(), 9);
        assert!(raise(&disk, u64::MAX - 1).await.is_err());
        assert!(raise(&disk, u64::MAX).await.is_err());
    }

    #[tokio::test]
    async fn with_both_slots_damaged_it_refuses_to_start_again_from_one() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(folder.path().to_owned());
        for slot in SLOTS {
            disk.replace(Path::new(slot), b"x").await.unwrap();
        }
        assert!(next(&disk).await.is_err());
    }
}
