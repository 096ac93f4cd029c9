//! Looks at networks beside the overlay: on a gateway whether packets pass with their
//! true sources and answers come back, elsewhere whether this host stands in a LAN
//! that a gateway brings.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use innermesh_proto::{
    filter::{FilterPlan, HostNetworks, Interface, Lan},
    id::NodeId,
    view::MeshView,
};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::{
    host::{Host, Mono, within},
    node::shared::{
        beside::{Met, WayBack},
        enforced::Enforced,
        handles::Handles,
    },
    overlay::Setting,
    quic::Transport,
};

/// How often all of it is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How long a ping or a certificate is waited for.
const ANSWER: Duration = Duration::from_secs(2);
/// Pings to a router before it counts as one that doesn't answer: the first may wait
/// for the router's address on the link.
const PINGS: usize = 2;
/// How long a gateway that wasn't found in a LAN isn't looked for there again.
const AGAIN: Duration = Duration::from_secs(60);
/// Addresses of a gateway in a LAN that are tried.
const ADDRESSES: usize = 2;

/// Looks again and again, for as long as the agent runs.
pub(crate) struct BesideKeeper {
    host: Host,
    me: NodeId,
    view: watch::Sender<Arc<MeshView>>,
    transport: Transport,
    enforced: Arc<Enforced>,
    /// What came of looking for gateways in the LANs that this host stands in.
    tried: BTreeMap<IpNet, Tried>,
}

struct Tried {
    met: Met,
    at: Mono,
}

impl BesideKeeper {
    pub fn new(node: &Handles, enforced: Arc<Enforced>) -> Self {
        Self {
            host: node.host.clone(),
            me: node.me,
            view: node.view.clone(),
            transport: node.transport.clone(),
            enforced,
            tried: BTreeMap::new(),
        }
    }

    pub async fn run(mut self) {
        let mut views = self.view.subscribe();
        let mut routes = BTreeMap::new();
        loop {
            let view = views.borrow_and_update().clone();
            self.look(&view).await;
            let now: BTreeMap<IpNet, BTreeSet<NodeId>> = nets(&view);
            routes.clone_from(&now);
            let clock = self.host.clock.clone();
            let changed = async {
                while views.changed().await.is_ok() {
                    if nets(&views.borrow_and_update()) != routes {
                        return;
                    }
                }
                std::future::pending().await
            };
            tokio::select! {
                () = clock.sleep(LOOK) => {}
                () = changed => {}
            }
        }
    }

    async fn look(&mut self, view: &MeshView) {
        let (plan, networks) = {
            let state = self.enforced.lock();
            (state.plan.clone(), state.networks.clone())
        };
        let forwards = |plan: &FilterPlan| {
            plan.gateway.is_some() || plan.exit.is_some() || !plan.publish.ports.is_empty()
        };
        let gateway = plan.filter(forwards);
        match &gateway {
            Some(plan) => self.look_at_gateway(view, plan, &networks).await,
            None => {
                let beside = &mut self.enforced.lock().beside;
                beside.rewriters.clear();
                beside.droppers.clear();
                beside.by_source = None;
                beside.returns.clear();
                beside.unled.clear();
            }
        }
        let meets = self.meets(view, &networks).await;
        self.enforced.lock().beside.meets = meets;
    }

    async fn look_at_gateway(&self, view: &MeshView, plan: &FilterPlan, networks: &HostNetworks) {
        let overlay = &self.host.overlay;
        let rewriters = overlay.rewriters(plan).await.unwrap_or_default();
        let droppers = overlay.forward_droppers(&plan.interface).await;
        let lans: BTreeSet<Lan> = plan
            .gateway
            .iter()
            .flat_map(|it| &it.lans)
            .cloned()
            .collect();
        let strict = self.strict(plan, &lans).await;
        let by_source = overlay.dropped_by_source().await;
        let mut returns = BTreeMap::new();
        for lan in &lans {
            let way = self.way_back(lan, plan, networks).await;
            // With several interfaces in a LAN one that works is enough.
            let known = returns.entry(lan.net).or_insert_with(|| way.clone());
            if matches!(way, WayBack::Seen { .. }) {
                *known = way;
            }
        }
        let brings = view.ledger.routes();
        let brings = brings.filter(|(_, gateways)| gateways.contains(&self.me));
        let led = |net: &IpNet| lans.iter().any(|lan| lan.net == *net);
        let unled = brings.map(|(net, _)| *net).filter(|net| !led(net));
        let now = self.host.clock.now();
        let beside = &mut self.enforced.lock().beside;
        beside.rewriters = rewriters;
        beside.droppers = droppers.unwrap_or_default();
        beside.returns = returns;
        beside.unled = unled.collect();
        beside.by_source = by_source.map(|packets| match beside.by_source.take() {
            Some((before, _)) if packets > before => {
                (packets, strict.map(|interface| (interface, now)))
            }
            Some((_, grew)) => (packets, grew),
            None => (packets, None),
        });
    }

    /// The first interface on a gateway's ways whose sources are checked strictly.
    async fn strict(&self, plan: &FilterPlan, lans: &BTreeSet<Lan>) -> Option<Interface> {
        let overlay = &self.host.overlay;
        let value = async |interface: &str| {
            let value = overlay.setting(&Setting::rp_filter(interface)).await;
            value.and_then(|value| value.parse().ok()).unwrap_or(0u8)
        };
        // The greater of the two counts.
        let all = value("all").await;
        let lans = lans.iter().map(|lan| &lan.interface);
        for interface in lans.chain([&plan.interface]) {
            if all.max(value(interface.as_str()).await) == 1 {
                return Some(interface.clone());
            }
        }
        None
    }

    /// Has the LAN's router answer a ping from the overlay.
    async fn way_back(&self, lan: &Lan, plan: &FilterPlan, networks: &HostNetworks) -> WayBack {
        let of_lan = |all: &BTreeSet<innermesh_proto::filter::LanAddress>| {
            let mut all = all.iter();
            let found =
                all.find(|it| it.interface == lan.interface && lan.net.contains(&it.address));
            found.map(|it| it.address)
        };
        let own = of_lan(&networks.own);
        let router = of_lan(&networks.neighbours);
        let v4 = lan.net.addr().is_ipv4();
        let mut overlay = plan.own.iter().filter(|ip| ip.is_ipv4() == v4);
        let (Some(own_there), Some(router), Some(overlay)) = (own, router, overlay.next()) else {
            return WayBack::Unknown { own };
        };
        if self.answers(*overlay, router).await {
            return WayBack::Seen { router };
        }
        if self.answers(own_there, router).await {
            return WayBack::Missing {
                router,
                own: own_there,
            };
        }
        WayBack::Unknown { own }
    }

    async fn answers(&self, from: IpAddr, to: IpAddr) -> bool {
        for _ in 0..PINGS {
            let ping = self.host.net.echo_from(from, to);
            if let Some(Ok(())) = within(&*self.host.clock, ANSWER, ping).await {
                return true;
            }
        }
        false
    }

    /// The networks behind gateways that this host's own meet, and whether it stands
    /// in them.
    async fn meets(&mut self, view: &MeshView, networks: &HostNetworks) -> BTreeMap<IpNet, Met> {
        let now = self.host.clock.now();
        let mut met = BTreeMap::new();
        for net in view.unrouted(networks) {
            let Some(own) = networks.meets(&net) else {
                continue;
            };
            let mut found = Met {
                interface: own.interface.clone(),
                own: own.net,
                gateways: names(view, &net),
                direct: None,
            };
            let fresh = self.tried.get(&net).filter(|tried| {
                let same = (&tried.met.interface, &tried.met.own, &tried.met.gateways)
                    == (&found.interface, &found.own, &found.gateways);
                same && (tried.met.direct.is_some() || now < tried.at + AGAIN)
            });
            found.direct = match fresh {
                Some(tried) => tried.met.direct.clone(),
                None => self.direct(view, &net, own).await,
            };
            let tried = Tried {
                at: fresh.map_or(now, |tried| tried.at),
                met: found.clone(),
            };
            self.tried.insert(net, tried);
            met.insert(net, found);
        }
        self.tried.retain(|net, _| met.contains_key(net));
        met
    }

    /// The gateway that proves by its certificate to be at an address of its own in
    /// this host's network `own`. Somebody who passes packets on from there to it
    /// can't be told from it.
    async fn direct(&self, view: &MeshView, net: &IpNet, own: &Lan) -> Option<String> {
        for gateway in gateways(view, net) {
            let (Some(member), Some(seen)) =
                (view.ledger.members.get(&gateway), view.nodes.get(&gateway))
            else {
                continue;
            };
            let is_there = |at: &SocketAddr| {
                let ip = at.ip().to_canonical();
                net.contains(&ip) && own.net.contains(&ip)
            };
            if seen.path.as_ref().is_some_and(is_there) {
                return Some(member.name.to_string());
            }
            let announced = seen.announcement.quic.iter().filter(|at| is_there(at));
            for at in announced.take(ADDRESSES) {
                let dial = self.transport.dial_unregistered(*at, None);
                let channel = within(&*self.host.clock, ANSWER, dial).await;
                if let Some(Ok(channel)) = channel
                    && channel.peer_key().as_ref() == Some(&member.key)
                {
                    return Some(member.name.to_string());
                }
            }
        }
        None
    }
}

fn nets(view: &MeshView) -> BTreeMap<IpNet, BTreeSet<NodeId>> {
    let routes = view.ledger.routes();
    routes.map(|(net, all)| (*net, all.clone())).collect()
}

fn gateways(view: &MeshView, net: &IpNet) -> BTreeSet<NodeId> {
    let mut routes = view.ledger.routes();
    let found = routes.find(|(other, _)| *other == net);
    found.map(|(_, all)| all.clone()).unwrap_or_default()
}

fn names(view: &MeshView, net: &IpNet) -> Vec<String> {
    let all = gateways(view, net).into_iter();
    all.map(|node| view.ledger.name_of(node)).collect()
}
