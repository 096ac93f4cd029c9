//! Exits: the internet sees the exit, LANs are kept or cut, nothing leaves by another
//! way while the exit or the agent is down, and all is put back.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use innermesh_tests::{Agent, Host, Lab, agent::PATIENCE, dns, wait::ensure, wait_for};

use crate::{
    subnets::{codes, finding, no_finding},
    world::{SERVICE, Service, Widened, address, asks, overlay_of, pair, pair_with, shell},
};

/// The first host's addresses in its LAN, and the second's.
const HOME: [[&str; 2]; 2] = [["192.168.7.1", "192.168.7.2"], ["fd00:7::1", "fd00:7::2"]];
/// Of a service on the host that uses an exit.
const INWARD: u16 = 9001;

/// A LAN of two hosts.
fn home(lab: &Lab, first: &Host, second: &Host) {
    lab.connect_directly(first, second);
    for (host, number) in [(first, 0), (second, 1)] {
        let [v4, v6] = HOME.map(|family| family[number]);
        shell(
            host,
            &format!(
                "ip address flush dev direct scope global
                 ip address add {v4}/24 dev direct
                 ip address add {v6}/64 dev direct nodad"
            ),
        );
    }
}

fn outer(host: &Host) -> [IpAddr; 2] {
    [host.ipv4.into(), host.ipv6.into()]
}

/// Has a node use an exit, once it knows of it.
fn uses(agent: &Agent, exit: &str, more: &[&str]) {
    wait_for("the exit to be used", PATIENCE, || {
        let words = ["exit", "use", exit];
        agent.cli(&[&words[..], more].concat()).result()
    });
}

fn makes_exit(admin: &Agent, node: &str) {
    let _ = admin.cli(&["role", "add", node, "exit"]).ok();
}

/// Counts what comes to a host from some addresses.
struct Wire<'lab>(&'lab Host);

impl<'lab> Wire<'lab> {
    fn of(host: &'lab Host, from: &Host) -> Self {
        let [v4, v6] = outer(from);
        shell(
            host,
            &format!(
                "nft add table inet wire
                 nft 'add chain inet wire in {{ type filter hook prerouting priority -400; }}'
                 nft 'add rule inet wire in ip saddr {v4} counter'
                 nft 'add rule inet wire in ip6 saddr {v6} icmpv6 type != {{ nd-neighbor-solicit, nd-neighbor-advert }} counter'
                 nft 'add rule inet wire in ip6 saddr {v6} meta l4proto != ipv6-icmp counter'"
            ),
        );
        Self(host)
    }

    fn packets(&self) -> u64 {
        let rules = shell(self.0, "nft list table inet wire");
        let counted = rules.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip_while(|w| *w != "packets");
            words.nth(1)?.parse::<u64>().ok()
        });
        counted.sum()
    }
}

/// Tries to get something out, in ways that programs have: connections, questions to
/// a public name server, and packets on an interface that the program chose.
fn tries(host: &Host, far: [IpAddr; 2]) {
    for far in far {
        let opened = host.tcp_to((far, SERVICE).into());
        assert!(opened.is_err(), "{far} is reached");
        if let Ok(socket) = host.udp_to((far, 53).into()) {
            let _ = socket.send(&dns::query(7, "example.org"));
        }
        let far = far.to_string();
        let ping = |more: &[&str]| {
            let words = ["ping", "-c", "1", "-W", "1"];
            let done = host.run(&[&words[..], more, &[&far]].concat());
            assert_ne!(done.code, 0, "{far} answers: {done}");
        };
        ping(&[]);
        ping(&["-I", "eth0"]);
    }
}

fn setting(host: &Host, path: &str) -> String {
    shell(host, &format!("cat /proc/sys/net/{path}"))
        .trim()
        .to_owned()
}

/// What the kernel has of ours for exits.
fn left(host: &Host) -> String {
    shell(
        host,
        "ip rule; ip -6 rule
         ip route show table 106 2>/dev/null || :; ip -6 route show table 106 2>/dev/null || :
         cat /proc/sys/net/ipv4/conf/all/src_valid_mark",
    )
}

#[test]
fn s23_the_internet_sees_the_exit_and_lans_are_kept_or_cut_and_off_puts_all_back() {
    let Some(lab) = Lab::new(4) else { return };
    let (alpha, beta) = pair(&lab);
    let (internet, lan) = (&lab.hosts[2], &lab.hosts[3]);
    home(&lab, alpha.host, lan);
    // As the distributions of Red Hat have it.
    shell(
        alpha.host,
        "echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter
         echo 1 >/proc/sys/net/ipv4/conf/eth0/rp_filter",
    );
    let settings = ["ipv4/conf/im0/forwarding", "ipv4/conf/eth0/forwarding"];
    let before_exit = settings.map(|path| setting(beta.host, path));
    let before = left(alpha.host);
    let _far = Service::start(internet, SERVICE);
    let _near = Service::start(lan, SERVICE);
    let _own = Service::start(alpha.host, INWARD);
    let _inside = Service::start(beta.host, SERVICE);
    let far = outer(internet);
    for (far, own) in far.into_iter().zip(outer(alpha.host)) {
        assert_eq!(asks(alpha.host, far, SERVICE), own);
    }

    for (node, why) in [
        ("beta", "agent role add beta exit"),
        ("alpha", "is this node"),
        ("betta", "did you mean beta"),
    ] {
        alpha.refused(&["exit", "use", node], why);
    }
    assert_eq!(left(alpha.host), before, "nothing was changed");
    makes_exit(&alpha, "beta");
    uses(&alpha, "beta", &[]);
    let shown = alpha.json(&["exit"]);
    assert_eq!(shown["used"]["node"], "beta", "{shown}");
    assert_eq!(shown["used"]["lan"], "keep", "{shown}");
    for (far, exit) in far.into_iter().zip(outer(beta.host)) {
        assert_eq!(asks(alpha.host, far, SERVICE), exit);
    }
    for path in settings {
        assert_eq!(setting(beta.host, path), "1", "{path}");
    }
    // Within the mesh and in the LAN all have their own addresses.
    for (to, own) in overlay_of(&alpha, "beta")
        .into_iter()
        .zip(overlay_of(&alpha, "alpha"))
    {
        assert_eq!(asks(alpha.host, to, SERVICE), own);
    }
    for [own, near] in HOME.map(|family| family.map(address)) {
        assert_eq!(asks(alpha.host, near, SERVICE), own);
    }
    // A LAN that has more than its own, as by routes of DHCP, gets nothing of it.
    shell(
        alpha.host,
        &format!("ip route add {}/32 via {} dev direct", far[0], HOME[0][1]),
    );
    assert_eq!(asks(alpha.host, far[0], SERVICE), outer(beta.host)[0]);
    shell(alpha.host, &format!("ip route del {}/32", far[0]));
    // Who comes in is answered by the way that it came.
    for (own, asker) in outer(alpha.host).into_iter().zip(far) {
        assert_eq!(asks(internet, own, INWARD), asker);
    }
    // Nobody is let into the exit's own networks.
    shell(
        beta.host,
        "ip link add yard type veth peer name far; ip link set yard up; ip link set far up
         ip address add 192.168.9.1/24 dev yard",
    );
    Widened::new(&alpha, &beta, &["192.168.9.0/24"]).is_dropped_by(
        &beta,
        address("192.168.9.1"),
        SERVICE,
    );
    shell(alpha.host, "ip route del 192.168.9.0/24 dev im0");

    uses(&alpha, "beta", &["--lan", "cut"]);
    for [_, near] in HOME.map(|family| family.map(address)) {
        let opened = alpha.host.tcp_to((near, SERVICE).into());
        assert!(opened.is_err(), "{near} is reached");
    }
    let inward = SocketAddr::from((address(HOME[0][0]), INWARD));
    assert!(lan.tcp_to(inward).is_err(), "the LAN comes in");
    for (far, exit) in far.into_iter().zip(outer(beta.host)) {
        assert_eq!(asks(alpha.host, far, SERVICE), exit);
    }

    let _ = alpha.cli(&["exit", "use", "off"]).ok();
    for (far, own) in far.into_iter().zip(outer(alpha.host)) {
        assert_eq!(asks(alpha.host, far, SERVICE), own);
    }
    wait_for("all to be as it was", PATIENCE, || {
        let now = left(alpha.host);
        ensure(now == before, now)
    });
    assert!(!alpha.dir.join("state/exit.json").exists());
    let _ = alpha.cli(&["role", "rm", "beta", "exit", "--yes"]).ok();
    for (path, value) in settings.into_iter().zip(&before_exit) {
        wait_for(path, PATIENCE, || {
            let now = setting(beta.host, path);
            ensure(now == *value, format!("{now}, not {value}"))
        });
    }
}

#[test]
fn nothing_leaves_by_another_way_while_the_exit_or_the_agent_is_down() {
    let Some(lab) = Lab::new(3) else { return };
    let (mut alpha, mut beta) = pair(&lab);
    let internet = &lab.hosts[2];
    let _far = Service::start(internet, SERVICE);
    let resolver = dns::serve(internet, [203, 0, 113, 9].into());
    let far = outer(internet);
    makes_exit(&alpha, "beta");
    uses(&alpha, "beta", &[]);
    let reached = |alpha: &Agent, beta: &Agent| {
        for (far, exit) in far.into_iter().zip(outer(beta.host)) {
            assert_eq!(asks(alpha.host, far, SERVICE), exit);
        }
    };
    reached(&alpha, &beta);
    let wire = Wire::of(internet, alpha.host);

    // A program's own questions go by the exit, too.
    let asks_dns = |alpha: &Agent| {
        let socket = alpha.host.udp_to((far[0], 53).into()).expect("a socket");
        let timeout = Some(Duration::from_secs(1));
        socket.set_read_timeout(timeout).expect("a socket");
        wait_for("an answer", PATIENCE, || {
            socket.send(&dns::query(7, "example.org"))?;
            socket.recv(&mut [0; 512])
        })
    };
    let _ = asks_dns(&alpha);
    assert!(resolver.asked() > 0);
    assert_eq!(wire.packets(), 0);

    beta.kill();
    tries(alpha.host, far);
    let told = finding(&alpha, "exit-unusable");
    let text = told["text"].as_str().expect("a text");
    assert!(text.contains("beta"), "{text}");
    beta.start();
    reached(&alpha, &beta);
    no_finding(&alpha, "exit-unusable");

    alpha.kill();
    let began = Instant::now();
    let refused = alpha.host.tcp_to((far[0], SERVICE).into());
    assert!(refused.is_err() && began.elapsed() < Duration::from_secs(3));
    tries(alpha.host, far);
    alpha.start();
    reached(&alpha, &beta);
    alpha.stop();
    tries(alpha.host, far);
    alpha.start();
    reached(&alpha, &beta);
    assert_eq!(wire.packets(), 0, "nothing went past the exit");

    // What is stored for the next boot closes it, too.
    alpha.kill();
    shell(
        alpha.host,
        "ip rule flush; ip rule add pref 32766 lookup main; ip rule add pref 32767 lookup default
         ip -6 rule flush; ip -6 rule add pref 32766 lookup main
         nft flush ruleset",
    );
    let _ = alpha.cli(&["overlay", "load"]).ok();
    tries(alpha.host, far);
    assert_eq!(wire.packets(), 0);
    alpha.start();
    reached(&alpha, &beta);

    // Nor does it open when the exit is one no more, or its name can't be read.
    let _ = alpha.cli(&["role", "rm", "beta", "exit", "--yes"]).ok();
    let told = finding(&alpha, "exit-unusable");
    let text = told["text"].as_str().expect("a text");
    assert!(text.contains("no exit any more"), "{text}");
    tries(alpha.host, far);
    alpha.stop();
    fs::write(alpha.dir.join("state/exit.json"), "{").expect("a file");
    alpha.start();
    let _ = finding(&alpha, "exit-unusable");
    tries(alpha.host, far);
    assert_eq!(wire.packets(), 0);
    let _ = alpha.cli(&["exit", "off"]).ok();
    for (far, own) in far.into_iter().zip(outer(alpha.host)) {
        assert_eq!(asks(alpha.host, far, SERVICE), own);
    }
    assert!(wire.packets() > 0, "the wire is watched");
    assert!(!codes(&alpha).contains(&"exit-unusable".to_owned()));
}

#[test]
fn the_agent_s_own_questions_go_past_the_exit() {
    let Some(lab) = Lab::new(3) else { return };
    let internet = &lab.hosts[2];
    let config = format!("[dns]\nupstream = [\"{}\"]\n", internet.ipv4);
    let (alpha, mut beta) = pair_with(&lab, &config);
    let resolver = dns::serve(internet, [203, 0, 113, 9].into());
    makes_exit(&alpha, "beta");
    uses(&alpha, "beta", &[]);
    beta.kill();
    let wire = Wire::of(internet, alpha.host);
    alpha.wait_answer(&["example.org", "A"], &["203.0.113.9"]);
    assert!(resolver.asked() > 0);
    assert!(wire.packets() > 0, "they come from the host's own address");
}

#[test]
fn an_exit_without_a_way_of_one_family_refuses_it_at_once_and_says_so() {
    let Some(lab) = Lab::new(3) else { return };
    let (alpha, beta) = pair(&lab);
    let internet = &lab.hosts[2];
    let _far = Service::start(internet, SERVICE);
    shell(beta.host, "ip -6 route del default");
    makes_exit(&alpha, "beta");
    uses(&alpha, "beta", &[]);
    let row = wait_for("what the exit says", PATIENCE, || {
        let shown = alpha.json(&["exit", "show"]);
        let row = shown["exits"][0].clone();
        ensure(row["ipv6"] == false, &shown).map(|()| row)
    });
    assert_eq!(row["ipv4"], true, "{row}");
    let [far4, far6] = outer(internet);
    assert_eq!(asks(alpha.host, far4, SERVICE), outer(beta.host)[0]);
    wait_for("a refusal", PATIENCE, || {
        let began = Instant::now();
        let opened = alpha.host.tcp_to((far6, SERVICE).into());
        let took = began.elapsed();
        let quick = opened.is_err() && took < Duration::from_secs(1);
        ensure(quick, format!("{opened:?} after {took:?}"))
    });
    let again = alpha.json(&["exit", "use", "beta"]);
    let warnings = again["warnings"].to_string();
    assert!(warnings.contains("by IPv6"), "{warnings}");

    // The mesh still reaches it.
    shell(
        beta.host,
        &format!(
            "ip route add {} via 192.0.2.1 dev eth0 onlink
             ip route del default",
            alpha.host.ipv4
        ),
    );
    let _ = finding(&beta, "exit-no-route");
    let told = finding(&alpha, "exit-unusable");
    let text = told["text"].as_str().expect("a text");
    assert!(text.contains("no default route"), "{text}");
}

#[test]
fn s35_a_policy_says_who_reaches_the_internet_by_exits() {
    let Some(lab) = Lab::new(3) else { return };
    let (alpha, beta) = pair(&lab);
    let internet = &lab.hosts[2];
    let _far = Service::start(internet, SERVICE);
    let far = outer(internet);
    let file = alpha.host.directory.join("policy.toml");
    let set = |rules: &str| {
        fs::write(&file, format!("[default]\nmembers = \"closed\"\n{rules}")).expect("a file");
        let file = file.to_string_lossy();
        let _ = alpha.cli(&["policy", "set", &file]).ok();
    };
    makes_exit(&alpha, "beta");
    set("");
    wait_for("a refusal", PATIENCE, || {
        let refused = alpha.cli(&["exit", "use", "beta"]);
        let phrase = "policy lets this node reach nothing of the internet";
        ensure(refused.stderr.contains(phrase), refused)
    });
    let rule = "[[allow]]\nfrom = [\"alpha\"]\nto = [\"internet\"]\n";
    set(rule);
    uses(&alpha, "beta", &[]);
    for (far, exit) in far.into_iter().zip(outer(beta.host)) {
        assert_eq!(asks(alpha.host, far, SERVICE), exit);
    }
    let explained = alpha
        .cli(&["policy", "explain", "alpha", "internet:443"])
        .ok();
    assert!(explained.contains("rule 1"), "{explained}");
    set("");
    let told = finding(&alpha, "exit-unusable");
    assert!(told["text"].to_string().contains("policy"), "{told}");
    for far in far {
        wait_for("the end of it", PATIENCE, || {
            let opened = alpha.host.tcp_to((far, SERVICE).into());
            ensure(opened.is_err(), "it is reached")
        });
    }
}

#[test]
fn containers_go_by_the_exit_of_their_host_and_in_no_other_way() {
    let Some(lab) = Lab::new(4) else { return };
    let (alpha, mut beta) = pair(&lab);
    let (internet, container) = (&lab.hosts[2], &lab.hosts[3]);
    let _far = Service::start(internet, SERVICE);
    // As Docker has it: a bridge whose ports are ends of veth pairs, and masquerading
    // on every other interface.
    shell(
        alpha.host,
        &format!(
            "echo 1 >/proc/sys/net/ipv4/ip_forward
             ip link add yard type bridge; ip link set yard up
             ip address add 172.20.0.1/24 dev yard
             ip link add port type veth peer name direct netns {}
             ip link set port master yard up
             nft add table ip docker
             nft 'add chain ip docker out {{ type nat hook postrouting priority srcnat; }}'
             nft 'add rule ip docker out ip saddr 172.20.0.0/24 oifname != yard masquerade'",
            container.network_path()
        ),
    );
    shell(
        container,
        "ip link set eth0 down
         ip address add 172.20.0.2/24 dev direct; ip link set direct up
         ip route replace default via 172.20.0.1 dev direct",
    );
    let far = outer(internet)[0];
    assert_eq!(asks(container, far, SERVICE), outer(alpha.host)[0]);
    makes_exit(&alpha, "beta");
    uses(&alpha, "beta", &[]);
    let exit = outer(beta.host)[0];
    wait_for("the exit's address", PATIENCE, || {
        let seen = asks(container, far, SERVICE);
        ensure(seen == exit, seen)
    });
    let wire = Wire::of(internet, alpha.host);
    beta.kill();
    let opened = container.tcp_to((far, SERVICE).into());
    assert!(opened.is_err(), "{far} is reached");
    let ping = ["ping", "-c", "1", "-W", "1", &far.to_string()];
    assert_ne!(container.run(&ping).code, 0);
    assert_eq!(wire.packets(), 0, "nothing went past the exit");
    let _ = alpha.cli(&["exit", "off"]).ok();
    assert_eq!(asks(container, far, SERVICE), outer(alpha.host)[0]);
}

#[test]
fn an_exit_uses_none_and_who_leaves_the_mesh_sends_by_its_own_way_again() {
    let Some(lab) = Lab::new(3) else { return };
    let (alpha, mut beta) = pair(&lab);
    let internet = &lab.hosts[2];
    let _far = Service::start(internet, SERVICE);
    let far = outer(internet);
    let before = setting(beta.host, "ipv4/conf/all/src_valid_mark");
    makes_exit(&alpha, "alpha");
    uses(&beta, "alpha", &[]);
    for (far, exit) in far.into_iter().zip(outer(alpha.host)) {
        assert_eq!(asks(beta.host, far, SERVICE), exit);
    }
    makes_exit(&alpha, "beta");
    let told = finding(&beta, "exit-unusable");
    assert!(
        told["text"].to_string().contains("an exit itself"),
        "{told}"
    );
    wait_for("a refusal", PATIENCE, || {
        let refused = beta.cli(&["exit", "use", "alpha"]);
        ensure(refused.stderr.contains("an exit itself"), refused)
    });

    let _ = beta.cli(&["leave", "--yes"]).ok();
    beta.wait_stopped();
    for (far, own) in far.into_iter().zip(outer(beta.host)) {
        assert_eq!(asks(beta.host, far, SERVICE), own);
    }
    let left = left(beta.host);
    assert!(
        !left.contains("106") && !left.contains("proto 105"),
        "{left}"
    );
    assert_eq!(setting(beta.host, "ipv4/conf/all/src_valid_mark"), before);
    assert!(!beta.dir.join("state/exit.json").exists());
}
