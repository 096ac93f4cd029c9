//! Hosts that forward: between the tunnel and a LAN nothing passes.

use innermesh_tests::Lab;

use crate::world::{
    LAN, SERVICE, STRANGER, Service, Widened, address, asks, cable, dropped, overlay_of, pair,
    reaches_not, shell,
};

#[test]
fn s25_a_host_that_forwards_lets_nobody_into_the_tunnel_and_nobody_out_of_it() {
    let Some(lab) = Lab::new(3) else { return };
    let stranger = &lab.hosts[2];
    let (alpha, beta) = pair(&lab);
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

    let widened = Widened::new(&beta, &alpha, &STRANGER);
    for ip in STRANGER {
        widened.is_dropped_by(&alpha, address(ip), SERVICE);
    }
}

#[test]
fn s25_what_comes_by_the_tunnel_for_loopback_is_dropped_where_others_let_it_be_routed() {
    let Some(lab) = Lab::new(2) else { return };
    let (alpha, beta) = pair(&lab);
    let loopback = "127.0.0.9";
    for host in [alpha.host, beta.host] {
        // Some container engines set it for all interfaces.
        shell(
            host,
            "for each in all im0; do echo 1 >/proc/sys/net/ipv4/conf/$each/route_localnet; done",
        );
    }
    // For beta that address isn't its own any more.
    shell(
        beta.host,
        &format!("ip route add throw {loopback}/32 table local"),
    );
    let _on_alpha = Service::start(alpha.host, SERVICE);
    assert_eq!(
        asks(alpha.host, address(loopback), SERVICE),
        address("127.0.0.1")
    );
    let widened = Widened::new(&beta, &alpha, &[loopback]);
    widened.is_dropped_by(&alpha, address(loopback), SERVICE);
}
