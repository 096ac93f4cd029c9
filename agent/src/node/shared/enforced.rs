//! What of the host's filter and routing is in force, and what of it a person
//! should know.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use innermesh_proto::filter::{FilterPlan, HostNetworks, nft::Passage};
use ipnet::IpNet;

use crate::{
    control::finding::{Finding, Severity, code},
    host::Mono,
    node::shared::{beside::Beside, told::is_recent},
    overlay::{OverlayError, others::Lost},
};

/// Where to look; what is missing is set by itself once it can be.
const LOG: &str = "`journalctl -u innermesh` shows since when; it is set as soon as that works";

/// What is enforced here.
#[derive(Default)]
pub(crate) struct Enforced(Mutex<OverlayState>);

#[derive(Default)]
pub(crate) struct OverlayState {
    pub networks: HostNetworks,
    /// The newest plan, in force but for what `filter` and `routes` say.
    pub plan: Option<FilterPlan>,
    /// The policy by which the filter in force was made; 0 for the defaults.
    pub policy: Option<u64>,
    pub filter: Option<OverlayError>,
    pub routes: Option<OverlayError>,
    pub stored: Option<FilterPlan>,
    /// When it was last put back, as somebody else had changed it.
    pub restored: Option<Mono>,
    /// Why the kernel doesn't forward as planned.
    pub forwarding: Option<String>,
    /// Why marks don't count where the kernel checks sources.
    pub marks: Option<String>,
    pub beside: Beside,
    /// What others' filters dropped at the last look, and when there was more
    /// of it than before.
    pub lost: BTreeMap<(Passage, bool), (Lost, Mono)>,
}

impl Enforced {
    /// Subnets of this host's containers.
    pub fn containers(&self) -> Vec<IpNet> {
        let state = self.lock();
        let all = state.networks.containers.iter();
        all.map(|containers| containers.subnet).collect()
    }

    /// The policy that this host's filter was last made by.
    pub fn policy(&self) -> Option<u64> {
        self.lock().policy
    }

    /// What isn't as planned.
    pub fn findings(&self, now: Mono) -> Vec<Finding> {
        let state = self.lock();
        let filter = state.filter.as_ref().map(|error| {
            let text = format!(
                "the overlay isn't closed to other networks: {error}. Until that is mended, hosts on \
                 a LAN reach this node's overlay addresses and can pretend to be members, and what \
                 this host forwards may enter the tunnel"
            );
            Finding::new(code::OVERLAY_OPEN, Severity::Error, text, LOG)
        });
        let routes = state.routes.as_ref().map(|error| {
            let text = format!(
                "the overlay's routes aren't set: {error}. Until that is mended, overlay traffic may \
                 leave this host unencrypted while the tunnel is down"
            );
            Finding::new(code::OVERLAY_ROUTES, Severity::Error, text, LOG)
        });
        let near = state.plan.as_ref().and_then(lan_overlap);
        let restored = is_recent(state.restored, now).then(|| {
            Finding::warning(
                code::FILTER_CHANGED,
                "another program removed or changed the overlay's packet filter, and it was put back",
                "Reload others' rules without `flush ruleset`",
            )
        });
        let lost = lost_packets(&state.lost, now);
        let forwarding = state.forwarding.as_ref().map(|error| {
            Finding::error(
                code::FORWARDING_OFF,
                format!(
                    "this host doesn't forward as gateways and exits must: {error}. Devices, networks and \
                     nodes that use it as an exit reach nothing by it"
                ),
                "Set it outside the agent, as in a container by `--sysctl net.ipv4.ip_forward=1 --sysctl \
                 net.ipv6.conf.all.forwarding=1`",
            )
        });
        let beside = state.beside.findings(state.plan.as_ref(), now);
        let own = filter.into_iter().chain(routes).chain(near);
        let own = own.chain(restored).chain(lost);
        own.chain(forwarding).chain(beside).collect()
    }

    pub fn lock(&self) -> MutexGuard<'_, OverlayState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lan_overlap(plan: &FilterPlan) -> Option<Finding> {
    let own = plan.lan_own.first()?;
    let near: Vec<String> = plan
        .lan_neighbours
        .iter()
        .map(|lan| lan.address.to_string())
        .collect();
    let reached = if near.is_empty() {
        "none of its hosts is reached".to_owned()
    } else {
        format!("of its hosts only {} is reached", near.join(", "))
    };
    let list = |nets: &mut dyn Iterator<Item = &IpNet>| {
        let nets: Vec<String> = nets.map(ToString::to_string).collect();
        nets.join(", ")
    };
    let overlaps = |net: &&IpNet| {
        let mut lans = plan.lan_networks.iter();
        lans.any(|lan| net.contains(lan) || lan.contains(*net))
    };
    let text = format!(
        "the LAN on {} ({}) has the overlay's address range ({}): {reached} from here",
        own.interface,
        list(&mut plan.lan_networks.iter()),
        list(&mut plan.networks.iter().filter(overlaps)),
    );
    let remedy = "Give that LAN another range";
    Some(Finding::new(
        code::LAN_OVERLAP,
        Severity::Warning,
        text,
        remedy,
    ))
}

/// Filters of others that drop what should pass, and what has each let it
/// pass. One that drops both families by one rule is reported once.
fn lost_packets(lost: &BTreeMap<(Passage, bool), (Lost, Mono)>, now: Mono) -> Vec<Finding> {
    let recent = lost
        .values()
        .filter(|(_, grew)| is_recent(Some(*grew), now))
        .map(|(lost, _)| lost);
    let told: BTreeSet<(String, String)> = recent
        .flat_map(|lost| {
            let what = match lost.passage {
                Passage::In => "what other nodes send to this one",
                Passage::Through => "packets between other nodes and this host's containers",
                Passage::Out => "what this node sends to others",
            };
            let family = if lost.v4 { "IPv4" } else { "IPv6" };
            lost.by.iter().map(move |other| match &other.command {
                Some(command) => (
                    format!("{} drops {what}", other.owner),
                    format!(
                        "If it isn't meant to, run `{command}`, and keep that in its configuration"
                    ),
                ),
                None => (
                    format!("{} drops {what} ({family})", other.owner),
                    "`nft monitor trace` shows where".to_owned(),
                ),
            })
        })
        .collect();
    let told = told.into_iter();
    told.map(|(text, remedy)| Finding::error(code::FILTER_DROPS, text, remedy))
        .collect()
}
