//! How the zone's records follow from what is known.

mod discovery;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::{Ipv4Net, Ipv6Net};

use super::{
    DomainName, InstanceRecord, LOW_TTL_S, Node, NodeRecords, Protocol, Rdata, Record, RecordType,
    RrSet, ServiceRecords, ServiceState, Soa, Srv, TTL_S, Zone, ZoneInput,
};
use crate::{id::resolver_v4, limits, name::Label};

/// See [`Zone::build`].
pub(super) fn build(input: &ZoneInput) -> Zone {
    let Some(apex) = DomainName::from_labels(input.domain.as_str().split('.').map(str::as_bytes))
    else {
        // A domain has at most 100 characters, so this doesn't happen; an
        // empty zone answers nothing.
        return Zone {
            origins: Vec::new(),
            names: BTreeMap::new(),
            pointers: BTreeMap::new(),
            loading: input.loading,
        };
    };
    let mut builder = Builder {
        input,
        origins: vec![apex.clone()],
        apex,
        names: BTreeMap::new(),
        pointers: BTreeMap::new(),
    };
    builder.origins.extend(reverse_zones(input.ipv4, input.ula));
    builder.mesh();
    for (label, node) in &input.nodes {
        builder.node(label, node);
    }
    for (label, addresses) in &input.devices {
        builder.device(label, addresses);
    }
    for (label, service) in &input.services {
        builder.service(label, service);
    }
    for (name, records) in &input.records {
        builder.records(name, records);
    }
    builder.finish()
}

/// The zones that cover exactly the overlay's addresses.
pub fn reverse_zones(ipv4: Ipv4Net, ula: Ipv6Net) -> Vec<DomainName> {
    let mut zones = reverse_origins(&ipv4.network().octets(), ipv4.prefix_len(), 8);
    zones.extend(reverse_origins(
        &ula.network().octets(),
        ula.prefix_len(),
        4,
    ));
    zones
}

/// The zones that cover exactly the first `prefix` bits of `octets`, `step`
/// bits to a label: one where the prefix ends with a label, else up to 128.
fn reverse_origins(octets: &[u8], prefix: u8, step: usize) -> Vec<DomainName> {
    let prefix = usize::from(prefix);
    let bits = prefix.next_multiple_of(step);
    let mut octets = octets.to_vec();
    (0..1u8 << (bits - prefix))
        .map(|_| {
            let origin = DomainName::reverse_prefix(&octets, bits, step);
            if let Some(last) = bits.checked_sub(1).and_then(|bit| octets.get_mut(bit / 8)) {
                *last = last.wrapping_add(1 << ((8 - bits % 8) % 8));
            }
            origin
        })
        .collect()
}

struct Builder<'a> {
    input: &'a ZoneInput,
    apex: DomainName,
    origins: Vec<DomainName>,
    names: BTreeMap<DomainName, Node>,
    pointers: BTreeMap<IpAddr, Node>,
}

impl Builder<'_> {
    /// Names that every agent answers for itself, known or not known otherwise:
    /// an ACME client whose CA's name stops resolving may turn to another CA.
    fn mesh(&mut self) {
        let v6 = u128::from(self.input.ula.network()) | 0x53;
        let resolver = [
            IpAddr::V4(resolver_v4(self.input.ipv4)),
            IpAddr::V6(v6.into()),
        ];
        let front = self.input.front.as_deref();
        for label in ["acme", "ca", "ns"] {
            if let Some(name) = self.apex.child(label.as_bytes()) {
                // Nobody but members and this host gets certificates.
                let at = front.unwrap_or(&resolver);
                let at = if label == "acme" && front.is_some() {
                    &[]
                } else {
                    at
                };
                self.addresses(&name, at, TTL_S);
            }
        }
        if let Some(ns) = self.apex.child(b"ns") {
            for origin in self.origins.clone() {
                self.add(&origin, TTL_S, [Rdata::Ns(ns.clone())]);
            }
            for address in resolver.iter().filter(|_| front.is_none()) {
                self.pointer(*address, &ns);
            }
        }
    }

    fn node(&mut self, label: &Label, node: &NodeRecords) {
        let Some(name) = self.apex.child(label.as_str().as_bytes()) else {
            return;
        };
        if self.names.contains_key(&name) {
            return;
        }
        let ttl_s = self.ttl(node.live);
        self.addresses(&name, &node.addresses, ttl_s);
        let wildcard = name.child(b"*").filter(|_| !node.addresses.is_empty());
        if let Some(wildcard) = wildcard {
            self.addresses(&wildcard, &node.addresses, ttl_s);
        }
        for &address in &node.addresses {
            self.pointer(address, &name);
        }
        for (service, instances) in &node.own_services {
            if !instances.is_empty() {
                let instances: Vec<&InstanceRecord> = instances.iter().collect();
                self.instances(&name, service, &instances);
            }
        }
    }

    /// The ledger has its addresses, wherever it is.
    fn device(&mut self, label: &Label, addresses: &[IpAddr]) {
        let name = self.apex.child(label.as_str().as_bytes());
        let Some(name) = name.filter(|name| !self.names.contains_key(name)) else {
            return;
        };
        self.addresses(&name, addresses, self.ttl(true));
        for &address in addresses {
            self.pointer(address, &name);
        }
    }

    fn service(&mut self, label: &Label, service: &ServiceRecords) {
        let Some(name) = self.apex.child(label.as_str().as_bytes()) else {
            return;
        };
        if self
            .names
            .get(&name)
            .is_some_and(|node| !node.sets.is_empty())
        {
            return;
        }
        // Only a member's instances count; whether a node is one may not be
        // known yet while the view loads.
        let instances: Vec<&InstanceRecord> = service
            .instances
            .iter()
            .filter(|instance| self.input.nodes.contains_key(&instance.node))
            .collect();
        let unknown = service.state == ServiceState::Loading
            || (self.input.loading && instances.len() < service.instances.len());
        self.insert(&name).loading |= unknown;
        self.instances(&self.apex.clone(), label, &instances);
        if service.wildcard
            && let Some(wildcard) = name.child(b"*")
        {
            let (chosen, ttl_s) = self.choose(&instances);
            self.insert(&wildcard).loading |= unknown;
            self.addresses(&wildcard, &addresses_of(&chosen), ttl_s);
            self.https((&wildcard, label), &chosen, ttl_s);
        }
        self.browse(label, &instances);
        if unknown {
            self.unknown_discovery();
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                if let Some(name) = srv_name(&self.apex, label, protocol) {
                    self.insert(&name).loading = true;
                }
            }
        }
    }

    /// What users added, where nodes and services say nothing of that type:
    /// S12, and a service's instances come and go by themselves.
    fn records(&mut self, name: &DomainName, records: &[Rdata]) {
        if !name.is_within(&self.apex) {
            return;
        }
        let taken: Vec<RecordType> = match self.names.get(name) {
            Some(node) => node.sets.iter().map(|set| set.rtype).collect(),
            None => Vec::new(),
        };
        let loading = self.names.get(name).is_some_and(|node| node.loading);
        for data in records {
            let rtype = data.record_type();
            let alone = rtype == RecordType::CNAME && (!taken.is_empty() || loading);
            if !taken.contains(&rtype) && !taken.contains(&RecordType::CNAME) && !alone {
                self.add(name, self.record_ttl(name, rtype), [data.clone()]);
            }
        }
        if self.input.member_aliases.contains(name)
            && let Some(node) = self.names.get_mut(name)
        {
            for set in &mut node.sets {
                set.by_member = set.rtype == RecordType::CNAME;
            }
        }
    }

    /// `<service>.<parent>` and its SRV records.
    fn instances(&mut self, parent: &DomainName, service: &Label, instances: &[&InstanceRecord]) {
        if let Some(name) = parent.child(service.as_str().as_bytes()) {
            let (chosen, ttl_s) = self.choose(instances);
            self.addresses(&name, &addresses_of(&chosen), ttl_s);
            self.https((&name, service), &chosen, ttl_s);
        }
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let spoken: Vec<&InstanceRecord> = instances
                .iter()
                .copied()
                .filter(|i| i.protocol == protocol)
                .collect();
            if spoken.is_empty() {
                continue;
            }
            let (chosen, ttl_s) = self.choose(&spoken);
            if let Some(name) = srv_name(parent, service, protocol) {
                let data: Vec<Rdata> = chosen
                    .iter()
                    .filter_map(|instance| {
                        let target = self.target(service, instance)?;
                        Some(Rdata::Srv(Srv {
                            priority: 0,
                            weight: 0,
                            port: instance.port,
                            target,
                        }))
                    })
                    .collect();
                self.add(&name, ttl_s, data);
            }
        }
    }

    /// The host that an SRV record names: the node, or the service under the
    /// node's own name where that alone has the instance's address (a printer
    /// that the node speaks for).
    fn target(&self, service: &Label, instance: &InstanceRecord) -> Option<DomainName> {
        let node = self.input.nodes.get(&instance.node)?;
        let host = self.apex.child(instance.node.as_str().as_bytes())?;
        let elsewhere = !instance.addresses.is_empty()
            && !instance
                .addresses
                .iter()
                .any(|address| node.addresses.contains(address));
        if elsewhere
            && node
                .own_services
                .get(service)
                .is_some_and(|own| !own.is_empty())
        {
            return host.child(service.as_str().as_bytes());
        }
        Some(host)
    }

    /// The instances to answer with, and for how long the answer may be kept:
    /// a dead or unhealthy one is left out only while there is a better one.
    fn choose<'i>(&self, instances: &[&'i InstanceRecord]) -> (Vec<&'i InstanceRecord>, u32) {
        let all = instances.iter().copied();
        let good: Vec<_> = all.filter(|i| i.live && i.healthy).collect();
        if good.is_empty() {
            (instances.to_vec(), LOW_TTL_S)
        } else {
            (good, self.ttl(true))
        }
    }

    fn ttl(&self, good: bool) -> u32 {
        if good && !self.input.loading {
            TTL_S
        } else {
            LOW_TTL_S
        }
    }

    /// That of users' records, which the ledger has, whatever else is known.
    fn record_ttl(&self, name: &DomainName, rtype: RecordType) -> u32 {
        let usual = self.ttl(true);
        match self.input.ttls.get(&(name.clone(), rtype)) {
            Some(ttl_s) if self.input.loading => usual.min(*ttl_s),
            Some(ttl_s) => *ttl_s,
            None => usual,
        }
    }

    /// The name is there also where it has no address.
    fn addresses(&mut self, name: &DomainName, addresses: &[IpAddr], ttl_s: u32) {
        let sets = &mut self.insert(name).sets;
        for address in addresses {
            add_to(sets, ttl_s, Rdata::address(*address));
        }
    }

    fn pointer(&mut self, address: IpAddr, name: &DomainName) {
        let inside = match address {
            IpAddr::V4(v4) => self.input.ipv4.contains(&v4),
            IpAddr::V6(v6) => self.input.ula.contains(&v6),
        };
        if inside {
            let sets = &mut self.pointers.entry(address).or_default().sets;
            add_to(sets, TTL_S, Rdata::Ptr(name.clone()));
        }
    }

    /// Adds records to a name, each set without repetitions, in order, bounded.
    fn add(&mut self, name: &DomainName, ttl_s: u32, data: impl IntoIterator<Item = Rdata>) {
        let mut data = data.into_iter().peekable();
        if data.peek().is_some() {
            let sets = &mut self.insert(name).sets;
            data.for_each(|rdata| add_to(sets, ttl_s, rdata));
        }
    }

    fn insert(&mut self, name: &DomainName) -> &mut Node {
        self.names.entry(name.clone()).or_default()
    }

    /// Adds the names between those that are there and their origin.
    fn insert_ancestors(&mut self) {
        let mut missing: BTreeSet<&[u8]> = BTreeSet::new();
        for name in self.names.keys() {
            let mut above = name.lineage().skip(1).peekable();
            let is_new = above
                .peek()
                .is_some_and(|above| !self.names.contains_key(*above) && !missing.contains(*above));
            if is_new {
                let origin = self.origins.iter().find(|origin| name.is_within(origin));
                let shortest = origin.map_or(usize::MAX, |origin| origin.wire().len());
                missing.extend(above.take_while(|above| above.len() >= shortest));
            }
        }
        let missing: Vec<Vec<u8>> = missing.into_iter().map(Into::into).collect();
        for name in missing.into_iter().flat_map(DomainName::try_from) {
            self.names.entry(name).or_default();
        }
    }

    fn finish(mut self) -> Zone {
        let origins: Vec<Record> = self.origins.iter().map(|origin| self.soa(origin)).collect();
        for soa in &origins {
            self.add(&soa.name, soa.ttl_s, [soa.data.clone()]);
        }
        self.insert_ancestors();
        Zone {
            origins,
            names: self.names,
            pointers: self.pointers,
            loading: self.input.loading,
        }
    }

    fn soa(&self, origin: &DomainName) -> Record {
        let below = |label: &[u8]| self.apex.child(label).unwrap_or_else(|| self.apex.clone());
        Record {
            name: origin.clone(),
            // The smaller of this and the minimum is what a negative answer
            // may be kept (RFC 2308 §5).
            ttl_s: LOW_TTL_S,
            data: Rdata::Soa(Soa {
                primary: below(b"ns"),
                mailbox: below(b"hostmaster"),
                serial: self.input.serial,
                refresh_s: 60,
                retry_s: 30,
                expire_s: 7 * 24 * 3600,
                minimum_s: LOW_TTL_S,
            }),
        }
    }
}

fn add_to(sets: &mut Vec<RrSet>, ttl_s: u32, rdata: Rdata) {
    let rtype = rdata.record_type();
    match sets.iter_mut().find(|set| set.rtype == rtype) {
        None => sets.push(RrSet {
            rtype,
            ttl_s,
            data: vec![rdata],
            by_member: false,
        }),
        Some(set) => {
            set.ttl_s = set.ttl_s.min(ttl_s);
            if let Err(place) = set.data.binary_search(&rdata)
                && set.data.len() < limits::RRSET_RECORDS
            {
                set.data.insert(place, rdata);
            }
        }
    }
}

fn addresses_of(instances: &[&InstanceRecord]) -> Vec<IpAddr> {
    let all: BTreeSet<IpAddr> = instances
        .iter()
        .flat_map(|i| i.addresses.iter().copied())
        .collect();
    all.into_iter().collect()
}

/// `_<service>._<protocol>.<parent>` (RFC 2782); none for a service whose
/// name leaves no room for the underscore.
fn srv_name(parent: &DomainName, service: &Label, protocol: Protocol) -> Option<DomainName> {
    parent
        .child(format!("_{protocol}").as_bytes())?
        .child(format!("_{service}").as_bytes())
}
