//! What a LAN is told.

use super::*;

fn lan() -> LanAddresses {
    LanAddresses {
        own: [ip("192.168.1.5"), ip("172.20.0.1")].into(),
        reached: [(label("a"), [ip("192.168.1.7"), ip("10.3.3.3")].into())].into(),
    }
}

fn of_lan(input: ZoneInput) -> Zone {
    Zone::build(&input.for_lan(&lan(), &["192.168.1.0/24".parse().unwrap()]))
}

#[test]
fn a_lan_gets_addresses_at_which_nodes_were_reached_there_and_no_others() {
    let zone = of_lan(input());
    assert_eq!(
        ask(&zone, "a.lab.internal", RecordType::A),
        "30: 192.168.1.7"
    );
    assert_eq!(
        ask(&zone, "a.lab.internal", RecordType::AAAA),
        "nodata lab.internal."
    );
    // One of its two instances is in the LAN.
    assert_eq!(
        ask(&zone, "web.lab.internal", RecordType::A),
        "30: 192.168.1.7"
    );
    let srv = ask(&zone, "_web._tcp.lab.internal", RecordType::SRV);
    assert_eq!(srv, "30: 0 0 80 a.lab.internal.");
    assert_eq!(
        ask(&zone, "wiki.a.lab.internal", RecordType::A),
        "30: 192.168.1.7"
    );
    assert_eq!(
        ask(&zone, "x.a.lab.internal", RecordType::A),
        "30: 192.168.1.7"
    );
    // A name in force is there, wherever it leads (S14).
    assert_eq!(
        ask(&zone, "b.lab.internal", RecordType::A),
        "nodata lab.internal."
    );
    assert_eq!(
        ask(&zone, "nothing.lab.internal", RecordType::A),
        "nxdomain lab.internal."
    );
}

#[test]
fn the_server_is_at_its_own_address_in_the_lan_and_gives_no_certificates() {
    let zone = of_lan(input());
    for name in ["ns.lab.internal", "ca.lab.internal"] {
        assert_eq!(ask(&zone, name, RecordType::A), "30: 192.168.1.5", "{name}");
    }
    assert_eq!(
        ask(&zone, "acme.lab.internal", RecordType::A),
        "nodata lab.internal."
    );
    assert_eq!(
        ask(&zone, "53.0.77.10.in-addr.arpa", RecordType::PTR),
        "nxdomain 77.10.in-addr.arpa."
    );
}

#[test]
fn what_is_elsewhere_than_its_node_is_told_where_the_node_is_in_the_lan() {
    let mut all = input();
    let printers = service(vec![
        instance("a", "192.168.1.50", 631, true),
        instance("a", "192.168.9.50", 631, true),
        // As far as is known that is another LAN of the same range.
        instance("b", "192.168.1.51", 631, true),
    ]);
    all.services.insert(label("printer"), printers);
    let zone = of_lan(all);
    assert_eq!(
        ask(&zone, "printer.lab.internal", RecordType::A),
        "30: 192.168.1.50"
    );
}

#[test]
fn no_record_and_no_device_leads_a_lan_into_the_overlay() {
    let mut all = input();
    let records = ["10.77.0.9", "192.168.1.60"].map(|a| Rdata::address(ip(a)));
    all.records.insert(name("tv.lab.internal"), records.into());
    let https = Rdata::Https(Svcb::parse("1 . alpn=h2 ipv4hint=10.77.0.9").unwrap());
    all.records.insert(name("www.lab.internal"), vec![https]);
    all.devices.insert(label("phone"), vec![ip("10.77.0.8")]);
    let zone = of_lan(all);
    assert_eq!(
        ask(&zone, "tv.lab.internal", RecordType::A),
        "30: 192.168.1.60"
    );
    assert_eq!(
        ask(&zone, "phone.lab.internal", RecordType::A),
        "nodata lab.internal."
    );
    let https = ask(&zone, "www.lab.internal", RecordType::HTTPS);
    assert_eq!(https, "nxdomain lab.internal.");
}
