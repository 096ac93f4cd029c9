//! A mail server that trusts the overlay: a phone may send by it as itself, and a
//! stranger in front of a public node may not.

use std::net::{IpAddr, SocketAddr};

use innermesh_tests::{
    Host, Lab,
    agent::PATIENCE,
    installed,
    mail::{self, Net, Seen},
    phone::{PROGRAMS, Phone},
    wait_for,
};

use crate::world::{add, mesh};

#[test]
fn s23_a_phone_sends_as_itself_and_a_stranger_is_refused() {
    if !installed(&PROGRAMS) {
        return;
    }
    let Some(lab) = Lab::new(5) else { return };
    let [alpha, beta] = mesh(&lab);
    let phone = Phone::behind(&lab, &lab.hosts[2], &lab.hosts[3]);
    let stranger = &lab.hosts[4];
    lab.cable("wide", "203.0.113", stranger, alpha.host);
    let overlay: [IpAddr; 2] = [alpha.overlay_ipv4("beta"), alpha.overlay_ipv6("beta")]
        .map(|ip| ip.parse().expect("an address"));
    let trusted: Vec<Net> = vec![(overlay[0], 16), (overlay[1], 48)];
    mail::serve(beta.host, 25, trusted, false);
    let _ = beta.cli(&["service", "add", "mail", "--port", "25"]).ok();
    let _ = add(&alpha, &phone, "phone", &[]);
    let own = phone.addresses("phone");
    let _ = phone.up("phone").ok();
    wait_for("the name mail", PATIENCE, || {
        let words = ["publish", "mail", "--port", "25", "--on", "alpha"];
        alpha.cli(&words).result()
    });
    let by = |host: &Host, at: IpAddr| {
        let at = SocketAddr::new(at, 25);
        wait_for(&format!("mail by {at}"), PATIENCE, || mail::send(host, at))
    };
    for (at, client) in overlay.into_iter().zip(own) {
        let relays = true;
        assert_eq!(by(phone.host, at), Seen { client, relays });
    }
    let [public, client] = ["203.0.113.2", "203.0.113.1"].map(|ip| ip.parse().expect("one"));
    let relays = false;
    assert_eq!(by(stranger, public), Seen { client, relays });
}
