//! Filters of others that drop what ours lets pass: `status` says whose they
//! are and what opens them, and what it says does.

use innermesh_tests::{
    Agent, Host, Lab, Process, agent::PATIENCE, installed, wait::ensure, wait_for,
};

use crate::{
    subnets::{brings, finding, no_finding},
    world::{SERVICE, Service, asks, cable, overlay_of, pair, shell},
};

/// Commands that `status` tells to run against filters of others.
fn told(agent: &Agent) -> Vec<(String, String)> {
    let status = agent.status();
    let warnings = status["warnings"].as_array().into_iter().flatten();
    let warnings = warnings.filter_map(|warning| {
        let warning = warning.as_str()?;
        let (_, rest) = warning.split_once(" run `")?;
        let (command, _) = rest.split_once('`')?;
        let drops = warning.contains(" drops ");
        drops.then(|| (warning.to_owned(), command.to_owned()))
    });
    warnings.collect()
}

/// Tries until `agent` tells of all of `owners` what opens it, runs that, and
/// is told of nothing more. Returns the commands.
pub fn opens(agent: &Agent, owners: &[&str], tries: impl Fn()) -> Vec<String> {
    let host = agent.host;
    let all = wait_for("what drops, and what opens it", PATIENCE, || {
        tries();
        let all = told(agent);
        let found = |owner: &&str| all.iter().any(|(warning, _)| warning.starts_with(*owner));
        ensure(owners.iter().all(found), format!("{all:?}")).map(|()| all)
    });
    let commands: Vec<String> = all.into_iter().map(|(_, command)| command).collect();
    for command in &commands {
        shell(host, command);
    }
    let left = told(agent);
    assert!(left.is_empty(), "{left:?}");
    commands
}

/// Whether a connection comes about.
fn is_open(host: &Host, ip: std::net::IpAddr) -> bool {
    let (to, port) = (ip.to_string(), SERVICE.to_string());
    let script = "exec 3<>/dev/tcp/$0/$1";
    let done = host.run(&["timeout", "2", "bash", "-c", script, &to, &port]);
    done.code == 0
}

/// A folder and files of a firewall's, as this host has them for itself.
fn of_its_own(host: &Host, paths: &[&str]) {
    for path in paths {
        let copy = host.directory.join(path.replace('/', "_"));
        let copy = copy.to_string_lossy();
        shell(
            host,
            &format!("cp -a {path} {copy}; mount --bind {copy} {path}"),
        );
    }
}

/// Everybody's rules but ours.
fn of_others(host: &Host) -> String {
    let all = shell(host, "nft -s list ruleset 2>/dev/null");
    let mut ours = false;
    let others = all.lines().filter(|line| {
        if line.starts_with("table ") {
            ours = line.contains(" innermesh ");
        }
        !ours
    });
    others.fold(String::new(), |all, line| all + line + "\n")
}

#[test]
fn a_filter_that_drops_what_members_send_is_told_with_the_command_that_opens_it() {
    let Some(lab) = Lab::new(2) else { return };
    let (alpha, beta) = pair(&lab);
    let (own, far) = (overlay_of(&beta, "alpha"), overlay_of(&alpha, "beta"));
    let _on_alpha = Service::start(alpha.host, SERVICE);
    let _on_beta = Service::start(beta.host, SERVICE);
    shell(
        alpha.host,
        "nft -f - <<'RULES'
         table inet mine {
             chain in {
                 type filter hook input priority 0; policy drop;
                 ct state established accept
                 iifname \"lo\" accept
                 meta l4proto ipv6-icmp accept
                 udp dport { 51819, 51820 } accept
             }
             chain out {
                 type filter hook output priority 0; policy drop;
                 ct state established accept
                 oifname { \"lo\", \"eth0\" } accept
             }
         }
RULES",
    );
    assert!(told(&alpha).is_empty(), "nobody has tried yet");
    let before = of_others(alpha.host);
    let commands = opens(&alpha, &["the nftables table inet mine"], || {
        for (own, far) in own.into_iter().zip(far) {
            assert!(!is_open(beta.host, own));
            assert!(!is_open(alpha.host, far));
        }
        assert_eq!(of_others(alpha.host), before, "others' rules stay");
    });
    assert_eq!(
        commands,
        [
            "nft insert rule inet mine in iifname im0 accept",
            "nft insert rule inet mine out oifname im0 accept"
        ]
    );
    for (ip, from) in own.into_iter().zip(far) {
        assert_eq!(asks(beta.host, ip, SERVICE), from);
        assert_eq!(asks(alpha.host, from, SERVICE), ip);
    }
    let counted = &alpha.status()["overlay"]["dropped_by_others"];
    for way in ["in4", "in6", "out4", "out6"] {
        assert!(counted[way].as_u64() > Some(0), "{counted}");
    }
}

#[test]
fn ufw_is_told_with_its_own_command() {
    let Some(lab) = Lab::new(2) else { return };
    if !installed(&["ufw"]) {
        return;
    }
    let (alpha, beta) = pair(&lab);
    let (own, far) = (overlay_of(&beta, "alpha"), overlay_of(&alpha, "beta"));
    let _on_alpha = Service::start(alpha.host, SERVICE);
    of_its_own(alpha.host, &["/etc/ufw", "/etc/default/ufw"]);
    shell(alpha.host, "ufw allow 51819:51820/udp; ufw --force enable");
    let commands = opens(&alpha, &["ufw drops"], || {
        for ip in own {
            assert!(!is_open(beta.host, ip));
        }
    });
    assert_eq!(commands, ["ufw allow in on im0"]);
    for (ip, from) in own.into_iter().zip(far) {
        assert_eq!(asks(beta.host, ip, SERVICE), from);
    }
}

/// firewalld and the bus that it needs, after a script.
fn firewalld(host: &Host, script: &str) -> [Process; 2] {
    of_its_own(host, &["/etc/firewalld"]);
    shell(host, &format!("mkdir -p /run/dbus; {script}"));
    let bus = host.start(
        "dbus",
        &["dbus-daemon", "--system", "--nofork", "--nopidfile"],
        &[],
    );
    wait_for("the bus", PATIENCE, || {
        host.run(&["test", "-S", "/run/dbus/system_bus_socket"])
            .result()
    });
    let firewalld = host.start("firewalld", &["firewalld", "--nofork", "--nopid"], &[]);
    wait_for("firewalld", PATIENCE, || {
        host.run(&["firewall-cmd", "--state"]).result()
    });
    [firewalld, bus]
}

#[test]
fn s23_a_zone_of_firewalld_that_masquerades_a_gateway_s_lan_is_told_with_its_own_command() {
    let Some(lab) = Lab::new(3) else { return };
    if !installed(&["firewalld", "firewall-cmd", "dbus-daemon"]) {
        return;
    }
    let (alpha, beta) = pair(&lab);
    cable(&lab, &lab.hosts[2], beta.host, &[]);
    brings(&alpha, &beta);
    // Of its zones, that one masquerades from the start.
    let _both = firewalld(
        beta.host,
        "firewall-offline-cmd --add-port=51819-51820/udp
         firewall-offline-cmd --zone=external --add-interface=direct",
    );
    let told = finding(&beta, "masquerade");
    let text = told["text"].as_str().expect("a text");
    assert!(text.starts_with("firewalld"), "{text}");
    let remedy = told["remedy"].as_str().expect("a remedy");
    let command = remedy.split('`').nth(1).expect("a command");
    assert_eq!(
        command,
        "firewall-cmd --permanent --zone=external --remove-masquerade && firewall-cmd --reload"
    );
    shell(beta.host, command);
    no_finding(&beta, "masquerade");
}

#[test]
fn firewalld_is_told_with_its_own_command() {
    let Some(lab) = Lab::new(2) else { return };
    if !installed(&["firewalld", "firewall-cmd", "dbus-daemon"]) {
        return;
    }
    let (alpha, beta) = pair(&lab);
    let (own, far) = (overlay_of(&beta, "alpha"), overlay_of(&alpha, "beta"));
    let host = alpha.host;
    let _on_alpha = Service::start(host, SERVICE);
    let _both = firewalld(host, "firewall-offline-cmd --add-port=51819-51820/udp");
    let commands = opens(&alpha, &["firewalld drops"], || {
        for ip in own {
            assert!(!is_open(beta.host, ip));
        }
    });
    assert_eq!(
        commands,
        ["firewall-cmd --permanent --zone=trusted --add-interface=im0 && firewall-cmd --reload"]
    );
    for (ip, from) in own.into_iter().zip(far) {
        assert_eq!(asks(beta.host, ip, SERVICE), from);
    }
}
