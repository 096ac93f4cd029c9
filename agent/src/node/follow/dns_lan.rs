//! Names for hosts of LANs that the configuration names: the agent listens at this
//! host's addresses there, and finds out at which addresses other nodes are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use innermesh_proto::{id::NodeId, limits, view::MeshView};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::{
    dns::PORT,
    host::{Host, Mono, within},
    node::{
        follow::dns::BesideListeners,
        shared::{
            handles::Handles,
            in_lan::{InLan, Seen},
            zone::ZonePublisher,
        },
    },
    quic::Transport,
};

/// How often this host's own addresses are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long a certificate is waited for.
const ANSWER: Duration = Duration::from_secs(2);
/// How long what came of looking for a node isn't looked at again.
const AGAIN: Duration = Duration::from_secs(60);
/// Addresses of one node that are tried, and nodes at a time.
const ADDRESSES: usize = 4;
const AT_A_TIME: usize = 8;

/// Looks again and again, for as long as the agent runs.
pub(crate) struct LanKeeper {
    host: Host,
    me: NodeId,
    interface: String,
    nets: Vec<IpNet>,
    view: watch::Sender<Arc<MeshView>>,
    transport: Transport,
    listeners: BesideListeners,
    in_lan: Arc<InLan>,
    zone: ZonePublisher,
    own: BTreeSet<IpAddr>,
    tried: BTreeMap<NodeId, Tried>,
}

/// What came of looking for a node.
struct Tried {
    /// Where it was looked for.
    candidates: BTreeSet<SocketAddr>,
    reached: BTreeSet<IpAddr>,
    at: Mono,
}

impl LanKeeper {
    pub fn new(node: &Handles, listeners: BesideListeners, zone: ZonePublisher) -> Self {
        Self {
            host: node.host.clone(),
            me: node.me,
            interface: node.config.interface.clone(),
            nets: node.config.dns_lan.clone(),
            view: node.view.clone(),
            transport: node.transport.clone(),
            listeners,
            in_lan: zone.in_lan.clone(),
            zone,
            own: BTreeSet::new(),
            tried: BTreeMap::new(),
        }
    }

    /// Ends at once where no LAN may ask.
    pub async fn run(mut self) {
        if self.nets.is_empty() {
            return;
        }
        let mut views = self.view.subscribe();
        loop {
            let view = views.borrow_and_update().clone();
            self.look_at_host(&view).await;
            self.look_for_nodes(&view).await;
            let reached = self.tried.iter();
            let reached = reached.filter(|(_, tried)| !tried.reached.is_empty());
            let seen = Seen {
                own: self.own.clone(),
                reached: reached
                    .map(|(node, tried)| (*node, tried.reached.clone()))
                    .collect(),
            };
            if self.in_lan.set(seen) {
                self.zone.publish();
            }
            let before = self.wanted(&view);
            let clock = self.host.clock.clone();
            let news = async {
                while views.changed().await.is_ok() {
                    if self.wanted(&views.borrow_and_update()) != before {
                        return;
                    }
                }
                std::future::pending().await
            };
            tokio::select! {
                () = clock.sleep(LOOK) => {}
                () = news => {}
            }
        }
    }

    /// This host's addresses in the LANs: where others are there is forgotten when
    /// they change, as it may be another LAN.
    async fn look_at_host(&mut self, view: &MeshView) {
        let overlay = [
            IpNet::V4(view.ledger.ipv4.trunc()),
            IpNet::V6(view.ledger.mesh.ula()),
        ];
        let local = self.host.net.local_addresses().await;
        let local = local.into_iter().filter(|(on, ip)| {
            let is_in = |nets: &[IpNet]| nets.iter().any(|net| net.contains(ip));
            *on != self.interface && is_in(&self.nets) && !is_in(&overlay)
        });
        let own: BTreeSet<IpAddr> = local
            .map(|(_, ip)| ip)
            .take(limits::DNS_LAN_ADDRESSES)
            .collect();
        if own != self.own {
            self.tried.clear();
            self.own = own;
        }
        let at = self.own.iter().map(|ip| SocketAddr::new(*ip, PORT));
        let at: BTreeSet<SocketAddr> = at.collect();
        let absent = self.nets.iter().filter(|net| {
            let mut own = self.own.iter();
            !own.any(|ip| net.contains(ip))
        });
        self.listeners.set_absent(absent.copied().collect());
        let _ = self.listeners.listen(at).await;
    }

    /// Where each node may be in these LANs: at the address that it is connected by,
    /// and at those that it announces.
    fn wanted(&self, view: &MeshView) -> BTreeMap<NodeId, BTreeSet<SocketAddr>> {
        if self.own.is_empty() {
            return BTreeMap::new();
        }
        // A LAN that this host doesn't stand in is reached by others, who may not be
        // who they seem, or not at all.
        let stands_in = |net: &&IpNet| self.own.iter().any(|ip| net.contains(ip));
        let nets: Vec<&IpNet> = self.nets.iter().filter(stands_in).collect();
        let is_there = |at: &SocketAddr| {
            let ip = at.ip().to_canonical();
            !self.own.contains(&ip) && nets.iter().any(|net| net.contains(&ip))
        };
        let nodes = view
            .nodes
            .iter()
            .filter(|(node, _)| **node != self.me && view.ledger.members.contains_key(*node));
        nodes
            .filter_map(|(node, seen)| {
                let announced = seen.announcement.quic.iter();
                let announced = announced.filter(|at| is_there(at)).take(ADDRESSES);
                let connected = seen.path.iter().filter(|at| is_there(at));
                let all: BTreeSet<SocketAddr> = connected.chain(announced).copied().collect();
                (!all.is_empty()).then_some((*node, all))
            })
            .collect()
    }

    async fn look_for_nodes(&mut self, view: &MeshView) {
        let wanted = self.wanted(view);
        self.tried.retain(|node, _| wanted.contains_key(node));
        let now = self.host.clock.now();
        let is_due = |(node, candidates): &(&NodeId, &BTreeSet<SocketAddr>)| {
            let seen = view.nodes.get(*node);
            match self.tried.get(*node) {
                // Its last answer stands for as long as there is none to ask.
                Some(tried) if seen.is_some_and(|seen| !seen.live) && !tried.reached.is_empty() => {
                    false
                }
                Some(tried) => tried.candidates != **candidates || now >= tried.at + AGAIN,
                None => true,
            }
        };
        let due: Vec<_> = wanted.iter().filter(is_due).collect();
        for some in due.chunks(AT_A_TIME) {
            let each = some.iter().map(|(node, candidates)| async {
                let reached = self.reached(view, node, candidates).await;
                (**node, (*candidates).clone(), reached)
            });
            for (node, candidates, reached) in join_all(each).await {
                let at = self.host.clock.now();
                let tried = Tried {
                    candidates,
                    reached,
                    at,
                };
                self.tried.insert(node, tried);
            }
        }
    }

    /// The addresses at which a node shows its certificate.
    async fn reached(
        &self,
        view: &MeshView,
        node: &NodeId,
        candidates: &BTreeSet<SocketAddr>,
    ) -> BTreeSet<IpAddr> {
        let mut found = BTreeSet::new();
        let (Some(member), Some(seen)) = (view.ledger.members.get(node), view.nodes.get(node))
        else {
            return found;
        };
        for at in candidates {
            let ip = at.ip().to_canonical();
            if found.contains(&ip) {
                continue;
            }
            if seen.path.as_ref() == Some(at) {
                found.insert(ip);
                continue;
            }
            let dial = self.transport.dial_unregistered(*at, None);
            let channel = within(&*self.host.clock, ANSWER, dial).await;
            if let Some(Ok(channel)) = channel
                && channel.peer_key().as_ref() == Some(&member.key)
            {
                found.insert(ip);
            }
        }
        found
    }
}
