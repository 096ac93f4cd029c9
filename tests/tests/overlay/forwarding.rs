//! Hosts that forward: between the tunnel and a LAN nothing passes.

use innermesh_tests::{Agent, Lab, agent::PATIENCE, wait::ensure, wait_for};

use crate::{
    LAN, SERVICE, STRANGER, Service, address, asks, cable, dropped, overlay_of, reaches_not, shell,
};

#[test]
fn s25_a_host_that_forwards_lets_nobody_into_the_tunnel_and_nobody_out_of_it() {
    let Some(lab) = Lab::new(3) else { return };
    let [alpha, beta, stranger] = [0, 1, 2].map(|index| &lab.hosts[index]);
    let mut alpha = Agent::new(alpha, "alpha");
    let mut beta = Agent::new(beta, "beta");
    let _ = alpha.init();
    beta.join(&alpha);
    alpha.wait_nodes(2);
    let far = overlay_of(&alpha, "beta");
    // As a router does, and as Docker makes of every host: it masquerades too,
    // so that beta would take a stranger's packets for alpha's.
    shell(
        alpha.host,
        "echo 1 >/proc/sys/net/ipv4/ip_forward
         echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
         nft add table inet router
         nft 'add chain inet router out { type nat hook postrouting priority 100; }'
         nft add rule inet router out masquerade",
    );
    cable(&lab, stranger, alpha.host, &far);
    let _on_beta = Service::start(beta.host, SERVICE);
    let _on_lan = Service::start(stranger, SERVICE);

    for ip in far {
        asks(alpha.host, ip, SERVICE);
        reaches_not(stranger, ip, SERVICE);
    }
    assert!(dropped(&alpha, "lan_to_overlay") >= 2);
    for ip in STRANGER {
        assert_eq!(
            asks(alpha.host, address(ip), SERVICE),
            address(LAN[usize::from(ip.contains(':'))])
        );
    }

    // Beta sends for a host on alpha's LAN into the tunnel: WireGuard lets each
    // side choose where it sends to.
    let before = dropped(&alpha, "tunnel_through");
    shell(
        beta.host,
        "ip route add 198.51.100.1 dev im0
         ip route add 2001:db8:5::1 dev im0",
    );
    let key = shell(alpha.host, "wg show im0 public-key");
    let own = overlay_of(&beta, "alpha");
    let widen = format!(
        "wg set im0 peer {} allowed-ips {},{},{}/32,{}/128",
        key.trim(),
        own[0],
        own[1],
        STRANGER[0],
        STRANGER[1],
    );
    for ip in STRANGER {
        // Beta's own agent takes the network away again.
        wait_for("packets for a LAN in alpha's tunnel", PATIENCE, || {
            shell(beta.host, &widen);
            reaches_not(beta.host, address(ip), SERVICE);
            ensure(dropped(&alpha, "tunnel_through") > before, "none came")
        });
    }
}
