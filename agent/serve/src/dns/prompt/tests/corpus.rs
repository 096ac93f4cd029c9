//! A zone with something of everything, and the forms that questions come in.

use std::collections::BTreeMap;

use innermesh_proto::{
    ledger::record::RecordData,
    name::Label,
    zone::{
        DomainName, InstanceRecord, NodeRecords, Protocol, Rdata, RecordType, ServiceRecords,
        ServiceState, ServiceType, ZoneInput,
    },
};

fn label(s: &str) -> Label {
    s.parse().unwrap()
}

fn instance(node: &str, address: &str, protocol: Protocol, live: bool) -> InstanceRecord {
    InstanceRecord {
        node: label(node),
        addresses: vec![address.parse().unwrap()],
        port: 80,
        protocol,
        service_type: if address.ends_with('2') {
            "https".parse().ok()
        } else {
            ServiceType::of_port(protocol, 80)
        },
        live,
        healthy: true,
    }
}

fn node(addresses: &[&str], live: bool) -> NodeRecords {
    NodeRecords {
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        live,
        ..NodeRecords::default()
    }
}

fn service(instances: Vec<InstanceRecord>, wildcard: bool) -> ServiceRecords {
    ServiceRecords {
        state: ServiceState::Known,
        instances,
        wildcard,
    }
}

/// Services on many addresses by TCP and UDP, aliases that lead everywhere, and
/// records of every type.
pub fn input() -> ZoneInput {
    let crowd = |prefix: &str, count: usize| {
        let at = |n| format!("{prefix}{n}");
        let one = |n| instance("a", &at(n), Protocol::Tcp, true);
        service((1..=count).map(one).collect(), count.is_multiple_of(2))
    };
    let mut cedar = node(&["10.77.0.3", "fd00:1:2::c"], false);
    cedar.own_services.insert(
        label("own"),
        vec![instance("cedar", "10.77.0.3", Protocol::Udp, false)],
    );
    let pending = ServiceRecords {
        state: ServiceState::Loading,
        instances: Vec::new(),
        wildcard: true,
    };
    ZoneInput {
        domain: "lab.internal".parse().unwrap(),
        ipv4: "10.77.0.0/16".parse().unwrap(),
        ula: "fd00:1:2::/48".parse().unwrap(),
        serial: 7,
        loading: false,
        front: None,
        withheld: Default::default(),
        nodes: [
            (label("a"), node(&["10.77.0.1", "fd00:1:2::a"], true)),
            (label("b"), node(&["10.77.0.2"], true)),
            (label("cedar"), cedar),
        ]
        .into(),
        services: [
            (label("two"), crowd("10.77.9.", 2)),
            (label("seven"), crowd("10.77.9.", 7)),
            (label("forty"), crowd("10.77.9.", 40)),
            (label("six"), crowd("fd00:1:2::9", 6)),
            (label("hundred"), crowd("10.77.9.", 130)),
            (
                label("both"),
                service(
                    vec![
                        instance("a", "10.77.0.1", Protocol::Tcp, true),
                        instance("b", "10.77.0.2", Protocol::Udp, false),
                        instance("b", "10.77.0.2", Protocol::Tcp, true),
                    ],
                    false,
                ),
            ),
            (label("nobody"), service(Vec::new(), true)),
            (label("pending"), pending),
        ]
        .into(),
        records: records(),
        ttls: [(("mail.lab.internal".parse().unwrap(), RecordType::MX), 3600)].into(),
        member_aliases: ["member.lab.internal".parse().unwrap()].into(),
        devices: [(label("phone"), vec!["10.77.0.9".parse().unwrap()])].into(),
    }
}

fn records() -> BTreeMap<DomainName, Vec<Rdata>> {
    let mut records: BTreeMap<DomainName, Vec<Rdata>> = BTreeMap::new();
    let mut add = |name: &str, data: Rdata| {
        let name = format!("{name}.lab.internal").parse().unwrap();
        records.entry(name).or_default().push(data);
    };
    for (name, to) in [
        ("inside", "two.lab.internal"),
        ("twice", "inside.lab.internal"),
        ("to-none", "no-such.lab.internal"),
        ("to-no-data", "mail.lab.internal"),
        ("to-pending", "pending.lab.internal"),
        ("to-wild", "x.y.wild.lab.internal"),
        ("outside", "www.example.org"),
        ("to-outside", "outside.lab.internal"),
        ("member", "www.example.net"),
        ("to-member", "member.lab.internal"),
        ("round", "about.lab.internal"),
        ("about", "round.lab.internal"),
        ("*.alias", "seven.lab.internal"),
    ] {
        add(name, Rdata::Cname(to.parse().unwrap()));
    }
    let text = |n: usize| Rdata::Txt(vec![format!("v{n}").into_bytes(), vec![0, 255, n as u8]]);
    for n in 0..5 {
        add("text", text(n));
        add(&format!("_sub{n}._tcp.deep.down"), text(n));
    }
    add("*.wild", text(9));
    add("*.wild", Rdata::address("192.0.2.1".parse().unwrap()));
    for n in 0..20 {
        add("long", Rdata::Txt(vec![vec![b'x'; 200], vec![n; 9]]));
    }
    for (n, host) in ["a", "b", "cedar"].into_iter().enumerate() {
        let host: DomainName = format!("{host}.lab.internal").parse().unwrap();
        add(
            "mail",
            Rdata::Mx(innermesh_proto::zone::Mx {
                preference: n as u16,
                exchange: host.clone(),
            }),
        );
        add(
            "_sip._udp",
            Rdata::Srv(innermesh_proto::zone::Srv {
                priority: n as u16,
                weight: 5,
                port: 5060,
                target: host,
            }),
        );
        add(
            "mail",
            Rdata::Caa(innermesh_proto::zone::Caa {
                flags: 128,
                tag: "issue".into(),
                value: format!("ca{n}.example.org").into_bytes(),
            }),
        );
    }
    for (name, value) in [
        ("site", "1 . alpn=\"h2\" port=8443"),
        ("moved", "0 site.lab.internal."),
    ] {
        for rtype in [RecordType::HTTPS, RecordType::SVCB] {
            add(name, RecordData::parse(rtype, value).unwrap().rdata());
        }
    }
    records
}

/// Names in the zone, below it, beside it and above it.
pub fn names(zone: &innermesh_proto::zone::Zone) -> Vec<DomainName> {
    let mut names: Vec<DomainName> = Vec::new();
    for record in zone.records() {
        let owner = record.split_whitespace().next().unwrap();
        names.push(owner.parse().unwrap());
    }
    for more in [
        "lab.internal",
        "internal",
        ".",
        "arpa",
        "in-addr.arpa",
        "example.org",
        "tcp.lab.internal",
        "_tcp.lab.internal",
        "deep.down.lab.internal",
        "down.lab.internal",
        "77.10.in-addr.arpa",
        "0.77.10.in-addr.arpa",
        "9.77.10.in-addr.arpa",
        "99.99.77.10.in-addr.arpa",
        "1.0.0.127.in-addr.arpa",
        "8.8.8.8.in-addr.arpa",
        "0.0.d.f.ip6.arpa",
        "0.0.0.0.2.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa",
        "localhost",
        "x.local",
        "use-application-dns.net",
        "_dns.resolver.arpa",
        "no-such.lab.internal",
        "x.no-such.lab.internal",
        "x.a.lab.internal",
        "y.x.a.lab.internal",
        "x.two.lab.internal",
        "x.pending.lab.internal",
        "x.nobody.lab.internal",
        "x.phone.lab.internal",
        "x.y.wild.lab.internal",
        "*.wild.lab.internal",
        "z.alias.lab.internal",
        "q.z.alias.lab.internal",
        "own.cedar.lab.internal",
        "_own._udp.cedar.lab.internal",
        "\\000\\255.a.lab.internal",
        "a\\.b.lab.internal",
        "lab.internal.lab.internal",
    ] {
        names.push(more.parse().unwrap());
    }
    // As long as a name may be.
    let long = format!(
        "{0}.{0}.{0}.{1}.lab.internal",
        "x".repeat(63),
        "y".repeat(48)
    );
    names.push(long.parse().unwrap());
    names.sort();
    names.dedup();
    names
}

pub const TYPES: [u16; 24] = [
    1, 2, 5, 6, 12, 13, 15, 16, 28, 33, 41, 43, 46, 48, 52, 64, 65, 99, 128, 251, 252, 255, 257,
    65535,
];

/// A message's header flags, and what is behind its question.
#[derive(Clone, Debug)]
pub struct Form {
    pub flags: [u8; 2],
    pub counts: [u8; 4],
    pub class: u16,
    pub mixed_case: bool,
    pub rest: Vec<u8>,
}

impl Form {
    pub fn message(&self, name: &DomainName, rtype: u16, id: u16) -> Vec<u8> {
        let [questions, answers, authorities, additionals] = self.counts;
        let mut message = id.to_be_bytes().to_vec();
        message.extend(self.flags);
        message.extend([0, questions, 0, answers, 0, authorities, 0, additionals]);
        let mut wire = Vec::from(name.clone());
        if self.mixed_case {
            for (n, octet) in wire.iter_mut().enumerate() {
                if n % 2 == 1 {
                    *octet = octet.to_ascii_uppercase();
                }
            }
        }
        message.extend(wire);
        message.push(0);
        message.extend(rtype.to_be_bytes());
        message.extend(self.class.to_be_bytes());
        message.extend(&self.rest);
        message
    }
}

fn opt(size: u16, extended: [u8; 2], flags: [u8; 2], options: &[u8]) -> Vec<u8> {
    let [size0, size1] = size.to_be_bytes();
    let [len0, len1] = (options.len() as u16).to_be_bytes();
    let head = [
        0,
        0,
        41,
        size0,
        size1,
        extended[0],
        extended[1],
        flags[0],
        flags[1],
        len0,
        len1,
    ];
    [&head[..], options].concat()
}

const PLAIN: Form = Form {
    flags: [1, 0],
    counts: [1, 0, 0, 0],
    class: 1,
    mixed_case: false,
    rest: Vec::new(),
};

/// The forms that nearly all questions have.
pub fn usual() -> Vec<Form> {
    let mut forms = Vec::new();
    for flags in [[1, 0], [0, 0], [1, 0x20], [1, 0x10], [0, 0x30]] {
        for mixed_case in [false, true] {
            forms.push(Form {
                flags,
                mixed_case,
                ..PLAIN
            });
            for (size, flags_of_opt, options) in [
                (1232, [0, 0], &[][..]),
                (0, [0x80, 0], &[]),
                (4096, [0x80, 0], &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]),
                (1232, [0, 0], &[0, 12, 0, 2, 0, 0]),
            ] {
                forms.push(Form {
                    flags,
                    mixed_case,
                    counts: [1, 0, 0, 1],
                    rest: opt(size, [0, 0], flags_of_opt, options),
                    ..PLAIN
                });
            }
        }
    }
    forms
}

/// Those that are seldom or never right.
pub fn odd() -> Vec<Form> {
    let with_opt = |rest: Vec<u8>| Form {
        counts: [1, 0, 0, 1],
        rest,
        ..PLAIN
    };
    let mut forms = vec![
        Form {
            flags: [0x81, 0],
            ..PLAIN
        },
        Form {
            flags: [0x05, 0],
            ..PLAIN
        },
        Form {
            flags: [0x03, 0],
            ..PLAIN
        },
        Form {
            flags: [0x11, 0],
            ..PLAIN
        },
        Form {
            flags: [0x29, 0],
            ..PLAIN
        },
        Form {
            flags: [1, 0x80],
            ..PLAIN
        },
        Form {
            flags: [1, 0x40],
            ..PLAIN
        },
        Form {
            flags: [1, 0x03],
            ..PLAIN
        },
        Form {
            counts: [0, 0, 0, 0],
            ..PLAIN
        },
        Form {
            counts: [2, 0, 0, 0],
            ..PLAIN
        },
        Form {
            counts: [1, 1, 0, 0],
            ..PLAIN
        },
        Form {
            counts: [1, 0, 1, 0],
            ..PLAIN
        },
        Form {
            counts: [1, 0, 0, 1],
            ..PLAIN
        },
        Form { class: 3, ..PLAIN },
        Form {
            class: 255,
            ..PLAIN
        },
        Form {
            rest: vec![0, 1, 2],
            ..PLAIN
        },
        with_opt(opt(1232, [0, 1], [0, 0], &[])),
        with_opt(opt(1232, [1, 0], [0, 0], &[])),
        with_opt(opt(1232, [0, 0], [0x40, 1], &[])),
        with_opt([opt(1232, [0, 0], [0, 0], &[]), vec![9]].concat()),
        with_opt(opt(1232, [0, 0], [0, 0], &[])[..10].to_vec()),
        // An A record in place of an OPT record.
        with_opt(vec![0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 1, 2, 3, 4]),
        Form {
            counts: [1, 0, 0, 2],
            rest: opt(1232, [0, 0], [0, 0], &[]).repeat(2),
            ..PLAIN
        },
    ];
    for options in [
        &[0, 3, 0, 0][..],
        &[0, 10, 0, 3, 1, 2, 3],
        &[0, 10, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        &[0, 10, 0, 8, 1],
        &[0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2],
        &[0, 8, 0, 3, 9, 9, 9],
        &[0, 12, 0, 3, 0, 0],
        &[0, 11, 0, 2, 0, 1],
        &[0],
    ] {
        forms.push(with_opt(opt(1232, [0, 0], [0, 0], options)));
    }
    let cookies = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8].repeat(2);
    forms.push(with_opt(opt(1232, [0, 0], [0, 0], &cookies)));
    forms
}
