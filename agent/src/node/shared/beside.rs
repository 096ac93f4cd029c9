//! What was seen of networks beside the overlay: on a gateway what keeps packets from
//! passing with their true sources, on other nodes which of them this host stands in
//! itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use innermesh_proto::filter::{FilterPlan, Interface};
use ipnet::IpNet;

use crate::{
    control::finding::{Finding, code},
    host::Mono,
    node::shared::told::is_recent,
    overlay::{
        Setting,
        others::{Lost, Rewriter, Rewritten},
    },
};

/// The newest of it.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// Others' rules that would rewrite sources.
    pub rewriters: Vec<Rewriter>,
    /// Others' filters that drop what is forwarded.
    pub droppers: Vec<Lost>,
    /// Packets that the kernel dropped for their sources at the last look, the
    /// interface that it may have been by, and when there was more of it than before.
    pub by_source: Option<(u64, Option<(Interface, Mono)>)>,
    /// Of networks that this node brings: whether their hosts' answers come back.
    pub returns: BTreeMap<IpNet, WayBack>,
    /// Networks that this node is to bring, and no interface leads to.
    pub unled: BTreeSet<IpNet>,
    /// Networks behind gateways whose addresses this host's own network has too.
    pub meets: BTreeMap<IpNet, Met>,
}

/// Whether what a LAN's hosts answer comes back to its gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WayBack {
    /// The LAN's router has answered an overlay address.
    Seen { router: IpAddr },
    /// It has answered this host's LAN address, and no overlay address.
    Missing { router: IpAddr, own: IpAddr },
    /// It answers no ping, or there is none on that interface.
    Unknown { own: Option<IpAddr> },
}

impl WayBack {
    /// As JSON has it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Seen { .. } => "seen",
            Self::Missing { .. } => "missing",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// This host's address in that LAN.
    fn own(&self) -> Option<IpAddr> {
        match self {
            Self::Seen { .. } => None,
            Self::Missing { own, .. } => Some(*own),
            Self::Unknown { own } => *own,
        }
    }

    /// What the LAN's router needs, until it is known to have it.
    pub fn command(&self, plan: &FilterPlan) -> Option<String> {
        let own = self.own()?;
        let mut nets = plan.networks.iter();
        let net = nets.find(|net| net.addr().is_ipv4() == own.is_ipv4())?;
        Some(format!("ip route add {net} via {own}"))
    }
}

/// A network of this host's own that has addresses of one behind a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    pub interface: Interface,
    /// The host's own network.
    pub own: IpNet,
    /// Names of the gateways that bring the other.
    pub gateways: Vec<String>,
    /// The one that proved by its certificate to be in this very LAN.
    pub direct: Option<String>,
}

impl Beside {
    /// What somebody should do something about; `plan` is the one in force.
    pub fn findings(&self, plan: Option<&FilterPlan>, now: Mono) -> Vec<Finding> {
        let mut found: Vec<Finding> = self.rewriters.iter().map(rewriter).collect();
        found.extend(self.droppers());
        found.extend(self.by_source(now));
        for net in &self.unled {
            found.push(Finding::warning(
                code::ROUTE_NO_INTERFACE,
                format!("this node is to bring {net}, and no interface of this host leads there"),
                format!(
                    "Give this host an address in that network, or a route to it; or run `agent route \
                     rm {net}`"
                ),
            ));
        }
        for (net, way) in &self.returns {
            found.extend(plan.and_then(|plan| no_way_back(net, way, plan)));
        }
        for (net, met) in self.meets.iter().filter(|(_, met)| met.direct.is_none()) {
            found.push(overlap(net, met));
        }
        found
    }

    fn droppers(&self) -> Vec<Finding> {
        let all = self.droppers.iter().flat_map(|lost| &lost.by);
        // One that drops both families by one rule is reported once.
        let told: BTreeSet<(String, Option<&String>)> = all
            .map(|other| (other.owner.to_string(), other.command.as_ref()))
            .collect();
        let told = told.into_iter();
        told.map(|(owner, command)| {
            let remedy = match command {
                Some(command) => format!("Run `{command}`, and keep that in its configuration"),
                None => "`nft monitor trace` shows where".to_owned(),
            };
            Finding::error(
                code::FORWARD_POLICY,
                format!(
                    "{owner} drops what is forwarded: devices, networks and strangers reach nothing \
                     by this node"
                ),
                remedy,
            )
        })
        .collect()
    }

    fn by_source(&self, now: Mono) -> Option<Finding> {
        let (_, grew) = self.by_source.as_ref()?;
        let (interface, when) = grew.as_ref()?;
        is_recent(Some(*when), now).then(|| {
            Finding::warning(
                code::REVERSE_PATH_FILTER,
                format!(
                    "the kernel drops packets by their sources (rp_filter is strict on {interface}): \
                     what comes to this gateway by another way than its answers would go is lost"
                ),
                format!(
                    "Run `sysctl -w {}=2`, and keep that in /etc/sysctl.d",
                    Setting::rp_filter(interface.as_str())
                ),
            )
        })
    }
}

fn rewriter(rewriter: &Rewriter) -> Finding {
    let what = match rewriter.what {
        Rewritten::ToLan => "what nodes and devices send to a LAN",
        Rewritten::FromLan => "what a LAN's hosts send to nodes and devices",
        Rewritten::Within => "what devices and nodes send each other",
        Rewritten::FromStrangers => "what strangers send to what is published here",
    };
    let remedy = match &rewriter.command {
        Some(command) => format!("Run `{command}`, and keep that in its configuration"),
        None => "Have that rule leave the overlay's addresses alone".to_owned(),
    };
    Finding::warning(
        code::MASQUERADE,
        format!(
            "{} would put this host's address in place of the true source of {what}. A mail server \
             would take every one of them for this gateway, and relay for it. The agent's own rules \
             keep the true sources while they are in force",
            rewriter.owner
        ),
        remedy,
    )
}

fn no_way_back(net: &IpNet, way: &WayBack, plan: &FilterPlan) -> Option<Finding> {
    let WayBack::Missing { router, own } = way else {
        return None;
    };
    let command = way.command(plan)?;
    Some(Finding::warning(
        code::ROUTE_NO_RETURN,
        format!(
            "hosts in {net} can't answer overlay addresses by this gateway: the router {router} \
             answered a ping from {own}, and none from this node's overlay address"
        ),
        format!("Give that router the route back, as by `{command}`"),
    ))
}

fn overlap(net: &IpNet, met: &Met) -> Finding {
    let Met {
        interface,
        own,
        gateways,
        ..
    } = met;
    let gateways = gateways.join(" and ");
    Finding::warning(
        code::ROUTE_OVERLAP,
        format!(
            "{net} behind {gateways} isn't reached from here: {own} on {interface} has addresses of \
             it, and {gateways} isn't in that LAN. What is sent to those addresses goes to {interface}"
        ),
        "Give one of the two another range; elsewhere this node reaches it again by itself",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use innermesh_proto::filter::HostNetworks;

    use super::*;

    fn plan() -> FilterPlan {
        FilterPlan::new(
            "im0".to_owned().try_into().unwrap(),
            ["10.77.0.0/16".parse().unwrap()].into(),
            BTreeSet::new(),
            BTreeSet::new(),
            &HostNetworks::default(),
            |_| false,
        )
    }

    fn codes(beside: &Beside) -> Vec<String> {
        let now = Duration::from_secs(1000);
        let found = beside.findings(Some(&plan()), now);
        found.into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn a_route_back_is_asked_for_only_where_it_was_seen_to_be_missing() {
        let net: IpNet = "192.168.1.0/24".parse().unwrap();
        let [router, own] = ["192.168.1.1", "192.168.1.5"].map(|ip| ip.parse().unwrap());
        let mut beside = Beside::default();
        beside.returns.insert(net, WayBack::Missing { router, own });
        let found = beside.findings(Some(&plan()), Duration::ZERO);
        assert_eq!(codes(&beside), [code::ROUTE_NO_RETURN]);
        assert!(
            found[0]
                .remedy
                .contains("ip route add 10.77.0.0/16 via 192.168.1.5")
        );
        let unknown = WayBack::Unknown { own: Some(own) };
        assert!(unknown.command(&plan()).is_some());
        beside.returns.insert(net, unknown);
        assert_eq!(codes(&beside), [""; 0]);
        let seen = WayBack::Seen { router };
        assert_eq!(seen.command(&plan()), None);
    }

    #[test]
    fn packets_dropped_for_their_sources_are_told_for_a_while_and_only_where_that_is_strict() {
        let interface: Interface = "eth0.7".to_owned().try_into().unwrap();
        let mut beside = Beside {
            by_source: Some((17, None)),
            ..Beside::default()
        };
        assert_eq!(codes(&beside), [""; 0]);
        let now = Duration::from_secs(1000);
        beside.by_source = Some((18, Some((interface, now))));
        assert_eq!(codes(&beside), [code::REVERSE_PATH_FILTER]);
        let found = beside.findings(None, now);
        let remedy = "sysctl -w net/ipv4/conf/eth0.7/rp_filter=2";
        assert!(found[0].remedy.contains(remedy), "{found:?}");
        assert!(beside.findings(None, now * 2).is_empty());
    }

    #[test]
    fn an_equal_range_elsewhere_is_told_and_the_lan_itself_is_not() {
        let mut met = Met {
            interface: "wlan0".to_owned().try_into().unwrap(),
            own: "192.168.1.0/24".parse().unwrap(),
            gateways: vec!["attic".to_owned()],
            direct: None,
        };
        let mut beside = Beside::default();
        beside.meets.insert(met.own, met.clone());
        assert_eq!(codes(&beside), [code::ROUTE_OVERLAP]);
        met.direct = Some("attic".to_owned());
        beside.meets.insert(met.own, met);
        assert_eq!(codes(&beside), [""; 0]);
    }
}
