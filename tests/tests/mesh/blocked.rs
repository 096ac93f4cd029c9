//! Ports that are blocked one way: what both ends have seen tells which.

use std::time::Duration;

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, wait::ensure, wait_for};
use serde_json::Value;

/// The connection has to end first, and a minute to pass without another.
const UNCONNECTED: Duration = Duration::from_secs(240);

/// The finding of this code, as text.
fn found(agent: &Agent, code: &str) -> Option<String> {
    let status = agent.status();
    let mut all = status["findings"].as_array()?.iter();
    let one = all.find(|one| one["code"] == code)?;
    one["text"].as_str().map(str::to_owned)
}

/// Drops what arrives at this host, or leaves it, by a condition of nftables.
fn block(host: &Host, hook: &str, condition: &str) {
    let rules = format!(
        "table inet block {{\n chain c {{\n type filter hook {hook} priority -300;\n {condition} drop\n }}\n}}"
    );
    let _ = host.run(&["nft", &rules]).result().expect("nft takes it");
}

fn unblock(host: &Host) {
    let _ = host.run(&["nft", "delete table inet block"]).result();
}

#[test]
fn which_way_wireguard_is_blocked_is_told_by_what_both_ends_counted() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = lab.mesh();
    let at_beta = alpha.overlay_ipv4("beta");
    let at_alpha = beta.overlay_ipv4("alpha");
    assert_eq!(found(&alpha, "wireguard-blocked"), None);
    for (hook, condition, part) in [
        (
            "input",
            "udp dport 51820",
            "from here don't arrive at beta (UDP port 51820)",
        ),
        (
            "output",
            "udp sport 51820",
            "from beta don't arrive here at UDP port 51820",
        ),
    ] {
        wait_for("a ping through the tunnel", PATIENCE, || {
            ensure(alpha.pings(&at_beta), "no answer")
        });
        block(beta.host, hook, condition);
        wait_for(part, PATIENCE, || {
            // Packets that are to go there. Those from there may arrive, and are no
            // answers.
            let _ = alpha.pings(&at_beta);
            let _ = beta.pings(&at_alpha);
            let told = found(&alpha, "wireguard-blocked");
            ensure(
                told.as_ref().is_some_and(|told| told.contains(part)),
                alpha.status(),
            )
        });
        unblock(beta.host);
        wait_for("it to be over", PATIENCE, || {
            let _ = alpha.pings(&at_beta);
            ensure(found(&alpha, "wireguard-blocked").is_none(), alpha.status())
        });
    }
}

#[test]
fn an_agent_whose_answers_do_not_arrive_is_told_so_by_the_handshakes_that_never_end() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, beta, gamma] = lab.mesh();
    for agent in [&alpha, &beta, &gamma] {
        agent.wait_nodes(3);
    }
    // Gamma is reached by both, and tells alpha of beta.
    let from_alpha = format!(
        "ip saddr {0} udp dport 51819 drop; ip6 saddr {1} udp dport 51819 ",
        alpha.host.ipv4, alpha.host.ipv6
    );
    block(beta.host, "input", &from_alpha);
    wait_for("alpha to say what is blocked", UNCONNECTED, || {
        let told = found(&alpha, "quic-blocked");
        let part = "doesn't arrive at beta (UDP port 51819)";
        ensure(
            told.as_ref().is_some_and(|told| told.contains(part)),
            alpha.status(),
        )
    });
    // What beta can't know it doesn't say.
    let status: Value = beta.status();
    assert!(
        !status["findings"].to_string().contains("quic-blocked"),
        "{status}"
    );

    // Alpha is the only CA node; what beta asks for goes by way of gamma.
    let _ = beta.cli(&["service", "add", "wiki", "--port", "80"]).ok();
    let own = alpha.overlay_ipv4("beta");
    gamma.wait_answer(&["wiki.lab.internal", "A"], &[&own]);
}
