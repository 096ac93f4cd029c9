//! From facts to views to the world: each change of ledger, gossip or paths
//! makes a new view, and DNS and the tunnel are made to match it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use innermesh_proto::{
    head::Announcement,
    hold::Held,
    id::NodeId,
    ledger::State,
    view::{MeshView, NodeView},
    zone::Zone,
};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::node::Inner;
use crate::node::announced;
use crate::node::endpoints;
use crate::{
    dns::{DnsServer, ListenError, MemberSources, Served},
    gossip::Gossip,
    host::Mono,
    ledger::{Builds, Ledger},
    tunnel::BackendChoice,
};

/// How long after its start a node may take what it doesn't know for something
/// that it hasn't heard yet.
const LOADING: Duration = Duration::from_secs(5);
/// How many peers that don't decide must be no further than this node for it to
/// count as having loaded.
const LOADED: usize = 3;
/// How long after a new view what follows is gathered for the next, for each
/// [`GATHER_MEMBERS`] members: what a view costs grows with the mesh, and so
/// does how often there is news.
const GATHER: Duration = Duration::from_millis(5);
const GATHER_MEMBERS: u32 = 20;
/// How long a member that left may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often the host's own addresses and name servers are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// The view at the start, from what is on disk.
pub fn first_view(me: NodeId, own_ledger: &Ledger, gossip: &Gossip, now: Mono) -> MeshView {
    let ledger = own_ledger.state();
    let own = gossip.own();
    let nodes = gossip
        .read(|table| MeshView::nodes(me, &ledger, table, own.clone(), &BTreeMap::new(), now));
    MeshView {
        version: 1,
        me,
        loading: ledger.members.len() > 1 || own_ledger.was_damaged(),
        held: held(own_ledger, &ledger, &nodes),
        ledger,
        nodes,
    }
}

/// Who is cut off: by an admin's hold, or by a roster that was lost before all
/// had heard of it.
fn held(ledger: &Ledger, state: &State, nodes: &BTreeMap<NodeId, NodeView>) -> Held {
    let mut held = MeshView::held(state, nodes);
    for node in ledger.kept_out() {
        held.entry(node).or_default();
    }
    held
}

/// Makes a new view for each change, for as long as the agent runs.
pub async fn follow_changes(inner: Arc<Inner>) {
    let mut ledger = inner.ledger.subscribe();
    let mut durable = inner.ledger.durable();
    let mut gossip = inner.gossip.changes();
    let mut services = inner.services.subscribe();
    let mut peers = inner.transport.events();
    let clock = inner.host.clock.clone();
    let mut before = inner.ledger.state();
    loop {
        let loading = inner.view.borrow().loading;
        tokio::select! {
            changed = ledger.changed() => {
                if changed.is_err() {
                    return;
                }
                let state = ledger.borrow_and_update().clone();
                inner.note_stamp();
                review(&inner, &before, &state);
                before = state;
            }
            changed = durable.changed() => {
                if changed.is_err() {
                    return;
                }
                // It tells gossip itself when that changes a view.
                inner.gossip.compare();
                continue;
            }
            changed = gossip.changed() => if changed.is_err() { return },
            changed = services.changed() => {
                if changed.is_err() {
                    return;
                }
                announce(&inner, None);
            }
            event = peers.recv() => if let Err(RecvError::Closed) = event { return },
            () = clock.sleep(LOADING), if loading => {}
        }
        // What comes in bursts (a service and its grant, forty peers that
        // connect) is taken together: the first at once, the rest a moment on.
        while !matches!(
            peers.try_recv(),
            Err(TryRecvError::Empty | TryRecvError::Closed)
        ) {}
        gossip.mark_unchanged();
        renew_view(&inner);
        clock
            .sleep(gather(inner.ledger.state().members.len()))
            .await;
    }
}

/// Parts from those that are no members any more. Who left by itself is still
/// to hear that it has, and says goodbye; it may ask for nothing meanwhile.
fn review(inner: &Arc<Inner>, before: &State, state: &State) {
    let gone = |node: &NodeId| !state.members.contains_key(node);
    let left = state.members.len() < before.members.len()
        && state.evicted.len() == before.evicted.len()
        && before.members.keys().any(gone);
    if !left {
        return inner.transport.review();
    }
    let later = inner.clone();
    inner.host.tasks.spawn(async move {
        later.host.clock.sleep(FAREWELL).await;
        later.transport.review();
    });
}

fn gather(members: usize) -> Duration {
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    GATHER * members.div_ceil(GATHER_MEMBERS).max(1)
}

fn renew_view(inner: &Inner) {
    let now = inner.gossip.now();
    let ledger = inner.ledger.state();
    let before = inner.view.borrow().clone();
    let paths = inner.transport.paths();
    let own = inner.gossip.own();
    let nodes = inner
        .gossip
        .read(|table| MeshView::nodes(inner.me, &ledger, table, own.clone(), &paths, now));
    let loaded = is_loaded(inner.me, &ledger, &nodes) || now >= inner.started + LOADING;
    let loading = before.loading && !loaded;
    let same = Arc::ptr_eq(&ledger, &before.ledger);
    if same && loading == before.loading && nodes == before.nodes {
        return;
    }
    let held = held(&inner.ledger, &ledger, &nodes);
    if inner.holds.note(&held) {
        inner.transport.review();
    }
    inner.view.send_replace(Arc::new(MeshView {
        version: before.version + 1,
        me: inner.me,
        held,
        ledger,
        nodes,
        loading,
    }));
    publish_zone(inner);
}

/// Whether enough peers say that nothing is newer than what this node holds: one
/// of those who decide, or several others. A single member that claims this
/// node's own place in the ledger ends nothing.
fn is_loaded(me: NodeId, ledger: &State, nodes: &BTreeMap<NodeId, NodeView>) -> bool {
    let compared = nodes
        .iter()
        .filter(|(node, view)| **node != me && view.compared);
    let decides_alone = ledger.roster.len() == 1 && ledger.roster.contains(&me);
    let (mut others, mut voters) = (0, 0);
    for (node, _) in compared {
        if ledger.roster.contains(node) {
            voters += 1;
        } else {
            others += 1;
        }
    }
    voters > 0 || others >= LOADED || decides_alone && others > 0
}

/// Has DNS answer from the newest view.
pub fn publish_zone(inner: &Inner) {
    let view = inner.view.borrow().clone();
    // A local client's packets come from the very address that they go to.
    let mut own = inner.own_addresses();
    own.extend(inner.resolvers());
    let mut local = inner.config.local_sources.clone();
    local.extend(inner.enforced.containers());
    inner.dns.publish(move || Served {
        zone: Arc::new(Zone::build(&view.zone_input())),
        sources: Arc::new(MemberSources {
            own,
            members: view.member_addresses(),
            local,
        }),
    });
}

/// Listens for DNS: where the configuration says, else on the resolver's
/// addresses, of which IPv6's may be missing where the host has none.
pub fn serve_dns(inner: &Arc<Inner>) -> Result<DnsServer, ListenError> {
    let sources = inner.listen_sources();
    let start = |listen: &[SocketAddr]| {
        let clock = inner.host.clock.clone();
        DnsServer::start(inner.dns.clone(), clock, &sources, listen)
    };
    if !inner.config.dns_listen.is_empty() || inner.config.backend == BackendChoice::None {
        return start(&inner.config.dns_listen);
    }
    let [v4, v6] = inner.resolvers().map(|ip| SocketAddr::new(ip, 53));
    match start(&[v4, v6]) {
        Ok(server) => Ok(server),
        Err(error) => match start(&[v4]) {
            Ok(server) => {
                tracing::warn!(%error, "names are answered over IPv4 only");
                Ok(server)
            }
            Err(error) => Err(error),
        },
    }
}

/// Follows the host's own addresses and name servers.
pub async fn follow_host(inner: Arc<Inner>) {
    let mut last = None;
    loop {
        let endpoints = endpoints(&inner.config, &inner.host, &inner.transport).await;
        announce(&inner, Some(endpoints));
        let upstream = if inner.config.dns_upstream.is_empty() {
            inner.host.net.upstream_resolvers().await
        } else {
            inner.config.dns_upstream.clone()
        };
        inner.look_at_addresses().await;
        let own: Vec<IpAddr> = inner.own_addresses().into_iter().collect();
        if last.as_ref() != Some(&(upstream.clone(), own.clone())) {
            inner.dns.set_upstreams(&upstream, &own);
            publish_zone(&inner);
            last = Some((upstream, own));
        }
        inner.ledger.set_peer_clocks(inner.gossip.peer_clocks());
        inner.ledger.set_builds(Builds::of(&inner.view.borrow()));
        inner.host.clock.sleep(LOOK).await;
    }
}

/// Announces this node's services and holds, and its endpoints if they are given.
pub fn announce(inner: &Inner, endpoints: Option<Vec<SocketAddr>>) {
    let own = inner.gossip.own();
    inner.gossip.announce(Announcement {
        version: own.version.clone(),
        quic: endpoints.unwrap_or_else(|| own.quic.clone()),
        wireguard: announced(&inner.config, inner.tunnel_key.get()),
        services: inner.services.instances(),
        holds: inner.holds.own(),
        rules: inner.config.known_rules,
    });
}
