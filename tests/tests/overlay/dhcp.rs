//! A LAN with the overlay's own range that gives addresses by DHCP.

use std::{fs, net::IpAddr};

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, missing, skip, wait::ensure, wait_for};

use crate::world::{overlay_of, pair, shell};

/// What `udhcpc` runs with what it was given.
const SCRIPT: &str = r#"#!/bin/sh
case $1 in
bound | renew)
    ip address replace "$ip/$mask" dev "$interface"
    ip route replace default via "$router" dev "$interface" metric 100
    ;;
esac
"#;

/// A third of the overlay's third octets that no member has.
fn lan_of(alpha: &Agent) -> String {
    let [IpAddr::V4(own), _] = overlay_of(alpha, "alpha") else {
        panic!("an IPv4 address first")
    };
    let [a, b, third, _] = own.octets();
    format!("{a}.{b}.{}", if third == 200 { 201 } else { 200 })
}

/// Serves addresses of `net` at the cable `direct`.
fn serve(gateway: &Host, net: &str) -> innermesh_tests::Process {
    shell(
        gateway,
        &format!("ip address flush dev direct; ip address add {net}.1/24 dev direct"),
    );
    let range = format!("--dhcp-range={net}.50,{net}.59,255.255.255.0,2m");
    let lease = format!(
        "--dhcp-leasefile={}",
        gateway.directory.join("leases").display()
    );
    gateway.start(
        "dnsmasq",
        &[
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file",
            "--port=0",
            "--interface=direct",
            "--bind-interfaces",
            "--dhcp-authoritative",
            "--no-ping",
            &range,
            &lease,
        ],
        &[],
    )
}

/// Asks once, and stays to renew.
fn ask(host: &Host) -> innermesh_tests::Process {
    let script = host.directory.join("dhcp-script");
    fs::write(&script, SCRIPT).expect("a file of the laboratory");
    let script = script.to_string_lossy();
    let _ = host.run(&["chmod", "+x", &script]).ok();
    host.start(
        "udhcpc",
        &[
            "busybox", "udhcpc", "-f", "-i", "direct", "-t", "5", "-T", "1", "-A", "2", "-s",
            &script,
        ],
        &[],
    )
}

fn is_given(host: &Host, net: &str) {
    wait_for("an address by DHCP", PATIENCE, || {
        let shown = shell(host, "ip -4 -br address show dev direct");
        ensure(shown.contains(&format!("{net}.5")), &shown)
    });
}

fn goes_on(alpha: &Agent, net: &str) {
    wait_for("the exception", PATIENCE, || {
        let exceptions = alpha.status()["overlay"]["exceptions"].to_string();
        ensure(exceptions.contains(&format!("{net}.1")), exceptions)
    });
    let gateway = format!("{net}.1");
    let far = alpha.overlay_ipv4("beta");
    for address in [&gateway, &far] {
        wait_for(&format!("packets to {address}"), PATIENCE, || {
            ensure(alpha.pings(address), "none")
        });
    }
    let warnings = alpha.status()["warnings"].to_string();
    let both = warnings.contains(&format!("{net}.0/24")) && warnings.contains("/16");
    assert!(both, "both ranges are named: {warnings}");
}

#[test]
fn s25_a_lan_with_the_overlays_range_gives_its_address_by_dhcp_before_the_agent_starts_and_after() {
    if let Some(program) = missing(&["dnsmasq", "busybox"]) {
        skip(format!("{program} is missing"));
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let (mut alpha, beta) = pair(&lab);
    let net = lan_of(&alpha);
    // The laboratory's own network stays as it is.
    shell(
        alpha.host,
        "ip route add 192.0.2.0/24 via 192.0.2.1 dev eth0 onlink",
    );
    lab.connect_directly(&lab.hosts[2], alpha.host);
    shell(alpha.host, "ip address flush dev direct");
    let _server = serve(&lab.hosts[2], &net);

    // The agent runs already.
    let client = ask(alpha.host);
    is_given(alpha.host, &net);
    goes_on(&alpha, &net);
    drop(client);

    // The agent starts later.
    alpha.stop();
    shell(alpha.host, "ip address flush dev direct");
    let _client = ask(alpha.host);
    is_given(alpha.host, &net);
    alpha.start();
    alpha.wait_nodes(2);
    goes_on(&alpha, &net);
    drop(beta);
}
