//! What a zone says, and by which changes it came to say so.

use std::{collections::VecDeque, sync::Arc};

use innermesh_proto::{
    crypto::Hash,
    limits,
    zone::{DomainName, Rdata, Soa, Zone},
};

use super::records::{self, Records};

/// What a zone says, without a serial yet.
#[derive(Clone, Debug)]
pub struct ZoneContent {
    pub origin: DomainName,
    soa: (u32, Soa),
    records: Arc<Records>,
}

/// From one serial to the next.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub from: u32,
    pub to: u32,
    pub removed: Records,
    pub added: Records,
}

/// A zone that is transferred, and its journal. It doesn't change: transfers that
/// have begun go on with the one that they began with.
#[derive(Clone, Debug)]
pub(super) struct ServedZone {
    pub content: ZoneContent,
    pub serial: u32,
    /// The oldest first; each goes on from the one before.
    changes: VecDeque<Arc<Change>>,
}

impl ZoneContent {
    /// All zones of the mesh.
    pub fn of(zone: &Zone) -> Vec<Self> {
        let zones = zone.zones().into_iter();
        let content = zones.filter_map(|(soa, records)| match &soa.data {
            Rdata::Soa(data) => Some(Self {
                origin: soa.name.clone(),
                soa: (soa.ttl_s, data.clone()),
                records: Arc::new(Records::of(&soa.name, &records)),
            }),
            _ => None,
        });
        content.collect()
    }

    /// Whether both say the same, but for the serial.
    pub fn is_same(&self, other: &Self) -> bool {
        let (ttl_s, soa) = &self.soa;
        let soa = Soa {
            serial: other.soa.1.serial,
            ..soa.clone()
        };
        (*ttl_s, soa) == other.soa && self.records == other.records
    }

    /// Of all that it says, but for the serial.
    pub fn hash(&self) -> Hash {
        let soa = self.encode_soa(0);
        Hash::of(&[&soa[..], &self.records.hash().0].concat())
    }

    pub(super) fn records(&self) -> &Arc<Records> {
        &self.records
    }

    pub(super) fn encode_soa(&self, serial: u32) -> Vec<u8> {
        let (ttl_s, soa) = &self.soa;
        records::encode_soa(&self.origin, *ttl_s, soa, serial)
    }
}

impl ServedZone {
    /// The first that is known, without a journal.
    pub fn new(content: ZoneContent, serial: u32) -> Self {
        Self {
            content,
            serial,
            changes: VecDeque::new(),
        }
    }

    /// What comes after it. The journal keeps as much as the zone itself has, as a
    /// longer way is no use to anybody.
    pub fn followed_by(&self, content: ZoneContent, serial: u32) -> Self {
        let (removed, added) = self.content.records.difference(&content.records);
        let mut changes = self.changes.clone();
        changes.push_back(Arc::new(Change {
            from: self.serial,
            to: serial,
            removed,
            added,
        }));
        let most = content.records.size().max(limits::TRANSFER_JOURNAL_BYTES);
        while changes.len() > limits::TRANSFER_JOURNAL_CHANGES || size(&changes) > most {
            changes.pop_front();
        }
        Self {
            content,
            serial,
            changes,
        }
    }

    /// The changes since a serial; `None` where the journal doesn't reach there, or
    /// the way is longer than the whole.
    pub fn since(&self, serial: u32) -> Option<Vec<Arc<Change>>> {
        let first = self
            .changes
            .iter()
            .position(|change| change.from == serial)?;
        let changes: VecDeque<Arc<Change>> = self.changes.iter().skip(first).cloned().collect();
        (size(&changes) <= self.content.records.size()).then(|| changes.into())
    }
}

/// Bytes of changes, with what each has beside its records.
fn size(changes: &VecDeque<Arc<Change>>) -> usize {
    let sizes = changes
        .iter()
        .map(|change| change.removed.size() + change.added.size() + 128);
    sizes.sum()
}

#[cfg(test)]
pub(super) mod tests {
    use innermesh_proto::zone::Record;

    use super::*;

    /// A zone with these hosts.
    pub fn content(hosts: impl IntoIterator<Item = u16>) -> ZoneContent {
        let origin: DomainName = "lab.internal".parse().unwrap();
        let records: Vec<Record> = hosts
            .into_iter()
            .map(|n| Record {
                name: origin.child(format!("host-{n}").as_bytes()).unwrap(),
                ttl_s: 30,
                data: Rdata::A([10, 77, (n >> 8) as u8, n as u8].into()),
            })
            .collect();
        let soa = Soa {
            primary: "ns.lab.internal".parse().unwrap(),
            mailbox: "hostmaster.lab.internal".parse().unwrap(),
            serial: 0,
            refresh_s: 60,
            retry_s: 30,
            expire_s: 604_800,
            minimum_s: 5,
        };
        ZoneContent {
            records: Arc::new(Records::of(&origin, &records)),
            origin,
            soa: (5, soa),
        }
    }

    #[test]
    fn the_journal_leads_from_each_serial_to_the_newest() {
        let mut zone = ServedZone::new(content(0..100), 1);
        for n in 0..5 {
            zone = zone.followed_by(content(n + 1..101 + n), u32::from(n) + 2);
        }
        let serials = |since| {
            let changes = zone.since(since)?;
            Some(
                changes
                    .iter()
                    .map(|change| (change.from, change.to))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(serials(1).unwrap().len(), 5);
        assert_eq!(serials(4), Some(vec![(4, 5), (5, 6)]));
        assert_eq!((serials(0), serials(6), serials(7)), (None, None, None));
        let change = &zone.since(5).unwrap()[0];
        assert_eq!((change.removed.len(), change.added.len()), (1, 1));
    }

    #[test]
    fn the_journal_is_bounded_and_a_longer_way_than_the_whole_is_not_gone() {
        let mut zone = ServedZone::new(content(0..4), 0);
        for serial in 1..2_000 {
            zone = zone.followed_by(content([serial as u16]), serial);
            assert!(zone.changes.len() <= limits::TRANSFER_JOURNAL_CHANGES);
            let most = limits::TRANSFER_JOURNAL_BYTES.max(zone.content.records.size());
            assert!(size(&zone.changes) <= most);
        }
        // All of such a zone is shorter than any way to it.
        assert!(zone.since(1_998).is_none());
        let mut large = ServedZone::new(content(0..3_000), 0);
        large = large.followed_by(content(1_000..4_000), 1);
        large = large.followed_by(content(1_001..4_001), 2);
        assert!(large.since(1).is_some());
        assert!(large.since(0).is_some());
        large = large.followed_by(content(1..3_001), 3);
        assert!(large.since(0).is_none(), "the whole is shorter");
    }

    #[test]
    fn what_a_zone_says_is_told_apart_without_its_serial() {
        let (one, same, other) = (content(0..5), content((0..5).rev()), content(0..6));
        assert!(one.is_same(&same) && one.hash() == same.hash());
        assert!(!one.is_same(&other) && one.hash() != other.hash());
        let mut refreshed = content(0..5);
        refreshed.soa.1.refresh_s = 61;
        assert!(!one.is_same(&refreshed) && one.hash() != refreshed.hash());
        let mut later = content(0..5);
        later.soa.1.serial = 9;
        assert!(one.is_same(&later) && one.hash() == later.hash());
    }
}
