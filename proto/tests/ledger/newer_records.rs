//! What rules 3 brought to users' records: TTLs, HTTPS and SVCB, and one record
//! taken away; and rules 7: SSHFP and TLSA.

use innermesh_proto::{
    ledger::{
        Content, Outcome, Refusal, State,
        record::{RecordData, UserRecord},
        request::{AddRecord, RemoveRecord},
    },
    limits,
    zone::{DomainName, RecordType, Sshfp},
};

use crate::mesh::{Mesh, key, label};

fn data(rtype: &str, value: &str) -> RecordData {
    let rtype: RecordType = rtype.parse().unwrap();
    RecordData::parse(rtype, value).unwrap()
}

fn add(name: &str, rtype: &str, value: &str, ttl_s: Option<u32>) -> Content {
    Content::AddRecord(AddRecord {
        name: format!("{name}.lab.internal").parse().unwrap(),
        data: data(rtype, value),
        ttl_s,
        public: false,
    })
}

fn remove(name: &str, rtype: &str, value: &str) -> Content {
    Content::RemoveRecord(RemoveRecord {
        name: format!("{name}.lab.internal").parse().unwrap(),
        data: data(rtype, value),
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

fn mesh_with(rules: u32) -> Mesh {
    let mut mesh = Mesh::with_rules(rules);
    mesh.admit(&*key(1), "one");
    mesh.admit(&*key(2), "two");
    done(mesh.ask(&*key(1), Content::Claim(label("photos"))));
    mesh
}

fn held(mesh: &Mesh, name: &str) -> Vec<UserRecord> {
    let name: DomainName = format!("{name}.lab.internal").parse().unwrap();
    mesh.state().records.get(&name).cloned().unwrap_or_default()
}

#[test]
fn under_earlier_rules_they_are_requests_of_an_unknown_kind() {
    let mut mesh = mesh_with(2);
    done(mesh.ask(&*key(0), add("tv", "A", "192.0.2.9", None)));
    for content in [
        add("tv", "A", "192.0.2.10", Some(60)),
        add("tv", "HTTPS", "1 . alpn=h2", None),
        add("tv", "SVCB", "1 . alpn=dot", None),
        remove("tv", "A", "192.0.2.9"),
    ] {
        assert_eq!(content.since_rules(), 3);
        let refused = refusal(mesh.ask(&*key(0), content));
        assert_eq!(refused, Refusal::NotUnderstood);
    }
    assert_eq!(held(&mesh, "tv").len(), 1);
}

#[test]
fn digests_of_keys_are_records_from_rules_7_on() {
    let digest = "ab".repeat(32);
    let (sshfp, tlsa) = (format!("4 2 {digest}"), format!("3 1 1 {digest}"));
    let all = || {
        [
            add("one", "SSHFP", &sshfp, None),
            add("_25._tcp.photos", "TLSA", &tlsa, None),
            add("one", "SSHFP", &sshfp, Some(60)),
            remove("one", "SSHFP", &sshfp),
        ]
    };
    let mut mesh = mesh_with(6);
    for content in all() {
        assert_eq!(content.since_rules(), 7);
        let refused = refusal(mesh.ask(&*key(1), content));
        assert_eq!(refused, Refusal::NotUnderstood);
    }
    assert_eq!(
        (held(&mesh, "one"), held(&mesh, "_25._tcp.photos")),
        (vec![], vec![])
    );
    let mut mesh = mesh_with(7);
    for (content, count) in all().into_iter().zip([1, 1, 1, 0]) {
        // A machine's own name may say which keys it has, and says nothing of where it is.
        done(mesh.ask(&*key(1), content));
        assert_eq!(held(&mesh, "one").len(), count);
        assert!(mesh.state().agrees_with_itself());
        let state = mesh.state();
        let read = State::decode(&state.encode(), state.rules).unwrap();
        assert_eq!(read.records, state.records);
    }
    let others = add("two", "SSHFP", &sshfp, None);
    assert!(matches!(
        refusal(mesh.ask(&*key(1), others)),
        Refusal::NotYourName(_)
    ));
    // Whoever writes a request by itself is held to the same.
    let short = Content::AddRecord(AddRecord {
        name: "one.lab.internal".parse().unwrap(),
        data: RecordData::Sshfp(Sshfp {
            algorithm: 4,
            digest_type: 2,
            digest: vec![1],
        }),
        ttl_s: None,
        public: false,
    });
    assert!(matches!(
        refusal(mesh.ask(&*key(1), short)),
        Refusal::Record(_)
    ));
}

#[test]
fn a_record_that_is_there_gets_the_ttl_that_is_given_last() {
    let mut mesh = mesh_with(3);
    for ttl_s in [None, Some(60), Some(0), Some(limits::RECORD_TTL_S), None] {
        done(mesh.ask(&*key(0), add("tv", "A", "192.0.2.9", ttl_s)));
        let [record] = &held(&mesh, "tv")[..] else {
            panic!("{:?}", held(&mesh, "tv"));
        };
        assert_eq!(record.ttl_s, ttl_s);
        assert!(mesh.state().agrees_with_itself());
        let state = mesh.state();
        let read = State::decode(&state.encode(), state.rules).unwrap();
        assert_eq!(read.records, state.records);
    }
    let too_long = add("tv", "A", "192.0.2.9", Some(limits::RECORD_TTL_S + 1));
    assert!(matches!(
        refusal(mesh.ask(&*key(0), too_long)),
        Refusal::Record(_)
    ));
    // Others' records are theirs to change.
    let other = add("tv", "A", "192.0.2.9", Some(5));
    assert!(matches!(
        refusal(mesh.ask(&*key(1), other)),
        Refusal::NotYourName(_)
    ));
}

#[test]
fn one_of_several_records_goes_and_the_others_stay() {
    let mut mesh = mesh_with(3);
    for address in ["192.0.2.9", "192.0.2.10"] {
        done(mesh.ask(&*key(0), add("tv", "A", address, Some(60))));
    }
    assert!(matches!(
        refusal(mesh.ask(&*key(1), remove("tv", "A", "192.0.2.9"))),
        Refusal::NotYourName(_)
    ));
    done(mesh.ask(&*key(0), remove("tv", "A", "192.0.2.9")));
    assert_eq!(
        refusal(mesh.ask(&*key(0), remove("tv", "A", "192.0.2.9"))),
        Refusal::NoSuchRecord
    );
    assert_eq!(held(&mesh, "tv").len(), 1);
    done(mesh.ask(&*key(0), remove("tv", "A", "192.0.2.10")));
    // With its last record the name is free again.
    assert!(!mesh.state().names.contains_key(&label("tv")));
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn https_records_lead_where_addresses_and_hosts_may() {
    let mut mesh = mesh_with(3);
    let own = mesh.state().members[&crate::mesh::id(&*key(1))].ipv4;
    let other = mesh.state().members[&crate::mesh::id(&*key(2))].ipv4;
    done(mesh.ask(&*key(1), add("photos", "HTTPS", "1 . alpn=h2", None)));
    let hinted = format!("1 . ipv4hint={own}");
    done(mesh.ask(&*key(1), add("x.photos", "HTTPS", &hinted, None)));
    done(mesh.ask(
        &*key(1),
        add("y.photos", "SVCB", "0 one.lab.internal", None),
    ));
    let foreign = format!("1 . ipv4hint={own},{other}");
    for value in [
        foreign.as_str(),
        "1 . ipv4hint=192.168.1.9",
        "1 two.lab.internal",
        "0 example.org",
    ] {
        let refused = refusal(mesh.ask(&*key(1), add("z.photos", "HTTPS", value, None)));
        assert!(
            matches!(
                refused,
                Refusal::OthersAddress(_)
                    | Refusal::ForeignAddress(_)
                    | Refusal::OthersName(_)
                    | Refusal::ForeignName(_)
            ),
            "{value}: {refused}"
        );
    }
    // S12: where a machine is, its certificate says, to admins as well.
    for value in ["0 photos.lab.internal", "1 . ipv4hint=192.168.1.9"] {
        let refused = refusal(mesh.ask(&*key(0), add("two", "HTTPS", value, None)));
        assert!(matches!(refused, Refusal::MachineRecord(_)), "{refused}");
    }
    done(mesh.ask(&*key(2), add("two", "HTTPS", "1 . alpn=h2", None)));
}
