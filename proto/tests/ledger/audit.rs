//! What `agent ca log` can say of each batch.

use innermesh_proto::ledger::{
    Content, Role, State,
    audit::KINDS,
    record::RecordData,
    request::{AddRecord, Evict, RemoveRecords, Share},
};

use crate::mesh::{DAY, KEYS, Mesh, certify, id, key, label};

/// Everything that happened, without times and serial numbers.
fn log(mesh: &Mesh) -> Vec<String> {
    let mut state = State::genesis(&mesh.genesis, &KEYS).unwrap();
    let mut lines = Vec::new();
    for batch in &mesh.batches {
        let (after, events) = state.describe(batch, &KEYS).unwrap();
        state = after;
        lines.extend(events.into_iter().map(|event| {
            assert!(KINDS.contains(&event.kind), "{}", event.kind);
            let text = event.text.split(" (").next().unwrap().to_string();
            if event.refused {
                format!("! {text}")
            } else {
                text
            }
        }));
    }
    assert_eq!(state, *mesh.state());
    lines
}

#[test]
fn each_entry_is_told_as_who_did_what_by_whose_authority() {
    let mut mesh = Mesh::new();
    let founder = mesh.founder.clone();
    mesh.admit_as(&*key(1), "one", &*key(0), |grant| {
        grant.roles = [Role::Admin].into();
    });
    mesh.admit(&*key(2), "two");
    mesh.batch(Vec::new());
    mesh.ask(&*key(2), Content::Claim(label("photos")));
    mesh.ask(&*key(1), Content::Claim(label("photos")));
    let share = Share {
        name: label("photos"),
        with: id(&*key(1)),
    };
    mesh.ask(&*key(2), Content::Share(share.clone()));
    mesh.ask(&*key(2), Content::Unshare(share));
    mesh.ask(&*key(2), certify(&["photos.lab.internal"], 30));
    mesh.ask(&*key(2), certify(&["\u{1b}[2J.lab.internal"], 30));
    mesh.ask(&*key(2), Content::Renew);
    let record = AddRecord {
        name: "tv.lab.internal".parse().unwrap(),
        data: RecordData::A([192, 0, 2, 9].into()),
        ttl_s: None,
        public: false,
    };
    mesh.ask(&*founder, Content::AddRecord(record.clone()));
    let remove = RemoveRecords {
        name: record.name,
        rtype: 1,
    };
    mesh.ask(&*founder, Content::RemoveRecords(remove));
    mesh.promote(1);
    mesh.promote(2);
    mesh.promote(2);
    mesh.become_roster(&[0, 1, 2]);
    mesh.admit_as(&*key(3), "three", &*key(0), |grant| {
        grant.roles = [Role::Admin].into();
    });
    mesh.now_ms += DAY;
    let evict = Content::Evict(Evict {
        node: id(&*key(2)),
        hold: None,
        root: None,
    });
    mesh.ask(&*key(1), evict.clone());
    mesh.ask(&*key(3), evict);
    mesh.ask(&*key(3), Content::Leave);
    let expected = [
        "one joined as admin, by an invite of founder",
        "two joined, by an invite of founder",
        "two got the name photos",
        "! one asked to have the name photos; refused: the name photos is taken by two; \
         choose another, or ask its owner to share it",
        "two shared photos with one",
        "two shares photos with one no longer",
        "two got a certificate for photos.lab.internal",
        "! two asked to have a certificate for [2J.lab.internal; refused: [2J.lab.internal is \
         not a name that this machine holds; add the service first",
        "two renewed its membership",
        "founder added the record tv.lab.internal. A 192.0.2.9",
        "founder removed the A records of tv.lab.internal.",
        "founder made one a CA node, by one issuer that the root signed",
        "founder made two a CA node, by one issuer that the root signed",
        "founder gave two one issuer more, signed by the root",
        "founder brought the roster to ",
        "three joined as admin, by an invite of founder",
        "one asked to evict two; a second admin is awaited",
        "three evicted two, as one had asked",
        "three left",
    ];
    let log = log(&mesh);
    assert_eq!(log.len(), expected.len(), "{log:#?}");
    for (line, expected) in log.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line} / {expected}");
    }
}

#[test]
fn a_sentence_says_when_and_where() {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(1), "one");
    let (_, events) = mesh.states[0].describe(&mesh.batches[0], &KEYS).unwrap();
    assert_eq!(
        events[0].to_string(),
        "2027-01-15 08:00:00Z #1 one joined, by an invite of founder"
    );
    let told = &events[0];
    assert_eq!((told.kind, &told.who), ("join", &None));
    let about: Vec<&String> = told.nodes.iter().collect();
    assert_eq!(about, ["founder", "one"]);
    let began = mesh.genesis.peek().unwrap().describe();
    assert_eq!(
        began.to_string(),
        "2027-01-15 08:00:00Z #0 the root founded the mesh lab.internal with founder"
    );
    let position = mesh.state().position;
    let signed = mesh.recovery(7, position, &[0]);
    let (_, batch) = mesh.state().recovered(&signed, mesh.now_ms, &KEYS).unwrap();
    let (_, events) = mesh.state().describe(&batch, &KEYS).unwrap();
    assert_eq!(
        events[0].text,
        "the root gave the ledger a new roster: founder (recovery 7)"
    );
}
