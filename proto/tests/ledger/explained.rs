//! Why a name is answered as it is.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use innermesh_proto::{
    crypto::Sign,
    head::{Announcement, Instance},
    hold::Hold,
    ledger::{
        Content, HoldId,
        record::RecordData,
        request::{AddRecord, Share},
    },
    view::{LanView, MeshView},
    zone::{Answer, DomainName, LanAddresses, Protocol, Record, RecordType, Zone},
};

use crate::{
    mesh::{id, key, label},
    view::Seen,
};

fn serving(services: &[(&str, u16, bool)]) -> Announcement {
    let services = services.iter().map(|(name, port, healthy)| {
        let instance = Instance {
            port: *port,
            protocol: Protocol::Tcp,
            address: None,
            healthy: *healthy,
        };
        (label(name), instance)
    });
    Announcement {
        services: services.collect(),
        ..Announcement::default()
    }
}

fn records(zone: &Zone, name: &DomainName, rtype: RecordType) -> Vec<Record> {
    match zone.lookup(name, rtype) {
        Answer::Records { ttl_s, data, .. } => {
            let of = |data: &innermesh_proto::zone::Rdata| Record {
                name: name.clone(),
                ttl_s,
                data: data.clone(),
            };
            data.iter().map(of).collect()
        }
        Answer::Alias { records, .. } => records,
        _ => Vec::new(),
    }
}

/// Whose each record is, and what is left out, in words.
fn explained(
    view: &MeshView,
    name: &str,
    rtype: &str,
    lan: Option<LanView<'_>>,
) -> (Vec<String>, Vec<String>) {
    let input = match lan {
        Some(lan) => view.zone_input().for_lan(lan.addresses, lan.nets),
        None => view.zone_input(),
    };
    let name: DomainName = name.parse().unwrap();
    let rtype: RecordType = rtype.parse().unwrap();
    let answers = records(&Zone::build(&input), &name, rtype);
    let said = view.explain(&name, rtype, &answers, lan);
    let owners = said.owners.iter().map(|owner| match owner {
        Some(owner) => owner.to_string(),
        None => "unknown".to_owned(),
    });
    let left_out = said.left_out.iter();
    let left_out = left_out.map(|it| format!("{}: {}", it.what, it.why));
    let owners: BTreeSet<String> = owners.collect();
    (owners.into_iter().collect(), left_out.collect())
}

/// `photos` is one's and shared with two.
fn world() -> Seen {
    let mut seen = Seen::new();
    seen.mesh.ask(&*key(1), Content::Claim(label("photos")));
    let share = Share {
        name: label("photos"),
        with: id(&*key(2)),
    };
    seen.mesh.ask(&*key(1), Content::Share(share));
    seen.own = Arc::new(serving(&[("photos", 443, true)]));
    seen.meet(
        &key(1),
        &serving(&[("photos", 443, true), ("wiki", 80, true)]),
    );
    seen.meet(&key(2), &serving(&[("photos", 443, false)]));
    seen
}

fn name_of(seen: &Seen, key: &dyn Sign) -> String {
    seen.mesh.state().name_of(key.public().node_id())
}

fn add(name: &str, rtype: &str, value: &str) -> Content {
    let rtype: RecordType = rtype.parse().unwrap();
    Content::AddRecord(AddRecord {
        name: format!("{name}.lab.internal").parse().unwrap(),
        data: RecordData::parse(rtype, value).unwrap(),
        ttl_s: None,
        public: false,
    })
}

#[test]
fn each_record_is_told_whose_it_is() {
    let mut seen = world();
    let founder = seen.mesh.founder.clone();
    let boss = name_of(&seen, &*founder);
    for content in [
        add("tv", "A", "192.0.2.9"),
        add("box", "CNAME", "tv.lab.internal"),
        add("photos", "TXT", "holidays"),
        add("*.lamps", "A", "192.0.2.10"),
        add("cam.one", "A", "192.0.2.11"),
    ] {
        seen.mesh.ask(&*founder, content);
    }
    let view = seen.view();
    let one = view.ledger.members[&id(&*key(1))].ipv4;
    let reverse = DomainName::reverse(one.into()).to_string();
    let by_boss = format!("added by {boss}");
    for (name, rtype, owner) in [
        ("one.lab.internal", "A", "node one"),
        ("x.one.lab.internal", "AAAA", "node one"),
        (&reverse, "PTR", "node one"),
        ("wiki.one.lab.internal", "A", "service wiki on one"),
        ("_wiki._tcp.one.lab.internal", "SRV", "service wiki on one"),
        ("photos.lab.internal", "A", "service photos on one"),
        ("photos.lab.internal", "HTTPS", "service photos on one"),
        ("_photos._tcp.lab.internal", "SRV", "service photos on one"),
        ("_https._tcp.lab.internal", "PTR", "service photos"),
        (
            "photos._https._tcp.lab.internal",
            "SRV",
            "service photos on one",
        ),
        ("photos.lab.internal", "TXT", &by_boss),
        ("tv.lab.internal", "A", &by_boss),
        ("x.y.lamps.lab.internal", "A", &by_boss),
        ("cam.one.lab.internal", "A", &by_boss),
        ("box.lab.internal", "A", &by_boss),
        ("ns.lab.internal", "A", "every mesh has it"),
        ("lab.internal", "NS", "every mesh has it"),
        (
            "_services._dns-sd._udp.lab.internal",
            "PTR",
            "every mesh has it",
        ),
    ] {
        let (owners, _) = explained(&view, name, rtype, None);
        assert_eq!(owners, [owner], "{name} {rtype}");
    }
}

#[test]
fn what_could_be_answered_and_is_not_is_told_with_the_reason() {
    let mut seen = world();
    let founder = seen.mesh.founder.clone();
    let boss = name_of(&seen, &*founder);
    seen.mesh.ask(&*founder, add("photos", "A", "192.0.2.9"));
    let left_out = |seen: &Seen, name: &str, rtype: &str| {
        let (_, mut left_out) = explained(&seen.view(), name, rtype, None);
        left_out.sort();
        left_out
    };
    let foreign = format!(
        "service photos on {boss}: the name is one's, which doesn't share it with that node"
    );
    let sick = "service photos on two: its check fails";
    let displaced = format!(
        "A 192.0.2.9, added by {boss}: a node, a service or an alias of that name comes first"
    );
    let mut expected = vec![displaced.as_str(), &foreign, sick];
    expected.sort();
    assert_eq!(left_out(&seen, "photos.lab.internal", "A"), expected);
    let mut expected = vec![foreign.as_str(), sick];
    expected.sort();
    assert_eq!(left_out(&seen, "photos.lab.internal", "HTTPS"), expected);
    assert_eq!(
        left_out(&seen, "photos._http._tcp.lab.internal", "SRV").len(),
        3
    );
    assert_eq!(
        left_out(&seen, "wiki.lab.internal", "A"),
        ["service wiki on one: its name isn't granted"]
    );
    assert!(left_out(&seen, "one.lab.internal", "A").is_empty());
    assert!(left_out(&seen, "nobody.lab.internal", "A").is_empty());

    // While none is good the last answer stands, and says so.
    seen.now += Duration::from_secs(60);
    let (owners, _) = explained(&seen.view(), "photos.lab.internal", "A", None);
    let stands =
        "service photos on one (not live; the last answer), two (not live; the last answer)";
    let each = stands
        .strip_prefix("service photos on ")
        .unwrap()
        .split(", ");
    let each: Vec<String> = each.map(|it| format!("service photos on {it}")).collect();
    assert_eq!(owners, each);
    let told = left_out(&seen, "photos.lab.internal", "A");
    assert!(!told.iter().any(|it| it.contains("live")), "{told:?}");

    // A node that an admin cut off.
    let hold = Hold {
        id: HoldId([7; 16]),
        node: id(&*key(2)),
    };
    seen.own = Arc::new(Announcement {
        holds: vec![hold],
        ..Announcement::default()
    });
    let told = left_out(&seen, "photos.lab.internal", "A");
    let held = "service photos on two: an admin cut its node off";
    assert!(told.contains(&held.to_owned()), "{told:?}");
    let told = left_out(&seen, "two.lab.internal", "A");
    assert_eq!(told, ["node two: an admin cut its node off"]);
}

#[test]
fn a_lan_is_told_what_was_not_reached_there() {
    let seen = world();
    let view = seen.view();
    let addresses = LanAddresses {
        own: BTreeSet::new(),
        reached: [(label("two"), ["192.168.1.7".parse().unwrap()].into())].into(),
    };
    let nets = ["192.168.1.0/24".parse().unwrap()];
    let lan = LanView {
        addresses: &addresses,
        nets: &nets,
    };
    let (owners, left_out) = explained(&view, "photos.lab.internal", "A", Some(lan));
    assert_eq!(
        owners,
        ["service photos on two (check fails; the last answer)"]
    );
    let absent = "service photos on one: it wasn't reached in the LAN";
    assert!(left_out.contains(&absent.to_owned()), "{left_out:?}");
    let (owners, left_out) = explained(&view, "one.lab.internal", "A", Some(lan));
    assert_eq!(owners, Vec::<String>::new());
    assert_eq!(left_out, ["node one: it wasn't reached in the LAN"]);
}
