//! A DNS service for any bytes as questions: it has a little of everything, and
//! forwards nothing.

use std::{net::IpAddr, sync::Arc};

use innermesh_agent::{
    dns::{AnswerScope, Dns, PublicDns, Served, Source},
    host::{keys::SystemKeys, tasks::Tasks},
};
use innermesh_proto::{
    crypto::Hash,
    name::Label,
    zone::{
        DomainName, InstanceRecord, NodeRecords, Protocol, Rdata, Record, ServiceRecords,
        ServiceState, StrangerInput, StrangerZone, Zone, ZoneInput,
    },
};

use crate::{clock::SimClock, world::START_MS};

/// Whom it refuses.
pub(crate) const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 66));

/// The service.
pub(crate) fn dns() -> Dns {
    let input = input();
    let zone = Arc::new(Zone::build(&input));
    let first = (*zone).clone();
    let clock = Arc::new(SimClock::new(START_MS));
    let dns = Dns::new(clock, Tasks::default(), || first, input.ipv4, input.ula);
    dns.answers(AnswerScope::Mesh);
    dns.publish(move || Served {
        zone,
        lan: None,
        sources: Arc::new(|source: IpAddr| {
            if source == STRANGER {
                Source::Stranger
            } else {
                Source::Internal
            }
        }),
    });
    dns
}

/// A sinkhole's, towards strangers.
pub(crate) fn public() -> PublicDns {
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let name = |text: &str| text.parse::<DomainName>().expect("a name");
    let record = |at: &str, data| Record {
        name: name(at),
        ttl_s: 300,
        data,
    };
    let dns = PublicDns::new(Arc::new(SimClock::new(START_MS)), &SystemKeys);
    dns.publish(StrangerZone::build(StrangerInput {
        apex: name("lab.internal"),
        name_servers: vec![[ip("192.0.2.7"), ip("2001:db8::7")].into()],
        sinkhole: [ip("192.0.2.7"), ip("2001:db8::7")].into(),
        published: vec![
            record("alias.lab.internal", Rdata::Cname(name("web.lab.internal"))),
            record("big.lab.internal", Rdata::Txt(vec![vec![b'x'; 255]; 5])),
        ],
        secret: Hash([1; 32]),
    }));
    dns
}

fn input() -> ZoneInput {
    let label = |text: &str| text.parse::<Label>().expect("a label");
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let node = NodeRecords {
        addresses: vec![ip("10.77.0.1"), ip("fd00:1:2::1")],
        live: true,
        ..NodeRecords::default()
    };
    let instance = |last: u8| InstanceRecord {
        node: label("a"),
        addresses: vec![IpAddr::from([10, 77, 1, last])],
        port: 80,
        protocol: Protocol::Tcp,
        service_type: "https".parse().ok(),
        live: true,
        healthy: true,
    };
    let service = |count: u8| ServiceRecords {
        state: ServiceState::Known,
        instances: (0..count).map(instance).collect(),
        wildcard: true,
    };
    let records = [
        (
            "alias.lab.internal",
            Rdata::Cname("web.lab.internal".parse().expect("a name")),
        ),
        (
            "away.lab.internal",
            Rdata::Cname("example.org".parse().expect("a name")),
        ),
        ("t.lab.internal", Rdata::Txt(vec![b"text".to_vec()])),
    ];
    ZoneInput {
        domain: "lab.internal".parse().expect("a domain"),
        ipv4: "10.77.0.0/16".parse().expect("a net"),
        ula: "fd00:1:2::/48".parse().expect("a net"),
        serial: 7,
        loading: false,
        front: None,
        withheld: Default::default(),
        nodes: [(label("a"), node)].into(),
        services: [(label("web"), service(3)), (label("big"), service(60))].into(),
        records: records
            .into_iter()
            .map(|(name, data)| (name.parse().expect("a name"), vec![data]))
            .collect(),
        ttls: Default::default(),
        member_aliases: Default::default(),
        devices: Default::default(),
    }
}
