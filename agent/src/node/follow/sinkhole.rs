//! The page for strangers, on nodes that have the role: at this host's addresses on
//! other networks, which come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use innermesh_proto::{id::NodeId, ledger::Role, limits, view::MeshView};
use ipnet::IpNet;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    control::finding::{Finding, code},
    host::{Host, listen::ListenError},
    node::shared::{addresses::Addresses, enforced::Enforced, handles::Handles},
    sinkhole::{PORT, Server},
};

/// How often this host's addresses are looked at, and what couldn't be had is tried.
const LOOK: Duration = Duration::from_secs(10);

/// Why strangers aren't answered where they should be.
#[derive(Default)]
pub(crate) struct SinkholeTrouble {
    page: Mutex<BTreeMap<SocketAddr, ListenError>>,
    dns: Mutex<BTreeMap<SocketAddr, ListenError>>,
}

impl SinkholeTrouble {
    /// What a person should know of it.
    pub fn findings(&self) -> Vec<Finding> {
        let trouble = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        let page = trouble.values().next().map(|why| {
            Finding::warning(
                code::SINKHOLE_NOT_SERVED,
                format!("strangers aren't told everywhere that access is denied: {why}"),
                "It is tried again by itself once that is mended",
            )
        });
        let trouble = self.dns.lock().unwrap_or_else(PoisonError::into_inner);
        let dns = trouble.values().next().map(|why| {
            Finding::warning(
                code::SINKHOLE_DNS_NOT_SERVED,
                format!("strangers' questions for names aren't answered everywhere: {why}"),
                "It is tried again by itself once that is mended",
            )
        });
        page.into_iter().chain(dns).collect()
    }

    /// Tells where DNS can't be answered now.
    pub fn set_dns(&self, trouble: BTreeMap<SocketAddr, ListenError>) {
        *self.dns.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// Serves it while this node has the role.
pub(crate) struct SinkholeKeeper {
    host: Host,
    me: NodeId,
    interface: String,
    /// Where the configuration has it listen; this host's addresses when empty.
    chosen: Vec<SocketAddr>,
    server: Server,
    view: watch::Sender<Arc<MeshView>>,
    enforced: Arc<Enforced>,
    trouble: Arc<SinkholeTrouble>,
    listeners: BTreeMap<SocketAddr, JoinHandle<()>>,
}

impl SinkholeKeeper {
    pub fn new(
        node: &Handles,
        addresses: &Addresses,
        enforced: Arc<Enforced>,
        trouble: Arc<SinkholeTrouble>,
    ) -> Self {
        let page = node.config.sinkhole_page.clone().into();
        Self {
            host: node.host.clone(),
            me: node.me,
            interface: node.config.interface.clone(),
            chosen: node.config.sinkhole_listen.clone(),
            server: Server::new(page, addresses.sources(), node.host.clock.clone()),
            view: node.view.clone(),
            enforced,
            trouble,
            listeners: BTreeMap::new(),
        }
    }

    /// For as long as the agent runs.
    pub async fn run(mut self) {
        let mut views = self.view.subscribe();
        loop {
            let view = views.borrow_and_update().clone();
            let has_role = self.has_role(&view);
            let wanted = if has_role {
                self.wanted(&view).await
            } else {
                BTreeSet::new()
            };
            self.listen(&wanted).await;
            let clock = self.host.clock.clone();
            let role = async {
                while views.changed().await.is_ok() {
                    if self.has_role(&views.borrow_and_update()) != has_role {
                        return;
                    }
                }
                std::future::pending().await
            };
            tokio::select! {
                () = clock.sleep(LOOK) => {}
                () = role => {}
            }
        }
    }

    fn has_role(&self, view: &MeshView) -> bool {
        let own = view.ledger.members.get(&self.me);
        own.is_some_and(|own| own.roles.contains(&Role::Sinkhole))
    }

    /// Neither the overlay's addresses, loopback nor those of containers: from there
    /// nobody is a stranger, and port 80 may be a service's.
    async fn wanted(&self, view: &MeshView) -> BTreeSet<SocketAddr> {
        if !self.chosen.is_empty() {
            return self.chosen.iter().copied().collect();
        }
        let mut inside = self.enforced.containers();
        inside.push(IpNet::V4(view.ledger.ipv4.trunc()));
        inside.push(IpNet::V6(view.ledger.mesh.ula()));
        let is_outside = |(on, ip): &(String, IpAddr)| {
            let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            *on != self.interface
                && !ip.is_loopback()
                && !link_local
                && !inside.iter().any(|net| net.contains(ip))
        };
        let local = self.host.net.local_addresses().await;
        let outside = local.into_iter().filter(is_outside);
        let outside = outside.map(|(_, ip)| SocketAddr::new(ip, PORT));
        outside.take(limits::SINKHOLE_ADDRESSES).collect()
    }

    async fn listen(&mut self, wanted: &BTreeSet<SocketAddr>) {
        let gone: Vec<SocketAddr> = self
            .listeners
            .iter()
            .filter(|(at, task)| !wanted.contains(at) || task.is_finished())
            .map(|(at, _)| *at)
            .collect();
        for at in gone {
            if let Some(task) = self.listeners.remove(&at) {
                task.abort();
                // How it ended doesn't matter: its port is free again.
                let _ = task.await;
            }
        }
        let mut trouble = BTreeMap::new();
        for at in wanted {
            if self.listeners.contains_key(at) {
                continue;
            }
            match self.server.bind(&*self.host.net, *at) {
                Ok(listener) => {
                    tracing::info!(%at, "strangers are told that access is denied");
                    let serving = self.server.clone().serve(listener);
                    self.listeners.insert(*at, self.host.tasks.spawn(serving));
                }
                Err(error) => {
                    trouble.insert(*at, error);
                }
            }
        }
        let mut known = self
            .trouble
            .page
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known = trouble;
    }
}
