//! All that the zones say, for whoever copies or compares it.

use super::{DomainName, Rdata, Record, RecordType, Zone};
use crate::crypto::Hash;

impl Zone {
    /// All records as lines of a master file (RFC 1035 §5): zone by zone, each
    /// with its SOA first and then in canonical order (RFC 4034 §6.1).
    pub fn records(&self) -> impl Iterator<Item = String> {
        self.sorted().into_iter().map(|record| record.to_string())
    }

    /// Whether each name that is in force is there with all its data.
    pub fn is_complete(&self) -> bool {
        !self.loading && self.names.values().all(|node| !node.loading)
    }

    /// Gives one of the zones another serial than the others.
    pub fn set_serial(&mut self, origin: &DomainName, serial: u32) {
        let of_origin = self.origins.iter_mut().find(|soa| soa.name == *origin);
        let at_origin = self.names.get_mut(origin).into_iter();
        let data = at_origin
            .flat_map(|node| &mut node.sets)
            .flat_map(|set| &mut set.data);
        for data in data.chain(of_origin.map(|soa| &mut soa.data)) {
            if let Rdata::Soa(soa) = data {
                soa.serial = serial;
            }
        }
    }

    /// Hash of all that the zone says, but for the SOA's serial: equal on two
    /// nodes exactly when they answer alike.
    pub fn hash(&self) -> Hash {
        let mut text = String::new();
        for record in self.sorted() {
            if !matches!(record.data, Rdata::Soa(_)) {
                text.push_str(&record.to_string());
                text.push('\n');
            }
        }
        for (name, node) in &self.names {
            if node.loading {
                text.push_str(&format!("loading {name}\n"));
            }
        }
        text.push_str(if self.loading { "loading" } else { "complete" });
        Hash::of(text.as_bytes())
    }

    /// Each zone's SOA, and its other records in no order.
    pub fn zones(&self) -> Vec<(&Record, Vec<Record>)> {
        let origins = self.origins.iter();
        let mut zones: Vec<(&Record, Vec<Record>)> = origins.map(|soa| (soa, Vec::new())).collect();
        for (name, node) in self.entries() {
            let mut zone = zones.iter_mut();
            let Some((_, records)) = zone.find(|(soa, _)| name.is_within(&soa.name)) else {
                continue;
            };
            for set in node.sets.iter().filter(|set| set.rtype != RecordType::SOA) {
                records.extend(set.data.iter().map(|data| Record {
                    name: name.clone().into_owned(),
                    ttl_s: set.ttl_s,
                    data: data.clone(),
                }));
            }
        }
        zones
    }

    fn sorted(&self) -> Vec<Record> {
        let mut all = Vec::new();
        for (zone, soa) in self.origins.iter().enumerate() {
            let mut names: Vec<_> = self
                .entries()
                .filter(|(name, _)| {
                    self.origins.iter().position(|o| name.is_within(&o.name)) == Some(zone)
                })
                .collect();
            names.sort_by_cached_key(|(name, _)| {
                name.canonical_key()
                    .into_iter()
                    .map(<[u8]>::to_vec)
                    .collect::<Vec<_>>()
            });
            all.push(soa.clone());
            for (name, node) in names {
                for set in &node.sets {
                    for data in &set.data {
                        if set.rtype != RecordType::SOA {
                            all.push(Record {
                                name: name.clone().into_owned(),
                                ttl_s: set.ttl_s,
                                data: data.clone(),
                            });
                        }
                    }
                }
            }
        }
        all
    }
}
