//! What is published is for strangers: nothing of the mesh comes in by it (S25), and
//! a link's end has its own addresses and no others (S12).

use std::{collections::BTreeSet, net::IpAddr};

use innermesh_proto::{
    filter::FilterPlan, ledger::publish::PublishLink, tunnel::TunnelKey, view::MeshView,
};
use ipnet::IpNet;

/// A source of the mesh that a published port is open to, on either side.
pub fn open_to_the_mesh(view: &MeshView, plan: Option<&FilterPlan>) -> Option<String> {
    let publish = &plan?.publish;
    if publish.ports.is_empty() && publish.links.is_empty() {
        return None;
    }
    let members = view.ledger.members.values();
    let members = members.flat_map(MeshView::addresses);
    let devices = view.ledger.devices();
    let devices = devices.flat_map(|(_, device)| device.addresses());
    let loopback = [IpAddr::from([127, 0, 0, 1])];
    let mut own = members.chain(devices).chain(loopback);
    let source = own.find(|ip| !publish.never.iter().any(|net| net.contains(ip)))?;
    Some(format!(
        "a published port takes packets from {source}, who is no stranger"
    ))
}

/// Whether a peer is a link's end that leads here, with just its own addresses.
pub fn is_link(view: &MeshView, key: &TunnelKey, allowed: &BTreeSet<IpNet>) -> bool {
    let ends = view.ledger.publish_link_by_key(key);
    let link = ends
        .filter(|(_, on)| *on == view.me)
        .and_then(|(inside, on)| view.ledger.publish_link(inside, on));
    let own = link.map(PublishLink::addresses);
    own.is_some_and(|own| allowed.iter().map(IpNet::addr).eq(BTreeSet::from(own)))
}
