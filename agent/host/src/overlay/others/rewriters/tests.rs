use std::collections::BTreeSet;

use innermesh_proto::filter::{GatewayFilter, HostNetworks, Interface, Lan};

use super::*;

fn plan() -> FilterPlan {
    let interface = |name: &str| Interface::try_from(name.to_owned()).unwrap();
    let mut plan = FilterPlan::new(
        interface("im0"),
        ["10.77.0.0/16", "fd77:77:77::/48"]
            .map(|net| net.parse().unwrap())
            .into(),
        BTreeSet::new(),
        BTreeSet::new(),
        &HostNetworks::default(),
        |_| false,
    );
    plan.gateway = Some(GatewayFilter {
        devices: BTreeSet::new(),
        lans: [Lan {
            interface: interface("eth0"),
            net: "192.168.1.0/24".parse().unwrap(),
        }]
        .into(),
    });
    plan
}

/// A ruleset with these rules behind NAT's hook, each its expressions.
fn ruleset(family: &str, table: &str, chain: &str, rules: &[&str]) -> String {
    let base = format!(
        r#"{{"chain": {{"family": "{family}", "table": "{table}", "name": "{chain}",
            "handle": 1, "type": "nat", "hook": "postrouting", "prio": 100,
            "policy": "accept"}}}}"#
    );
    let rules = rules.iter().zip(2..).map(|(expr, handle)| {
        format!(
            r#"{{"rule": {{"family": "{family}", "table": "{table}", "chain": "{chain}",
                "handle": {handle}, "expr": [{expr}]}}}}"#
        )
    });
    let all: Vec<String> = std::iter::once(base).chain(rules).collect();
    format!(r#"{{"nftables": [{}]}}"#, all.join(", "))
}

fn found(ruleset: &str) -> Vec<(Rewritten, Option<String>)> {
    let all = rewriters(&plan(), ruleset, "").into_iter();
    all.map(|one| (one.what, one.command)).collect()
}

const MASQUERADE: &str = r#"{"xt": {"type": "target", "name": "MASQUERADE"}}"#;

fn meta(key: &str, op: &str, name: &str) -> String {
    format!(
        r#"{{"match": {{"op": "{op}", "left": {{"meta": {{"key": "{key}"}}}}, "right": "{name}"}}}}"#
    )
}

fn address(field: &str, op: &str, net: &str) -> String {
    let (addr, len) = net.split_once('/').unwrap();
    format!(
        r#"{{"match": {{"op": "{op}", "left": {{"payload": {{"protocol": "ip",
            "field": "{field}"}}}}, "right": {{"prefix": {{"addr": "{addr}", "len": {len}}}}}}}}}"#
    )
}

#[test]
fn a_stray_masquerade_towards_the_lan_is_found_with_what_exempts_the_overlay() {
    let rule = format!("{}, {MASQUERADE}", meta("oifname", "==", "eth0"));
    let found = found(&ruleset("ip", "nat", "POSTROUTING", &[&rule]));
    let exempt = "iptables -t nat -I POSTROUTING -s 10.77.0.0/16 -j ACCEPT && iptables -t nat \
                  -I POSTROUTING -d 10.77.0.0/16 -j ACCEPT";
    assert_eq!(found, [(Rewritten::ToLan, Some(exempt.to_owned()))]);
}

#[test]
fn a_rule_for_containers_or_another_interface_is_none_of_them() {
    let docker = format!(
        "{}, {}, {MASQUERADE}",
        address("saddr", "==", "172.17.0.0/16"),
        meta("oifname", "!=", "docker0")
    );
    let uplink = format!("{}, {MASQUERADE}", meta("oifname", "==", "wan0"));
    let marked = format!(
        r#"{{"match": {{"op": "==", "left": {{"meta": {{"key": "mark"}}}}, "right": 7}}}}, {MASQUERADE}"#
    );
    let matched = format!(r#"{{"xt": {{"type": "match", "name": "mark"}}}}, {MASQUERADE}"#);
    for rule in [docker, uplink, marked, matched] {
        assert_eq!(found(&ruleset("ip", "nat", "POSTROUTING", &[&rule])), []);
    }
    assert_eq!(rewriters(&plan(), "", ""), []);
    assert_eq!(rewriters(&plan(), "{}", ""), []);
}

#[test]
fn an_exemption_before_it_counts_and_so_does_a_wider_network() {
    let exempt = |end| {
        format!(
            r#"{}, {{"accept": null}}"#,
            address(end, "==", "10.77.0.0/16")
        )
    };
    let wide = format!("{}, {MASQUERADE}", address("saddr", "==", "10.0.0.0/8"));
    let whats = |rules: &[&str]| -> Vec<Rewritten> {
        let found = found(&ruleset("ip", "nat", "POSTROUTING", rules));
        found.into_iter().map(|(what, _)| what).collect()
    };
    assert_eq!(whats(&[&wide]), [Rewritten::ToLan, Rewritten::Within]);
    assert_eq!(whats(&[&exempt("saddr"), &wide]), []);
    let all = [&*exempt("saddr"), MASQUERADE];
    assert_eq!(whats(&all), [Rewritten::FromLan]);
    assert_eq!(whats(&[&exempt("daddr"), MASQUERADE]), [Rewritten::ToLan]);
    // Of a part of the overlay too.
    let part = format!("{}, {MASQUERADE}", address("saddr", "==", "10.77.3.0/24"));
    assert_eq!(whats(&[&part]), [Rewritten::ToLan, Rewritten::Within]);
}

#[test]
fn firewalld_and_tables_of_nftables_are_told_by_their_own_commands() {
    let zone = ruleset(
        "inet",
        "firewalld",
        "nat_POST_external_allow",
        &[&format!(
            r#"{}, {}, {{"masquerade": null}}"#,
            meta("nfproto", "==", "ipv4"),
            meta("oifname", "!=", "lo")
        )],
    );
    let remedy = "firewall-cmd --permanent --zone=external --remove-masquerade && firewall-cmd \
                  --reload";
    let told = found(&zone);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told.iter()
            .all(|(_, command)| command.as_deref() == Some(remedy))
    );
    let own = ruleset("inet", "router", "out", &[r#"{"masquerade": null}"#]);
    let told = found(&own);
    let remedy = "nft delete rule inet router out handle 2";
    assert!(
        told.iter()
            .all(|(_, command)| command.as_deref() == Some(remedy))
    );
    let odd = ruleset("inet", "x; reboot", "out", &[r#"{"masquerade": null}"#]);
    let told = rewriters(&plan(), &odd, "");
    assert!(told.iter().all(|one| one.command.is_none()), "{told:?}");
    assert!(!format!("{told:?}").contains("reboot"));
}

#[test]
fn the_older_iptables_is_read_as_it_saves_itself() {
    let saved = "*nat\n:POSTROUTING ACCEPT [0:0]\n\
                 -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n\
                 -A POSTROUTING -o eth0 -m comment --comment \"to the world\" -j HOME\n\
                 -A HOME -m mark --mark 0x7 -j MASQUERADE\n\
                 -A HOME -p tcp -m tcp --dport 25 -j SNAT --to-source 192.168.1.5\nCOMMIT\n";
    let told = rewriters(&plan(), "", saved);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].what, Rewritten::ToLan);
    assert_eq!(told[0].owner, "the chain HOME of iptables-legacy");
    let v6 = "IPV6\n*nat\n-A POSTROUTING -o eth0 -j MASQUERADE\n";
    assert_eq!(
        rewriters(&plan(), "", v6),
        [],
        "no LAN of IPv6 is announced"
    );
    let v6 = "IPV6\n*nat\n-A POSTROUTING -o im+ -j MASQUERADE\n";
    let told = rewriters(&plan(), "", v6);
    assert_eq!(told[0].what, Rewritten::Within);
    assert!(
        told[0]
            .command
            .as_deref()
            .unwrap()
            .starts_with("ip6tables-legacy -t nat")
    );
}
