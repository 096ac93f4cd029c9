//! A DNS service for any bytes as questions: it has a little of everything, and
//! forwards nothing.

use std::{net::IpAddr, sync::Arc};

use innermesh_agent::{
    dns::{AnswerScope, Dns, Served, Source},
    host::tasks::Tasks,
};
use innermesh_proto::{
    name::Label,
    zone::{
        InstanceRecord, NodeRecords, Protocol, Rdata, ServiceRecords, ServiceState, Zone, ZoneInput,
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
