//! The mesh's names as DNS answers: a pure function of what is known, and what
//! it says to a question. It knows nothing of sockets, views or upstreams.
//!
//! Invariant S14 decides every doubtful case: a name in force is never
//! NXDOMAIN, neither while a view is still loading (SERVFAIL then) nor because
//! its node is away (the last answer, with a low TTL), and never NXDOMAIN
//! where it exists with other types (NODATA).

#![allow(missing_docs, reason = "the names say it")]

mod alias;
mod build;
mod character_string;
mod digest;
mod lan;
mod listing;
mod name;
mod public;
mod record;
mod record_type;
mod reverse;
mod service_type;
mod stranger;
mod svcb;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

pub use self::build::reverse_zones;
pub use self::{
    alias::AliasEnd,
    character_string::{Word, words},
    digest::{DigestError, Sshfp, Tlsa},
    lan::LanAddresses,
    name::{DomainName, DomainNameError},
    public::{PUBLIC_TTL_S, public_zone},
    record::{Caa, Mx, Rdata, Record, Soa, Srv},
    record_type::{RecordType, RecordTypeError},
    service_type::{ServiceType, ServiceTypeError},
    stranger::{
        CHALLENGES, StrangerAnswer, StrangerInput, StrangerZone, is_challenge, is_challenge_value,
    },
    svcb::{SvcParam, Svcb, SvcbError},
};
use self::{alias::Found, reverse::ReversePrefix};
use crate::name::{Label, MeshDomain};

/// Seconds for which an answer may be kept while all is well. Short, because
/// the mesh learns of a change within a second and clients should too.
pub const TTL_S: u32 = 30;
/// Seconds for which a last known answer, or a negative one, may be kept.
pub const LOW_TTL_S: u32 = 5;

/// What a zone is made from.
#[derive(Clone, Debug)]
pub struct ZoneInput {
    pub domain: MeshDomain,
    /// The IPv4 overlay; its reverse zone is served.
    pub ipv4: Ipv4Net,
    /// The IPv6 overlay; its reverse zone is served.
    pub ula: Ipv6Net,
    /// The SOA's serial.
    pub serial: u32,
    /// The view isn't complete yet: a name that isn't known may exist.
    pub loading: bool,
    /// Members, dead or alive.
    pub nodes: BTreeMap<Label, NodeRecords>,
    /// Granted service names.
    pub services: BTreeMap<Label, ServiceRecords>,
    /// What users added, by name.
    pub records: BTreeMap<DomainName, Vec<Rdata>>,
    /// Seconds for which some of these may be kept, by name and type: all of one
    /// name and type may be kept alike (RFC 2181 §5.2).
    pub ttls: BTreeMap<(DomainName, RecordType), u32>,
    /// Names whose alias a member added that is no admin.
    pub member_aliases: BTreeSet<DomainName>,
    /// Addresses of the devices without an agent. Nothing is below their names.
    pub devices: BTreeMap<Label, Vec<IpAddr>>,
    /// Where the server that answers is reached; none at the resolver's addresses.
    pub front: Option<Vec<IpAddr>>,
    /// What users wrote and isn't told here: nothing else takes its place.
    pub withheld: BTreeSet<(DomainName, RecordType)>,
}

/// What is known of a member.
#[derive(Clone, Debug, Default)]
pub struct NodeRecords {
    pub addresses: Vec<IpAddr>,
    /// Whether it is alive, as far as is known here.
    pub live: bool,
    /// Services under its own name: `X.<node>.<domain>`. One without an
    /// instance is answered by the node's wildcard.
    pub own_services: BTreeMap<Label, Vec<InstanceRecord>>,
}

/// What is known of a granted service name.
#[derive(Clone, Debug)]
pub struct ServiceRecords {
    /// Whether its instances are known.
    pub state: ServiceState,
    /// Its instances, dead ones too: the last known answer stands while there
    /// is no better one.
    pub instances: Vec<InstanceRecord>,
    /// Whether `*.<service>.<domain>` answers like the service itself.
    pub wildcard: bool,
}

/// Whether a service's instances are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// They are; when there is none, the name exists without data.
    Known,
    /// The name is granted, but its holder hasn't been heard yet.
    Loading,
}

/// One instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceRecord {
    /// The member that runs it.
    pub node: Label,
    /// Where clients reach it.
    pub addresses: Vec<IpAddr>,
    pub port: u16,
    /// Its transport.
    pub protocol: Protocol,
    /// What it speaks, where that is known.
    pub service_type: Option<ServiceType>,
    /// Whether its node is alive, as far as is known here.
    pub live: bool,
    /// Whether its check passes.
    pub healthy: bool,
}

/// A service's transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl std::str::FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(s: &str) -> Result<Self, ProtocolError> {
        match s {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(ProtocolError),
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Not a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a service's protocol is tcp or udp")]
pub struct ProtocolError;

/// The mesh's zone and the reverse zones of its overlay addresses.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Origins and their SOA; the mesh's domain first.
    origins: Vec<Record>,
    /// Every name that exists, empty non-terminals too (RFC 4592 §2.2.2).
    names: BTreeMap<DomainName, Node>,
    /// The host whose address each is, below the reverse origins. What is
    /// between an origin and an address exists as well; with 20 labels for an
    /// IPv6 address that would be most of all names, so it isn't written down.
    pointers: BTreeMap<IpAddr, Node>,
    loading: bool,
}

/// A name that exists.
#[derive(Clone, Debug, Default)]
struct Node {
    sets: Vec<RrSet>,
    /// It may have data that isn't known yet.
    loading: bool,
}

/// A name between others, without data.
static EMPTY: Node = Node {
    sets: Vec::new(),
    loading: false,
};

impl Node {
    /// The alias that answers for a type, if it is one.
    fn alias_for(&self, rtype: RecordType) -> Option<&RrSet> {
        let asked = !matches!(rtype, RecordType::CNAME | RecordType::ANY);
        let alias = self.sets.iter().find(|set| set.rtype == RecordType::CNAME);
        alias.filter(|_| asked)
    }
}

/// All records of one name and type; never empty.
#[derive(Clone, Debug)]
struct RrSet {
    rtype: RecordType,
    ttl_s: u32,
    data: Vec<Rdata>,
    /// Of an alias: whether a member that is no admin added it.
    by_member: bool,
}

/// What the zone says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'z> {
    /// Records of the type that was asked for, owned by the name asked for.
    Records {
        /// Seconds for which they may be kept.
        ttl_s: u32,
        /// Their data, in a stable order; never empty.
        data: &'z [Rdata],
        /// Addresses of the names in `data`.
        additional: Vec<Record>,
    },
    /// The name is another name for one that is asked in its place
    /// (RFC 1034 §3.6.2).
    Alias {
        /// The alias, further ones that it leads to, and then the records of
        /// the type that was asked for, as far as they are the mesh's.
        records: Vec<Record>,
        /// What is where the last of them leads.
        end: AliasEnd<'z>,
        /// Whether a member that is no admin added one of these aliases.
        by_member: bool,
    },
    /// The name exists, but not with this type. The SOA goes with it.
    NoData(&'z Record),
    /// The name doesn't exist. The SOA goes with it.
    NxDomain(&'z Record),
    /// It can't be told yet.
    ServFail,
    /// Not a name of this mesh.
    NotOurs,
}

impl Zone {
    /// Makes the zone. Names that don't fit DNS are left out.
    pub fn build(input: &ZoneInput) -> Self {
        build::build(input)
    }

    /// Answers a question of class IN (RFC 1034 §4.3.2, RFC 4592).
    pub fn lookup(&self, name: &DomainName, rtype: RecordType) -> Answer<'_> {
        match self.find_at(name, rtype) {
            Found::Alias(alias) => self.follow(name, alias, rtype),
            Found::Answer(answer) => answer,
        }
    }

    /// What a name itself has for a question.
    fn find_at(&self, name: &DomainName, rtype: RecordType) -> Found<'_> {
        let Some(soa) = self.origin_of(name) else {
            return Found::Answer(Answer::NotOurs);
        };
        let Some((node, exact)) = self.find(name) else {
            return Found::Answer(if self.loading {
                Answer::ServFail
            } else {
                Answer::NxDomain(soa)
            });
        };
        if let Some(alias) = node.alias_for(rtype) {
            return Found::Alias(alias);
        }
        // Declared services may be missing from a view that is loading, so a
        // type that the wildcard lacks is unknown. Not so an address:
        // SERVFAIL to AAAA beside an answer to A breaks stub resolvers.
        let address = matches!(rtype, RecordType::A | RecordType::AAAA);
        let unknown = if exact {
            node.loading
        } else {
            (self.loading || node.loading) && !address
        };
        Found::Answer(self.in_node((name, node), rtype, soa, unknown))
    }

    /// Whether a name is there itself, without a wildcard that stands for it.
    pub fn has(&self, name: &DomainName) -> bool {
        self.find(name).is_some_and(|(_, is_itself)| is_itself)
    }

    /// Whether it says just that of just that name.
    pub fn holds(&self, name: &DomainName, data: &Rdata) -> bool {
        let sets = self.names.get(name).map(|node| node.sets.as_slice());
        let mut sets = sets.unwrap_or_default().iter();
        sets.any(|set| set.data.contains(data))
    }

    /// The name itself, or the wildcard that stands for it; with it, whether
    /// it is the name itself.
    fn find(&self, name: &DomainName) -> Option<(&Node, bool)> {
        if let Some(node) = self.names.get(name) {
            return Some((node, true));
        }
        match ReversePrefix::of(name) {
            Some(prefix) => self.below(&prefix).map(|node| (node, true)),
            None => self.wildcard_for(name).map(|node| (node, false)),
        }
    }

    /// Whether a name is the mesh's to answer.
    pub fn is_ours(&self, name: &DomainName) -> bool {
        self.origin_of(name).is_some()
    }

    /// The zones' origins: the mesh's domain, then the reverse zones.
    pub fn origins(&self) -> impl Iterator<Item = &DomainName> {
        self.origins.iter().map(|soa| &soa.name)
    }

    /// What is at a place of the reverse tree: an address's pointer, or a name
    /// without data above some address's (RFC 4592 §2.2.2).
    fn below(&self, prefix: &ReversePrefix) -> Option<&Node> {
        let (_, node) = self.pointers.range(prefix.addresses()).next()?;
        Some(if prefix.is_whole() { node } else { &EMPTY })
    }

    /// All names and what is at them, of all zones.
    fn entries(&self) -> impl Iterator<Item = (Cow<'_, DomainName>, &Node)> {
        let names = self.names.iter();
        let pointers = self.pointers.iter();
        names
            .map(|(name, node)| (Cow::Borrowed(name), node))
            .chain(pointers.map(|(ip, node)| (Cow::Owned(DomainName::reverse(*ip)), node)))
    }

    fn origin_of(&self, name: &DomainName) -> Option<&Record> {
        self.origins.iter().find(|soa| name.is_within(&soa.name))
    }

    /// The source of synthesis: the wildcard below the closest name that
    /// exists (RFC 4592 §3.3.1).
    fn wildcard_for(&self, name: &DomainName) -> Option<&Node> {
        let encloser = name
            .lineage()
            .skip(1)
            .find_map(|ancestor| self.names.get_key_value(ancestor))?;
        self.names.get(&encloser.0.child(b"*")?)
    }

    fn in_node<'z>(
        &'z self,
        (name, node): (&DomainName, &'z Node),
        rtype: RecordType,
        soa: &'z Record,
        unknown: bool,
    ) -> Answer<'z> {
        // One set is answer enough (RFC 8482 §4): one that stands for all, or the alias,
        // beside which nothing else may be.
        let alias = node.sets.iter().find(|set| set.rtype == RecordType::CNAME);
        if rtype == RecordType::ANY && alias.is_none() && !node.sets.is_empty() {
            return Answer::Records {
                ttl_s: TTL_S,
                data: &[Rdata::Hinfo],
                additional: Vec::new(),
            };
        }
        let set = match rtype {
            RecordType::ANY => alias,
            _ => node.sets.iter().find(|set| set.rtype == rtype),
        };
        match set {
            Some(set) => Answer::Records {
                ttl_s: set.ttl_s,
                data: &set.data,
                additional: self.additional(name, &set.data),
            },
            None if unknown => Answer::ServFail,
            None => Answer::NoData(soa),
        }
    }

    /// Addresses of the hosts that the records of a name lead to (RFC 2782,
    /// RFC 1035 §3.3.11), and what SVCB or HTTPS says of those (RFC 9460 §4.1).
    fn additional(&self, name: &DomainName, data: &[Rdata]) -> Vec<Record> {
        let mut targets: Vec<&DomainName> = Vec::new();
        let mut svcb = None;
        for rdata in data {
            let target = match rdata {
                Rdata::Srv(Srv { target, .. }) | Rdata::Ns(target) => target,
                Rdata::Mx(mx) => &mx.exchange,
                Rdata::Https(found) | Rdata::Svcb(found) => {
                    svcb = Some(rdata.record_type());
                    found.host(name)
                }
                _ => continue,
            };
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        let mut records = Vec::new();
        for target in targets {
            let node = self.names.get(target);
            let is_wanted = |set: &&RrSet| {
                let is_address = matches!(set.rtype, RecordType::A | RecordType::AAAA);
                is_address || svcb == Some(set.rtype) && target != name
            };
            let sets = node.into_iter().flat_map(|node| &node.sets);
            for set in sets.filter(is_wanted) {
                records.extend(set.data.iter().map(|data| Record {
                    name: target.clone(),
                    ttl_s: set.ttl_s,
                    data: data.clone(),
                }));
            }
        }
        records
    }
}

#[cfg(test)]
mod tests;
