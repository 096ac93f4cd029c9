//! The host itself: overlay traffic leaves it by the tunnel or not at all.

use std::{io, net::IpAddr};

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, wait::ensure, wait_for};

use crate::world::{SERVICE, Service, asks, cable, overlay_of, pair, reaches_not, shell};

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
    let (mut alpha, beta) = pair(&lab);
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
    let (alpha, beta) = pair(&lab);
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
    let [alpha] = lab.mesh();
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
    let warnings = alpha.status()["warnings"].to_string();
    assert!(
        warnings.contains("another program removed or changed"),
        "{warnings}"
    );
    let log = alpha.log();
    assert!(!log.contains("isn't closed"), "{log}");
}

#[test]
fn a_machine_that_leaves_keeps_nothing_of_the_overlay() {
    let Some(lab) = Lab::new(2) else { return };
    let (_alpha, beta) = pair(&lab);
    let host = beta.host;
    assert!(find(&beta, "overlay.json"));
    let _ = beta.cli(&["leave", "--yes"]).ok();
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

/// In the place of each `nft` of a host: nothing that can be run, or a program
/// that the kernel refuses.
fn without_nft(host: &Host, refused: bool) {
    let program = if refused {
        "printf '#!/bin/sh\\necho \"Error: Operation not permitted\" >&2\\nexit 1\\n'"
    } else {
        "true"
    };
    shell(
        host,
        &format!(
            "{program} >/run/no-nft; chmod 755 /run/no-nft
             [ {refused} = true ] || chmod 644 /run/no-nft
             for folder in $(readlink -f /usr/sbin /sbin /usr/bin /usr/local/sbin /usr/local/bin | sort -u); do
                 [ ! -e $folder/nft ] || mount --bind /run/no-nft $folder/nft
             done"
        ),
    );
}

fn with_nft(host: &Host) {
    shell(
        host,
        "for folder in $(readlink -f /usr/sbin /sbin /usr/bin /usr/local/sbin /usr/local/bin | sort -u); do
             [ ! -e $folder/nft ] || umount $folder/nft
         done",
    );
}

#[test]
fn without_nftables_status_says_what_is_open_and_with_it_that_is_closed() {
    let Some(lab) = Lab::new(3) else { return };
    let (mut alpha, beta) = pair(&lab);
    let (host, stranger) = (alpha.host, &lab.hosts[2]);
    let (own, far) = (overlay_of(&alpha, "alpha"), overlay_of(&alpha, "beta"));
    let _on_alpha = Service::start(host, SERVICE);
    let _on_beta = Service::start(beta.host, SERVICE);
    cable(&lab, stranger, host, &own);
    let others = "nft add table inet mine; nft add chain inet mine empty";
    for (refused, says) in [(false, "can't be run"), (true, "Operation not permitted")] {
        alpha.stop();
        shell(host, &format!("nft flush ruleset; {others}"));
        without_nft(host, refused);
        alpha.start();
        let status = alpha.status();
        assert_eq!(status["overlay"]["filter"], false, "{status}");
        assert_eq!(status["overlay"]["routes"], true, "{status}");
        let warnings = status["warnings"].to_string();
        let told = "hosts on a LAN reach this node's overlay addresses";
        assert!(
            warnings.contains("isn't closed to other networks")
                && warnings.contains(told)
                && warnings.contains(says),
            "{warnings}"
        );
        for family in [0, 1] {
            // Just that is open, and the tunnel works.
            asks(stranger, own[family], SERVICE);
            assert!(way(host, far[family]).contains("im0"));
            assert_eq!(asks(host, far[family], SERVICE), own[family]);
        }
        // Nothing leaves without the tunnel, by routes alone.
        alpha.stop();
        for ip in far {
            is_closed(host, ip);
        }
        alpha.start();
        with_nft(host);
        wait_for("the filter", PATIENCE, || {
            let status = alpha.status();
            let open = status["warnings"].to_string().contains("isn't closed");
            ensure(status["overlay"]["filter"] == true && !open, status)
        });
        for ip in own {
            reaches_not(stranger, ip, SERVICE);
        }
        shell(host, "nft list chain inet mine empty");
    }
}
