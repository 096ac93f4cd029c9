//! A [`FilterPlan`] as one transaction for `nft -f -`: the whole state of two
//! tables of ours, which no other table's rules depend on.
//!
//! Rules are flushed and made anew within the transaction, so that no packet
//! sees the tables half done, and counters go on.

#![allow(missing_docs, reason = "the names say it")]

use std::{collections::BTreeSet, fmt, net::IpAddr};

use super::{
    FilterPlan, LanAddress, nft_access, nft_exit, nft_gateway, nft_publish,
    nft_table::{Table, element, is_v4},
};
pub use super::{
    nft_access::{COUNTERS, remove_former},
    nft_changes::changes,
    nft_table::TABLE,
};

/// Takes both tables away, also where they aren't there.
pub const REMOVE: &str = "\
add table inet innermesh
delete table inet innermesh
add table arp innermesh
delete table arp innermesh
";

/// Why a packet was dropped; each reason has a counter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// To an overlay address, by another way than the tunnel.
    LanToOverlay,
    /// From an overlay address, by another way than the tunnel.
    LanSpoofed,
    /// By the tunnel, from outside the overlay.
    TunnelSource,
    /// By the tunnel, for somebody else than this node.
    TunnelThrough,
    /// Forwarded into the tunnel or out of it.
    Forwarded,
    /// An overlay packet that would have left this host in plaintext.
    Leak,
    /// Forwarded for the overlay, with another source than it came with (S23).
    Rewritten,
    /// By the tunnel, and nothing in the mesh's policy lets it pass.
    Policy,
    /// By a link of a public node, and not what is published.
    NotPublished,
    /// Past the exit that this host uses.
    PastExit,
    /// A question by ARP for an overlay address.
    Arp,
}

impl Dropped {
    pub const ALL: [Self; 11] = [
        Self::LanToOverlay,
        Self::LanSpoofed,
        Self::TunnelSource,
        Self::TunnelThrough,
        Self::Forwarded,
        Self::Leak,
        Self::Rewritten,
        Self::Policy,
        Self::NotPublished,
        Self::PastExit,
        Self::Arp,
    ];

    /// The name of its counter.
    pub fn counter(self) -> &'static str {
        match self {
            Self::LanToOverlay => "lan_to_overlay",
            Self::LanSpoofed => "lan_spoofed",
            Self::TunnelSource => "tunnel_source",
            Self::TunnelThrough => "tunnel_through",
            Self::Forwarded => "forwarded",
            Self::Leak => "leak",
            Self::Rewritten => "rewritten",
            Self::Policy => "not_allowed",
            Self::NotPublished => "not_published",
            Self::PastExit => "past_exit",
            Self::Arp => "arp_asked",
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LanToOverlay => "to an overlay address, not through the tunnel",
            Self::LanSpoofed => "from an overlay address, not through the tunnel",
            Self::TunnelSource => "through the tunnel, from outside the overlay",
            Self::TunnelThrough => "through the tunnel, for another host",
            Self::Forwarded => "forwarded into the tunnel or out of it",
            Self::Leak => "would have left this host unencrypted",
            Self::Rewritten => "had another source put in place of its own",
            Self::Policy => "not allowed by the mesh's policy",
            Self::NotPublished => "from a public node, not what is published",
            Self::PastExit => "would have gone past the exit",
            Self::Arp => "asked a LAN for an overlay address",
        })
    }
}

/// Which way packets of the overlay pass this host's filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Passage {
    /// From other nodes to this one.
    In,
    /// Between the tunnel and what this host forwards for: its containers,
    /// devices, and networks beside it.
    Through,
    /// From this node to others.
    Out,
}

impl Passage {
    pub const ALL: [Self; 3] = [Self::In, Self::Through, Self::Out];

    /// A word of it, of which the names of its counters are made.
    pub fn word(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Through => "through",
            Self::Out => "out",
        }
    }

    /// The name of the counter before the filters of others, and behind them:
    /// what is missing in between, they dropped.
    pub fn counters(self, v4: bool) -> [String; 2] {
        let family = if v4 { "4" } else { "6" };
        ["before", "behind"].map(|place| format!("{}{family}_{place}", self.word()))
    }
}

/// The transaction. `anew` makes both tables from nothing, for tables of
/// another build that can't be changed into these; counters are then zero.
pub fn render(plan: &FilterPlan, anew: bool) -> String {
    let mut text = String::new();
    if anew {
        text.push_str(REMOVE);
    }
    let mut inet = Table::begin(&mut text, "inet");
    for dropped in Dropped::ALL.iter().filter(|d| **d != Dropped::Arp) {
        inet.line(format_args!(
            "add counter inet {TABLE} {}",
            dropped.counter()
        ));
    }
    for passage in Passage::ALL {
        for counter in [true, false].map(|v4| passage.counters(v4)).concat() {
            inet.line(format_args!("add counter inet {TABLE} {counter}"));
        }
    }
    sets(&mut inet, plan);
    chains(&mut inet, plan);
    others(&mut inet, plan);
    let mut arp = Table::begin(&mut text, "arp");
    arp.line(format_args!(
        "add counter arp {TABLE} {}",
        Dropped::Arp.counter()
    ));
    arp.chain("in", "filter hook input priority filter");
    // A LAN isn't told that this host has them, and learns no name by asking.
    let links = plan.publish.links.iter().flat_map(|link| &link.addresses);
    let asked = plan.own.iter().chain(&plan.resolvers).chain(links);
    let asked: Vec<String> = asked
        .filter(|ip| ip.is_ipv4())
        .map(IpAddr::to_string)
        .collect();
    if !asked.is_empty() {
        let (interface, asked) = (&plan.interface, asked.join(", "));
        arp.rule(
            "in",
            &format!(
                "iifname != \"{interface}\" arp daddr ip {{ {asked} }} {}",
                drop(Dropped::Arp)
            ),
        );
    }
    text
}

fn sets(inet: &mut Table<'_>, plan: &FilterPlan) {
    let nets = |v4: bool| {
        plan.networks
            .iter()
            .filter(move |net| is_v4(net.addr()) == v4)
    };
    let own = |v4: bool| plan.own.iter().filter(move |ip| ip.is_ipv4() == v4);
    let containers = |v4: bool| {
        let all = plan.containers.iter();
        all.filter(move |c| is_v4(c.subnet.addr()) == v4)
            .map(|c| format!("\"{}\" . {}", c.bridge, element(c.subnet)))
    };
    let lan = |all: &BTreeSet<LanAddress>, v4: bool| -> Vec<String> {
        let all = all.iter().filter(|lan| lan.address.is_ipv4() == v4);
        all.map(|lan| format!("\"{}\" . {}", lan.interface, lan.address))
            .collect()
    };
    for (suffix, kind, v4) in [("4", "ipv4_addr", true), ("6", "ipv6_addr", false)] {
        let interval = "flags interval;";
        let concat = format!("ifname . {kind}");
        inet.set(
            &format!("net{suffix}"),
            kind,
            interval,
            nets(v4).map(|net| element(*net)),
        );
        inet.set(
            &format!("own{suffix}"),
            kind,
            "",
            own(v4).map(IpAddr::to_string),
        );
        inet.set(&format!("in{suffix}"), &concat, interval, containers(v4));
        inet.set(
            &format!("lan{suffix}"),
            &concat,
            "",
            lan(&plan.lan_own, v4).into_iter(),
        );
        inet.set(
            &format!("near{suffix}"),
            &concat,
            "",
            lan(&plan.lan_neighbours, v4).into_iter(),
        );
        let behind = plan.behind_gateways.iter();
        let behind = behind.filter(|net| is_v4(net.addr()) == v4);
        inet.set(
            &format!("routes{suffix}"),
            kind,
            interval,
            behind.map(|net| element(*net)),
        );
        nft_gateway::sets(inet, plan, suffix, v4);
        nft_publish::sets(inet, plan, suffix, v4);
        nft_exit::sets(inet, plan, suffix, v4);
    }
}

fn chains(inet: &mut Table<'_>, plan: &FilterPlan) {
    // Before Docker's DNAT and before connections are tracked.
    inet.chain("early", "filter hook prerouting priority raw");
    inet.chain("entry", "filter hook input priority filter - 10");
    inet.chain("across", "filter hook forward priority filter - 10");
    // Behind every NAT: it sees what really leaves, whoever sent it.
    inet.chain("leaving", "filter hook postrouting priority srcnat + 200");
    let masquerades = plan.containers_reach_mesh && !plan.containers.is_empty();
    // Absent where it isn't needed: a NAT chain has every connection tracked.
    inet.chain("containers", "nat hook postrouting priority srcnat - 10");
    if !masquerades {
        inet.line(format_args!("delete chain inet {TABLE} containers"));
    }
    for chain in [
        "tunnel",
        "welcome",
        "inside",
        "judge",
        "granted",
        "passed",
        "published",
        "landed",
    ] {
        inet.line(format_args!("add chain inet {TABLE} {chain}"));
    }
    nft_access::write(inet, plan, &drop(Dropped::Policy));
    let tunnel = &plan.interface;
    let is_gateway = plan.gateway.is_some();

    nft_exit::marks(inet, plan);
    inet.rule("early", "iifname \"lo\" accept");
    inet.rule("early", &format!("iifname \"{tunnel}\" goto tunnel"));
    nft_publish::early(inet, plan, &drop(Dropped::NotPublished));
    inet.both(
        "early",
        "IP saddr @netN iifname . IP saddr != @nearN",
        drop(Dropped::LanSpoofed),
    );
    inet.both("early", "IP daddr != @netN", "accept");
    inet.both("early", "iifname . IP daddr @lanN", "accept");
    inet.both("early", "iifname . IP saddr @inN", "accept");
    if is_gateway {
        inet.both("early", "iifname . IP saddr @besideN", "accept");
    }
    inet.rule("early", &drop(Dropped::LanToOverlay));

    if plan.through.is_some() {
        nft_exit::replies(inet, &drop(Dropped::TunnelSource));
    } else {
        inet.both(
            "tunnel",
            "IP saddr != @netN IP saddr != @routesN",
            drop(Dropped::TunnelSource),
        );
    }
    inet.both("tunnel", "IP daddr @ownN", "accept");
    if is_gateway {
        nft_gateway::from_tunnel(inet, &drop(Dropped::TunnelThrough));
    }
    nft_publish::forward(inet, plan);
    if plan.exit.is_some() {
        nft_exit::from_tunnel(inet);
    }
    inet.rule("tunnel", &drop(Dropped::TunnelThrough));

    // Again, as rules in between may have given packets another destination.
    inet.rule("entry", &format!("iifname \"{tunnel}\" goto welcome"));
    if !plan.access.looks_at_nothing() {
        inet.rule("welcome", &format!("jump {}", nft_access::CHAIN));
    }
    inet.rule("entry", "iifname \"lo\" accept");
    inet.both("entry", "IP daddr @netN", "jump inside");
    inet.both("inside", "iifname . IP saddr @inN", "accept");
    inet.both("inside", "iifname . IP daddr @lanN", "accept");
    if is_gateway {
        nft_gateway::from_lan(inet);
    }
    inet.rule("inside", &drop(Dropped::LanToOverlay));

    inet.rule("across", &format!("iifname \"{tunnel}\" goto judge"));
    inet.rule("across", &format!("oifname \"{tunnel}\" goto judge"));
    inet.both("across", "IP saddr @netN", "goto judge");
    inet.both("across", "IP daddr @netN", "goto judge");
    judge(inet, plan);

    nft_gateway::sources(inet, plan, &drop(Dropped::Rewritten));
    nft_publish::rewritten(inet, plan, &drop(Dropped::Rewritten));
    inet.rule(
        "leaving",
        &format!("oifname {{ \"lo\", \"{tunnel}\" }} accept"),
    );
    nft_publish::leaving(inet, plan, &drop(Dropped::Leak));
    inet.both("leaving", "IP saddr != @netN IP daddr != @netN", "accept");
    inet.both("leaving", "oifname . IP daddr @inN", "accept");
    if is_gateway {
        inet.both("leaving", "oifname . IP daddr @besideN", "accept");
    }
    inet.both(
        "leaving",
        "oifname . IP saddr @lanN IP daddr != @netN",
        "accept",
    );
    inet.both(
        "leaving",
        "oifname . IP saddr @lanN oifname . IP daddr @nearN",
        "accept",
    );
    inet.both(
        "leaving",
        "IP saddr != @netN oifname . IP daddr @nearN",
        "accept",
    );
    inet.rule("leaving", &drop(Dropped::Leak));
    if masquerades {
        let way = format!("oifname \"{tunnel}\" iifname . IP saddr @inN");
        inet.both("containers", &way, "masquerade");
    }
}

/// What this host may forward from the tunnel and into it.
fn judge(inet: &mut Table<'_>, plan: &FilterPlan) {
    let tunnel = &plan.interface;
    // ICMP from the far side of a tunnel may be lost on the way.
    inet.rule("judge", "tcp flags syn tcp option maxseg size set rt mtu");
    // A published port is one of this node's, whoever answers behind it.
    if !plan.access.looks_at_nothing() {
        let way = "ct original IP daddr @ownN";
        inet.both("judge", way, format_args!("jump {}", nft_access::CHAIN));
    }
    // A container's published port: the first packet was for this node's own
    // address, and the host's rules have sent it on.
    inet.both(
        "judge",
        &format!(
            "iifname \"{tunnel}\" ct status dnat ct original IP daddr @ownN oifname . IP daddr @inN"
        ),
        "goto passed",
    );
    inet.both(
        "judge",
        &format!(
            "oifname \"{tunnel}\" ct status dnat ct direction reply ct original IP daddr @ownN \
             iifname . IP saddr @inN"
        ),
        "goto passed",
    );
    if plan.containers_reach_mesh {
        inet.both(
            "judge",
            &format!("oifname \"{tunnel}\" iifname . IP saddr @inN"),
            "goto passed",
        );
        inet.both(
            "judge",
            &format!(
                "iifname \"{tunnel}\" ct status snat ct direction reply oifname . IP daddr @inN"
            ),
            "goto passed",
        );
    }
    inet.both(
        "judge",
        "iifname . IP saddr @inN oifname . IP daddr @nearN",
        "goto passed",
    );
    inet.both(
        "judge",
        "iifname . IP saddr @nearN oifname . IP daddr @inN",
        "goto passed",
    );
    nft_publish::across(inet, plan);
    if plan.gateway.is_some() {
        nft_gateway::across(inet, tunnel);
    }
    if plan.gateway.is_some() || plan.exit.is_some() {
        nft_gateway::granted(inet);
    }
    nft_exit::across(inet, plan);
    inet.rule("judge", &drop(Dropped::Forwarded));
}

/// Counts what passes here, and again behind all other filters of the same
/// hook: a verdict of theirs can't be read from rules, and is seen by this.
fn others(inet: &mut Table<'_>, plan: &FilterPlan) {
    let tunnel = &plan.interface;
    inet.chain("entered", "filter hook input priority 1000");
    inet.chain("crossed", "filter hook forward priority 1000");
    inet.chain("begin", "filter hook output priority filter - 10");
    inet.chain("begun", "filter hook output priority 1000");
    // A peer's address in a LAN behind a gateway is reached through the tunnel, and
    // is no way to keep that up.
    let outer: BTreeSet<u16> = &plan.outer_ports | &plan.publish.outer_ports;
    if !outer.is_empty() {
        let ports: Vec<String> = outer.iter().map(u16::to_string).collect();
        let ports = ports.join(", ");
        inet.rule(
            "begin",
            &format!("oifname \"{tunnel}\" udp sport {{ {ports} }} drop"),
        );
    }
    nft_exit::begun(inet, plan, &drop(Dropped::PastExit));
    // Firewalls drop stray packets of old connections, which is no news: only
    // the first of each is counted, and of forwarded ones what isn't stray.
    let first = "ct state { new, untracked }";
    let inward = format!("iifname \"{tunnel}\"");
    let outward = format!("oifname \"{tunnel}\"");
    for (v4, family) in [(true, "ipv4"), (false, "ipv6")] {
        let mut count = |chain: &str, way: &str, which: &str, counter: &str| {
            inet.rule(
                chain,
                &format!("{way} meta nfproto {family} {which} counter name {counter}"),
            );
        };
        let [before, behind] = Passage::In.counters(v4);
        count("welcome", &inward, first, &before);
        count("entered", &inward, first, &behind);
        let [before, behind] = Passage::Out.counters(v4);
        count("begin", &outward, first, &before);
        count("begun", &outward, first, &behind);
        let [before, behind] = Passage::Through.counters(v4);
        for way in [&inward, &outward] {
            count("passed", way, "ct state != invalid", &before);
            count("crossed", way, "ct state != invalid", &behind);
        }
    }
    inet.rule("welcome", "accept");
    inet.rule("passed", "accept");
}

/// The verdict that counts.
fn drop(why: Dropped) -> String {
    format!("counter name {} drop", why.counter())
}
