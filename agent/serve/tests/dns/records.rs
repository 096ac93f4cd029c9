//! Users' records as dig shows them, and zones as named-checkzone reads them.

use innermesh_proto::{
    ledger::record::RecordData,
    zone::{RecordType, Zone, ZoneInput},
};
use tokio::process::Command;

use crate::bench::{Bench, input};

const RECORDS: [(&str, &str, &str); 14] = [
    ("printer", "A", "192.0.2.9"),
    ("printer", "AAAA", "2001:db8::9"),
    ("tv", "CNAME", "printer.lab.internal."),
    (
        "_acme-challenge.tv",
        "TXT",
        "\"one\" \"two \\\"x\\\"\" \"\\195\\188\"",
    ),
    ("mail", "MX", "10 printer.lab.internal."),
    ("_sip._tcp", "SRV", "0 5 5060 printer.lab.internal."),
    ("mail", "CAA", "0 issue \"ca.example.org\""),
    (
        "site",
        "HTTPS",
        "1 . alpn=\"h2,h3\" port=8443 ipv4hint=192.0.2.9",
    ),
    ("alias", "HTTPS", "0 site.lab.internal."),
    ("_dns.ns2", "SVCB", "1 printer.lab.internal. alpn=dot"),
    (
        "_dns.ns3",
        "SVCB",
        "1 printer.lab.internal. alpn=h2 dohpath=/dns-query{?dns}",
    ),
    ("*.wild", "TXT", "\"w\""),
    (
        "site",
        "SSHFP",
        "1 1 000102030405060708090a0b0c0d0e0f10111213",
    ),
    ("_443._tcp.site", "TLSA", "3 1 0 3003020107"),
];

fn with_records() -> ZoneInput {
    let mut input = input("lab.internal");
    for (name, rtype, value) in RECORDS {
        let rtype: RecordType = rtype.parse().unwrap();
        let name = format!("{name}.lab.internal").parse().unwrap();
        let data = RecordData::parse(rtype, value).unwrap();
        input.records.entry(name).or_default().push(data.rdata());
    }
    let mail = "mail.lab.internal".parse().unwrap();
    input.ttls.insert((mail, RecordType::MX), 3600);
    input
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_answered_as_they_were_given() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let bench = Bench::start(&with_records());
    for (question, expected) in [
        (
            "site.lab.internal HTTPS",
            "1 . alpn=\"h2,h3\" port=8443 ipv4hint=192.0.2.9",
        ),
        ("alias.lab.internal HTTPS", "0 site.lab.internal."),
        (
            "_dns.ns2.lab.internal SVCB",
            "1 printer.lab.internal. alpn=\"dot\"",
        ),
        ("mail.lab.internal CAA", "0 issue \"ca.example.org\""),
        (
            "_acme-challenge.tv.lab.internal TXT",
            "\"one\" \"two \\\"x\\\"\" \"\\195\\188\"",
        ),
        ("x.y.wild.lab.internal TXT", "\"w\""),
        (
            "site.lab.internal SSHFP",
            "1 1 000102030405060708090A0B0C0D0E0F10111213",
        ),
        ("_443._tcp.site.lab.internal TLSA", "3 1 0 3003020107"),
    ] {
        assert_eq!(bench.short(question).await, [expected], "{question}");
    }
    let text = bench.dig("mail.lab.internal MX").await;
    assert!(
        text.contains("\t3600\tIN\tMX\t10 printer.lab.internal."),
        "{text}"
    );
    // Who asks for the record gets the addresses of its host as well.
    let text = bench.dig("_dns.ns2.lab.internal SVCB").await;
    assert!(
        text.contains("A\t192.0.2.9") && text.contains("AAAA\t2001:db8::9"),
        "{text}"
    );
    let report = bench
        .dns
        .query(&"site.lab.internal".parse().unwrap(), RecordType::HTTPS)
        .await;
    assert!(
        report.answers[0].contains("alpn=") && report.answers[0].contains("port=8443"),
        "{report:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods, reason = "a file for another program")]
async fn each_zone_is_one_that_named_would_load() {
    if !innermesh_skip::installed(&["named-checkzone"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut files: Vec<(String, String)> = Vec::new();
    for line in Zone::build(&with_records()).records() {
        if line.contains(" IN SOA ") {
            files.push((line.split(' ').next().unwrap().into(), String::new()));
        }
        let (_, text) = files.last_mut().unwrap();
        text.push_str(&line);
        text.push('\n');
    }
    assert_eq!(files.len(), 3);
    for (origin, text) in files {
        let file = folder.path().join("zone");
        std::fs::write(&file, text).unwrap();
        let output = Command::new("named-checkzone")
            .args(["-i", "local", &origin])
            .arg(&file)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("OK"), "{said}");
    }
}
