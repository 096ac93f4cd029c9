//! What leaves a host: a router on its LAN, to which all of somebody else's
//! routes lead, counts.

use innermesh_tests::{Host, Lab, Process, agent::PATIENCE, wait::ensure, wait_for};

use crate::world::{
    LAN, SERVICE, STRANGER, Seen, Service, address, asks, cable, overlay_of, pair, reaches_not,
    shell,
};

/// Sends to both addresses of a member without end, by three sockets for each:
/// one as programs have it, one with the LAN's address, one bound to the LAN's
/// card. Says each 50 rounds how many there were.
struct Flood(Process);

impl Flood {
    fn start(host: &Host, to: [std::net::IpAddr; 2]) -> Self {
        let script = "import socket, sys, time
ways = []
for to, own in zip(sys.argv[1:3], sys.argv[3:5]):
    family = socket.AF_INET6 if ':' in to else socket.AF_INET
    for kind in ('plain', 'source', 'card'):
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.setblocking(False)
        if kind == 'source':
            s.bind((own, 0))
        if kind == 'card':
            s.setsockopt(socket.SOL_SOCKET, 25, b'direct\\0')
        ways.append((s, to))
rounds = 0
while True:
    for s, to in ways:
        try:
            s.sendto(b'for the tunnel only', (to, 9))
        except OSError:
            pass
    rounds += 1
    if rounds % 50 == 0:
        print(rounds, flush=True)
    time.sleep(0.002)
";
        let to = to.map(|ip| ip.to_string());
        let words = ["python3", "-c", script, &to[0], &to[1], LAN[0], LAN[1]];
        Self(host.start("flood", &words, &[]))
    }

    /// Waits until it has sent some hundred packets more.
    fn goes_on(&mut self) {
        let rounds = |flood: &Process| flood.log().lines().count();
        let before = rounds(&self.0);
        wait_for("more of the flood", PATIENCE, || {
            assert!(self.0.ended().is_none(), "{}", self.0.log());
            ensure(rounds(&self.0) > before + 2, "none was sent")
        });
    }
}

/// Routes as a DHCP server sets them by option 121, or a router by its
/// announcements: the default, half of the world, and single addresses.
fn rogue_routes(host: &Host, far: [std::net::IpAddr; 2]) {
    let [v4, v6] = STRANGER;
    shell(
        host,
        &format!(
            "ip route replace 192.0.2.0/24 via 192.0.2.1 dev eth0 onlink
             ip route replace 2001:db8::/64 via 2001:db8::1 dev eth0 onlink
             ip route replace default via {v4} dev direct
             ip route replace 0.0.0.0/1 via {v4} dev direct
             ip route replace {}/32 via {v4} dev direct
             ip -6 route replace default via {v6} dev direct
             ip -6 route replace fc00::/7 via {v6} dev direct
             ip -6 route replace {}/128 via {v6} dev direct",
            far[0], far[1]
        ),
    );
}

fn wait_no_device(host: &Host) {
    wait_for("the end of the device", PATIENCE, || {
        let links = host.run(&["ip", "-o", "link"]).stdout;
        ensure(!links.contains("im0"), links)
    });
}

/// As after a boot: nothing of ours is there.
fn forget_all(host: &Host) {
    shell(
        host,
        "nft delete table inet innermesh
         ip rule del pref 905; ip -6 rule del pref 905
         ip route flush table 105; ip -6 route flush table 105",
    );
}

#[test]
fn s25_a_router_of_the_lan_counts_no_overlay_packet_whatever_becomes_of_the_agent() {
    let Some(lab) = Lab::new(3) else { return };
    let (mut alpha, beta) = pair(&lab);
    let router = &lab.hosts[2];
    let host = alpha.host;
    let (own, far) = (overlay_of(&alpha, "alpha"), overlay_of(&alpha, "beta"));
    let _on_beta = Service::start(beta.host, SERVICE);
    let _on_alpha = Service::start(host, SERVICE);
    cable(&lab, router, host, &own);
    rogue_routes(host, far);
    let seen = Seen::on(router, &far);
    let nothing = |when: &str| assert_eq!(seen.packets(), [0, 0], "{when}");
    let works = || {
        for (ip, from) in far.into_iter().zip(own) {
            assert_eq!(asks(host, ip, SERVICE), from);
        }
    };
    let stranger_is_out = || {
        for ip in own {
            reaches_not(router, ip, SERVICE);
        }
        for ip in LAN.map(address) {
            asks(router, ip, SERVICE);
        }
    };

    let mut flood = Flood::start(host, far);
    flood.goes_on();
    works();
    nothing("while the agent runs");

    alpha.kill();
    wait_no_device(host);
    flood.goes_on();
    stranger_is_out();
    nothing("after kill -9");
    alpha.start();
    works();
    flood.goes_on();
    nothing("after a start behind kill -9");

    alpha.stop();
    wait_no_device(host);
    flood.goes_on();
    stranger_is_out();
    nothing("while the agent is stopped");

    // A boot: what was stored is applied before the first packet is sent.
    drop(flood);
    forget_all(host);
    let _ = alpha.cli(&["overlay", "load"]).ok();
    let mut flood = Flood::start(host, far);
    flood.goes_on();
    stranger_is_out();
    nothing("before the agent's first start");
    alpha.start();
    works();
    flood.goes_on();
    nothing("after the agent's first start");

    // Without all that they do come: it is we who keep them back.
    alpha.kill();
    wait_no_device(host);
    forget_all(host);
    wait_for("the fault", PATIENCE, || {
        let [v4, v6] = seen.packets();
        ensure(v4 > 0 && v6 > 0, format!("{v4} and {v6}"))
    });
}
