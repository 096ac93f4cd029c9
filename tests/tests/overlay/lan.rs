//! A LAN that has the overlay's own address range.

use std::net::IpAddr;

use innermesh_tests::{Lab, agent::PATIENCE, wait::ensure, wait_for};

use crate::world::{SERVICE, Service, address, asks, overlay_of, pair, reaches_not, shell};

#[test]
fn s25_of_a_lan_with_the_overlays_range_only_the_gateway_is_reached() {
    let Some(lab) = Lab::new(3) else { return };
    let gateway = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
    let far = overlay_of(&alpha, "beta");
    let IpAddr::V4(own) = far[0] else {
        panic!("{far:?}")
    };
    let [a, b, third, _] = own.octets();
    let net = format!("{a}.{b}.{}", if third == 200 { 201 } else { 200 });
    let _on_beta = Service::start(beta.host, SERVICE);
    let _on_gateway = Service::start(gateway, SERVICE);

    lab.connect_directly(gateway, alpha.host);
    shell(
        gateway,
        &format!(
            "ip address flush dev direct
             ip address add {net}.1/24 dev direct; ip address add {net}.9/24 dev direct
             ip address add 203.0.113.7 dev lo"
        ),
    );
    // The laboratory's own network stays as it is.
    shell(
        alpha.host,
        &format!(
            "ip route add 192.0.2.0/24 via 192.0.2.1 dev eth0 onlink
             ip address flush dev direct
             ip address add {net}.20/24 dev direct
             ip route replace default via {net}.1 dev direct"
        ),
    );
    let status = wait_for("the exception", PATIENCE, || {
        let status = alpha.status();
        let exceptions = status["overlay"]["exceptions"].to_string();
        let found = exceptions.contains(&format!("direct {net}.1"));
        ensure(found, exceptions).map(|()| status)
    });
    let warnings = status["warnings"].to_string();
    assert!(
        warnings.contains("has the overlay's address range"),
        "{warnings}"
    );
    // Beyond the gateway, the gateway itself, members; no other host there.
    let lan = address(format!("{net}.20"));
    assert_eq!(asks(alpha.host, address("203.0.113.7"), SERVICE), lan);
    assert_eq!(asks(alpha.host, address(format!("{net}.1")), SERVICE), lan);
    for ip in far {
        asks(alpha.host, ip, SERVICE);
    }
    let _ = alpha
        .host
        .tcp_to((address(format!("{net}.9")), SERVICE).into())
        .expect_err("no way");
    // A default route without an interface finds its gateway on the LAN.
    shell(
        alpha.host,
        &format!("ip route del default; ip route add default via {net}.1"),
    );
    let shown = shell(alpha.host, "ip route show default");
    assert!(shown.contains("dev direct"), "{shown}");
    // Another host of that LAN, which isn't the gateway, is a stranger.
    let _on_alpha = Service::start(alpha.host, SERVICE + 1);
    shell(
        gateway,
        &format!("ip route replace {net}.20 dev direct src {net}.9"),
    );
    reaches_not(gateway, lan, SERVICE + 1);
    shell(
        gateway,
        &format!("ip route replace {net}.20 dev direct src {net}.1"),
    );
    asks(gateway, lan, SERVICE + 1);
}
