//! Ports that a router maps on request, which is `miniupnpd`'s part here.

use innermesh_tests::{
    Agent, Lab,
    agent::PATIENCE,
    nat::{Asked, Nat, NatKind},
    wait::ensure,
    wait_for,
};

use super::{CONFIG, agent, wait_path};

/// An agent whose router is asked.
fn asking<'lab>(lab: &'lab Lab, n: usize) -> Agent<'lab> {
    let config = format!("port_mapping = true\n{CONFIG}");
    Agent::with_config(&lab.hosts[n], &format!("node{n}"), &config)
}

fn wait_unmapped(nat: &Nat) {
    wait_for("no mapping", PATIENCE, || {
        let rules = nat.mapped();
        ensure(!rules.contains("dnat"), rules)
    });
}

/// Two behind NATs with a port for each destination don't reach each other straight, but
/// where the router of one maps its ports.
#[test]
fn who_has_its_ports_mapped_is_reached_straight_from_behind_any_nat() {
    let all = [Asked::Pcp, Asked::NatPmp, Asked::Upnp];
    if !innermesh_tests::installed(&["miniupnpd"]) {
        return;
    }
    let Some(lab) = Lab::new(all.len() + 2) else {
        return;
    };
    let mut public = agent(&lab, 0, "public");
    let _ = public.init();
    let other_nat = lab.put_behind_nat(NatKind::Symmetric, &[&lab.hosts[4]]);
    let mut other = agent(&lab, 4, "other");
    other.join(&public);
    let mut nodes = Vec::new();
    for (n, by) in all.into_iter().enumerate() {
        let host = &lab.hosts[n + 1];
        let mut nat = lab.put_behind_nat(NatKind::Symmetric, &[host]);
        let external = nat.map_on_request(&lab, host, by).to_string();
        let mut node = asking(&lab, n + 1);
        node.join(&public);
        nodes.push((node, nat, external, by));
    }
    for (node, _, external, by) in &nodes {
        wait_for(&format!("ports by {by:?}"), PATIENCE, || {
            let told = node.json(&["netcheck"]);
            let mapping = &told["port_mapping"];
            let protocol = match by {
                Asked::Pcp => "pcp",
                Asked::NatPmp => "nat-pmp",
                Asked::Upnp | Asked::All => "upnp",
            };
            let ports = mapping["ports"].to_string();
            let is_told = told["places"]
                .to_string()
                .contains(&format!("{external}:51820"));
            let is_mapped = ["51819", "51820"]
                .iter()
                .all(|port| ports.contains(&format!("{external}:{port}")));
            ensure(
                is_mapped && is_told && mapping["answered"][0] == protocol,
                told.to_string(),
            )
        });
    }
    for (node, _, external, _) in &nodes {
        wait_path(&other, &node.name, "direct");
        wait_path(node, "other", "direct");
        wait_for("QUIC too", PATIENCE, || {
            let told = other.json(&["ping", &node.name]);
            let at = format!("{external}:51819");
            ensure(told["endpoint"] == at, told.to_string())
        });
        let at = &super::peer(&other, &node.name)["tunnel"]["way"]["at"];
        assert_eq!(*at, format!("{external}:51820"));
    }
    for (mut node, nat, _, by) in nodes {
        assert!(nat.mapped().contains("dnat"), "{by:?} {}", nat.mapped());
        node.stop();
        wait_unmapped(&nat);
    }
    drop(other_nat);
}

/// Without the key a router is asked what it speaks, and for no mapping. With it, an agent
/// that was killed has its mappings again: they are known for its own.
#[test]
fn a_router_is_asked_for_ports_where_that_is_wanted_alone() {
    if !innermesh_tests::installed(&["miniupnpd"]) {
        return;
    }
    let Some(lab) = Lab::new(2) else { return };
    let mut public = agent(&lab, 0, "public");
    let _ = public.init();
    let host = &lab.hosts[1];
    let mut nat = lab.put_behind_nat(NatKind::Symmetric, &[host]);
    let mut node = agent(&lab, 1, "node1");
    node.join(&public);
    let told = node.json(&["netcheck"]);
    let mapping = &told["port_mapping"];
    assert_eq!(
        (
            &mapping["on"],
            &mapping["router"],
            mapping["answered"].to_string().as_str()
        ),
        (&false.into(), &"192.168.77.1".into(), "[]"),
        "{told}"
    );
    let external = nat.map_on_request(&lab, host, Asked::All).to_string();
    wait_for("all three", PATIENCE, || {
        let told = node.json(&["netcheck"])["port_mapping"].to_string();
        let all = r#""answered":["pcp","nat-pmp","upnp"]"#;
        ensure(told.contains(all), told)
    });
    // Others have to have seen a NAT before it is said what helps against it.
    wait_for("advice", PATIENCE, || {
        let told = node.cli(&["netcheck"]).ok();
        let is_told = told.contains("answers PCP, NAT-PMP, UPnP; with `port_mapping = true`");
        ensure(is_told, told)
    });
    assert!(!nat.mapped().contains("dnat"), "{}", nat.mapped());
    node.stop();
    let config = format!("port_mapping = true\n{CONFIG}");
    std::fs::write(node.dir.join("config.toml"), config).expect("a file of the laboratory");
    for is_killed in [true, false] {
        node.start();
        wait_for("ports", PATIENCE, || {
            let told = node.cli(&["netcheck"]).ok();
            let tunnel = format!("UDP port 51820 of the tunnel at {external}:51820, ends in ");
            let by = "the router 192.168.77.1 maps by PCP";
            ensure(told.contains(&tunnel) && told.contains(by), told)
        });
        if is_killed {
            node.kill();
            assert!(nat.mapped().contains("dnat"));
        } else {
            node.stop();
            wait_unmapped(&nat);
        }
    }
}
