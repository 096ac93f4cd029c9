//! Rules of what is published. On the public node a port leads into the tunnel by
//! DNAT and nothing else does; on the node inside, what comes by a link is for the
//! published ports, and from strangers only. Sources stay as they are (S23).
//!
//! Rules look at addresses and ports of each packet rather than at what is
//! established, so that what is no longer published is cut off at once.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    FilterPlan, LinkFilter,
    nft_table::{TABLE, Table, element, is_v4},
};

/// Sources that nothing is carried from; where ports lead; what comes by links, and
/// their own addresses.
pub(super) fn sets(inet: &mut Table<'_>, plan: &FilterPlan, suffix: &str, v4: bool) {
    let kind = if v4 { "ipv4_addr" } else { "ipv6_addr" };
    let publish = &plan.publish;
    let of_family = |ip: &IpAddr| ip.is_ipv4() == v4;
    let never = publish.never.iter().filter(|net| is_v4(net.addr()) == v4);
    inet.set(
        &format!("never{suffix}"),
        kind,
        "flags interval;",
        never.map(|net| element(*net)),
    );
    let ports = publish.ports.iter().filter(|port| of_family(&port.to));
    // Several ports may lead to one.
    let to: BTreeSet<String> = ports
        .map(|port| format!("{} . {}", port.to, port.to_port))
        .collect();
    inet.set(
        &format!("pub{suffix}"),
        &format!("{kind} . inet_service"),
        "",
        to.into_iter(),
    );
    let own = |link: &LinkFilter| -> Vec<String> {
        let addresses = link.addresses.iter().filter(|ip| of_family(ip));
        let name = &link.interface;
        addresses.map(|ip| format!("\"{name}\" . {ip}")).collect()
    };
    let inward = publish.links.iter().flat_map(|link| {
        let ends = own(link).into_iter();
        ends.flat_map(move |end| link.ports.iter().map(move |port| format!("{end} . {port}")))
    });
    inet.set(
        &format!("pubin{suffix}"),
        &format!("ifname . {kind} . inet_service"),
        "",
        inward,
    );
    inet.set(
        &format!("pubown{suffix}"),
        &format!("ifname . {kind}"),
        "",
        publish.links.iter().flat_map(own),
    );
}

/// The interfaces of links, as a set; `None` where there are none.
fn links(plan: &FilterPlan) -> Option<String> {
    let links = plan.publish.links.iter();
    let names: Vec<String> = links
        .map(|link| format!("\"{}\"", link.interface))
        .collect();
    (!names.is_empty()).then(|| format!("{{ {} }}", names.join(", ")))
}

/// What comes by links, before anything else is asked.
pub(super) fn early(inet: &mut Table<'_>, plan: &FilterPlan, dropped: &str) {
    let Some(links) = links(plan) else {
        return;
    };
    inet.rule("early", &format!("iifname {links} goto published"));
    inet.both("published", "IP saddr @neverN", dropped);
    inet.both(
        "published",
        "iifname . IP daddr . tcp dport @pubinN",
        "accept",
    );
    inet.rule("published", dropped);
    // Again, as rules in between may have given packets another destination.
    inet.rule("entry", &format!("iifname {links} goto landed"));
    inet.both("landed", "iifname . IP daddr . tcp dport @pubinN", "accept");
    inet.rule("landed", dropped);
    inet.rule("across", &format!("iifname {links} {dropped}"));
    inet.rule("across", &format!("oifname {links} {dropped}"));
}

/// Answers to what came by a link leave by it.
pub(super) fn leaving(inet: &mut Table<'_>, plan: &FilterPlan, leaked: &str) {
    let Some(links) = links(plan) else {
        return;
    };
    inet.both("leaving", "oifname . IP saddr @pubownN", "accept");
    inet.rule("leaving", &format!("oifname {links} {leaked}"));
}

/// Ports of this node that lead into the tunnel.
pub(super) fn forward(inet: &mut Table<'_>, plan: &FilterPlan) {
    // Absent where it isn't needed: a NAT chain has every connection tracked.
    inet.chain("publish", "nat hook prerouting priority dstnat - 10");
    let publish = &plan.publish;
    if publish.ports.is_empty() || publish.outer.is_empty() {
        inet.line(format_args!("delete chain inet {TABLE} publish"));
        return;
    }
    let outer = publish.outer.iter();
    let outer: Vec<String> = outer.map(|name| format!("\"{name}\"")).collect();
    let outer = outer.join(", ");
    for port in &publish.ports {
        let (ip, set, to) = match port.to {
            IpAddr::V4(to) => ("ip", "4", to.to_string()),
            IpAddr::V6(to) => ("ip6", "6", format!("[{to}]")),
        };
        let (port, to_port) = (port.port, port.to_port);
        inet.rule(
            "publish",
            &format!(
                "iifname {{ {outer} }} {ip} saddr != @never{set} fib daddr type local tcp dport {port} dnat {ip} to {to}:{to_port}"
            ),
        );
    }
    inet.both("tunnel", "IP saddr . tcp sport @pubN", "accept");
}

/// What is forwarded for that, and the answers.
pub(super) fn across(inet: &mut Table<'_>, plan: &FilterPlan) {
    if plan.publish.ports.is_empty() {
        return;
    }
    let tunnel = &plan.interface;
    inet.both(
        "judge",
        &format!("oifname \"{tunnel}\" ct status dnat IP daddr . tcp dport @pubN"),
        "goto passed",
    );
    inet.both(
        "judge",
        &format!(
            "iifname \"{tunnel}\" ct status dnat ct direction reply IP saddr . tcp sport @pubN"
        ),
        "goto passed",
    );
}

/// What somebody has rewritten all the same is no stranger's address any more.
pub(super) fn rewritten(inet: &mut Table<'_>, plan: &FilterPlan, dropped: &str) {
    if plan.publish.ports.is_empty() {
        return;
    }
    let tunnel = &plan.interface;
    inet.both(
        "leaving",
        &format!(
            "oifname \"{tunnel}\" ct direction original ct status snat ct status dnat IP daddr . tcp \
             dport @pubN"
        ),
        dropped,
    );
}
