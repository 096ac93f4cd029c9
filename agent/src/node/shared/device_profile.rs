//! What a device is configured with: where its gateways are found, and whether
//! what was printed is still right.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use innermesh_proto::{
    endpoint::{self, is_plausible},
    id::{NodeId, resolver_v4},
    ledger::{
        Role,
        device::{Device, GatewayProfile, Profile},
    },
    tunnel::{HostPort, PresharedKey, TunnelKey},
    view::MeshView,
};
use ipnet::IpNet;

use crate::control::devices::DeviceConfiguration;

/// The key and configuration that were last handed out.
pub(crate) fn newest(device: &Device) -> (&TunnelKey, &Profile) {
    let next = device.next.as_ref().map(|next| (&next.key, &next.profile));
    next.unwrap_or((&device.key, &device.profile))
}

/// Where devices find a gateway, the best place first: what its configuration
/// says, and nothing else then; or the addresses that it announces.
pub(crate) fn endpoints(view: &MeshView, gateway: &NodeId) -> Vec<HostPort> {
    let Some(seen) = view.nodes.get(gateway) else {
        return Vec::new();
    };
    if let Some(endpoint) = &seen.announcement.endpoint {
        return vec![endpoint.clone()];
    }
    let Some(wireguard) = &seen.announcement.wireguard else {
        return Vec::new();
    };
    let overlay = endpoint::overlay(&view.ledger);
    let announced = seen.announcement.quic.iter();
    let announced = announced.filter(|address| is_plausible(address, &overlay, false));
    let mut found: Vec<IpAddr> = announced
        .map(|address| address.ip().to_canonical())
        .collect();
    found.sort_by_key(|ip| (!is_public(*ip), ip.is_ipv6()));
    let mut known = BTreeSet::new();
    found.retain(|ip| known.insert(*ip));
    let port = wireguard.port;
    let found = found.into_iter();
    found.map(|ip| HostPort::from((ip, port))).collect()
}

/// Whether nobody outside of the gateway's own network gets there.
pub(crate) fn is_private(endpoint: &HostPort) -> bool {
    endpoint.address().is_some_and(|it| !is_public(it.ip()))
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // RFC 6598: behind the provider's NAT.
            let is_shared = ip.octets()[0] == 100 && ip.octets()[1] & 0b1100_0000 == 64;
            !(ip.is_private() || ip.is_link_local() || ip.is_loopback() || is_shared)
        }
        IpAddr::V6(ip) => !(ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback()),
    }
}

/// Why what a device was last configured with is no longer right; empty where it
/// is, as far as is known here.
pub(crate) fn stale(view: &MeshView, device: &Device) -> Vec<String> {
    let (_, profile) = newest(device);
    let mut why: Vec<String> = profile
        .gateways
        .iter()
        .filter_map(|(node, printed)| {
            let lost = || {
                let name = view.ledger.name_of(*node);
                let is_lost = profile.full_tunnel && !view.is_exit(node);
                is_lost.then(|| format!("{name} doesn't forward to the internet any more"))
            };
            stale_gateway(view, node, printed).or_else(lost)
        })
        .collect();
    for net in &profile.routes {
        let mut announced = view.ledger.routes();
        if !announced.any(|(route, _)| route == net) {
            why.push(format!("no gateway has a route to {net} any more"));
        }
    }
    why
}

fn stale_gateway(view: &MeshView, node: &NodeId, printed: &GatewayProfile) -> Option<String> {
    let name = view.ledger.name_of(*node);
    let Some(member) = view.ledger.members.get(node) else {
        return Some(format!("{name} is not in the mesh any more"));
    };
    if view.held.contains_key(node) {
        return Some(format!("{name} is cut off"));
    }
    if !member.roles.contains(&Role::Gateway) {
        return Some(format!("{name} is no gateway any more"));
    }
    let key = view.ledger.tunnel_keys(node).map(|keys| keys.current);
    if key.is_some_and(|key| key != printed.key) {
        return Some(format!("{name} has another WireGuard key"));
    }
    // Where nothing is known of it nothing has changed either.
    let now = endpoints(view, node);
    let is_there = |endpoint: &HostPort| endpoint.to_string() == printed.endpoint;
    if let Some(best) = now.first()
        && !now.iter().any(is_there)
    {
        let before = &printed.endpoint;
        return Some(format!(
            "{name} is found at {best}, and not at {before} any more"
        ));
    }
    None
}

/// What a device is to be configured with for one gateway, as it stands in the
/// ledger; `None` where what stands there is no place on the network.
pub(crate) fn configuration(
    view: &MeshView,
    device: &Device,
    profile: &Profile,
    (node, gateway): (&NodeId, &GatewayProfile),
    secret: Option<PresharedKey>,
) -> Option<DeviceConfiguration> {
    let state = &view.ledger;
    let dns = [
        IpAddr::V4(resolver_v4(state.ipv4)),
        IpAddr::V6(state.mesh.resolver_v6()),
    ];
    Some(DeviceConfiguration {
        gateway: state.name_of(*node),
        addresses: vec![IpAddr::V4(device.ipv4), IpAddr::V6(device.ipv6)],
        dns: if profile.dns {
            dns.to_vec()
        } else {
            Vec::new()
        },
        domain: state.domain.to_string(),
        gateway_key: gateway.key.to_string(),
        preshared_key: secret.map(|secret| data_encoding::BASE64.encode(&secret.0)),
        allowed_ips: allowed_ips(view, profile),
        endpoint: gateway.endpoint.parse().ok()?,
    })
}

/// What a device sends into the tunnel.
fn allowed_ips(view: &MeshView, profile: &Profile) -> Vec<IpNet> {
    if profile.full_tunnel {
        let everything = [
            IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            IpNet::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        ];
        return everything.into_iter().flatten().collect();
    }
    let overlay = endpoint::overlay(&view.ledger).map(|net| net.trunc());
    overlay
        .into_iter()
        .chain(profile.routes.iter().copied())
        .collect()
}
