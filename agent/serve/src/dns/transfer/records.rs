//! A zone's records as they stand in a message: kept once, in one piece, and copied
//! from there for each transfer.

use innermesh_proto::{
    crypto::Hash,
    zone::{Caa, DomainName, Rdata, Record, Soa},
};

use super::message::{HEADER, IN};

/// Records of one zone, in the order of their bytes, none twice. Names end with a
/// reference to the question's, which is the zone's and stands behind the header of
/// each message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<u32>,
}

impl Records {
    pub fn of(origin: &DomainName, records: &[Record]) -> Self {
        let mut encoded: Vec<Vec<u8>> = records
            .iter()
            .map(|record| encode(origin, record))
            .collect();
        encoded.sort_unstable();
        encoded.dedup();
        encoded.iter().map(Vec::as_slice).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|number| self.get(number))
    }

    pub fn get(&self, number: usize) -> Option<&[u8]> {
        let end = *self.ends.get(number)? as usize;
        let before = number.checked_sub(1);
        let start = before.and_then(|before| self.ends.get(before));
        self.bytes
            .get(start.map_or(0, |start| *start as usize)..end)
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all of them.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn hash(&self) -> Hash {
        Hash::of(&self.bytes)
    }

    /// What is in `self` and not in `other`, and what only `other` has.
    pub fn difference(&self, other: &Self) -> (Self, Self) {
        let (mut ours, mut theirs) = (self.iter().peekable(), other.iter().peekable());
        let (mut only_ours, mut only_theirs) = (Self::default(), Self::default());
        loop {
            match (ours.peek(), theirs.peek()) {
                (None, None) => return (only_ours, only_theirs),
                (Some(our), Some(their)) if our == their => {
                    ours.next();
                    theirs.next();
                }
                (Some(our), their) if their.is_none_or(|their| our < their) => {
                    only_ours.push(our);
                    ours.next();
                }
                (_, Some(their)) => {
                    only_theirs.push(their);
                    theirs.next();
                }
                (Some(_), None) => {}
            }
        }
    }

    fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        // A zone is bounded by what the ledger may hold, far below 4 GiB.
        self.ends
            .push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
    }
}

impl<'r> FromIterator<&'r [u8]> for Records {
    fn from_iter<I: IntoIterator<Item = &'r [u8]>>(records: I) -> Self {
        let mut all = Self::default();
        for record in records {
            all.push(record);
        }
        all
    }
}

/// A record of a zone.
pub(super) fn encode(origin: &DomainName, record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    owner(&mut out, origin, &record.name);
    out.extend(record.data.record_type().0.to_be_bytes());
    out.extend(IN.to_be_bytes());
    out.extend(record.ttl_s.to_be_bytes());
    let data = rdata(&record.data);
    // What the ledger takes as a record's data is far shorter.
    out.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(data);
    out
}

/// A zone's SOA record with that serial.
pub(super) fn encode_soa(origin: &DomainName, ttl_s: u32, soa: &Soa, serial: u32) -> Vec<u8> {
    let data = Rdata::Soa(Soa {
        serial,
        ..soa.clone()
    });
    let name = origin.clone();
    encode(origin, &Record { name, ttl_s, data })
}

/// An owner's labels above the zone's name, and the reference to that.
fn owner(out: &mut Vec<u8>, origin: &DomainName, name: &DomainName) {
    let wire = Vec::from(name.clone());
    let of_origin = Vec::from(origin.clone()).len();
    match wire.len().checked_sub(of_origin) {
        Some(above) if name.is_within(origin) => {
            out.extend(wire.get(..above).unwrap_or_default());
            out.extend([0xc0, HEADER as u8]);
        }
        _ => {
            out.extend(wire);
            out.push(0);
        }
    }
}

fn rdata(data: &Rdata) -> Vec<u8> {
    match data {
        Rdata::A(address) => address.octets().to_vec(),
        Rdata::Aaaa(address) => address.octets().to_vec(),
        Rdata::Ns(name) | Rdata::Ptr(name) | Rdata::Cname(name) => whole(name),
        Rdata::Txt(strings) => strings.iter().flat_map(|string| prefixed(string)).collect(),
        Rdata::Mx(mx) => [&mx.preference.to_be_bytes()[..], &whole(&mx.exchange)].concat(),
        Rdata::Caa(Caa { flags, tag, value }) => {
            [&[*flags][..], &prefixed(tag.as_bytes()), value].concat()
        }
        Rdata::Srv(srv) => {
            let numbers = [srv.priority, srv.weight, srv.port].map(u16::to_be_bytes);
            [numbers.concat(), whole(&srv.target)].concat()
        }
        Rdata::Svcb(svcb) | Rdata::Https(svcb) => svcb.to_wire(),
        Rdata::Sshfp(sshfp) => sshfp.to_wire(),
        Rdata::Tlsa(tlsa) => tlsa.to_wire(),
        Rdata::Soa(soa) => {
            let numbers = [
                soa.serial,
                soa.refresh_s,
                soa.retry_s,
                soa.expire_s,
                soa.minimum_s,
            ];
            let numbers = numbers.map(u32::to_be_bytes);
            [whole(&soa.primary), whole(&soa.mailbox), numbers.concat()].concat()
        }
        Rdata::Hinfo => [prefixed(b"RFC8482"), prefixed(b"")].concat(),
    }
}

fn whole(name: &DomainName) -> Vec<u8> {
    let mut wire = Vec::from(name.clone());
    wire.push(0);
    wire
}

/// A character string (RFC 1035 §3.3), which the ledger takes up to 255 octets of.
fn prefixed(string: &[u8]) -> Vec<u8> {
    let length = u8::try_from(string.len()).unwrap_or(u8::MAX);
    let kept = string.get(..usize::from(length)).unwrap_or_default();
    [&[length], kept].concat()
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::{op::Message, rr::Record as WireRecord};
    use innermesh_proto::zone::{Mx, Srv, Sshfp, Svcb, Tlsa};

    use super::*;
    use crate::dns::convert;

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    fn record(owner: &str, data: Rdata) -> Record {
        Record {
            name: name(owner),
            ttl_s: 30,
            data,
        }
    }

    /// All of them as another reader has them, out of one message.
    fn read(origin: &DomainName, records: &Records) -> Vec<WireRecord> {
        let count = u8::try_from(records.len()).unwrap();
        let mut message = vec![0, 1, 0x84, 0, 0, 1, 0, count, 0, 0, 0, 0];
        message.extend(whole(origin));
        message.extend([0, 252, 0, 1]);
        records.iter().for_each(|record| message.extend(record));
        Message::from_vec(&message).unwrap().answers
    }

    #[test]
    fn another_reader_finds_each_record_as_questions_are_answered_with_it() {
        let target = || name("birch.lab.internal");
        let records = [
            record("lab.internal", Rdata::Ns(name("ns.lab.internal"))),
            record("a.lab.internal", Rdata::A([10, 77, 0, 1].into())),
            record("a.lab.internal", Rdata::Aaaa([7; 16].into())),
            record("*.a.lab.internal", Rdata::Cname(target())),
            record(
                "t.lab.internal",
                Rdata::Txt(vec![vec![7; 255], vec![], b"x y".into()]),
            ),
            record(
                "_web._tcp.lab.internal",
                Rdata::Srv(Srv {
                    priority: 1,
                    weight: 2,
                    port: 443,
                    target: target(),
                }),
            ),
            record(
                "m.lab.internal",
                Rdata::Mx(Mx {
                    preference: 10,
                    exchange: DomainName::from_labels([]).unwrap(),
                }),
            ),
            record(
                "c.lab.internal",
                Rdata::Caa(Caa {
                    flags: 128,
                    tag: "issue".into(),
                    value: b"ca.example".to_vec(),
                }),
            ),
            record(
                "h.lab.internal",
                Rdata::Https(Svcb::parse("1 . alpn=h2 port=8443").unwrap()),
            ),
            record(
                "h.lab.internal",
                Rdata::Sshfp(Sshfp::parse(&format!("4 2 {}", "ab".repeat(32))).unwrap()),
            ),
            record(
                "_443._tcp.h.lab.internal",
                Rdata::Tlsa(Tlsa::parse(&format!("3 1 1 {}", "cd".repeat(32))).unwrap()),
            ),
            record(
                "lab.internal",
                Rdata::Soa(Soa {
                    primary: name("ns.lab.internal"),
                    mailbox: name("hostmaster.lab.internal"),
                    serial: 7,
                    refresh_s: 60,
                    retry_s: 30,
                    expire_s: 604_800,
                    minimum_s: 5,
                }),
            ),
        ];
        let origin = name("lab.internal");
        let read = read(&origin, &Records::of(&origin, &records));
        assert_eq!(read.len(), records.len());
        let mut answer = Message::query();
        answer.answers = records.iter().map(convert::record).collect();
        let expected = Message::from_vec(&answer.to_vec().unwrap()).unwrap();
        for expected in expected.answers {
            assert!(read.contains(&expected), "{expected} in {read:?}");
        }
    }

    #[test]
    fn what_two_zones_differ_in_leads_from_one_to_the_other() {
        let origin = name("lab.internal");
        let zone = |hosts: &[u8]| {
            let host = |n: &u8| {
                record(
                    &format!("h{n}.lab.internal"),
                    Rdata::A([10, 0, 0, *n].into()),
                )
            };
            Records::of(&origin, &hosts.iter().map(host).collect::<Vec<_>>())
        };
        for (before, after) in [
            (&[1, 2, 3][..], &[2, 3, 4][..]),
            (&[], &[9, 1, 9]),
            (&[5], &[]),
            (&[1, 2], &[2, 1]),
            (&[1, 3, 5, 7], &[2, 3, 6]),
        ] {
            let (before, after) = (zone(before), zone(after));
            let (removed, added) = before.difference(&after);
            let mut records: Vec<&[u8]> = before.iter().collect();
            records.retain(|record| !removed.iter().any(|gone| gone == *record));
            records.extend(added.iter());
            records.sort_unstable();
            let led_to: Records = records.into_iter().collect();
            assert_eq!(led_to, after);
            assert!(
                removed
                    .iter()
                    .all(|gone| before.iter().any(|record| record == gone))
            );
        }
    }
}
