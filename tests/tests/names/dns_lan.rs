//! Names for hosts of a LAN that have no agent: a TV asks a node of the house.

use std::net::IpAddr;

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, installed, wait::ensure, wait_for};

const LAN: &str = "192.168.77.0/24";
const TV: &str = "192.168.77.9";

fn shell(host: &Host, script: &str) {
    let _ = host.run(&["sh", "-euc", script]).ok();
}

/// A cable from the TV, which switches, to each of `hosts`.
fn cable(tv: &Host, hosts: &[(&Host, &str)]) {
    shell(
        tv,
        &format!(
            "ip link add lan type bridge; ip link set lan up
             ip address add {TV}/24 dev lan"
        ),
    );
    for (number, (host, address)) in hosts.iter().enumerate() {
        let network = host.network_path();
        shell(
            tv,
            &format!(
                "ip link add port{number} type veth peer name lan netns {network}
                 ip link set port{number} master lan up"
            ),
        );
        shell(
            host,
            &format!("ip address add {address}/24 dev lan; ip link set lan up"),
        );
    }
}

/// What `dig` says to a host, with the response code first.
fn dig(host: &Host, server: &str, question: &[&str]) -> String {
    let at = format!("@{server}");
    let words = [
        "dig",
        "+tries=1",
        "+time=2",
        "+noall",
        "+comments",
        "+answer",
        &at,
    ];
    host.run(&[&words, question].concat()).stdout
}

fn wait_told(host: &Host, server: &str, question: &[&str], part: &str) {
    wait_for(&format!("{part} to {question:?}"), PATIENCE, || {
        let told = dig(host, server, question);
        ensure(told.contains(part), told)
    });
}

#[test]
fn a_host_of_the_lan_gets_what_is_in_the_lan_and_nothing_of_the_overlay() {
    if !installed(&["dig"]) {
        return;
    }
    let Some(lab) = Lab::new(5) else { return };
    let [a, b, c, tv, outside] = [0, 1, 2, 3, 4].map(|n| &lab.hosts[n]);
    cable(tv, &[(a, "192.168.77.2"), (b, "192.168.77.3")]);
    // A network of the same range elsewhere, and somebody with an address in it.
    shell(
        c,
        "ip link add cafe type bridge; ip address add 192.168.77.4/24 dev cafe; ip link set cafe up",
    );
    let config = format!("[dns]\nlan = [\"{LAN}\"]\n");
    let mut alpha = Agent::with_config(a, "alpha", &config);
    let mut beta = Agent::new(b, "beta");
    let mut gamma = Agent::new(c, "gamma");
    alpha.init();
    beta.join(&alpha);
    gamma.join(&alpha);
    alpha.wait_nodes(3);
    let web = ["service", "add", "web", "--port", "8443", "--type", "https"];
    let _ = beta.cli(&web).ok();
    let _ = gamma.cli(&["service", "add", "far", "--port", "443"]).ok();
    let _ = alpha.cli(&["service", "add", "near", "--port", "80"]).ok();
    alpha.wait_answer(&["far.lab.internal"], &[&alpha.overlay_ipv4("gamma")]);
    alpha.wait_answer(&["web.lab.internal"], &[&alpha.overlay_ipv4("beta")]);

    let server = "192.168.77.2";
    wait_told(tv, server, &["web.lab.internal"], "A\t192.168.77.3");
    wait_told(tv, server, &["near.lab.internal"], "A\t192.168.77.2");
    wait_told(
        tv,
        server,
        &["beta.lab.internal", "+tcp"],
        "A\t192.168.77.3",
    );
    // Who isn't there isn't told to be, whatever address it has elsewhere.
    let far = dig(tv, server, &["far.lab.internal"]);
    assert!(far.contains("status: NOERROR"), "{far}");
    assert!(!far.contains("ANSWER SECTION"), "{far}");
    // What is found by what it speaks has an address there.
    let found = dig(tv, server, &["_https._tcp.lab.internal", "PTR"]);
    assert!(found.contains("web._https._tcp.lab.internal."), "{found}");
    assert!(!found.contains("far._https"), "{found}");
    let https = |name: &str| dig(tv, server, &[name, "HTTPS"]);
    let told = https("web.lab.internal");
    assert!(told.contains("1 . alpn=\"h2\" port=8443"), "{told}");
    let told = https("far.lab.internal");
    assert!(!told.contains("ANSWER SECTION"), "{told}");
    for rtype in ["A", "AAAA", "SRV", "ANY"] {
        for name in [
            "web",
            "far",
            "alpha",
            "gamma",
            "ns",
            "ca",
            "acme",
            "_web._tcp",
        ] {
            let told = dig(tv, server, &[&format!("{name}.lab.internal"), rtype]);
            let lines = told.lines().filter(|line| !line.starts_with(';'));
            let leads_in = |line: &str| {
                let last = line.split_whitespace().last().unwrap_or_default();
                let ip = last.parse::<IpAddr>();
                ip.is_ok_and(|ip| !ip.to_string().starts_with("192.168.77."))
            };
            let inner: Vec<&str> = lines.filter(|line| leads_in(line)).collect();
            assert!(inner.is_empty(), "{name} {rtype}: {inner:?}");
        }
    }
    // Nobody else asks there, and the agent says how it sees each of them.
    let route = "ip route add 192.168.77.2 via 192.0.2.1; true";
    shell(outside, route);
    let refused = dig(outside, "192.168.77.2", &["web.lab.internal"]);
    assert!(!refused.contains("ANSWER SECTION"), "{refused}");
    for (source, view, answers) in [
        (TV, "lan", 1),
        ("192.0.2.99", "stranger", 0),
        ("127.0.0.1", "internal", 1),
    ] {
        let asked = ["dns", "query", "web", "--source", source, "--json"];
        let told = alpha.cli(&asked).stdout;
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(told["view"], view, "{told}");
        assert_eq!(told["answers"].as_array().map(Vec::len), Some(answers));
    }
}

#[test]
fn a_host_of_the_lan_asks_for_other_names_wherever_this_host_is_in_it() {
    if !installed(&["dig"]) {
        return;
    }
    let Some(lab) = Lab::new(3) else { return };
    let [a, tv, outside] = [0, 1, 2].map(|n| &lab.hosts[n]);
    cable(tv, &[(a, "192.168.77.2")]);
    let _upstream = innermesh_tests::dns::serve(outside, [203, 0, 113, 7].into());
    a.use_resolver(outside.ipv4.into());
    let config = format!("[dns]\nlan = [\"{LAN}\"]\n");
    let mut alpha = Agent::with_config(a, "alpha", &config);
    alpha.init();
    wait_told(tv, "192.168.77.2", &["www.example.org"], "A\t203.0.113.7");

    // Its address goes and another comes: names are answered there.
    shell(
        a,
        "ip address del 192.168.77.2/24 dev lan; ip address add 192.168.77.5/24 dev lan",
    );
    wait_told(tv, "192.168.77.5", &["ns.lab.internal"], "A\t192.168.77.5");
    // Without any it is said that no one can ask.
    shell(a, "ip address del 192.168.77.5/24 dev lan");
    wait_for("the finding", PATIENCE, || {
        let status = alpha.status();
        let found = status["findings"].to_string();
        ensure(found.contains("dns-no-lan"), found)
    });
}
