//! How long a change of a large mesh's zone takes until it is answered, without
//! sockets.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use innermesh_agent::{
    dns::{Dns, MemberSources, Served, SourceTable},
    host::{system, tasks::Tasks},
};
use innermesh_proto::{
    name::Label,
    zone::{
        DomainName, InstanceRecord, NodeRecords, Protocol, RecordType, ServiceRecords,
        ServiceState, Zone, ZoneInput,
    },
};
use serde_json::json;

use super::resident_kib;
use crate::figures::Report;

const NODES: usize = 1000;
const SERVICES: usize = 3000;
const ROUNDS: u32 = 20;

pub fn measure(report: &mut Report) {
    let mut input = input();
    let own = std::process::id();
    let before = resident_kib(own);
    let dns = Dns::new(
        system::host(std::env::temp_dir()).clock,
        Tasks::default(),
        {
            let input = input.clone();
            move || Zone::build(&input)
        },
        input.ipv4,
        input.ula,
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let name: DomainName = "s7.in.example.org".parse().expect("a name");
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        input.serial += 1;
        let changed = input.services.values_mut().nth(7).expect("a service");
        changed.instances[0].port = u16::try_from(round).unwrap_or_default() + 1;
        let sources = MemberSources {
            own: [Ipv4Addr::LOCALHOST.into()].into(),
            members: input
                .nodes
                .values()
                .flat_map(|n| n.addresses.clone())
                .collect(),
            ..MemberSources::default()
        };
        // What makes the input from a view is the view's.
        let next = input.clone();
        let began = Instant::now();
        dns.publish(move || Served {
            zone: Arc::new(Zone::build(&next)),
            lan: None,
            sources: Arc::new(SourceTable::from(&sources)),
        });
        let _ = runtime.block_on(dns.query(&name, RecordType::A));
        times.push(began.elapsed());
    }
    let most: Duration = times.iter().copied().max().unwrap_or_default();
    report.times(
        &format!("zone change, {NODES} nodes, {SERVICES} services"),
        "innermesh",
        1,
        &times,
    );
    println!("  at most {:.1} ms", most.as_secs_f64() * 1e3);
    // Freed memory that the allocator keeps is in it.
    let mib = resident_kib(own).saturating_sub(before) as f64 / 1024.0;
    report.add(
        &format!("memory of that zone, changed {ROUNDS} times"),
        "innermesh",
        1,
        format!("{mib:.1} MiB resident"),
        json!({ "resident_mib": mib }),
    );
}

fn input() -> ZoneInput {
    let label = |text: String| text.parse::<Label>().expect("a label");
    let ipv4 = |n: usize| IpAddr::from(Ipv4Addr::from(0x0a4d_0000 + n as u32 + 256));
    let ipv6 = |n: usize| IpAddr::from([0xfd00, 1, 2, 0, 0, 0, 0, n as u16 + 256]);
    let node = |n: usize| {
        let records = NodeRecords {
            addresses: vec![ipv4(n), ipv6(n)],
            live: true,
            ..NodeRecords::default()
        };
        (label(format!("node{n}")), records)
    };
    let service = |n: usize| {
        let instance = InstanceRecord {
            node: label(format!("node{}", n % NODES)),
            addresses: vec![ipv4(n % NODES), ipv6(n % NODES)],
            port: 80,
            protocol: Protocol::Tcp,
            service_type: None,
            live: true,
            healthy: true,
        };
        let records = ServiceRecords {
            state: ServiceState::Known,
            instances: vec![instance],
            wildcard: false,
        };
        (label(format!("s{n}")), records)
    };
    ZoneInput {
        domain: "in.example.org".parse().expect("a domain"),
        ipv4: "10.77.0.0/16".parse().expect("a net"),
        ula: "fd00:1:2::/48".parse().expect("a net"),
        serial: 1,
        loading: false,
        front: None,
        withheld: Default::default(),
        nodes: (0..NODES).map(node).collect(),
        services: (0..SERVICES).map(service).collect(),
        records: Default::default(),
        ttls: Default::default(),
        member_aliases: Default::default(),
        devices: Default::default(),
    }
}
