//! Who gets nothing.

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, installed, wait::ensure, wait_for};

use crate::servers::{SERVERS, add, secret};

#[test]
fn nothing_is_given_without_the_key_from_elsewhere_or_after_the_end() {
    if !installed(&SERVERS) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let [a, ns2, outside] = [0, 1, 2].map(|n| &lab.hosts[n]);
    let mut alpha = Agent::new(a, "alpha");
    alpha.init();
    let added = add(
        &alpha,
        "ns2",
        &ns2.ipv4.to_string(),
        &["--zone", "lab.internal"],
    );
    let (name, secret) = secret(&added);
    assert_eq!(added["zones"], serde_json::json!(["lab.internal"]));
    let good = format!("hmac-sha256:{name}:{secret}");
    let ask = |host: &Host, zone: &str, rtype: &str, more: &[&str]| {
        let at = format!("@{}", a.ipv4);
        let words = ["dig", &at, "+tries=1", "+time=3", zone, rtype];
        host.run(&[&words, more].concat()).stdout
    };
    let axfr = |host: &Host, more: &[&str]| ask(host, "lab.internal", "AXFR", more);
    wait_for("a transfer", PATIENCE, || {
        let told = axfr(ns2, &["-y", &good]);
        ensure(told.contains("alpha.lab.internal."), told)
    });
    // The key is shown once, and stands in no list and no log.
    let list = alpha.cli(&["dns", "secondary", "list", "--json"]).ok();
    assert!(list.contains(&name) && !list.contains(&secret), "{list}");
    assert!(!alpha.log().contains(&secret));

    let unsigned = axfr(ns2, &[]);
    assert!(unsigned.contains("Transfer failed"), "{unsigned}");
    for (host, key) in [
        (outside, good.clone()),
        (ns2, format!("hmac-sha256:{name}:{}", "AAAA".repeat(11))),
        (ns2, format!("hmac-sha256:other:{secret}")),
        (ns2, format!("hmac-sha512:{name}:{secret}")),
    ] {
        let told = axfr(host, &["-y", &key]);
        assert!(!told.contains("alpha.lab.internal."), "{key}: {told}");
    }
    let told = ask(
        ns2,
        "lab.internal",
        "SOA",
        &["-y", &format!("hmac-sha256:other:{secret}")],
    );
    assert!(told.contains("BADKEY"), "{told}");
    let told = ask(
        ns2,
        "lab.internal",
        "SOA",
        &["-y", &format!("hmac-sha256:{name}:{}", "AAAA".repeat(11))],
    );
    assert!(told.contains("BADSIG"), "{told}");
    let told = ask(ns2, "alpha.lab.internal", "A", &["-y", &good]);
    assert!(told.contains("status: REFUSED"), "{told}");
    // A member sees the zone's names, and copies nothing.
    let member = a.run(&[
        "dig",
        &format!("@{}", alpha.dns().ip()),
        "lab.internal",
        "AXFR",
    ]);
    assert!(!member.stdout.contains("hostmaster"), "{member}");
    // It asks by IXFR from where it is, over TCP, and over UDP gets one record.
    let soa = ask(ns2, "lab.internal", "SOA", &["-y", &good, "+short"]);
    let serial = soa.split_whitespace().nth(2).expect("a serial").to_owned();
    let _ = axfr(ns2, &["-y", &good]);
    let _ = alpha.cli(&["record", "add", "new", "A", "192.0.2.99"]).ok();
    let since = format!("IXFR={serial}");
    let told = wait_for("the change alone", PATIENCE, || {
        let told = ask(ns2, "lab.internal", &since, &["-y", &good]);
        ensure(told.contains("new.lab.internal."), &told).map(|()| told)
    });
    assert!(!told.contains("alpha.lab.internal."), "{told}");
    assert_eq!(told.matches("\tSOA\t").count(), 4, "{told}");
    let told = ask(ns2, "lab.internal", &since, &["-y", &good, "+notcp"]);
    assert_eq!(told.matches("\tSOA\t").count(), 1, "{told}");
    let told = ask(ns2, "lab.internal", "IXFR=1", &["-y", &good]);
    assert!(told.contains("alpha.lab.internal."), "{told}");

    let _ = alpha.cli(&["dns", "secondary", "rm", "ns2"]).ok();
    let told = axfr(ns2, &["-y", &good]);
    assert!(!told.contains("alpha.lab.internal."), "{told}");
    alpha.refused(&["dns", "secondary", "rm", "ns2"], "no secondary ns2");
    for (words, phrase) in [
        (&["--address", "0.0.0.0"][..], "no address of a name server"),
        (
            &["--address", "192.0.2.9", "--zone", "example.org"],
            "no zone of this mesh",
        ),
        (
            &["--address", "192.0.2.9", "--key", "/nonexistent"],
            "No such file",
        ),
        (
            &["--address", "192.0.2.9", "--listen", "2001:db8::1"],
            "can't ask at",
        ),
    ] {
        let begin = ["dns", "secondary", "add", "ns3"];
        alpha.refused(&[&begin, words].concat(), phrase);
    }
}
