//! A phone that sends everything by its gateway, which is an exit too.

use std::{fs, net::IpAddr};

use innermesh_tests::{
    Host, Lab,
    agent::PATIENCE,
    installed,
    phone::{PROGRAMS, Phone},
    wait::ensure,
    wait_for,
};

use crate::world::{PORT, add, mesh, row, seen_by, serve};

fn outer(host: &Host) -> [IpAddr; 2] {
    [host.ipv4.into(), host.ipv6.into()]
}

#[test]
fn s23_the_internet_sees_the_gateway_of_a_phone_and_services_the_phone() {
    if !installed(&PROGRAMS) {
        return;
    }
    let Some(lab) = Lab::new(5) else { return };
    let [alpha, beta] = mesh(&lab);
    let internet = &lab.hosts[4];
    let phone = Phone::behind(&lab, &lab.hosts[2], &lab.hosts[3]);
    serve(internet);
    serve(beta.host);
    let port = PORT.to_string();
    let _ = beta.cli(&["service", "add", "web", "--port", &port]).ok();

    alpha.refused(
        &["device", "add", "phone", "--full-tunnel"],
        "agent role add NODE exit",
    );
    let _ = alpha.cli(&["role", "add", "alpha", "exit"]).ok();
    wait_for("a phone", PATIENCE, || {
        let file = phone.file("phone");
        let file = file.to_string_lossy();
        let words = ["device", "add", "phone", "--full-tunnel", "--out", &file];
        alpha.cli(&words).result()
    });
    let text = fs::read_to_string(phone.file("phone")).expect("a configuration");
    assert!(text.contains("AllowedIPs = 0.0.0.0/0, ::/0"), "{text}");
    let own = phone.addresses("phone");
    let _ = phone.up("phone").ok();
    for (far, exit) in outer(internet).into_iter().zip(outer(alpha.host)) {
        assert_eq!(seen_by(&phone, far), exit);
    }
    let inside: [IpAddr; 2] = [alpha.overlay_ipv4("beta"), alpha.overlay_ipv6("beta")]
        .map(|ip| ip.parse().expect("an address"));
    for (inside, own) in inside.into_iter().zip(own) {
        assert_eq!(seen_by(&phone, inside), own);
    }
    let _ = phone.down("phone").ok();

    // One that wasn't added so isn't let out, whatever it sends.
    let _ = add(&alpha, &phone, "other", &[]);
    let file = phone.file("other");
    let text = fs::read_to_string(&file).expect("a configuration");
    let widened = text.lines().map(|line| match line.split_once(" = ") {
        Some(("AllowedIPs", _)) => "AllowedIPs = 0.0.0.0/0, ::/0".to_owned(),
        _ => line.to_owned(),
    });
    let widened: Vec<String> = widened.collect();
    fs::write(&file, widened.join("\n")).expect("a file");
    let _ = phone.up("other").ok();
    assert_eq!(seen_by(&phone, inside[0]), phone.addresses("other")[0]);
    for far in outer(internet) {
        let opened = phone.host.tcp_to((far, PORT).into());
        assert!(opened.is_err(), "{far} is reached");
    }
    let _ = phone.down("other").ok();

    let _ = alpha.cli(&["role", "rm", "alpha", "exit", "--yes"]).ok();
    wait_for("a configuration that isn't right", PATIENCE, || {
        let stale = row(&alpha, "phone")?["stale"].to_string();
        let phrase = "alpha doesn't forward to the internet any more";
        ensure(stale.contains(phrase), stale)
    });
    let _ = phone.up("phone").ok();
    assert_eq!(seen_by(&phone, inside[0]), own[0]);
    let socket = phone.host.tcp_to((outer(internet)[0], PORT).into());
    assert!(socket.is_err(), "it is still forwarded");
}
