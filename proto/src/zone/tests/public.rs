//! What the public world is told.

use super::*;

fn published(all: &[(&str, &str)]) -> Vec<Record> {
    let record = |(at, data): &(&str, &str)| Record {
        name: name(at),
        ttl_s: 300,
        data: match data.parse::<IpAddr>() {
            Ok(ip) => Rdata::address(ip),
            Err(_) => Rdata::Txt(vec![data.as_bytes().to_vec()]),
        },
    };
    all.iter().map(record).collect()
}

fn lines(sinkhole: &[&str], all: &[(&str, &str)]) -> Vec<String> {
    let sinkhole = sinkhole.iter().map(|a| ip(a)).collect();
    let records = public_zone(&name("lab.internal"), &sinkhole, published(all));
    records.iter().map(ToString::to_string).collect()
}

#[test]
fn every_name_leads_to_the_sinkhole_and_no_ca_may_issue() {
    assert_eq!(
        lines(&["203.0.113.7", "2001:db8::7"], &[]),
        [
            "lab.internal. 300 IN A 203.0.113.7",
            "lab.internal. 300 IN AAAA 2001:db8::7",
            "lab.internal. 300 IN CAA 0 issue \";\"",
            "lab.internal. 300 IN CAA 0 issuewild \";\"",
            "*.lab.internal. 300 IN A 203.0.113.7",
            "*.lab.internal. 300 IN AAAA 2001:db8::7",
        ]
    );
}

#[test]
fn a_name_with_records_of_its_own_leads_there_too_unless_they_say_where_it_leads() {
    let all = lines(
        &["203.0.113.7"],
        &[
            ("site.lab.internal", "198.51.100.9"),
            ("deep.mail.lab.internal", "v=1"),
            ("_dmarc.lab.internal", "v=DMARC1"),
        ],
    );
    let has = |line: &str| all.iter().any(|other| other == line);
    assert!(has("site.lab.internal. 300 IN A 198.51.100.9"), "{all:?}");
    assert!(!has("site.lab.internal. 300 IN A 203.0.113.7"), "{all:?}");
    assert!(
        has("deep.mail.lab.internal. 300 IN A 203.0.113.7"),
        "{all:?}"
    );
    // It exists because of what is below it (RFC 4592 §2.2.2).
    assert!(has("mail.lab.internal. 300 IN A 203.0.113.7"), "{all:?}");
    assert!(
        !all.iter()
            .any(|line| line.starts_with("_dmarc.lab.internal. 300 IN A"))
    );
}

#[test]
fn users_who_published_whom_they_let_issue_are_not_overruled() {
    let caa = Record {
        name: name("lab.internal"),
        ttl_s: 300,
        data: Rdata::Caa(Caa {
            flags: 0,
            tag: "issue".into(),
            value: b"ca.example".to_vec(),
        }),
    };
    let records = public_zone(&name("lab.internal"), &BTreeSet::new(), vec![caa.clone()]);
    assert_eq!(records, [caa]);
}
