//! What is behind the exit that a node uses.

use std::collections::BTreeSet;

use innermesh_proto::{
    ledger::{
        Content, Outcome, Role,
        request::{RoleChange, RouteChange},
    },
    tunnel::TunnelKey,
    view::MeshView,
};
use ipnet::IpNet;

use crate::{
    mesh::{id, key},
    view::{Seen, wireguard},
};

const EXIT: u8 = 1;
const OTHER: u8 = 2;

fn done(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

fn give(seen: &mut Seen, number: u8, role: Role) {
    let change = RoleChange {
        node: id(&*key(number)),
        role,
        root: None,
    };
    done(seen.mesh.ask(&*key(0), Content::GiveRole(change)));
}

fn nets(view: &MeshView, number: u8) -> BTreeSet<IpNet> {
    let plan = view.through_exit(view.tunnel_plan(), &id(&*key(EXIT)));
    assert_eq!(plan.overlap(), None);
    // None of it has a route in the host's own table.
    assert!(plan.routes().len() <= 3, "{:?}", plan.routes());
    let peer = plan.peers.get(&TunnelKey([number; 32]));
    peer.map(|peer| peer.allowed_ips.clone())
        .unwrap_or_default()
}

fn holds(nets: &BTreeSet<IpNet>, address: &str) -> bool {
    let address: std::net::IpAddr = address.parse().unwrap();
    nets.iter().any(|net| net.contains(&address))
}

#[test]
fn the_exit_alone_has_the_internet_and_nobody_elses_addresses() {
    let mut seen = Seen::new();
    give(&mut seen, OTHER, Role::Gateway);
    let net = "203.0.113.0/24".parse().unwrap();
    let gateway = id(&*key(OTHER));
    let add = Content::AddRoute(RouteChange { net, gateway });
    done(seen.mesh.ask(&*key(0), add));
    for number in [EXIT, OTHER] {
        seen.meet(&key(number), &wireguard(number));
    }
    // It is no exit yet.
    assert_eq!(nets(&seen.view(), EXIT).len(), 2);
    give(&mut seen, EXIT, Role::Exit);
    for number in [EXIT, OTHER] {
        seen.meet(&key(number), &wireguard(number));
    }
    let view = seen.view();
    let (exit, other) = (nets(&view, EXIT), nets(&view, OTHER));
    let member = &view.ledger.members[&gateway];
    for address in ["9.9.9.9", "2620:fe::fe", "203.0.114.1"] {
        assert!(holds(&exit, address), "{address}");
    }
    for address in [
        "203.0.113.7",
        "192.168.1.7",
        "10.77.200.200",
        "fe80::1",
        &member.ipv4.to_string(),
        &member.ipv6.to_string(),
    ] {
        assert!(!holds(&exit, address), "{address}");
    }
    assert_eq!(other.len(), 3, "{other:?}");
    // To itself a node is none.
    let own = seen.view_by(id(&*key(EXIT)));
    let plan = own.tunnel_plan();
    assert_eq!(own.through_exit(plan.clone(), &id(&*key(EXIT))), plan);
}
