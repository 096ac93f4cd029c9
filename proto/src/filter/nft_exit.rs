//! Rules about the internet: of an exit, which forwards there and masquerades what
//! leaves for it (S23), and of a host that uses one and sends there in no other way.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{
    FilterPlan,
    exit::{LanAccess, MARK, ThroughExit, elsewhere},
    nft_access::element,
    nft_table::{TABLE, Table},
    ranges,
};

/// From the overlay or a device to the internet.
const OUT: &str = "IP saddr @netN IP daddr != @closedN";

/// What is no part of the internet.
pub(super) fn sets(inet: &mut Table<'_>, plan: &FilterPlan, suffix: &str, v4: bool) {
    let kind = if v4 { "ipv4_addr" } else { "ipv6_addr" };
    let is_used = plan.exit.is_some() || plan.through.is_some();
    let closed = is_used.then(|| ranges::of(&closed_nets(plan), v4));
    let closed = closed.into_iter().flatten();
    inet.set(
        &format!("closed{suffix}"),
        kind,
        "flags interval;",
        closed.map(|range| element(range, v4)),
    );
}

/// Networks that an exit lets nobody into, and that aren't reached by one.
fn closed_nets(plan: &FilterPlan) -> BTreeSet<IpNet> {
    let own = plan.exit.iter().flat_map(|exit| &exit.own_networks);
    let known = plan.networks.iter().chain(&plan.behind_gateways).chain(own);
    let known = known.copied().filter(|net| net.prefix_len() > 0);
    elsewhere().into_iter().chain(known).collect()
}

/// What comes to an exit by the tunnel.
pub(super) fn from_tunnel(inet: &mut Table<'_>) {
    inet.both("tunnel", OUT, "accept");
}

/// What an exit forwards, and what comes back.
pub(super) fn across(inet: &mut Table<'_>, plan: &FilterPlan) {
    let Some(exit) = &plan.exit else { return };
    let tunnel = &plan.interface;
    for v4 in [true, false] {
        let Some(outer) = exit.outer(v4) else {
            // So that whoever asks tries the other family at once.
            let refusal = if v4 {
                "reject with icmp type net-unreachable"
            } else {
                "reject with icmpv6 type no-route"
            };
            inet.one("judge", v4, &format!("iifname \"{tunnel}\" {OUT}"), refusal);
            continue;
        };
        let out = format!("iifname \"{tunnel}\" oifname \"{outer}\" {OUT}");
        inet.one("judge", v4, &out, "goto granted");
        let back = format!("iifname \"{outer}\" oifname \"{tunnel}\" IP daddr @netN");
        let back = format!("{back} ct direction reply ct status snat");
        inet.one("judge", v4, &back, "goto granted");
    }
}

/// What leaves an exit for the internet has the exit's address, on the interface that
/// leads there. Nothing else has.
pub(super) fn masquerade(inet: &mut Table<'_>, plan: &FilterPlan) {
    let Some(exit) = &plan.exit else { return };
    let tunnel = &plan.interface;
    for v4 in [true, false] {
        let Some(outer) = exit.outer(v4) else {
            continue;
        };
        let way = format!("iifname \"{tunnel}\" oifname \"{outer}\"");
        inet.one("sources", v4, &format!("{way} {OUT}"), "masquerade");
        let rewritten =
            "IP saddr != @netN ct original IP saddr @netN ct original IP daddr != @closedN";
        inet.one("leaving", v4, &format!("{way} {rewritten}"), "accept");
    }
}

/// By the tunnel comes what answers this host, and nobody else's.
pub(super) fn replies(inet: &mut Table<'_>, dropped: &str) {
    let foreign = "IP saddr != @netN IP saddr != @routesN";
    inet.both("tunnel", &format!("{foreign} IP saddr @closedN"), dropped);
    let unasked = format!("{foreign} ct state != {{ established, related }}");
    inet.both("welcome", &unasked, dropped);
}

/// Marks what may go by this host's own routes. At the begin of `early`, where others'
/// checks of sources come after.
pub(super) fn marks(inet: &mut Table<'_>, plan: &FilterPlan) {
    inet.chain("come", "filter hook prerouting priority mangle");
    inet.chain("answer", "route hook output priority mangle");
    let Some(through) = &plan.through else {
        for chain in ["come", "answer"] {
            inet.line(format_args!("delete chain inet {TABLE} {chain}"));
        }
        return;
    };
    let (mark, marked) = (mark(), format!("ct mark & {MARK:#x} == {MARK:#x}"));
    if let Some(beside) = beside(through) {
        inet.rule("early", &format!("iifname {beside} {mark}"));
        if through.lan == LanAccess::Keep {
            inet.rule(
                "come",
                &format!(
                    "iifname {beside} ct direction original fib daddr type local \
                     ct mark set ct mark | {MARK:#x}"
                ),
            );
        }
    }
    // What containers and programs of this host answer.
    inet.rule("come", &format!("ct direction reply {marked} {mark}"));
    inet.rule("answer", &format!("ct direction reply {marked} {mark}"));
    // The lease of this host's own address.
    inet.rule("answer", &format!("udp sport 68 udp dport 67 {mark}"));
}

/// The real guarantee: behind all that others may have changed of a packet's way.
pub(super) fn begun(inet: &mut Table<'_>, plan: &FilterPlan, dropped: &str) {
    inet.line(format_args!("add chain inet {TABLE} apart"));
    let Some(through) = &plan.through else { return };
    let tunnel = &plan.interface;
    let apart = format!("meta mark & {MARK:#x} != {MARK:#x} jump apart");
    inet.rule(
        "begun",
        &format!("oifname != {{ \"lo\", \"{tunnel}\" }} {apart}"),
    );
    inet.both(
        "crossed",
        &format!("oifname != \"{tunnel}\" iifname . IP saddr @inN"),
        &apart,
    );
    inet.both("apart", "oifname . IP daddr @inN", "return");
    // Answers by links of public nodes, which are tunnels too.
    inet.both("apart", "oifname . IP saddr @pubownN", "return");
    // Neighbours on a link, without which there is no way to an exit either.
    for neighbours in [
        "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert }",
        "icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report }",
        "udp sport 546 udp dport 547",
    ] {
        inet.rule("apart", &format!("{neighbours} return"));
    }
    if through.lan == LanAccess::Keep {
        inet.both("apart", "IP daddr @closedN", "return");
    }
    inet.rule("apart", dropped);
}

fn mark() -> String {
    format!("meta mark set meta mark | {MARK:#x}")
}

/// As the elements of a set; none where there are none.
fn beside(through: &ThroughExit) -> Option<String> {
    let names: Vec<String> = through
        .beside
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect();
    (!names.is_empty()).then(|| format!("{{ {} }}", names.join(", ")))
}
