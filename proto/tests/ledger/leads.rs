//! Where names may lead (S28): records, and what is served of instances.

use std::net::IpAddr;

use innermesh_proto::{
    ledger::{
        Content, Outcome, Refusal,
        record::RecordData,
        request::{AddRecord, Grant, Share},
    },
    zone::{DomainName, RecordType},
};
use innermesh_testing::host::keys::Ed25519;

use crate::mesh::{Mesh, id, key, label};

fn add(name: &str, rtype: &str, value: &str) -> Content {
    let rtype: RecordType = rtype.parse().unwrap();
    Content::AddRecord(AddRecord {
        name: format!("{name}.lab.internal").parse().unwrap(),
        data: RecordData::parse(rtype, value).unwrap(),
        ttl_s: None,
        public: false,
    })
}

fn done(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// Members one and two; one holds `photos`, two holds `wiki`.
fn mesh_with(rules: u32) -> Mesh {
    let mut mesh = Mesh::with_rules(rules);
    mesh.admit(&*key(1), "one");
    mesh.admit(&*key(2), "two");
    done(mesh.ask(&*key(1), Content::Claim(label("photos"))));
    done(mesh.ask(&*key(2), Content::Claim(label("wiki"))));
    mesh
}

/// The overlay addresses of a member.
fn addresses(mesh: &Mesh, key: &Ed25519) -> (String, String) {
    let member = &mesh.state().members[&id(key)];
    (member.ipv4.to_string(), member.ipv6.to_string())
}

/// The whole life of a member whose invite grants these.
fn granted(mesh: &mut Mesh, number: u8, name: &str, nets: &[&str]) -> Outcome {
    let nets = nets.iter().map(|net| net.parse().unwrap()).collect();
    let token = mesh.token(100 + number, |grant| grant.addresses = nets);
    let join = mesh.join_request(&token, &*key(number), name);
    mesh.decide(join)
}

const LAN: &str = "192.168.1.9";

#[test]
fn a_member_s_record_leads_to_its_own_addresses_and_to_no_other_s() {
    let mut mesh = mesh_with(1);
    let (own4, own6) = addresses(&mesh, &key(1));
    let (other4, other6) = addresses(&mesh, &key(2));
    done(mesh.ask(&*key(1), add("photos", "A", &own4)));
    done(mesh.ask(&*key(1), add("photos", "AAAA", &own6)));
    done(mesh.ask(&*key(1), add("x.one", "A", &own4)));
    for (rtype, address) in [("A", &other4), ("AAAA", &other6)] {
        for name in ["photos", "x.photos", "y.one"] {
            let refused = refusal(mesh.ask(&*key(1), add(name, rtype, address)));
            assert!(
                matches!(refused, Refusal::OthersAddress(_)),
                "{name} {address}: {refused}"
            );
        }
    }
    // Nor to one of the overlay that nobody has, nor to the resolver.
    for address in ["10.77.200.200", "10.77.0.53"] {
        let refused = refusal(mesh.ask(&*key(1), add("photos", "A", address)));
        assert!(matches!(refused, Refusal::OthersAddress(_)), "{refused}");
    }
    // Hidden in IPv6 it is the same address.
    let v4: u32 = other4.parse::<std::net::Ipv4Addr>().unwrap().into();
    let hidden = format!("64:ff9b::{:x}:{:x}", v4 >> 16, v4 & 0xffff);
    let refused = refusal(mesh.ask(&*key(1), add("photos", "AAAA", &hidden)));
    assert!(matches!(refused, Refusal::OthersAddress(_)), "{refused}");
}

#[test]
fn what_is_beside_the_mesh_takes_an_admin_or_a_grant() {
    let mut mesh = mesh_with(1);
    let admin = mesh.founder.clone();
    for (rtype, value) in [("A", LAN), ("A", "192.0.2.9"), ("AAAA", "fd12::9")] {
        let refused = refusal(mesh.ask(&*key(1), add("photos", rtype, value)));
        assert!(matches!(refused, Refusal::ForeignAddress(_)), "{refused}");
        assert!(refused.to_string().contains("admin"), "{refused}");
    }
    done(mesh.ask(&*admin, add("tv", "A", LAN)));
    done(mesh.ask(&*admin, add("photos", "A", LAN)));

    done(granted(&mut mesh, 3, "three", &["192.168.1.0/24"]));
    done(mesh.ask(&*key(3), add("tv.three", "A", LAN)));
    let refused = refusal(mesh.ask(&*key(3), add("tv.three", "A", "192.168.2.9")));
    assert!(matches!(refused, Refusal::ForeignAddress(_)), "{refused}");
    // A grant of all is none of the overlay.
    done(granted(&mut mesh, 4, "four", &["0.0.0.0/0", "::/0"]));
    let (other, _) = addresses(&mesh, &key(1));
    let refused = refusal(mesh.ask(&*key(4), add("x.four", "A", &other)));
    assert!(matches!(refused, Refusal::OthersAddress(_)), "{refused}");
    done(mesh.ask(&*key(4), add("x.four", "CNAME", "www.example.org")));
    // It ends with the membership.
    assert_eq!(mesh.state().granted_addresses(id(&*key(4))).count(), 2);
    done(mesh.ask(&*key(4), Content::Leave));
    assert_eq!(mesh.state().granted_addresses(id(&*key(4))).count(), 0);
}

#[test]
fn an_alias_leads_to_own_names_and_to_those_that_their_owner_shares() {
    let mut mesh = mesh_with(1);
    let admin = mesh.founder.clone();
    let targets = |target: &str| {
        [
            ("CNAME", target.to_owned()),
            ("SRV", format!("0 0 80 {target}")),
            ("MX", format!("10 {target}")),
        ]
    };
    for (rtype, value) in targets("one.lab.internal") {
        done(mesh.ask(
            &*key(1),
            add(&format!("{rtype}.photos").to_lowercase(), rtype, &value),
        ));
    }
    for target in ["wiki", "_x.two", "x.wiki", "nobody", "acme", "ns"] {
        for (rtype, value) in targets(&format!("{target}.lab.internal")) {
            let refused = refusal(mesh.ask(&*key(1), add("x.photos", rtype, &value)));
            assert!(
                matches!(refused, Refusal::OthersName(_)),
                "{rtype} {target}: {refused}"
            );
        }
    }
    let refused = refusal(mesh.ask(&*key(1), add("x.photos", "MX", "10 lab.internal")));
    assert!(matches!(refused, Refusal::OthersName(_)), "{refused}");
    for (rtype, value) in targets("www.example.org") {
        let refused = refusal(mesh.ask(&*key(1), add("x.photos", rtype, &value)));
        assert!(matches!(refused, Refusal::ForeignName(_)), "{refused}");
    }
    done(mesh.ask(&*key(1), add("nomail.one", "MX", "0 .")));
    done(mesh.ask(&*admin, add("www", "CNAME", "www.example.org")));
    done(mesh.ask(&*admin, add("docs", "CNAME", "wiki.lab.internal")));
    // Its owner says so, and takes it back.
    let share = |with: u8| Share {
        name: label("wiki"),
        with: id(&*key(with)),
    };
    done(mesh.ask(&*key(2), Content::Share(share(1))));
    done(mesh.ask(&*key(1), add("x.photos", "CNAME", "wiki.lab.internal")));
    let served = |mesh: &Mesh| {
        let name: DomainName = "x.photos.lab.internal".parse().unwrap();
        mesh.state().record_counts(&mesh.state().records[&name][0])
    };
    assert!(served(&mesh));
    done(mesh.ask(&*key(2), Content::Unshare(share(1))));
    assert!(!served(&mesh), "what isn't shared any more is not led to");
}

#[test]
fn an_instance_is_served_at_its_node_s_own_addresses_and_at_granted_ones() {
    let mut mesh = mesh_with(1);
    let admin = mesh.founder.clone();
    let (own, own6) = addresses(&mesh, &key(1));
    let (other, other6) = addresses(&mesh, &key(2));
    let counts = |mesh: &Mesh, number: u8, name: &str, address: &str| {
        let address: IpAddr = address.parse().unwrap();
        let node = id(&*key(number));
        mesh.state().instance_counts(node, &label(name), address)
    };
    for address in [&own, &own6] {
        assert!(counts(&mesh, 1, "photos", address), "{address}");
    }
    for address in [other.as_str(), &other6, LAN, "10.77.0.53", "2001:db8::1"] {
        assert!(!counts(&mesh, 1, "photos", address), "{address}");
    }
    // An admin's record says that the name may lead there: for those who may
    // run it, and no other.
    done(mesh.ask(&*admin, add("photos", "A", LAN)));
    assert!(counts(&mesh, 1, "photos", LAN));
    assert!(!counts(&mesh, 1, "other", LAN) && !counts(&mesh, 2, "photos", LAN));
    done(mesh.ask(&*admin, add("photos", "A", &other)));
    assert!(
        !counts(&mesh, 1, "photos", &other),
        "a node speaks for itself"
    );
    // An admin's own instances may be anywhere beside the mesh.
    let founder = id(&*admin);
    let at = |address: &str| {
        let address = address.parse().unwrap();
        mesh.state().instance_counts(founder, &label("tv"), address)
    };
    assert!(at(LAN) && !at(&other));
}

#[test]
fn what_was_there_before_these_rules_stands() {
    let mut mesh = mesh_with(0);
    let admin = mesh.founder.clone();
    let (other, _) = addresses(&mesh, &key(2));
    done(mesh.ask(&*key(1), add("photos", "A", &other)));
    done(mesh.ask(&*key(1), add("x.one", "CNAME", "www.example.org")));
    done(mesh.ask(&*admin, Content::Rules(1)));
    let refused = refusal(mesh.ask(&*key(1), add("y.one", "A", &other)));
    assert!(matches!(refused, Refusal::OthersAddress(_)), "{refused}");
    let all: Vec<_> = mesh.state().records.values().flatten().collect();
    assert_eq!(all.len(), 2);
    for record in all {
        assert!(mesh.state().record_counts(record), "{record:?}");
    }
    // So does a printer that a member speaks for, but not in another's place.
    let node = id(&*key(1));
    let counts = |mesh: &Mesh, name: &str, address: &str| {
        let address = address.parse().unwrap();
        mesh.state().instance_counts(node, &label(name), address)
    };
    assert!(counts(&mesh, "photos", LAN));
    assert!(!counts(&mesh, "photos", &other));
    done(mesh.ask(&*key(1), Content::Claim(label("new"))));
    assert!(!counts(&mesh, "new", LAN));
}

#[test]
fn a_grant_of_addresses_is_read_by_those_who_know_it_and_no_grant_to_others() {
    let mut mesh = mesh_with(1);
    let nets = |text: &str| [text.parse().unwrap()].into();
    let plain = mesh.token(101, |_| {});
    let wide = mesh.token(102, |grant| grant.addresses = nets("192.168.1.0/24"));
    // As earlier builds read them.
    assert!(plain.grant.peek::<Grant>(4096).is_ok());
    assert!(wide.grant.peek::<Grant>(4096).is_err());
    assert_eq!(
        Grant::peek(&wide.grant).unwrap().addresses,
        nets("192.168.1.0/24")
    );
    for length in 0..wide.grant.bytes.len() {
        let mut cut = wide.grant.clone();
        cut.bytes.truncate(length);
        let read = Grant::peek(&cut);
        assert!(
            read.is_err() || read.unwrap().addresses.is_empty(),
            "{length}"
        );
    }
    // Within the overlay, and more than there may be.
    let refused = refusal(granted(&mut mesh, 5, "five", &["10.77.1.0/24"]));
    assert!(matches!(refused, Refusal::Route(_)), "{refused}");
    let many: Vec<String> = (0..17).map(|n| format!("192.168.{n}.0/24")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(
        refusal(granted(&mut mesh, 6, "six", &many)),
        Refusal::GrantTooWide
    );
    let mut before = mesh_with(0);
    let refused = refusal(granted(&mut before, 7, "seven", &["192.168.1.0/24"]));
    assert_eq!(refused, Refusal::Grant);
}
