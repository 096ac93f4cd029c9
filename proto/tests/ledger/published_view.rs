//! What follows from publications: where ports lead, by which links, and for whom that
//! ends.

use std::{collections::BTreeSet, time::Duration};

use innermesh_proto::{
    filter::{FilterPlan, HostNetworks, Interface},
    id::NodeId,
    ledger::{
        Content,
        publish::{PublicPort, Publish, PublishKey},
    },
    tunnel::TunnelKey,
    view::MeshView,
};
use ipnet::IpNet;

use crate::{
    mesh::{id, key, label},
    view::{Seen, wireguard},
};

fn node(number: u8) -> NodeId {
    id(&*key(number))
}

fn at(port: u16) -> PublicPort {
    PublicPort { on: node(1), port }
}

const LINK: TunnelKey = TunnelKey([77; 32]);

/// One is public, and its port 25 leads to two.
fn seen() -> Seen {
    let mut seen = Seen::new();
    let publish = Publish {
        at: at(25),
        name: label("two"),
        to_port: 2525,
        proxy_protocol: false,
    };
    seen.mesh.ask(&*key(0), Content::Publish(Box::new(publish)));
    seen
}

fn tell_key(seen: &mut Seen) {
    let set = PublishKey {
        on: node(1),
        key: LINK,
    };
    seen.mesh.ask(&*key(2), Content::PublishKey(set));
}

fn meet_all(seen: &mut Seen) {
    for number in [1, 2] {
        seen.meet(&key(number), &wireguard(number));
    }
}

fn filter(view: &MeshView) -> FilterPlan {
    let tunnel: Interface = "im0".to_owned().try_into().unwrap();
    view.filter_plan(&tunnel, &HostNetworks::default()).unwrap()
}

#[test]
fn s11_a_link_has_the_public_node_as_its_only_peer_and_its_end_is_an_ordinary_one_there() {
    let mut seen = seen();
    meet_all(&mut seen);
    // Before its key is known nothing leads anywhere.
    let inside = seen.view_by(node(2)).inside_links();
    assert_eq!(inside[&node(1)].link, None);
    assert!(filter(&seen.view_by(node(1))).publish.ports.is_empty());

    tell_key(&mut seen);
    meet_all(&mut seen);
    let link = *seen.mesh.state().publish_link(node(2), node(1)).unwrap();
    let view = seen.view_by(node(2));
    let plan = view.inside_links()[&node(1)].plan();
    let own: BTreeSet<IpNet> = link.addresses().map(IpNet::from).into();
    assert_eq!(plan.addresses, own);
    let peers: Vec<TunnelKey> = plan.peers.keys().copied().collect();
    assert_eq!(peers, [TunnelKey([1; 32])]);
    // The overlay's own interface has none of that.
    let overlay = view.tunnel_plan();
    assert_eq!(overlay.overlap(), None);
    let mut nets = overlay.peers.values().flat_map(|peer| &peer.allowed_ips);
    assert!(nets.all(|net| net.prefix_len() > 0 && !own.contains(net)));

    let public = seen.view_by(node(1));
    let plan = public.tunnel_plan();
    assert_eq!(plan.overlap(), None);
    assert_eq!(plan.peers[&LINK].allowed_ips, own);
    let to: BTreeSet<IpNet> = filter(&public)
        .publish
        .ports
        .iter()
        .map(|port| port.to.into())
        .collect();
    assert_eq!(to, own);
    // And nobody else has any of it.
    let other = seen.view();
    assert!(!other.tunnel_plan().peers.contains_key(&LINK));
    let filter = filter(&other).publish;
    assert!(filter.ports.is_empty() && filter.links.is_empty());
}

#[test]
fn a_node_that_fell_silent_has_nothing_published_on_either_side() {
    let mut seen = seen();
    tell_key(&mut seen);
    meet_all(&mut seen);
    let ports = |seen: &Seen| {
        let inside = seen.view_by(node(2)).inside_links();
        let public = filter(&seen.view_by(node(1))).publish.ports.len();
        (inside[&node(1)].ports.len(), public)
    };
    assert_eq!(ports(&seen), (1, 2));
    // The lease of both is over.
    seen.now += Duration::from_secs(10);
    assert_eq!(ports(&seen), (0, 0));
    let peers = seen.view_by(node(1)).tunnel_plan().peers;
    assert!(!peers.contains_key(&LINK));
    meet_all(&mut seen);
    assert_eq!(ports(&seen), (1, 2));
}

#[test]
fn what_is_no_longer_published_is_in_no_plan() {
    let mut seen = seen();
    tell_key(&mut seen);
    meet_all(&mut seen);
    seen.mesh.ask(&*key(0), Content::Unpublish(at(25)));
    meet_all(&mut seen);
    assert!(seen.view_by(node(2)).inside_links().is_empty());
    let public = seen.view_by(node(1));
    assert!(filter(&public).publish.ports.is_empty());
    assert!(!public.tunnel_plan().peers.contains_key(&LINK));
}
