use innermesh_proto::{
    ledger::{
        Content, Outcome, Refusal,
        record::RecordData,
        request::{AddRecord, RemoveRecords},
        state::NameKind,
    },
    limits,
    zone::{DomainName, RecordType},
};
use innermesh_testing::host::keys::Ed25519;

use crate::mesh::{Mesh, id, key, label, owner};

fn add(name: &str, rtype: &str, value: &str) -> Content {
    let rtype: RecordType = rtype.parse().unwrap();
    Content::AddRecord(AddRecord {
        name: format!("{name}.lab.internal")
            .trim_start_matches('.')
            .parse()
            .unwrap(),
        data: RecordData::parse(rtype, value).unwrap(),
        ttl_s: None,
        public: false,
    })
}

fn remove(name: &str, rtype: &str) -> Content {
    Content::RemoveRecords(RemoveRecords {
        name: format!("{name}.lab.internal").parse().unwrap(),
        rtype: rtype.parse::<RecordType>().unwrap().0,
    })
}

fn done(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

/// A mesh with two more members, of which one holds `photos`.
fn mesh() -> Mesh {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(1), "one");
    mesh.admit(&*key(2), "two");
    done(mesh.ask(&*key(1), Content::Claim(label("photos"))));
    mesh
}

fn refused(mesh: &mut Mesh, by: &Ed25519, content: &Content) -> Refusal {
    let request = mesh.request(by, content);
    let before = crate::mesh::facts(mesh.state());
    let Outcome::Refused(refusal) = mesh.decide(request) else {
        panic!("not refused");
    };
    assert_eq!(crate::mesh::facts(mesh.state()), before);
    refusal
}

#[test]
fn an_admin_adds_records_anywhere_and_others_where_they_hold_the_name() {
    let mut mesh = mesh();
    let admin = mesh.founder.clone();
    done(mesh.ask(&*admin, add("", "TXT", "v=spf1 -all")));
    done(mesh.ask(&*admin, add("_dmarc", "TXT", "v=DMARC1")));
    done(mesh.ask(&*admin, add("printer", "A", "192.0.2.9")));
    done(mesh.ask(&*key(1), add("photos", "TXT", "x")));
    done(mesh.ask(&*key(1), add("_acme-challenge.photos", "TXT", "y")));
    done(mesh.ask(&*key(1), add("old.one", "CNAME", "one.lab.internal")));
    for name in ["", "_dmarc", "printer", "photos", "free", "x.one"] {
        let refusal = refused(&mut mesh, &key(2), &add(name, "TXT", "z"));
        assert!(
            matches!(refusal, Refusal::NotYourName(_)),
            "{name}: {refusal}"
        );
    }
    assert_eq!(mesh.state().records.len(), 6);
    let refusal = refused(&mut mesh, &key(2), &remove("photos", "TXT"));
    assert!(matches!(refusal, Refusal::NotYourName(_)));
    done(mesh.ask(&*key(1), remove("photos", "TXT")));
    assert_eq!(
        refused(&mut mesh, &key(1), &remove("photos", "TXT")),
        Refusal::NoSuchRecord
    );
}

#[test]
fn a_name_with_records_has_one_owner_as_every_name_has() {
    let mut mesh = mesh();
    let admin = mesh.founder.clone();
    done(mesh.ask(&*admin, add("printer", "A", "192.0.2.9")));
    done(mesh.ask(&*admin, add("web.printer", "A", "192.0.2.9")));
    assert_eq!(owner(mesh.state(), "printer"), Some(id(&*admin)));
    let claim = Content::Claim(label("printer"));
    let refusal = refused(&mut mesh, &key(1), &claim);
    assert!(matches!(refusal, Refusal::NameTaken { .. }), "{refusal}");
    done(mesh.ask(&*admin, remove("printer", "A")));
    assert_eq!(owner(mesh.state(), "printer"), Some(id(&*admin)));
    // Its owner makes it a service, and its records stay until it is freed.
    done(mesh.ask(&*admin, claim.clone()));
    assert_eq!(
        mesh.state().names[&label("printer")].kind,
        NameKind::Service
    );
    done(mesh.ask(&*admin, remove("web.printer", "A")));
    assert_eq!(owner(mesh.state(), "printer"), Some(id(&*admin)));
    done(mesh.ask(&*admin, add("web.printer", "A", "192.0.2.9")));
    done(mesh.ask(&*admin, Content::Release(label("printer"))));
    assert!(mesh.state().records.is_empty());
    done(mesh.ask(&*key(1), claim));
    // With its last record a name that stood for nothing else is free.
    done(mesh.ask(&*admin, add("tv", "A", "192.0.2.9")));
    done(mesh.ask(&*admin, remove("tv", "A")));
    assert_eq!(owner(mesh.state(), "tv"), None);
}

#[test]
fn no_record_stands_in_for_a_machine_or_for_what_the_mesh_keeps() {
    let mut mesh = mesh();
    let admin = mesh.founder.clone();
    for (rtype, value) in [("A", "192.0.2.9"), ("AAAA", "fd00::9"), ("CNAME", "x.org")] {
        let refusal = refused(&mut mesh, &admin, &add("one", rtype, value));
        assert!(matches!(refusal, Refusal::MachineRecord(_)), "{refusal}");
    }
    done(mesh.ask(&*admin, add("one", "TXT", "a machine")));
    for name in ["acme", "ca", "wpad", "x.ns"] {
        let refusal = refused(&mut mesh, &admin, &add(name, "A", "192.0.2.9"));
        assert!(
            matches!(refusal, Refusal::NameReserved(_)),
            "{name}: {refusal}"
        );
    }
    for name in ["*", "a.*.one", "sp ace", "xn--bcher-kva"] {
        let refusal = refused(&mut mesh, &admin, &add(name, "A", "192.0.2.9"));
        assert!(
            matches!(refusal, Refusal::RecordName(_)),
            "{name}: {refusal}"
        );
    }
    done(mesh.ask(&*admin, add("*.photos", "A", "192.0.2.9")));
    let elsewhere = Content::AddRecord(AddRecord {
        name: "www.example.org".parse().unwrap(),
        data: RecordData::A([192, 0, 2, 1].into()),
        ttl_s: None,
        public: true,
    });
    let refusal = refused(&mut mesh, &admin, &elsewhere);
    assert!(matches!(refusal, Refusal::RecordName(_)), "{refusal}");
    let loopback = Content::AddRecord(AddRecord {
        name: "tv.lab.internal".parse().unwrap(),
        data: RecordData::A([127, 0, 0, 1].into()),
        ttl_s: None,
        public: false,
    });
    let refusal = refused(&mut mesh, &admin, &loopback);
    assert!(matches!(refusal, Refusal::Record(_)), "{refusal}");
}

#[test]
fn an_alias_stands_alone() {
    let mut mesh = mesh();
    let admin = mesh.founder.clone();
    done(mesh.ask(&*admin, add("tv", "CNAME", "one.lab.internal")));
    done(mesh.ask(&*admin, add("radio", "A", "192.0.2.9")));
    for content in [
        add("tv", "A", "192.0.2.9"),
        add("tv", "CNAME", "two.lab.internal"),
        add("radio", "CNAME", "one.lab.internal"),
        add("", "CNAME", "one.lab.internal"),
    ] {
        assert_eq!(refused(&mut mesh, &admin, &content), Refusal::AliasAlone);
    }
}

#[test]
fn records_are_bounded_per_name_and_the_same_one_is_added_once() {
    let mut mesh = mesh();
    let admin = mesh.founder.clone();
    let request = |mesh: &mut Mesh, n: usize| {
        let content = add("tv", "TXT", &format!("text {n}"));
        mesh.request(&*admin, &content)
    };
    let requests = (0..limits::RECORDS_PER_NAME)
        .map(|n| request(&mut mesh, n))
        .collect();
    mesh.batch(requests).into_iter().for_each(done);
    let more = request(&mut mesh, 1000);
    mesh.assert_refused(more, Refusal::TooManyRecords);
    let same = request(&mut mesh, 3);
    done(mesh.decide(same));
    let name: DomainName = "tv.lab.internal".parse().unwrap();
    let all = &mesh.state().records[&name];
    assert_eq!(all.len(), limits::RECORDS_PER_NAME);
}

#[test]
fn what_an_evicted_machine_added_goes_with_it() {
    let mut mesh = mesh();
    let admin = mesh.founder.clone();
    mesh.admit_as(&*key(3), "three", &*admin, |grant| {
        grant.roles = [innermesh_proto::ledger::Role::Admin].into();
    });
    done(mesh.ask(&*key(3), add("_dmarc", "TXT", "kept while it is here")));
    done(mesh.ask(&*key(3), add("printer", "A", "192.0.2.9")));
    done(mesh.ask(&*key(1), add("x.photos", "TXT", "goes with it")));
    // Who leaves hands on what it kept for others.
    done(mesh.ask(&*key(3), Content::Leave));
    let left = mesh.state();
    assert_eq!(left.records.len(), 3);
    assert_eq!(owner(left, "printer"), Some(id(&*admin)));
    let served = left.records.values().flatten();
    assert!(served.into_iter().all(|record| left.record_counts(record)));

    let evict = Content::Evict(innermesh_proto::ledger::request::Evict {
        node: id(&*key(1)),
        hold: None,
        root: None,
    });
    done(mesh.ask(&*admin, evict));
    assert_eq!(mesh.state().records.len(), 2);
}
