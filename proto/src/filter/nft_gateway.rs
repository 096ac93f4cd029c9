//! Rules of a gateway: what it forwards for devices within the tunnel, and between
//! the tunnel and networks beside it. Each matches the addresses that a connection
//! began with, so that whoever is taken away is cut off in what is open too.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    FilterPlan, Interface, nft_exit,
    nft_table::{TABLE, Table, element, is_v4},
};

/// Devices, networks beside this host with their interfaces, the same without, and
/// the resolver's addresses.
pub(super) fn sets(inet: &mut Table<'_>, plan: &FilterPlan, suffix: &str, v4: bool) {
    let kind = if v4 { "ipv4_addr" } else { "ipv6_addr" };
    let interval = "flags interval;";
    let gateway = || plan.gateway.iter();
    let addresses = |all: &BTreeSet<IpAddr>| -> Vec<String> {
        let all = all.iter().filter(|ip| ip.is_ipv4() == v4);
        all.map(IpAddr::to_string).collect()
    };
    let devices = gateway().flat_map(|gateway| addresses(&gateway.devices));
    inet.set(&format!("device{suffix}"), kind, "", devices);
    let resolvers = gateway().flat_map(|_| addresses(&plan.resolvers));
    inet.set(&format!("resolver{suffix}"), kind, "", resolvers);
    let lans = || {
        let all = gateway().flat_map(|gateway| &gateway.lans);
        all.filter(|lan| is_v4(lan.net.addr()) == v4)
    };
    let beside = lans().map(|lan| format!("\"{}\" . {}", lan.interface, element(lan.net)));
    let concat = format!("ifname . {kind}");
    inet.set(&format!("beside{suffix}"), &concat, interval, beside);
    // One may be led to by several interfaces.
    let behind: BTreeSet<String> = lans().map(|lan| element(lan.net)).collect();
    inet.set(
        &format!("behind{suffix}"),
        kind,
        interval,
        behind.into_iter(),
    );
}

/// What comes by the tunnel and isn't for this node's own addresses.
pub(super) fn from_tunnel(inet: &mut Table<'_>, through: &str) {
    inet.both("tunnel", "IP saddr @deviceN IP daddr @resolverN", "accept");
    inet.both("tunnel", "IP daddr @resolverN", through);
    inet.both("tunnel", "IP saddr @deviceN IP daddr @netN", "accept");
    inet.both("tunnel", "IP saddr @deviceN IP daddr @routesN", "accept");
    inet.both("tunnel", "IP daddr @deviceN", "accept");
    inet.both("tunnel", "IP daddr @behindN", "accept");
}

/// What comes from an announced network to this node's own overlay addresses.
pub(super) fn from_lan(inet: &mut Table<'_>) {
    let from = "iifname . IP saddr @besideN";
    // Replies to what this node itself has asked.
    inet.both("inside", &format!("ct direction reply {from}"), "accept");
    inet.both("inside", from, "jump access");
    inet.both("inside", from, "accept");
}

/// What is forwarded.
pub(super) fn across(inet: &mut Table<'_>, tunnel: &Interface) {
    let within = format!("iifname \"{tunnel}\" oifname \"{tunnel}\"");
    for end in ["saddr", "daddr"] {
        let began = format!("{within} ct original IP {end} @deviceN");
        inet.both("judge", &began, "goto granted");
    }
    let out = format!("iifname \"{tunnel}\" oifname . IP daddr @besideN");
    inet.both("judge", &out, "goto granted");
    let back = format!("oifname \"{tunnel}\" iifname . IP saddr @besideN");
    inet.both("judge", &back, "goto granted");
}

/// What is let pass as far as the policy does.
pub(super) fn granted(inet: &mut Table<'_>) {
    // Errors say why a connection that is let pass doesn't work.
    for errors in [
        "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
        "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
    ] {
        inet.rule("granted", &format!("{errors} goto passed"));
    }
    inet.rule("granted", "jump access");
    inet.rule("granted", "goto passed");
}

/// Nobody else's rules put other sources in place of the true ones (S23).
pub(super) fn sources(inet: &mut Table<'_>, plan: &FilterPlan, dropped: &str) {
    // The first NAT rule that matches a connection is the only one: this one
    // leaves its source as it is, and those of others come behind it.
    inet.chain("sources", "nat hook postrouting priority srcnat - 5");
    let is_unused = plan.gateway.is_none() && plan.exit.is_none();
    if is_unused && plan.publish.ports.is_empty() {
        inet.line(format_args!("delete chain inet {TABLE} sources"));
        return;
    }
    nft_exit::masquerade(inet, plan);
    for ours in [
        "IP saddr @netN",
        "IP daddr @netN",
        "IP saddr @routesN",
        "IP daddr @routesN",
    ] {
        inet.both("sources", &format!("{ours} snat IP to IP saddr"), "");
    }
    // What somebody has rewritten before that rule, or before the agent ran.
    let tunnel = &plan.interface;
    let rewritten = "ct direction original ct status snat";
    let from_tunnel = format!("iifname \"{tunnel}\" {rewritten} {dropped}");
    inet.rule("leaving", &from_tunnel);
    inet.both(
        "leaving",
        &format!("oifname \"{tunnel}\" {rewritten} iifname . ct original IP saddr @besideN"),
        dropped,
    );
    // Whoever sends within the tunnel is at the right place already.
    let redirects = format!("oifname \"{tunnel}\" icmp type redirect drop");
    inet.rule("leaving", &redirects);
}
