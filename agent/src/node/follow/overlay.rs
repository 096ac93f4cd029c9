//! The host's filter and routing follow the view, always a step before the
//! tunnel does: what the tunnel is given is closed to all others already.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, MutexGuard, PoisonError},
};

use innermesh_proto::{
    filter::{
        FilterPlan, Interface, ThroughExit,
        nft::{Dropped, Passage},
    },
    head::ExitWays,
    tunnel::TunnelPlan,
    view::MeshView,
};
use tokio::sync::{Mutex, watch};

use crate::{
    control::node::OverlayStatus,
    host::{Host, Mono},
    node::{
        config::AgentConfig,
        follow::access::AccessCompiler,
        shared::{
            announce::Announcer, enforced::Enforced, exit_setting::ExitSetting, handles::Handles,
            told::is_recent, zone::ZonePublisher,
        },
    },
    overlay::{Filtered, OverlayError, forwarding, others::Lost, stored},
    tunnel::BackendChoice,
};

/// Makes filter and routing match the view.
pub(crate) struct OverlayKeeper {
    config: Arc<AgentConfig>,
    host: Host,
    view: watch::Sender<Arc<MeshView>>,
    zone: ZonePublisher,
    pub(crate) enforced: Arc<Enforced>,
    access: AccessCompiler,
    /// Held while a plan is made and applied: of two at once, the older one could be
    /// applied last.
    turn: Mutex<()>,
    exit: Arc<ExitSetting>,
    announcer: Announcer,
    /// UDP ports that links of public nodes send from.
    link_ports: std::sync::Mutex<BTreeSet<u16>>,
}

impl OverlayKeeper {
    pub fn new(
        node: &Handles,
        zone: ZonePublisher,
        exit: Arc<ExitSetting>,
        announcer: Announcer,
    ) -> Self {
        Self {
            config: node.config.clone(),
            host: node.host.clone(),
            view: node.view.clone(),
            enforced: zone.enforced.clone(),
            access: AccessCompiler::new(&node.config),
            turn: Mutex::default(),
            exit,
            announcer,
            link_ports: std::sync::Mutex::default(),
            zone,
        }
    }
}

impl OverlayKeeper {
    /// Looks at the host's own networks.
    pub async fn look(&self) {
        let Some(interface) = self.interface() else {
            return;
        };
        let resolvers = self.host.net.upstream_resolvers().await;
        let resolvers: Vec<_> = resolvers.into_iter().map(|server| server.ip()).collect();
        match self.host.overlay.networks(&interface, &resolvers).await {
            Ok(networks) => {
                let before =
                    std::mem::replace(&mut self.enforced.lock().networks, networks.clone());
                if before.containers != networks.containers {
                    self.zone.publish();
                }
            }
            Err(error) => tracing::warn!(%error, "container networks aren't known"),
        }
    }

    /// From which UDP ports links of public nodes send; counts at the next
    /// [`OverlayKeeper::enforce`].
    pub fn set_link_ports(&self, ports: BTreeSet<u16>) {
        *self.lock_link_ports() = ports;
    }

    fn lock_link_ports(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        let locked = self.link_ports.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    /// A view's plan of the tunnel, as far as this host's own networks leave it.
    pub fn beside(&self, view: &MeshView, plan: TunnelPlan) -> TunnelPlan {
        let unrouted = view.unrouted(&self.enforced.lock().networks);
        let plan = TunnelPlan { unrouted, ..plan };
        match self.exit.get().and_then(|chosen| chosen.node) {
            Some(exit) => view.through_exit(plan, &exit),
            None => plan,
        }
    }

    /// Has the others know where this node leads as an exit.
    pub fn announce_exit(&self) {
        let ways = {
            let state = self.enforced.lock();
            let exit = state.plan.as_ref().and_then(|plan| plan.exit.as_ref());
            exit.map(|exit| ExitWays {
                ipv4: exit.outer(true).is_some(),
                ipv6: exit.outer(false).is_some(),
            })
        };
        let is_new = |before: &mut Option<ExitWays>| std::mem::replace(before, ways) != ways;
        if self.announcer.exit_ways.send_if_modified(is_new) {
            self.announcer.announce();
        }
    }

    /// Makes filter and routing match the newest view. Where the plan is the same
    /// as before, only on `check`.
    pub async fn enforce(&self, check: bool) {
        let Some(interface) = self.interface() else {
            return;
        };
        let _turn = self.turn.lock().await;
        let Some((plan, policy)) = self.plan(&interface) else {
            return;
        };
        {
            let mut state = self.enforced.lock();
            let sound =
                state.filter.is_none() && state.routes.is_none() && state.forwarding.is_none();
            if !check && sound && state.plan.as_ref() == Some(&plan) {
                state.policy = Some(policy);
                return;
            }
        }
        let overlay = &self.host.overlay;
        let filtered = overlay.filter(&plan).await;
        let restored = matches!(filtered, Ok(Filtered::Restored));
        let filter = filtered.err();
        let routes = overlay.route(&plan).await.err();
        let store = {
            let mut state = self.enforced.lock();
            warn_of(&state.filter, &filter);
            warn_of(&state.routes, &routes);
            if restored && !is_recent(state.restored, self.host.clock.now()) {
                tracing::warn!(
                    "another program changed the overlay's packet filter; it was put back"
                );
            }
            if filter.is_none() {
                state.policy = Some(policy);
            }
            let store = state.stored.as_ref() != Some(&plan);
            state.stored = Some(plan.clone());
            (state.filter, state.routes) = (filter, routes);
            if restored {
                state.restored = Some(self.host.clock.now());
            }
            state.plan = Some(plan.clone());
            store
        };
        // What may be forwarded is settled before anything is.
        let forwarding = self.forward(&plan).await;
        self.enforced.lock().forwarding = forwarding;
        if store && let Err(error) = stored::write(&*self.host.disk, &plan).await {
            self.enforced.lock().stored = None;
            tracing::warn!(%error, "the overlay's filter can't be stored for the next boot");
        }
    }

    /// Has the kernel forward where this node is a gateway, and else what it did
    /// before; why it doesn't.
    async fn forward(&self, plan: &FilterPlan) -> Option<String> {
        let (overlay, disk) = (&*self.host.overlay, &*self.host.disk);
        let publishes = !plan.publish.ports.is_empty();
        let lans = plan.gateway.iter().flat_map(|gateway| &gateway.lans);
        let outer = plan.exit.iter().flat_map(|exit| &exit.outer);
        let beside = lans.chain(outer).map(|lan| &lan.interface);
        let public = plan.publish.outer.iter().filter(|_| publishes);
        let all = std::iter::once(&plan.interface).chain(beside).chain(public);
        let forwards = plan.gateway.is_some() || plan.exit.is_some() || publishes;
        let forwards = forwards.then(|| all.collect());
        let done = forwarding::keep(overlay, disk, forwards).await;
        self.count_marks(plan.through.is_some()).await;
        let error = done.err()?.to_string();
        if self.enforced.lock().forwarding.as_ref() != Some(&error) {
            tracing::error!(%error, "the host's forwarding isn't as it should be");
        }
        Some(error)
    }

    /// Sources are checked by the routes that answers take. Where the kernel doesn't let
    /// itself be told, it mostly doesn't check them strictly either.
    async fn count_marks(&self, wanted: bool) {
        let (overlay, disk) = (&*self.host.overlay, &*self.host.disk);
        let done = forwarding::count_marks(overlay, disk, wanted).await;
        let error = done.err().map(|error| error.to_string());
        let before = std::mem::replace(&mut self.enforced.lock().marks, error.clone());
        if let Some(error) = error
            && before.as_ref() != Some(&error)
        {
            tracing::warn!(%error, "where rp_filter is strict, peers may not be heard beside an exit");
        }
    }

    /// Takes all of it away, as this machine has left the mesh.
    pub async fn give_up(&self) {
        if self.interface().is_none() {
            return;
        }
        let (overlay, disk) = (&*self.host.overlay, &*self.host.disk);
        if let Err(error) = forwarding::close(overlay, disk).await {
            tracing::warn!(%error, "the host's forwarding could not be put back");
        }
        if let Err(error) = self.host.overlay.remove().await {
            tracing::warn!(%error, "the overlay's filter could not be taken away");
        }
        let narrow = self.host.net.keep_narrow(&BTreeSet::new()).await;
        if let Err(error) = narrow
            && error.kind() != io::ErrorKind::Unsupported
        {
            tracing::warn!(%error, "routes for narrow ways could not be removed");
        }
        if let Err(error) = self.exit.set(&*self.host.disk, None).await {
            tracing::warn!(%error, "which exit was used could not be removed");
        }
        if let Err(error) = stored::remove(&*self.host.disk).await {
            tracing::warn!(%error, "the stored filter could not be removed");
        }
    }

    pub async fn status(&self) -> Option<OverlayStatus> {
        let interface = self.interface()?;
        let counted = self.host.overlay.dropped().await.unwrap_or_default();
        let lost = self.host.overlay.lost(&interface).await;
        let now = self.host.clock.now();
        let mut state = self.enforced.lock();
        remember(&mut state.lost, lost.unwrap_or_default(), now);
        let plan = state.plan.as_ref()?;
        Some(OverlayStatus {
            interface: plan.interface.to_string(),
            filter: state.filter.is_none(),
            routes: state.routes.is_none(),
            containers: plan
                .containers
                .iter()
                .map(|c| format!("{} {}", c.bridge, c.subnet))
                .collect(),
            exceptions: plan
                .lan_own
                .iter()
                .chain(&plan.lan_neighbours)
                .map(|lan| format!("{} {}", lan.interface, lan.address))
                .collect(),
            dropped: Dropped::ALL
                .into_iter()
                .map(|why| {
                    let packets = counted.get(&why).copied().unwrap_or_default();
                    (why.counter().to_owned(), packets)
                })
                .collect::<BTreeMap<_, _>>(),
            dropped_by_others: state
                .lost
                .iter()
                .map(|((passage, v4), (lost, _))| {
                    let family = if *v4 { "4" } else { "6" };
                    (format!("{}{family}", passage.word()), lost.packets)
                })
                .collect(),
        })
    }

    /// What the newest view wants, and by which policy.
    fn plan(&self, interface: &Interface) -> Option<(FilterPlan, u64)> {
        let view = self.view.borrow().clone();
        let networks = self.enforced.lock().networks.clone();
        let mut plan = view.filter_plan(interface, &networks)?;
        plan.containers_reach_mesh = self.config.containers_reach_mesh;
        plan.access = self.access.plan(&view)?;
        let chosen = self.exit.get();
        plan.through = chosen.map(|chosen| ThroughExit::new(chosen.lan, &networks));
        let quic = self.config.listen.iter().map(|address| address.port());
        let outer = quic.chain([self.config.tunnel_port]);
        plan.outer_ports = outer.filter(|port| *port != 0).collect();
        if !plan.publish.links.is_empty() {
            plan.publish.outer_ports = self.lock_link_ports().clone();
        }
        let own = self.config.tcp_ports();
        plan.publish.ports.retain(|port| !own.contains(&port.port));
        let policy = view.ledger.policy().map_or(0, |policy| policy.number);
        Some((plan, policy))
    }

    /// The tunnel's interface; `None` where there is no tunnel.
    fn interface(&self) -> Option<Interface> {
        let name = self.config.interface.clone().try_into().ok();
        name.filter(|_| self.config.backend != BackendChoice::None)
    }
}

/// Tells of a trouble once, and not each time that it is tried again.
fn warn_of(before: &Option<OverlayError>, now: &Option<OverlayError>) {
    let text = |error: &Option<OverlayError>| error.as_ref().map(ToString::to_string);
    if let Some(error) = now
        && text(before) != text(now)
    {
        tracing::error!(%error, "the overlay isn't closed to other networks");
    }
}

/// Takes up what was found just now.
fn remember(known: &mut BTreeMap<(Passage, bool), (Lost, Mono)>, found: Vec<Lost>, now: Mono) {
    let before = std::mem::take(known);
    for lost in found {
        let key = (lost.passage, lost.v4);
        let since = before
            .get(&key)
            .filter(|(before, _)| before.packets >= lost.packets)
            .map_or(now, |(_, since)| *since);
        known.insert(key, (lost, since));
    }
}
