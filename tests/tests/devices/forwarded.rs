//! Beyond the gateway: services on other nodes and in a LAN see a phone's own
//! address, and what is open is cut where the gateway forwards it.

use std::{
    io::{Read, Write},
    net::IpAddr,
    time::Duration,
};

use innermesh_tests::{
    Host, Lab,
    agent::PATIENCE,
    installed,
    phone::{PROGRAMS, Phone},
    wait_for,
};

use crate::world::{PORT, add, mesh, seen_by, serve};

/// After this nothing of a device passes any more.
const CUT_OFF: Duration = Duration::from_secs(2);

fn shell(host: &Host, script: &str) -> String {
    host.run(&["sh", "-euc", script]).ok()
}

#[test]
fn s23_a_service_on_another_node_sees_a_phone_s_own_address_until_the_phone_is_removed() {
    if !installed(&PROGRAMS) {
        return;
    }
    let Some(lab) = Lab::new(4) else { return };
    let [alpha, beta] = mesh(&lab);
    let phone = Phone::behind(&lab, &lab.hosts[2], &lab.hosts[3]);
    let _ = add(&alpha, &phone, "phone", &[]);
    let own = phone.addresses("phone");
    let port = PORT.to_string();
    let _ = beta.cli(&["service", "add", "web", "--port", &port]).ok();
    let _ = beta.cli(&["service", "add", "echo", "--port", "9100"]).ok();
    serve(beta.host);
    let _ = phone.up("phone").ok();
    let far: [IpAddr; 2] = [alpha.overlay_ipv4("beta"), alpha.overlay_ipv6("beta")]
        .map(|ip| ip.parse().expect("an address"));
    for (far, own) in far.into_iter().zip(own) {
        assert_eq!(seen_by(&phone, far), own);
    }
    assert_eq!(
        shell(alpha.host, "cat /proc/sys/net/ipv4/conf/im0/forwarding").trim(),
        "1"
    );

    let echo = beta.host.listen(([0u16; 8], 9100).into()).expect("a port");
    let to = std::net::SocketAddr::new(far[0], 9100);
    let mut open = wait_for("a connection", PATIENCE, || phone.host.tcp_to(to));
    let (mut served, _) = echo.accept().expect("the phone's");
    for socket in [&open, &served] {
        socket.set_read_timeout(Some(CUT_OFF)).expect("a socket");
    }
    open.write_all(b"x").expect("it is sent");
    served.read_exact(&mut [0; 1]).expect("it comes through");
    let _ = alpha.cli(&["device", "rm", "phone", "--yes"]).ok();
    wait_for("the end of what is forwarded", CUT_OFF, || {
        let sets = shell(alpha.host, "nft list set inet innermesh device4");
        let gone = !sets.contains(&own[0].to_string());
        innermesh_tests::wait::ensure(gone, sets)
    });
    open.write_all(b"y").expect("it is kept to be sent");
    assert!(served.read(&mut [0; 1]).is_err(), "it came through");
}

#[test]
fn s23_a_host_in_a_lan_sees_a_phone_s_own_address() {
    if !installed(&PROGRAMS) {
        return;
    }
    let Some(lab) = Lab::new(5) else { return };
    let [alpha, beta] = mesh(&lab);
    let lan = &lab.hosts[4];
    // The LAN is behind another gateway than the phone's.
    lab.cable("home", "172.29.0", lan, beta.host);
    let _ = alpha.cli(&["role", "add", "beta", "gateway"]).ok();
    let net = "172.29.0.0/24";
    let _ = alpha.cli(&["route", "add", net, "--gateway", "beta"]).ok();
    let phone = Phone::behind(&lab, &lab.hosts[2], &lab.hosts[3]);
    let _ = add(
        &alpha,
        &phone,
        "phone",
        &["--gateway", "alpha", "--routes", net],
    );
    let own = phone.addresses("phone");
    let IpAddr::V4(ip) = own[0] else {
        panic!("{} is no IPv4 address", own[0]);
    };
    let [a, b, ..] = ip.octets();
    shell(lan, &format!("ip route add {a}.{b}.0.0/16 via 172.29.0.2"));
    serve(lan);
    let _ = phone.up("phone").ok();
    let there = "172.29.0.1".parse().expect("an address");
    assert_eq!(seen_by(&phone, there), own[0]);
}
