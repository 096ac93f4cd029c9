//! What one node may have of the state, and what stays for the others.

use innermesh_proto::{
    ledger::{
        Content, Outcome, Refusal,
        record::RecordData,
        request::{AddRecord, HoldId, RemoveRecords, Share, Unhold},
    },
    limits,
    zone::RecordType,
};

use crate::mesh::{DAY, MINUTE, Mesh, certify, id, key, label};

fn claim(name: &str) -> Content {
    Content::Claim(label(name))
}

fn add(name: &str, text: &str) -> Content {
    Content::AddRecord(AddRecord {
        name: format!("{name}.lab.internal").parse().unwrap(),
        data: RecordData::Txt(vec![text.as_bytes().to_vec()]),
        ttl_s: None,
        public: false,
    })
}

/// Asks for one thing after the other until one is refused: how many were
/// done, and why no more.
fn until_refused(
    mesh: &mut Mesh,
    by: &dyn innermesh_proto::crypto::Sign,
    content: impl Fn(usize) -> Content,
) -> (usize, Refusal) {
    for number in 0.. {
        // So that requests are forgotten and don't count.
        mesh.now_ms += MINUTE;
        if let Outcome::Refused(refusal) = mesh.ask(by, content(number)) {
            assert!(mesh.state().agrees_with_itself());
            return (number, refusal);
        }
    }
    unreachable!()
}

fn mesh_of_three() -> Mesh {
    let mut mesh = Mesh::new();
    mesh.admit(&*key(1), "cedar");
    mesh.admit(&*key(2), "maple");
    mesh
}

#[test]
fn one_node_cannot_have_all_names_or_records() {
    let mut mesh = mesh_of_three();
    let (cedar, maple) = (key(1), key(2));
    let names = until_refused(&mut mesh, &*cedar, |n| claim(&format!("n{n}")));
    // Its own is one of them.
    assert_eq!(names, (limits::NAMES_SHARE - 1, Refusal::TooManyNames));
    assert!(matches!(
        mesh.ask(&*maple, claim("photos")),
        Outcome::Done(_)
    ));
    let records = until_refused(&mut mesh, &*maple, |n| {
        add(&format!("r{}.photos", n / 16), &n.to_string())
    });
    let most = limits::RECORDS_PER_NODE as usize;
    assert_eq!(records, (most, Refusal::TooManyRecords));
    let founder = mesh.founder.clone();
    assert!(matches!(
        mesh.ask(&*founder, add("tv", "x")),
        Outcome::Done(_)
    ));
    // What was taken away is free again.
    let remove = RemoveRecords {
        name: "r0.photos.lab.internal".parse().unwrap(),
        rtype: RecordType::TXT.0,
    };
    mesh.ask(&*maple, Content::RemoveRecords(remove));
    assert!(matches!(
        mesh.ask(&*maple, add("a.photos", "x")),
        Outcome::Done(_)
    ));
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn one_node_cannot_have_more_bytes_than_its_share() {
    let mut mesh = mesh_of_three();
    let (cedar, maple) = (key(1), key(2));
    mesh.ask(&*cedar, claim("photos"));
    let long = "x".repeat(255);
    let names = long_names("photos");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut asked = 0;
    let refusal = loop {
        mesh.now_ms += 30 * MINUTE;
        asked += 1;
        // Each with its own key.
        if let Outcome::Refused(refusal) = mesh.ask(&*cedar, certify(&names, 90)) {
            break refusal;
        }
    };
    let expected = [Refusal::TooManyCertificates, Refusal::ShareUsedUp];
    assert!(expected.contains(&refusal), "{refusal}");
    assert!(asked > 50, "{asked}");
    assert!(mesh.state().bytes_of(id(&*cedar)) <= limits::NODE_BYTES_ASKED + 4096);
    // What takes away goes on, and others have their own.
    let serial = *mesh.state().certificates.keys().next().unwrap();
    let founder = mesh.founder.clone();
    assert!(matches!(
        mesh.ask(&*founder, Content::Revoke(serial)),
        Outcome::Done(_) | Outcome::Refused(Refusal::MembershipSerial(_))
    ));
    mesh.ask(&*maple, claim("mail"));
    assert!(matches!(
        mesh.ask(&*maple, add("a.mail", &long)),
        Outcome::Done(_)
    ));
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn a_certificate_with_the_same_names_and_key_takes_the_place_of_the_earlier_one() {
    let mut mesh = mesh_of_three();
    let cedar = key(1);
    mesh.ask(&*cedar, claim("photos"));
    let request = certify(&["photos.lab.internal"], 90);
    let mut used = Vec::new();
    for _ in 0..4 {
        mesh.now_ms += MINUTE;
        assert!(matches!(
            mesh.ask(&*cedar, request.clone()),
            Outcome::Done(_)
        ));
        used.push(mesh.state().bytes_of(id(&*cedar)));
        assert!(mesh.state().agrees_with_itself());
    }
    let issued: Vec<_> = mesh
        .state()
        .certificates
        .values()
        .filter(|issued| issued.owner == id(&*cedar) && issued.der.is_empty())
        .collect();
    // Serial, key and end are kept, so that they can be revoked (S17).
    assert_eq!(issued.len(), 3);
    assert!(issued.iter().all(|issued| issued.is_superseded()));
    let grown = used[3] - used[2];
    assert!(grown < 500, "{grown} bytes");
}

#[test]
fn a_certificate_for_an_address_is_named_and_gives_way_like_another() {
    let mut mesh = mesh_of_three();
    let cedar = key(1);
    let address = mesh.state().members[&id(&*cedar)].ipv4.to_string();
    let request = certify(&[&address], 90);
    let names = [address];
    let mut used = Vec::new();
    for _ in 0..3 {
        mesh.now_ms += MINUTE;
        assert!(matches!(
            mesh.ask(&*cedar, request.clone()),
            Outcome::Done(_)
        ));
        used.push(mesh.state().bytes_of(id(&*cedar)));
        assert!(mesh.state().agrees_with_itself());
    }
    let all = mesh.state().certificates.values();
    let issued: Vec<_> = all
        .filter(|issued| issued.owner == id(&*cedar))
        .filter(|issued| !issued.key_hash.0.starts_with(&issued.owner.0))
        .collect();
    assert_eq!(issued.len(), 3);
    let whole: Vec<_> = issued.iter().filter(|it| !it.is_superseded()).collect();
    assert_eq!(whole.len(), 1, "the others gave way");
    assert_eq!(whole[0].names, names);
    for one in issued {
        assert_eq!(mesh.state().names_in(one), names);
    }
    let grown = used[2] - used[1];
    assert!(grown < 500, "{grown} bytes");
}

#[test]
fn a_certificate_is_whole_for_a_day() {
    let mut mesh = mesh_of_three();
    let cedar = key(1);
    mesh.ask(&*cedar, claim("photos"));
    mesh.ask(&*cedar, certify(&["photos.lab.internal"], 90));
    let whole = |mesh: &Mesh| {
        let issued = mesh.state().certificates.values();
        issued.filter(|issued| !issued.der.is_empty()).count()
    };
    assert_eq!(whole(&mesh), 4, "three memberships beside it");
    mesh.now_ms += DAY + 61 * MINUTE;
    mesh.ask(&*cedar, claim("mail"));
    assert_eq!(whole(&mesh), 3);
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn whoever_renews_again_and_again_has_few_memberships() {
    let mut mesh = mesh_of_three();
    let cedar = key(1);
    let memberships = |mesh: &Mesh| {
        let issued = mesh.state().certificates.values();
        issued.filter(|issued| issued.owner == id(&*cedar)).count()
    };
    for _ in 0..5 {
        mesh.now_ms += MINUTE;
        assert!(matches!(
            mesh.ask(&*cedar, Content::Renew),
            Outcome::Done(_)
        ));
    }
    assert_eq!(memberships(&mesh), 1 + limits::RENEWALS_AT_ONCE as usize);
    mesh.now_ms += DAY;
    for _ in 0..5 {
        mesh.ask(&*cedar, Content::Renew);
    }
    assert_eq!(memberships(&mesh), 2 + limits::RENEWALS_AT_ONCE as usize);
}

#[test]
fn one_author_has_so_many_requests_remembered_and_no_more() {
    let mut mesh = mesh_of_three();
    let (cedar, maple) = (key(1), key(2));
    mesh.ask(&*cedar, claim("photos"));
    let most = limits::REQUESTS_PER_NODE as usize;
    let requests: Vec<_> = (1..most)
        .map(|_| mesh.request(&*cedar, &claim("photos")))
        .collect();
    for requests in requests.chunks(limits::BATCH_ENTRIES) {
        mesh.batch(requests.to_vec());
    }
    let refused = mesh.ask(&*cedar, claim("photos"));
    assert_eq!(refused, Outcome::Refused(Refusal::TooManyRequests));
    assert!(matches!(mesh.ask(&*maple, claim("mail")), Outcome::Done(_)));
    // What takes something away isn't kept from it.
    let release = Content::Release(label("photos"));
    assert!(matches!(mesh.ask(&*cedar, release), Outcome::Done(_)));
    mesh.now_ms += 30 * MINUTE;
    assert!(matches!(
        mesh.ask(&*cedar, claim("files")),
        Outcome::Done(_)
    ));
    assert!(mesh.state().agrees_with_itself());
}

/// 32 names as long as they can be, below a name that the author holds.
fn long_names(held: &str) -> Vec<String> {
    let label = |number: usize| format!("{:x<63}", format!("n{number}"));
    (0..32)
        .map(|number| format!("{}.{held}.lab.internal", label(number)))
        .collect()
}

/// Writes so many requests of one author, in full batches.
fn write(
    mesh: &mut Mesh,
    by: &dyn innermesh_proto::crypto::Sign,
    count: usize,
    content: impl Fn(usize) -> Content,
) {
    let requests: Vec<_> = (0..count)
        .map(|number| mesh.request(by, &content(number)))
        .collect();
    for requests in requests.chunks(limits::BATCH_ENTRIES) {
        for outcome in mesh.batch(requests.to_vec()) {
            assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        }
    }
}

#[test]
fn what_is_given_to_a_node_without_room_stays_within_its_share_too() {
    let mut mesh = mesh_of_three();
    let founder = mesh.founder.clone();
    mesh.ask(&*founder, claim("photos"));
    let names = long_names("photos");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut asked = 1;
    while !matches!(
        mesh.ask(&*founder, certify(&names, 90)),
        Outcome::Refused(Refusal::ShareUsedUp)
    ) {
        asked += 1;
    }
    // Not for its bytes, as nothing is added: for its number, at last.
    let more = limits::REQUESTS_PER_NODE as usize - asked;
    write(&mut mesh, &*founder, more, |_| claim("photos"));
    let refused = mesh.ask(&*founder, claim("photos"));
    assert_eq!(refused, Outcome::Refused(Refusal::TooManyRequests));
    // What takes something away has as much again.
    let unhold = |number: usize| {
        let mut hold = HoldId([0; 16]);
        hold.0[..8].copy_from_slice(&(number as u64).to_le_bytes());
        Content::Unhold(Unhold {
            author: id(&*key(0)),
            hold,
        })
    };
    let most = (limits::REQUESTS_REMEMBERED - limits::REQUESTS_PER_NODE) as usize;
    write(&mut mesh, &*founder, most, unhold);
    let refused = mesh.ask(&*founder, unhold(most));
    assert_eq!(refused, Outcome::Refused(Refusal::TooManyRequests));
    assert!(mesh.state().agrees_with_itself());
    let bytes = mesh.state().bytes_of(id(&*founder));
    assert!(bytes <= limits::NODE_BYTES, "{bytes}");
    assert!(bytes > limits::NODE_BYTES - limits::NODE_MEMBERSHIP_BYTES - 8192);

    // Memberships for as long as they count, as many as there may be.
    for _ in 0..limits::MEMBERSHIP_DAYS {
        mesh.now_ms += DAY;
        for _ in 0..limits::RENEWALS_AT_ONCE {
            mesh.ask(&*founder, Content::Renew);
        }
        let bytes = mesh.state().bytes_of(id(&*founder));
        assert!(bytes <= limits::NODE_BYTES, "{bytes}");
    }
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn who_leaves_and_comes_back_again_and_again_keeps_to_its_share() {
    let mut mesh = mesh_of_three();
    let cedar = key(1);
    let mut returns = 0;
    loop {
        assert!(matches!(
            mesh.ask(&*cedar, Content::Leave),
            Outcome::Done(_)
        ));
        mesh.now_ms += 30_000;
        let number = u8::try_from(returns % 200).unwrap();
        let token = mesh.token(number, |grant| grant.uses = limits::TOKEN_USES);
        let request = mesh.join_request(&token, &*cedar, "cedar");
        if let Outcome::Refused(refusal) = mesh.decide(request) {
            assert_eq!(refusal, Refusal::ShareUsedUp);
            break;
        }
        returns += 1;
        let bytes = mesh.state().bytes_of(id(&*cedar));
        assert!(bytes <= limits::NODE_BYTES, "{bytes}");
    }
    assert!(returns > 100, "{returns}");
    // Others join as ever.
    mesh.admit(&*key(4), "oak");
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn names_that_fall_to_a_node_leave_half_of_its_share_to_it() {
    let mut mesh = mesh_of_three();
    let (cedar, maple) = (key(1), key(2));
    let half = limits::NAMES_SHARE / 2;
    for number in 0..half + 20 {
        mesh.now_ms += MINUTE;
        let name = format!("n{number:03}");
        mesh.ask(&*cedar, claim(&name));
        let with = id(&*maple);
        let share = Share {
            name: label(&name),
            with,
        };
        assert!(matches!(
            mesh.ask(&*cedar, Content::Share(share)),
            Outcome::Done(_)
        ));
    }
    let left = mesh.state().names_left_by(id(&*cedar));
    assert!(matches!(
        mesh.ask(&*cedar, Content::Leave),
        Outcome::Done(_)
    ));
    let held = |mesh: &Mesh| {
        let names = mesh.state().names.values();
        names.filter(|name| name.owner == id(&*maple)).count()
    };
    assert_eq!(held(&mesh), half);
    // What was said before it left came to pass.
    for (name, heir) in left {
        let owner = mesh.state().names.get(&name).map(|name| name.owner);
        assert_eq!(owner, heir, "{name}");
    }
    assert!(matches!(mesh.ask(&*maple, claim("mail")), Outcome::Done(_)));
    assert!(mesh.state().agrees_with_itself());
}

#[test]
fn under_the_first_rules_nothing_is_counted() {
    let mut mesh = Mesh::with_rules(0);
    mesh.admit(&*key(1), "cedar");
    for number in 0..limits::NAMES_SHARE {
        let claimed = mesh.ask(&*key(1), claim(&format!("n{number}")));
        assert!(matches!(claimed, Outcome::Done(_)));
    }
    assert_eq!(mesh.state().bytes_of(id(&*key(1))), 0);
    // Who has more than its share when the rules change keeps it.
    let founder = mesh.founder.clone();
    mesh.ask(&*founder, Content::Rules(1));
    assert!(mesh.state().agrees_with_itself());
    assert!(mesh.state().names.contains_key(&label("n255")));
    let refused = mesh.ask(&*key(1), claim("more"));
    assert_eq!(refused, Outcome::Refused(Refusal::TooManyNames));
}
