//! What strangers get: a page that denies access, by names that the registrar's DNS
//! leads to a sinkhole.

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, dns, installed, wait::ensure, wait_for};

/// Status and head, then the body, of a request over plain HTTP.
fn get(host: &Host, arguments: &[&str]) -> String {
    host.run(&[&["curl", "-si", "--max-time", "4"], arguments].concat())
        .stdout
}

#[test]
fn a_stranger_is_denied_access_by_every_name_and_path_while_the_node_is_a_sinkhole() {
    if !installed(&["curl"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let [a, stranger] = [0, 1].map(|n| &lab.hosts[n]);
    let own = a.directory.join("denied.html");
    std::fs::write(&own, "<p>go away").expect("a page");
    let mut alpha = Agent::new(a, "alpha");
    alpha.init();
    let at = format!("http://{}/", a.ipv4);
    assert_eq!(
        get(stranger, &[&at]),
        "",
        "nothing listens without the role"
    );
    let _ = alpha.cli(&["role", "add", "alpha", "sinkhole"]).ok();
    wait_for("the page", PATIENCE, || {
        let told = get(stranger, &[&at]);
        ensure(told.contains("ACCESS DENIED"), told)
    });
    let path = format!("{at}wp-login.php?x=1");
    let host_field = ["-H", "Host: cloud.lab.internal"];
    for request in [
        vec![at.as_str()],
        vec![path.as_str()],
        vec![host_field[0], host_field[1], at.as_str()],
        vec!["-X", "POST", "-d", "a=b", at.as_str()],
        vec!["-H", "Host: nobody.example", path.as_str()],
    ] {
        let told = get(stranger, &request);
        assert!(told.starts_with("HTTP/1.1 403 "), "{request:?}: {told}");
        let lower = told.to_lowercase();
        assert!(lower.contains("cache-control: no-store"), "{told}");
        for absent in [
            "location:",
            "strict-transport-security",
            "innermesh",
            "lab.internal",
        ] {
            assert!(!lower.contains(absent), "{absent} in {told}");
        }
        assert!(told.len() <= 1024, "{} bytes", told.len());
    }
    let six = format!("http://[{}]/", a.ipv6);
    assert!(get(stranger, &["-g", &six]).starts_with("HTTP/1.1 403 "));
    // HTTPS is closed, and on the overlay port 80 is free for a service.
    let closed = stranger.run(&[
        "curl",
        "-sk",
        "--max-time",
        "4",
        &format!("https://{}/", a.ipv4),
    ]);
    assert_ne!(closed.code, 0, "{closed}");
    let inner = (
        alpha
            .overlay_ipv4("alpha")
            .parse::<std::net::IpAddr>()
            .expect("an address"),
        80,
    );
    drop(a.listen(inner.into()).expect("port 80 is free inside"));

    let _ = alpha
        .cli(&["role", "rm", "alpha", "sinkhole", "--yes"])
        .ok();
    wait_for("its end", PATIENCE, || {
        let told = get(stranger, &[&at]);
        ensure(told.is_empty(), told)
    });
    // With a page of one's own, and with one that can't be read.
    let config = |page: &std::path::Path| format!("[sinkhole]\npage = \"{}\"\n", page.display());
    alpha.stop();
    let file = alpha.dir.join("config.toml");
    std::fs::write(&file, config(&own.with_file_name("none.html"))).expect("a file");
    let refused = alpha.cli(&["config", "check"]);
    assert!(refused.stderr.contains("none.html"), "{refused}");
    std::fs::write(&file, config(&own)).expect("a file");
    alpha.start();
    let _ = alpha.cli(&["role", "add", "alpha", "sinkhole"]).ok();
    wait_for("the own page", PATIENCE, || {
        let told = get(stranger, &[&at]);
        ensure(told.ends_with("<p>go away"), told)
    });
}

#[test]
fn the_public_zone_is_printed_and_the_public_world_is_asked_for_it() {
    let Some(lab) = Lab::new(3) else { return };
    let [a, proxied, world] = [0, 1, 2].map(|n| &lab.hosts[n]);
    let mut alpha = Agent::new(a, "alpha");
    alpha.init();
    alpha.refused(
        &["dns", "zone", "--public"],
        "no node with the role sinkhole",
    );
    alpha.refused(
        &["dns", "zone", "--public", "--address", "10.1.2.3"],
        "no public address",
    );
    let _ = alpha.cli(&["role", "add", "alpha", "sinkhole"]).ok();
    let text = ["record", "add", "_dmarc", "TXT", "v=DMARC1", "--public"];
    let _ = alpha.cli(&text).ok();
    let own = a.ipv4.to_string();
    let zone = wait_for("the zone", PATIENCE, || {
        let told = alpha.cli(&["dns", "zone", "--public"]).result()?;
        ensure(told.contains("_dmarc"), told.clone()).map(|()| told)
    });
    for line in [
        format!("lab.internal. 300 IN A {own}"),
        format!("*.lab.internal. 300 IN A {own}"),
        "lab.internal. 300 IN CAA 0 issue \";\"".to_owned(),
        "_dmarc.lab.internal. 300 IN TXT \"v=DMARC1\"".to_owned(),
    ] {
        assert!(zone.lines().any(|other| other == line), "{line} in {zone}");
    }
    // One world that has another's address for everything, and one that has this one's.
    let _proxy = dns::serve(proxied, [198, 51, 100, 9].into());
    let _right = dns::serve(world, a.ipv4);
    let verify = |at: &Host| {
        let server = at.ipv4.to_string();
        alpha.cli(&["dns", "zone", "--public", "--verify", "--at", &server])
    };
    let wrong = verify(proxied);
    assert_eq!(wrong.code, 1, "{wrong}");
    let line = "WRONG  *.lab.internal. A: 198.51.100.9";
    assert!(wrong.stdout.contains(line), "{wrong}");
    assert!(wrong.stdout.contains("proxy"), "{wrong}");
    let told = verify(world);
    for name in ["lab.internal.", "*.lab.internal."] {
        let line = format!("ok     {name} A {own}");
        assert!(told.stdout.contains(&line), "{told}");
    }
    let line = "WRONG  _dmarc.lab.internal. TXT";
    assert!(told.stdout.contains(line), "{told}");
}
