//! What the zone says, and to whom.

use std::sync::atomic::Ordering;

use crate::bench::{Bench, input, internal, label, node};

#[tokio::test(flavor = "multi_thread")]
async fn the_zone_is_answered_with_authority() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let bench = Bench::start(&input("lab.internal"));
    assert_eq!(bench.short("a.lab.internal A").await, ["10.77.0.1"]);
    assert_eq!(bench.short("a.lab.internal AAAA").await, ["fd00:1:2::a"]);
    assert_eq!(
        bench.short("web.lab.internal A").await,
        ["10.77.0.1", "10.77.0.2"]
    );
    assert_eq!(bench.short("x.y.a.lab.internal A").await, ["10.77.0.1"]);
    assert_eq!(bench.short("-x 10.77.0.2").await, ["b.lab.internal."]);
    assert_eq!(bench.short("-x fd00:1:2::a").await, ["a.lab.internal."]);
    assert_eq!(bench.short("acme.lab.internal A").await, ["10.77.0.53"]);
    assert_eq!(bench.short("lab.internal NS").await, ["ns.lab.internal."]);
    let srv = bench.dig("_web._tcp.lab.internal SRV").await;
    assert!(srv.contains("SRV\t0 0 81 b.lab.internal."), "{srv}");
    assert!(
        srv.contains("ADDITIONAL: 4"),
        "three addresses and OPT: {srv}"
    );
    let mixed = bench.dig("A.lAb.InterNal A").await;
    assert!(
        mixed.contains(";A.lAb.InterNal.") && mixed.contains("flags: qr aa rd ra;"),
        "{mixed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_nodata_or_nxdomain_with_the_soa() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let bench = Bench::start(&input("lab.internal"));
    for (question, status) in [
        ("b.lab.internal AAAA", "NOERROR"),
        ("b.lab.internal HTTPS", "NOERROR"),
        ("_tcp.lab.internal A", "NOERROR"),
        ("nobody.lab.internal A", "NXDOMAIN"),
        ("-x 10.77.200.200", "NXDOMAIN"),
    ] {
        let text = bench.dig(question).await;
        assert!(
            text.contains(&format!("status: {status}")),
            "{question}: {text}"
        );
        assert!(
            text.contains("ANSWER: 0, AUTHORITY: 1") && text.contains("SOA\tns.lab.internal."),
            "{text}"
        );
    }
    assert_eq!(
        bench.short("b.lab.internal ANY").await,
        ["\"RFC8482\" \"\""]
    );
    assert!(
        bench
            .dig("lab.internal AXFR")
            .await
            .contains("Transfer failed.")
    );
    assert_eq!(bench.status("version.bind CH TXT").await, "REFUSED");
    assert_eq!(
        bench.status("lab.internal SOA +opcode=notify").await,
        "NOTIMP"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_view_loads_the_unknown_is_servfail_and_then_the_new_zone_answers() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let mut loading = input("lab.internal");
    loading.loading = true;
    let bench = Bench::start(&loading);
    let text = bench.dig("late.lab.internal A").await;
    assert!(
        text.contains("status: SERVFAIL") && text.contains("EDE: 14"),
        "{text}"
    );
    loading.loading = false;
    loading.nodes.insert(label("late"), node(&["10.77.0.3"]));
    bench.dns.publish(move || internal(&loading));
    assert_eq!(bench.short("late.lab.internal A").await, ["10.77.0.3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_everything() {
    if !innermesh_skip::installed(&["dig"]) {
        return;
    }
    let (bench, upstream) = Bench::forwarding();
    for question in [
        "a.lab.internal A",
        "nobody.lab.internal A",
        "www.outside.org A",
        "localhost A",
        "-x 10.77.0.1",
    ] {
        for transport in ["+notcp", "+tcp"] {
            let text = bench
                .dig(&format!("-b 127.0.0.2 {question} {transport}"))
                .await;
            assert!(
                text.contains("status: REFUSED") && text.contains("flags: qr rd;"),
                "{text}"
            );
            assert!(text.contains("ANSWER: 0, AUTHORITY: 0"), "{text}");
        }
    }
    assert_eq!(upstream.asked.load(Ordering::SeqCst), 0);
    assert_eq!(bench.status("www.outside.org A").await, "NOERROR");
}
