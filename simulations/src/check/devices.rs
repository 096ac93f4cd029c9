//! Where what is for devices and for LANs behind gateways is sent: asked of the
//! ledger and of where each device was seen last, without what plans a tunnel.

use std::collections::BTreeSet;

use innermesh_proto::{id::NodeId, ledger::device::Device, tunnel::TunnelKey, view::MeshView};
use ipnet::IpNet;

use crate::{Machine, violation::Seen};

/// All that devices and LANs ever had, in any view.
#[derive(Default)]
pub struct Behind {
    keys: BTreeSet<TunnelKey>,
    nets: BTreeSet<IpNet>,
}

impl Behind {
    pub fn learn(&mut self, view: &MeshView) {
        for (_, device) in view.ledger.devices() {
            self.keys.extend(device.keys().map(|(key, _)| key));
            self.nets.extend(nets_of(device));
        }
        self.nets.extend(view.ledger.routes().map(|(net, _)| *net));
    }

    /// Whether a key was a device's; whose its peer is now, [`stale`] tells.
    pub fn was_device(&self, key: &TunnelKey) -> bool {
        self.keys.contains(key)
    }

    pub fn has_had(&self, net: &IpNet) -> bool {
        self.nets.contains(net)
    }
}

fn nets_of(device: &Device) -> [IpNet; 2] {
    device.addresses().map(IpNet::from)
}

/// Whether a network is reached by this gateway, or may be: a device's address, or
/// a LAN that it brings.
pub fn is_behind(view: &MeshView, gateway: &NodeId, net: &IpNet) -> bool {
    let mut devices = view.ledger.devices();
    let mut routes = view.ledger.routes();
    devices.any(|(_, device)| nets_of(device).contains(net) && device.gateways().contains(gateway))
        || routes.any(|(own, gateways)| own == net && gateways.contains(gateway))
}

/// What a machine's tunnel and filter have of devices and LANs that its view hasn't.
pub fn stale(view: &MeshView, machine: &Machine) -> Option<Seen> {
    let plan = machine.tunnel_plan();
    let in_force: Vec<_> = view.devices().collect();
    for (key, peer) in &plan.peers {
        let own = in_force
            .iter()
            .find(|(_, device)| device.keys().any(|(own, _)| own == *key));
        let holder = view.ledger.tunnel_key_holder(key);
        let Some(by) = holder.or(own.map(|_| view.me)) else {
            return Some(("S13", format!("{key} is a peer, and nobody's key")));
        };
        for net in &peer.allowed_ips {
            let device = in_force
                .iter()
                .find(|(_, device)| nets_of(device).contains(net));
            if let Some((id, device)) = device {
                let home = view.device_home(id);
                if home.is_none_or(|home| home.gateway != by) {
                    let words = format!(
                        "what is for {} goes to {by}, which doesn't have it",
                        device.name
                    );
                    return Some(("S11", words));
                }
            } else if !is_members(view, &by, net) && !is_behind(view, &by, net) {
                let words = format!("{net} leads to {by}, and nothing there has it");
                return Some(("S13", words));
            }
        }
    }
    let filter = machine.filter_plan()?;
    let forwards = filter.gateway.iter().flat_map(|gateway| &gateway.devices);
    let is_device = |net: &IpNet| {
        let mut all = in_force.iter();
        all.any(|(_, device)| nets_of(device).contains(net))
    };
    let gone = forwards
        .map(|ip| IpNet::from(*ip))
        .find(|net| !is_device(net))?;
    Some((
        "S13",
        format!("{gone} is forwarded for, and no device has it"),
    ))
}

fn is_members(view: &MeshView, node: &NodeId, net: &IpNet) -> bool {
    let member = view.ledger.members.get(node);
    member.is_some_and(|member| {
        let own = [member.ipv4.into(), member.ipv6.into()];
        own.map(|ip: std::net::IpAddr| IpNet::from(ip))
            .contains(net)
    })
}

/// A LAN behind a gateway is reached by the tunnel where a network of the host's own
/// has its addresses: nobody asked for that.
pub fn silently_chosen(machine: &Machine, own: &IpNet) -> Option<Seen> {
    let meets = |net: &&IpNet| net.contains(own) || own.contains(*net);
    let routes = machine.tunnel_plan().routes();
    let filter = machine.filter_plan();
    let filtered = filter.iter().flat_map(|filter| &filter.behind_gateways);
    let chosen = routes.iter().chain(filtered).find(meets)?;
    let words = format!("{chosen} is reached by the tunnel, and {own} is where it stands");
    Some(("S12", words))
}
