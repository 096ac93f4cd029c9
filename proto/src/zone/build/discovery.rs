//! What follows from what services speak: HTTPS records (RFC 9460), and by which they
//! are found (DNS-SD, RFC 6763). Of the instances that the service's name leads to, and
//! no others.

use std::collections::BTreeMap;

use super::{Builder, InstanceRecord};
use crate::{
    name::Label,
    zone::{DomainName, Protocol, Rdata, RecordType, ServiceType, Srv, Svcb},
};

impl Builder<'_> {
    /// The HTTPS records of a service's name, unless users wrote some there.
    pub(super) fn https(
        &mut self,
        (name, service): (&DomainName, &Label),
        chosen: &[&InstanceRecord],
        ttl_s: u32,
    ) {
        let is_https = |instance: &InstanceRecord| {
            let spoken = instance.service_type.as_ref();
            instance.protocol == Protocol::Tcp && spoken.is_some_and(ServiceType::is_https)
        };
        let spoken: Vec<&InstanceRecord> = chosen.iter().copied().filter(|i| is_https(i)).collect();
        if spoken.is_empty() || self.is_written(name, RecordType::HTTPS) {
            return;
        }
        let ends = self.ends(&DomainName::root(), service, chosen, &spoken);
        let data = ends.map(|(target, port)| Rdata::Https(Svcb::of_web(target, port)));
        self.add(name, ttl_s, data);
    }

    /// Has a granted service found by what it speaks (RFC 6763 §4, §5, §9).
    pub(super) fn browse(&mut self, service: &Label, instances: &[&InstanceRecord]) {
        let (chosen, ttl_s) = self.choose(instances);
        let mut by_type: BTreeMap<(&ServiceType, Protocol), Vec<&InstanceRecord>> = BTreeMap::new();
        for instance in chosen.iter().copied() {
            if let Some(service_type) = &instance.service_type {
                let key = (service_type, instance.protocol);
                by_type.entry(key).or_default().push(instance);
            }
        }
        for (key, spoken) in by_type {
            // Names that are too long are left out.
            let _ = self.browse_type(service, key, (&chosen[..], &spoken[..]), ttl_s);
        }
    }

    fn browse_type(
        &mut self,
        service: &Label,
        (service_type, protocol): (&ServiceType, Protocol),
        (chosen, spoken): (&[&InstanceRecord], &[&InstanceRecord]),
        ttl_s: u32,
    ) -> Option<()> {
        let label = service.as_str().as_bytes();
        let own = self.apex.child(label)?;
        let of_protocol = self.apex.child(format!("_{protocol}").as_bytes())?;
        let of_type = of_protocol.child(format!("_{service_type}").as_bytes())?;
        let found = of_type.child(label)?;
        let browse = discovery(&self.apex)?;
        let to_here = |(target, port)| {
            Rdata::Srv(Srv {
                priority: 0,
                weight: 0,
                port,
                target,
            })
        };
        let ends = self.ends(&own, service, chosen, spoken);
        self.add_found(&found, ttl_s, ends.map(to_here).collect());
        // One is there in any case, an empty one where there is nothing to say (§6.1).
        self.add_found(&found, ttl_s, vec![Rdata::Txt(vec![Vec::new()])]);
        let ttl_s = self.ttl(true);
        self.add_found(&of_type, ttl_s, vec![Rdata::Ptr(found)]);
        self.add_found(
            &browse.child(b"_services")?,
            ttl_s,
            vec![Rdata::Ptr(of_type)],
        );
        // The domain to look in, by default and for those who never choose (§11).
        let apex = Rdata::Ptr(self.apex.clone());
        for which in [&b"b"[..], b"lb"] {
            self.add_found(&browse.child(which)?, ttl_s, vec![apex.clone()]);
        }
        Some(())
    }

    /// Has the names that may be those of a service be unknown: what it speaks isn't
    /// known yet.
    pub(super) fn unknown_discovery(&mut self) {
        let services = discovery(&self.apex).and_then(|name| name.child(b"_services"));
        let below = [Protocol::Tcp, Protocol::Udp].map(|protocol| {
            let of_protocol = self.apex.child(format!("_{protocol}").as_bytes());
            of_protocol.and_then(|name| name.child(b"*"))
        });
        for name in services.into_iter().chain(below.into_iter().flatten()) {
            self.insert(&name).loading = true;
        }
    }

    /// Host and port of each: one name for all where it leads to these alone, at one port;
    /// else each by its own host, as any port would count for every address.
    fn ends(
        &self,
        own: &DomainName,
        service: &Label,
        chosen: &[&InstanceRecord],
        spoken: &[&InstanceRecord],
    ) -> std::vec::IntoIter<(DomainName, u16)> {
        let port = spoken.first().map(|first| first.port);
        let is_one = spoken.len() == chosen.len() && spoken.iter().all(|i| Some(i.port) == port);
        let ends: Vec<(DomainName, u16)> = match port {
            Some(port) if is_one => vec![(own.clone(), port)],
            _ => {
                let each = spoken.iter();
                each.filter_map(|i| Some((self.target(service, i)?, i.port)))
                    .collect()
            }
        };
        ends.into_iter()
    }

    /// Adds what users didn't write there themselves. What they wrote takes its place,
    /// and stands alone where it is an alias.
    fn add_found(&mut self, name: &DomainName, ttl_s: u32, data: Vec<Rdata>) {
        let rtypes = data.first().map(Rdata::record_type);
        let mut rtypes = rtypes.into_iter().chain([RecordType::CNAME]);
        if !rtypes.any(|rtype| self.is_written(name, rtype)) {
            self.add(name, ttl_s, data);
        }
    }

    /// Whether users wrote records of a type, served here or not.
    fn is_written(&self, name: &DomainName, rtype: RecordType) -> bool {
        let written = self.input.records.get(name);
        written.is_some_and(|all| all.iter().any(|data| data.record_type() == rtype))
            || self.input.withheld.contains(&(name.clone(), rtype))
    }
}

/// `_dns-sd._udp.<domain>`.
fn discovery(apex: &DomainName) -> Option<DomainName> {
    apex.child(b"_udp")?.child(b"_dns-sd")
}
