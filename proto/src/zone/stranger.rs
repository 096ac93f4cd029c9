//! What strangers are told of the mesh's domain where it is delegated to the mesh's own
//! sinkholes. It is made of what is public and of nothing else: names that exist inside
//! can't be told from others, as none of them comes in here (S34).

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use data_encoding::BASE64URL_NOPAD;

use super::{DomainName, PUBLIC_TTL_S, Rdata, Record, RecordType, Soa, public::public_sets};
use crate::{crypto::Hash, limits};

/// First label of the names that public CAs look at (RFC 8555 §8.4).
const CHALLENGE_LABEL: &[u8] = b"_acme-challenge";
/// Characters of a challenge: SHA-256 in base64url (RFC 8555 §8.1).
const CHALLENGE_LENGTH: usize = 43;
/// Seconds for which a challenge may be kept. CAs ask the name servers themselves.
const CHALLENGE_TTL_S: u32 = 60;
/// Values that each challenge name has: a certificate for a name and its wildcard takes
/// two at once, and fewer would show that there is none.
pub const CHALLENGES: usize = 2;

/// What it is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrangerInput {
    /// The mesh's domain.
    pub apex: DomainName,
    /// Addresses of each name server, in the order in which they are numbered.
    pub name_servers: Vec<BTreeSet<IpAddr>>,
    /// Where every name leads.
    pub sinkhole: BTreeSet<IpAddr>,
    /// What users published.
    pub published: Vec<Record>,
    /// What all sinkholes know and no stranger does.
    pub secret: Hash,
}

/// What strangers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrangerZone {
    soa: Record,
    /// Each with its addresses.
    name_servers: Vec<(DomainName, Vec<Rdata>)>,
    /// Names that say something of their own, which is public.
    names: BTreeMap<DomainName, Sets>,
    /// What all other names say.
    others: Sets,
    /// Challenges that stand, the newest last.
    challenges: BTreeMap<DomainName, Vec<String>>,
    /// Hash of the secret and of these.
    key: Hash,
}

/// TTL and data by type.
pub(super) type Sets = BTreeMap<RecordType, (u32, Vec<Rdata>)>;

/// What is said to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrangerAnswer<'z> {
    /// Data of the type that was asked for.
    Records {
        ttl_s: u32,
        /// Never empty.
        data: Cow<'z, [Rdata]>,
    },
    /// The name is another name for this one.
    Alias { ttl_s: u32, target: &'z DomainName },
    /// There is none of this type, here and at nearly all names.
    NoData,
    /// Not below the mesh's domain.
    NotOurs,
}

impl StrangerZone {
    /// Makes it. More than [`limits::SINKHOLE_NAME_SERVERS`] name servers are left out.
    pub fn build(input: StrangerInput) -> Self {
        let StrangerInput {
            apex,
            name_servers,
            sinkhole,
            published,
            secret,
        } = input;
        let (challenges, published) = split(&apex, published);
        let name_servers = named(&apex, name_servers);
        let (mut names, others) = public_sets(&apex, &sinkhole, published);
        for (name, addresses) in &name_servers {
            // Glue says the same, whatever users published there.
            let mut sets = Sets::new();
            for data in addresses {
                let set = sets.entry(data.record_type()).or_default();
                set.0 = PUBLIC_TTL_S;
                set.1.push(data.clone());
            }
            names.insert(name.clone(), sets);
        }
        let servers: Vec<Rdata> = name_servers
            .iter()
            .map(|(name, _)| Rdata::Ns(name.clone()))
            .collect();
        let at_apex = names.entry(apex.clone()).or_default();
        if !servers.is_empty() {
            at_apex.insert(RecordType::NS, (PUBLIC_TTL_S, servers));
        }
        let soa = soa(&apex, &name_servers, serial(&names, &others));
        let set = (PUBLIC_TTL_S, vec![soa.data.clone()]);
        names.entry(apex).or_default().insert(RecordType::SOA, set);
        let key = key(secret, &challenges);
        Self {
            soa,
            name_servers,
            names,
            others,
            challenges,
            key,
        }
    }

    /// The mesh's domain.
    pub fn apex(&self) -> &DomainName {
        &self.soa.name
    }

    /// The start of authority, for negative answers. Its serial follows from what is
    /// said, and goes up or down: all sinkholes have the same, and nobody transfers the
    /// zone.
    pub fn soa(&self) -> &Record {
        &self.soa
    }

    /// The name servers and their addresses, for the registrar.
    pub fn name_servers(&self) -> &[(DomainName, Vec<Rdata>)] {
        &self.name_servers
    }

    /// The challenges that stand at a name.
    pub fn challenges(&self, name: &DomainName) -> &[String] {
        self.challenges.get(name).map_or(&[], |all| all)
    }

    /// Answers a question of class IN on a day (days since 1970).
    pub fn lookup(&self, name: &DomainName, rtype: RecordType, day: u64) -> StrangerAnswer<'_> {
        if !name.is_within(self.apex()) {
            return StrangerAnswer::NotOurs;
        }
        if rtype == RecordType::ANY {
            return StrangerAnswer::Records {
                ttl_s: PUBLIC_TTL_S,
                data: Cow::Borrowed(&[Rdata::Hinfo]),
            };
        }
        let sets = self.sets(name);
        if rtype == RecordType::TXT && is_challenge(name) && !sets.contains_key(&RecordType::CNAME)
        {
            // The same work at each such name.
            let challenge = self.challenge(name, day);
            if !sets.contains_key(&RecordType::TXT) {
                return StrangerAnswer::Records {
                    ttl_s: CHALLENGE_TTL_S,
                    data: Cow::Owned(challenge),
                };
            }
        }
        if let Some((ttl_s, data)) = sets.get(&RecordType::CNAME)
            && rtype != RecordType::CNAME
            && let Some(Rdata::Cname(target)) = data.first()
        {
            let ttl_s = *ttl_s;
            return StrangerAnswer::Alias { ttl_s, target };
        }
        match sets.get(&rtype) {
            Some((ttl_s, data)) => StrangerAnswer::Records {
                ttl_s: *ttl_s,
                data: Cow::Borrowed(data),
            },
            None => StrangerAnswer::NoData,
        }
    }

    /// What a name says: its own, what users published for all names beside it
    /// (RFC 4592 §3.3.1), or what all names do.
    fn sets(&self, name: &DomainName) -> &Sets {
        let own = self.names.get(name);
        let of_wildcard = || {
            let mut above = name.ancestors_below(Some(self.apex()));
            let closest = above.find(|above| self.names.contains_key(above))?;
            self.names.get(&closest.child(b"*")?)
        };
        own.or_else(of_wildcard).unwrap_or(&self.others)
    }

    /// Two values at every challenge name: those that stand, and hashes in place of the
    /// others, which are new each day and with each challenge that comes or goes at any
    /// name.
    fn challenge(&self, name: &DomainName, day: u64) -> Vec<Rdata> {
        let mut values: Vec<String> = (0..CHALLENGES)
            .map(|number| BASE64URL_NOPAD.encode(&self.stand_in(name, day, number).0))
            .collect();
        let standing = self.challenges(name);
        let newest = standing.iter().rev().take(CHALLENGES);
        for (place, value) in values.iter_mut().zip(newest) {
            place.clone_from(value);
        }
        values.sort();
        let text = |value: String| Rdata::Txt(vec![value.into_bytes()]);
        values.into_iter().map(text).collect()
    }

    fn stand_in(&self, name: &DomainName, day: u64, number: usize) -> Hash {
        let mut bytes = self.key.0.to_vec();
        bytes.extend(day.to_be_bytes());
        bytes.push(u8::from(number > 0));
        bytes.extend(Vec::from(name.clone()));
        // Twice, as one hash could be continued by who sees it.
        let inner = Hash::of(&bytes);
        Hash::of(&[self.key.0, inner.0].concat())
    }
}

/// Whether a name is one at which public CAs look for a challenge.
pub fn is_challenge(name: &DomainName) -> bool {
    name.labels().next() == Some(CHALLENGE_LABEL)
}

/// Whether a text is a challenge: 43 characters of base64url.
pub fn is_challenge_value(strings: &[Vec<u8>]) -> bool {
    let [value] = strings else { return false };
    let is_base64url = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    value.len() == CHALLENGE_LENGTH && value.iter().all(is_base64url)
}

/// Challenges, and all other records. Nothing stands beside an alias, and the apex has
/// to have more.
fn split(
    apex: &DomainName,
    published: Vec<Record>,
) -> (BTreeMap<DomainName, Vec<String>>, Vec<Record>) {
    let mut challenges: BTreeMap<DomainName, Vec<String>> = BTreeMap::new();
    let mut others = Vec::new();
    for record in published {
        match &record.data {
            Rdata::Txt(strings) if is_challenge(&record.name) && is_challenge_value(strings) => {
                let value = strings.concat();
                let value = String::from_utf8_lossy(&value).into_owned();
                challenges.entry(record.name).or_default().push(value);
            }
            Rdata::Cname(_) if record.name == *apex => {}
            _ => others.push(record),
        }
    }
    (challenges, others)
}

/// `ns1` and so on, each with its addresses.
fn named(apex: &DomainName, servers: Vec<BTreeSet<IpAddr>>) -> Vec<(DomainName, Vec<Rdata>)> {
    let servers = servers.into_iter().take(limits::SINKHOLE_NAME_SERVERS);
    servers
        .enumerate()
        .filter_map(|(number, addresses)| {
            let name = apex.child(format!("ns{}", number + 1).as_bytes())?;
            let addresses = addresses.into_iter().map(Rdata::address);
            Some((name, addresses.collect()))
        })
        .collect()
}

fn soa(apex: &DomainName, servers: &[(DomainName, Vec<Rdata>)], serial: u32) -> Record {
    let below = |label: &[u8]| apex.child(label).unwrap_or_else(|| apex.clone());
    Record {
        name: apex.clone(),
        ttl_s: PUBLIC_TTL_S,
        data: Rdata::Soa(Soa {
            primary: servers
                .first()
                .map_or_else(|| below(b"ns1"), |(name, _)| name.clone()),
            mailbox: below(b"hostmaster"),
            serial,
            refresh_s: 3600,
            retry_s: 600,
            expire_s: 7 * 24 * 3600,
            minimum_s: PUBLIC_TTL_S,
        }),
    }
}

/// From all that is said but for challenges, which come and go.
fn serial(names: &BTreeMap<DomainName, Sets>, others: &Sets) -> u32 {
    let mut text = String::new();
    let named = names.iter().map(|(name, sets)| (name.to_string(), sets));
    for (name, sets) in named.chain([("*".to_owned(), others)]) {
        for (rtype, (ttl_s, data)) in sets {
            for data in data {
                text.push_str(&format!("{name} {ttl_s} {rtype} {data}\n"));
            }
        }
    }
    let [a, b, c, d, ..] = Hash::of(text.as_bytes()).0;
    // Some programs take a serial of 0 for none.
    (u32::from_be_bytes([a, b, c, d]) >> 1).max(1)
}

fn key(secret: Hash, challenges: &BTreeMap<DomainName, Vec<String>>) -> Hash {
    let mut bytes = secret.0.to_vec();
    for (name, values) in challenges {
        for value in values {
            bytes.extend(format!("{name} {value}\n").bytes());
        }
    }
    Hash::of(&bytes)
}
