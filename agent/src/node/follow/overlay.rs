//! The host's filter and routing follow the view, always a step before the
//! tunnel does: what the tunnel is given is closed to all others already.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use innermesh_proto::{
    filter::{
        FilterPlan, HostNetworks, Interface,
        nft::{Dropped, Passage},
    },
    limits,
};
use ipnet::IpNet;

use crate::node::Inner;
use crate::node::follow::view;
use crate::{
    control::{
        finding::{Finding, Severity, code},
        node::OverlayStatus,
    },
    host::Mono,
    overlay::{Filtered, OverlayError, others::Lost, stored},
    tunnel::BackendChoice,
};

/// Where to look; what is missing is set by itself once it can be.
const LOG: &str = "`journalctl -u innermesh` shows since when; it is set as soon as that works";

/// What is enforced here.
#[derive(Default)]
pub struct Enforced(Mutex<State>);

#[derive(Default)]
struct State {
    networks: HostNetworks,
    /// The newest plan, in force but for what `filter` and `routes` say.
    plan: Option<FilterPlan>,
    filter: Option<OverlayError>,
    routes: Option<OverlayError>,
    stored: Option<FilterPlan>,
    /// When it was last put back, as somebody else had changed it.
    restored: Option<Mono>,
    /// What others' filters dropped at the last look, and when there was more
    /// of it than before.
    lost: BTreeMap<(Passage, bool), (Lost, Mono)>,
}

impl Enforced {
    /// Subnets of this host's containers.
    pub fn containers(&self) -> Vec<IpNet> {
        let state = self.lock();
        let all = state.networks.containers.iter();
        all.map(|containers| containers.subnet).collect()
    }

    /// What isn't as planned.
    pub fn findings(&self) -> Vec<Finding> {
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
        filter.into_iter().chain(routes).chain(near).collect()
    }

    /// What other programs did to it of late.
    pub fn warnings(&self, now: Mono) -> Vec<String> {
        let state = self.lock();
        let restored = is_recent(state.restored, now).then(|| {
            "another program removed or changed the overlay's packet filter, and it was put back: \
             reload others' rules without `flush ruleset`"
                .to_owned()
        });
        let lost = lost_warnings(&state.lost, now);
        restored.into_iter().chain(lost).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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
    let text = format!(
        "the LAN on {} has the overlay's address range: {reached} from here",
        own.interface
    );
    let remedy = "Give that LAN another range";
    Some(Finding::new(
        code::LAN_OVERLAP,
        Severity::Warning,
        text,
        remedy,
    ))
}

/// Whether what others did is still told.
fn is_recent(then: Option<Mono>, now: Mono) -> bool {
    let told = Duration::from_millis(limits::OTHERS_TOLD_MS);
    then.is_some_and(|then| now.saturating_sub(then) < told)
}

/// Filters of others that drop what should pass, and what has each let it
/// pass. One that drops both families by one rule is reported once.
fn lost_warnings(lost: &BTreeMap<(Passage, bool), (Lost, Mono)>, now: Mono) -> BTreeSet<String> {
    let recent = lost
        .values()
        .filter(|(_, grew)| is_recent(Some(*grew), now))
        .map(|(lost, _)| lost);
    let warnings = recent.flat_map(|lost| {
        let what = match lost.passage {
            Passage::In => "what other nodes send to this one",
            Passage::Through => "packets between other nodes and this host's containers",
            Passage::Out => "what this node sends to others",
        };
        let family = if lost.v4 { "IPv4" } else { "IPv6" };
        lost.by.iter().map(move |other| match &other.command {
            Some(command) => format!(
                "{} drops {what}. If it isn't meant to, run `{command}`, and keep that in its \
                 configuration",
                other.owner
            ),
            None => format!(
                "{} drops {what} ({family}); `nft monitor trace` shows where",
                other.owner
            ),
        })
    });
    warnings.collect()
}

/// Looks at the host's own networks.
pub async fn look(inner: &Inner) {
    let Some(interface) = interface(inner) else {
        return;
    };
    let resolvers = inner.host.net.upstream_resolvers().await;
    let resolvers: Vec<_> = resolvers.into_iter().map(|server| server.ip()).collect();
    match inner.host.overlay.networks(&interface, &resolvers).await {
        Ok(networks) => {
            let before = std::mem::replace(&mut inner.enforced.lock().networks, networks.clone());
            if before.containers != networks.containers {
                view::publish_zone(inner);
            }
        }
        Err(error) => tracing::warn!(%error, "container networks aren't known"),
    }
}

/// Makes filter and routing match the newest view. Where the plan is the same
/// as before, only on `check`.
pub async fn enforce(inner: &Inner, check: bool) {
    let Some(interface) = interface(inner) else {
        return;
    };
    let Some(plan) = plan(inner, &interface) else {
        return;
    };
    {
        let state = inner.enforced.lock();
        let sound = state.filter.is_none() && state.routes.is_none();
        if !check && sound && state.plan.as_ref() == Some(&plan) {
            return;
        }
    }
    let overlay = &inner.host.overlay;
    let filtered = overlay.filter(&plan).await;
    let restored = matches!(filtered, Ok(Filtered::Restored));
    let filter = filtered.err();
    let routes = overlay.route(&plan).await.err();
    let store = {
        let mut state = inner.enforced.lock();
        warn_of(&state.filter, &filter);
        warn_of(&state.routes, &routes);
        if restored && !is_recent(state.restored, inner.host.clock.now()) {
            tracing::warn!("another program changed the overlay's packet filter; it was put back");
        }
        let store = state.stored.as_ref() != Some(&plan);
        state.stored = Some(plan.clone());
        (state.filter, state.routes) = (filter, routes);
        if restored {
            state.restored = Some(inner.host.clock.now());
        }
        state.plan = Some(plan.clone());
        store
    };
    if store && let Err(error) = stored::write(&*inner.host.disk, &plan).await {
        inner.enforced.lock().stored = None;
        tracing::warn!(%error, "the overlay's filter can't be stored for the next boot");
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

/// Takes all of it away, as this machine has left the mesh.
pub async fn give_up(inner: &Inner) {
    if interface(inner).is_none() {
        return;
    }
    if let Err(error) = inner.host.overlay.remove().await {
        tracing::warn!(%error, "the overlay's filter could not be taken away");
    }
    if let Err(error) = stored::remove(&*inner.host.disk).await {
        tracing::warn!(%error, "the stored filter could not be removed");
    }
}

/// What `status` tells.
pub async fn status(inner: &Inner) -> Option<OverlayStatus> {
    let interface = interface(inner)?;
    let counted = inner.host.overlay.dropped().await.unwrap_or_default();
    let lost = inner.host.overlay.lost(&interface).await;
    let now = inner.host.clock.now();
    let mut state = inner.enforced.lock();
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

fn plan(inner: &Inner, interface: &Interface) -> Option<FilterPlan> {
    let view = inner.view.borrow().clone();
    let networks = inner.enforced.lock().networks.clone();
    let mut plan = view.filter_plan(interface, &networks)?;
    plan.containers_reach_mesh = inner.config.containers_reach_mesh;
    Some(plan)
}

/// The tunnel's interface; `None` where there is no tunnel.
fn interface(inner: &Inner) -> Option<Interface> {
    let name = inner.config.interface.clone().try_into().ok();
    name.filter(|_| inner.config.backend != BackendChoice::None)
}
