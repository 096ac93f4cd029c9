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
                Asked::Upnp => "upnp",
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
        let told = other.json(&["ping", &node.name]);
        assert_eq!(told["endpoint"], format!("{external}:51819"), "{told}");
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
