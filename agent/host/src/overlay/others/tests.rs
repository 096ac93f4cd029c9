use super::*;

fn tunnel() -> Interface {
    "im0".to_owned().try_into().unwrap()
}

fn droppers(passage: Passage, v4: bool, ruleset: &str) -> Vec<Other> {
    let lost = conclude(&[((passage, v4), 3)].into(), ruleset, false, &tunnel());
    assert_eq!((lost.len(), lost[0].packets), (1, 3));
    lost[0].by.clone()
}

fn base(family: &str, table: &str, name: &str, hook: &str, policy: &str) -> String {
    format!(
        r#"{{"chain": {{"family": "{family}", "table": "{table}", "name": "{name}", "handle": 1,
            "type": "filter", "hook": "{hook}", "prio": 0, "policy": "{policy}"}}}}"#
    )
}

fn chain(family: &str, table: &str, name: &str) -> String {
    format!(
        r#"{{"chain": {{"family": "{family}", "table": "{table}", "name": "{name}", "handle": 1}}}}"#
    )
}

fn rule(family: &str, table: &str, chain: &str, expr: &str) -> String {
    format!(
        r#"{{"rule": {{"family": "{family}", "table": "{table}", "chain": "{chain}", "handle": 2,
            "expr": [{expr}]}}}}"#
    )
}

fn ruleset(items: &[String]) -> String {
    format!(
        r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6"}}}}, {}]}}"#,
        items.join(", ")
    )
}

fn commands(found: &[Other]) -> Vec<&str> {
    let all = found.iter().filter_map(|other| other.command.as_deref());
    all.collect()
}

const COMES_BY: &str =
    r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "im0"}}"#;

#[test]
fn only_what_is_missing_behind_others_is_lost() {
    let read = |all: &[(&str, u64)]| -> BTreeMap<String, u64> {
        all.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()
    };
    let before = read(&[
        ("in4_before", 7),
        ("out6_before", 4),
        ("through4_before", 1),
    ]);
    let behind = read(&[("in4_behind", 5), ("out6_behind", 9)]);
    assert_eq!(
        missing(&before, &behind),
        [((Passage::In, true), 2)].into(),
        "a later reading may say more, and one that lacks says nothing"
    );
}

#[test]
fn a_policy_of_iptables_is_found_for_its_family_and_hook() {
    let said = ruleset(&[
        base("ip", "filter", "INPUT", "input", "drop"),
        base("ip6", "filter", "INPUT", "input", "accept"),
        base("ip", "filter", "FORWARD", "forward", "accept"),
    ]);
    assert_eq!(
        commands(&droppers(Passage::In, true, &said)),
        ["iptables -I INPUT -i im0 -j ACCEPT"]
    );
    for (passage, v4) in [(Passage::In, false), (Passage::Through, true)] {
        let found = droppers(passage, v4, &said);
        assert_eq!(found[0].owner, Owner::Unknown, "{found:?}");
    }
}

#[test]
fn docker_ufw_and_firewalld_are_opened_by_their_own_commands() {
    let docker = [
        base("ip", "filter", "FORWARD", "forward", "drop"),
        chain("ip", "filter", "DOCKER-USER"),
    ];
    assert_eq!(
        commands(&droppers(Passage::Through, true, &ruleset(&docker))),
        ["iptables -I DOCKER-USER -i im0 -j ACCEPT && iptables -I DOCKER-USER -o im0 -j ACCEPT"]
    );
    let ufw = [
        base("ip6", "filter", "INPUT", "input", "drop"),
        chain("ip6", "filter", "ufw6-before-input"),
        rule(
            "ip6",
            "filter",
            "INPUT",
            r#"{"jump": {"target": "ufw6-before-input"}}"#,
        ),
    ];
    assert_eq!(
        commands(&droppers(Passage::In, false, &ruleset(&ufw))),
        ["ufw allow in on im0"]
    );
    let firewalld = [
        base("inet", "firewalld", "filter_INPUT", "input", "accept"),
        rule(
            "inet",
            "firewalld",
            "filter_INPUT",
            r#"{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}"#,
        ),
    ];
    for v4 in [true, false] {
        assert_eq!(
            commands(&droppers(Passage::In, v4, &ruleset(&firewalld))),
            [
                "firewall-cmd --permanent --zone=trusted --add-interface=im0 && firewall-cmd --reload"
            ]
        );
    }
}

#[test]
fn a_zone_of_firewalld_is_meant_for_every_way_whatever_was_lost_while_it_was_reloaded() {
    let mut said = vec![
        base("inet", "firewalld", "filter_INPUT", "input", "accept"),
        base("inet", "firewalld", "filter_OUTPUT", "output", "accept"),
        rule(
            "inet",
            "firewalld",
            "filter_OUTPUT",
            r#"{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}"#,
        ),
    ];
    assert_eq!(droppers(Passage::Out, true, &ruleset(&said)).len(), 1);
    said.push(rule("inet", "firewalld", "filter_INPUT", COMES_BY));
    for v4 in [true, false] {
        assert_eq!(droppers(Passage::Out, v4, &ruleset(&said)), []);
    }
}

#[test]
fn a_filter_that_names_the_tunnel_is_meant_so() {
    let mut said = vec![
        base("inet", "mine", "in", "input", "accept"),
        chain("inet", "mine", "more"),
        rule("inet", "mine", "in", r#"{"goto": {"target": "more"}}"#),
        rule("inet", "mine", "more", r#"{"drop": null}"#),
    ];
    assert_eq!(
        commands(&droppers(Passage::In, true, &ruleset(&said))),
        ["nft insert rule inet mine in iifname im0 accept"]
    );
    said.push(rule("inet", "mine", "more", COMES_BY));
    assert_eq!(droppers(Passage::In, true, &ruleset(&said)), []);
    let forward = [
        base("inet", "mine", "across", "forward", "drop"),
        rule("inet", "mine", "across", COMES_BY),
    ];
    assert_eq!(
        droppers(Passage::Through, true, &ruleset(&forward)).len(),
        1,
        "one way only"
    );
    for (name, named) in [("im*", true), ("*", false), ("im00", false), ("i*", true)] {
        assert_eq!(is_named(name, &tunnel()), named, "{name}");
    }
}

#[test]
fn our_own_tables_and_odd_names_get_into_no_command() {
    let said = ruleset(&[
        base("inet", TABLE, "early", "input", "drop"),
        base("inet", "x; reboot", "in", "input", "drop"),
    ]);
    let found = droppers(Passage::In, true, &said);
    assert_eq!(commands(&found), [""; 0]);
    assert!(!format!("{}", found[0].owner).contains("reboot"));
    for bad in ["", "{}", "[]", r#"{"nftables": [{"rule": 7}]}"#] {
        let found = droppers(Passage::In, true, bad);
        assert_eq!(found[0].owner, Owner::Unknown);
    }
}

#[test]
fn tables_that_nftables_does_not_list_are_those_of_the_older_iptables() {
    let missing = [((Passage::Out, false), 1)].into();
    let lost = conclude(
        &missing,
        &ruleset(&[chain("ip", "nat", "X")]),
        true,
        &tunnel(),
    );
    assert_eq!(
        commands(&lost[0].by),
        ["ip6tables-legacy -I OUTPUT -o im0 -j ACCEPT"]
    );
}
