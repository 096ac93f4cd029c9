//! The host itself: overlay traffic leaves it by the tunnel or not at all.

use std::{io, net::IpAddr};

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, wait::ensure, wait_for};

use crate::{SERVICE, Service, asks, cable, overlay_of, shell};

/// What the kernel would do with a packet.
fn way(host: &Host, to: IpAddr) -> String {
    let done = host.run(&["ip", "route", "get", &to.to_string()]);
    format!("{}{}", done.stdout, done.stderr)
}

fn is_closed(host: &Host, to: IpAddr) {
    let way = way(host, to);
    let closed = way.contains("No route to host") || way.contains("unreachable");
    assert!(closed && !way.contains("eth0"), "{way}");
    let error = host.tcp_to((to, SERVICE).into()).expect_err("no way");
    let at_once = [
        io::ErrorKind::HostUnreachable,
        io::ErrorKind::NetworkUnreachable,
    ];
    assert!(at_once.contains(&error.kind()), "{error}");
}

#[test]
fn s25_nothing_for_the_overlay_leaves_while_the_agent_is_dead_or_has_not_begun() {
    let Some(lab) = Lab::new(2) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let mut beta = Agent::new(&lab.hosts[1], "beta");
    let _ = alpha.init();
    beta.join(&alpha);
    alpha.wait_nodes(2);
    let host = alpha.host;
    let far = overlay_of(&alpha, "beta");
    let _service = Service::start(beta.host, SERVICE);
    for ip in far {
        asks(host, ip, SERVICE);
        assert!(way(host, ip).contains("im0"));
    }
    alpha.kill();
    wait_for("the end of the device", PATIENCE, || {
        let links = host.run(&["ip", "-o", "link"]).stdout;
        ensure(!links.contains("im0"), links)
    });
    for ip in far {
        is_closed(host, ip);
        // A socket that chooses its interface gets no further.
        let ping = host.run(&[
            "ping",
            "-n",
            "-c",
            "1",
            "-W",
            "1",
            "-I",
            "eth0",
            &ip.to_string(),
        ]);
        assert_ne!(ping.code, 0, "{ping}");
    }

    // As after a boot: nothing of all that is there, and the network comes up.
    shell(
        host,
        "nft flush ruleset
         ip rule del pref 905; ip -6 rule del pref 905
         ip route flush table 105; ip -6 route flush table 105",
    );
    for ip in far {
        let way = way(host, ip);
        assert!(way.contains("eth0"), "the fault: {way}");
    }
    let _ = alpha.cli(&["overlay", "load"]).ok();
    for ip in far {
        is_closed(host, ip);
    }
    let rules = shell(host, "nft list ruleset");
    assert!(rules.contains("table inet innermesh"), "{rules}");
    alpha.start();
    for ip in far {
        asks(host, ip, SERVICE);
    }
}

#[test]
fn s25_a_more_specific_route_of_somebody_else_takes_nothing_out_of_the_tunnel() {
    let Some(lab) = Lab::new(3) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let mut beta = Agent::new(&lab.hosts[1], "beta");
    let _ = alpha.init();
    beta.join(&alpha);
    alpha.wait_nodes(2);
    let far = overlay_of(&alpha, "beta");
    let _service = Service::start(beta.host, SERVICE);
    cable(&lab, &lab.hosts[2], alpha.host, &[]);
    shell(
        alpha.host,
        &format!(
            "ip route add {} dev direct; ip route add {} dev direct",
            far[0], far[1]
        ),
    );
    let own = overlay_of(&alpha, "alpha");
    for (ip, from) in far.into_iter().zip(own) {
        assert!(
            way(alpha.host, ip).contains("im0"),
            "{}",
            way(alpha.host, ip)
        );
        assert_eq!(asks(alpha.host, ip, SERVICE), from);
    }
}

#[test]
fn what_others_flush_is_put_back_and_what_others_have_set_stays() {
    let Some(lab) = Lab::new(1) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let _ = alpha.init();
    let host = alpha.host;
    let all = || {
        format!(
            "{}{}{}",
            shell(
                host,
                "nft -s list table inet innermesh; nft -s list table arp innermesh"
            ),
            shell(host, "ip rule show pref 905; ip -6 rule show pref 905"),
            shell(host, "ip route show table 105; ip -6 route show table 105"),
        )
    };
    let before = all();
    assert_eq!(before.matches("lookup 105").count(), 2, "{before}");
    assert_eq!(before.matches("unreachable").count(), 2, "{before}");
    assert_eq!(before.matches("dev im0").count(), 2, "{before}");
    shell(
        host,
        "nft add table inet mine
         ip rule add pref 900 to 203.0.113.0/24 lookup 105
         ip route add unreachable 203.0.113.0/24 table 105",
    );
    for flushed in [
        "nft delete table inet innermesh",
        "nft flush chain inet innermesh leaving",
        "nft flush ruleset",
        "ip rule del pref 905",
        "ip -6 rule del pref 905",
        "ip route del unreachable $(ip route show table 105 | sed -n 's/^unreachable \\([0-9./]*\\) proto 105.*/\\1/p') table 105",
        "ip route flush table 105 proto 105",
        "ip -6 route flush table 105",
    ] {
        shell(host, flushed);
        wait_for(&format!("what `{flushed}` took"), PATIENCE, || {
            let shown = host.run(&["sh", "-c", "nft -s list table inet innermesh; nft -s list table arp innermesh; ip rule show pref 905; ip -6 rule show pref 905; ip route show table 105 proto 105; ip -6 route show table 105 proto 105"]);
            let after = shown.stdout;
            let lines = |text: &str| -> Vec<String> {
                let lines = text.lines().map(|line| line.replace("proto 105 ", ""));
                lines.map(|line| line.trim_end().to_owned()).collect()
            };
            let (after, before) = (lines(&after), lines(&before));
            ensure(after == before, format!("{after:#?}"))
        });
    }
    let others = shell(host, "ip rule show pref 900; ip route show table 105");
    assert!(others.contains("203.0.113.0/24 lookup 105"), "{others}");
    assert!(others.contains("unreachable 203.0.113.0/24"), "{others}");
    // `flush ruleset` took it, and nobody else.
    shell(host, "nft add table inet mine");
    let log = alpha.log();
    assert!(!log.contains("isn't closed"), "{log}");
}

#[test]
fn a_machine_that_leaves_keeps_nothing_of_the_overlay() {
    let Some(lab) = Lab::new(2) else { return };
    let mut alpha = Agent::new(&lab.hosts[0], "alpha");
    let mut beta = Agent::new(&lab.hosts[1], "beta");
    let _ = alpha.init();
    beta.join(&alpha);
    beta.wait_nodes(2);
    let host = beta.host;
    assert!(find(&beta, "overlay.json"));
    let _ = beta.cli(&["leave"]).ok();
    wait_for("an empty host", PATIENCE, || {
        let left = host.run(&[
            "sh",
            "-c",
            "nft list ruleset; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all",
        ]);
        let shown = left.stdout;
        ensure(
            !shown.contains("innermesh") && !shown.contains("105"),
            shown,
        )
    });
    assert!(!find(&beta, "overlay.json"));
}

fn find(agent: &Agent, name: &str) -> bool {
    let dir = agent.dir.to_string_lossy();
    let found = agent.host.run(&["find", &dir, "-name", name]).stdout;
    !found.trim().is_empty()
}

#[test]
fn without_nftables_status_says_what_is_open() {
    let Some(lab) = Lab::new(1) else { return };
    let host = &lab.hosts[0];
    shell(
        host,
        "mkdir -p /run/none
         for folder in /usr/sbin /usr/bin /usr/local/sbin /usr/local/bin; do
             [ -e $folder/nft ] && mount --bind /dev/null $folder/nft || true
         done",
    );
    let mut alpha = Agent::new(host, "alpha");
    let _ = alpha.init();
    let status = alpha.status();
    assert_eq!(status["overlay"]["filter"], false, "{status}");
    assert_eq!(status["overlay"]["routes"], true, "{status}");
    let warnings = status["warnings"].to_string();
    assert!(
        warnings.contains("isn't closed to other networks"),
        "{warnings}"
    );
}
