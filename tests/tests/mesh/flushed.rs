//! What others take from the tunnel's interface comes back.

use innermesh_tests::{Agent, Lab, agent::PATIENCE, wait::ensure, wait_for};

/// Addresses, routes and rules of the tunnel, as the kernel lists them.
fn held(agent: &Agent) -> String {
    let script = "ip -br address show dev im0 scope global
                  ip -br address show dev im0 scope host
                  for family in -4 -6; do
                      ip $family route show table all dev im0 proto 105
                      ip $family rule show | grep 'lookup 105'
                  done
                  ip -br link show dev im0 up";
    agent.host.run(&["sh", "-uc", script]).ok()
}

#[test]
fn flushed_routes_addresses_rules_and_links_come_back() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = lab.mesh();
    let addresses = [alpha.overlay_ipv4("beta"), alpha.overlay_ipv6("beta")];
    let pings = || {
        for address in &addresses {
            wait_for(&format!("packets to {address}"), PATIENCE, || {
                ensure(alpha.pings(address), "none")
            });
        }
    };
    pings();
    let before = held(&alpha);
    for address in &addresses {
        // The network's route is ours, behind any that a LAN has to the same one.
        let family = if address.contains(':') { "-6" } else { "-4" };
        let routes = format!("ip {family} route show table main to match {address} proto 105");
        let routes = alpha.host.run(&["sh", "-c", &routes]).ok();
        assert!(routes.contains("metric 5000"), "{routes}");
    }
    for taken in [
        "ip -4 route flush table main dev im0",
        "ip -6 route flush table main dev im0",
        "ip -4 route flush table 105",
        "ip -6 route flush table 105",
        "ip -4 address flush dev im0",
        "ip -6 address flush dev im0 scope global",
        "ip link set im0 down",
        "ip link set im0 mtu 1400",
        "ip rule delete priority 905",
        "ip -6 rule delete priority 905",
    ] {
        let _ = alpha.host.run(&["sh", "-euc", taken]).ok();
        wait_for(&format!("all of it after {taken}"), PATIENCE, || {
            let now = held(&alpha);
            ensure(now == before, &now)
        });
        pings();
    }
    drop(beta);
}

#[test]
fn no_packet_is_refused_while_the_tunnel_is_held_against_its_plan() {
    let Some(lab) = Lab::new(2) else { return };
    let [alpha, beta] = lab.mesh();
    let address = alpha.overlay_ipv4("beta");
    wait_for("packets to beta", PATIENCE, || {
        ensure(alpha.pings(&address), "none")
    });
    // Longer than the agent takes between two looks; news of the host's network
    // make it look at once.
    let news = "for n in 1 2 3 4 5 6 7 8 9; do
                    ip link add news$n type veth peer name far$n
                    ip link set news$n up; ip link delete news$n
                done";
    let ping = ["ping", "-i", "0.01", "-c", "1200", "-q", &address];
    let mut passing = alpha.host.start("ping", &ping, &[]);
    let _ = alpha.host.run(&["sh", "-euc", news]).ok();
    let ended = passing.wait(PATIENCE);
    let log = passing.log();
    assert!(ended.success() && log.contains(" 0% packet loss"), "{log}");
    drop(beta);
}
