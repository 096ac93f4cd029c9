//! The install page of this node: what it says follows the ledger and the
//! revocation lists, and where it listens, the configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use innermesh_proto::{
    id::{NodeId, resolver_v4},
    ledger::state::Issuer as Listed,
};
use ipnet::IpNet;
use tokio::sync::watch;

use super::page_lan::{Lans, Served, private};
use crate::{
    control::finding::{Finding, code},
    host::Host,
    ledger::{Ledger, client::Client},
    listen::ListenError,
    node::{
        config::AgentConfig,
        shared::{addresses::Addresses, handles::Handles, revocation_lists::Lists},
    },
    page::{Input, List, ListState, Server, Site},
    tunnel::BackendChoice,
};

/// How often addresses that couldn't be had are tried again, and lists that
/// have ended are taken away.
const LOOK: Duration = Duration::from_secs(10);

/// The page while the agent runs.
#[derive(Default)]
pub(crate) struct Page {
    site: watch::Sender<Arc<Site>>,
    said: Mutex<Option<Input>>,
    bound: Mutex<BTreeSet<SocketAddr>>,
    lan: Mutex<Served>,
    trouble: Mutex<BTreeMap<SocketAddr, String>>,
}

impl Page {
    /// Why it isn't served where it should be.
    pub fn findings(&self) -> Vec<Finding> {
        let trouble = self.trouble.lock().unwrap_or_else(|e| e.into_inner());
        let first = trouble.values().next().map(|why| match trouble.len() {
            1 => format!("the install page is not served everywhere: {why}"),
            all => format!("the install page is not served at {all} addresses, as {why}"),
        });
        let lan = self.lan();
        let lan = lan.trouble.as_ref();
        let lan = lan.map(|why| format!("the install page is not served on the LAN: {why}"));
        let remedy = "It is tried again by itself once that is mended";
        let all = first.into_iter().chain(lan);
        all.map(|text| Finding::warning(code::PAGE_NOT_SERVED, text, remedy))
            .collect()
    }

    fn lan(&self) -> MutexGuard<'_, Served> {
        self.lan.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Keeps the install page served and up to date.
pub(crate) struct PageKeeper {
    config: Arc<AgentConfig>,
    host: Host,
    me: NodeId,
    ledger: Ledger,
    client: Client,
    addresses: Addresses,
    lists: Arc<Lists>,
    page: Arc<Page>,
}

impl PageKeeper {
    pub fn new(node: &Handles, addresses: Addresses, lists: Arc<Lists>, page: Arc<Page>) -> Self {
        Self {
            config: node.config.clone(),
            host: node.host.clone(),
            me: node.me,
            ledger: node.ledger.clone(),
            client: node.client.clone(),
            addresses,
            lists,
            page,
        }
    }

    /// Starts it. An address that can't be had now may be later: that is no reason
    /// for the agent not to run.
    pub fn start(self) {
        self.publish();
        let site = self.page.site.subscribe();
        let server = Server::new(site, self.addresses.sources(), self.host.clock.clone());
        self.bind(&server);
        let tasks = self.host.tasks.clone();
        tasks.spawn(self.run(server));
    }

    async fn run(self, server: Server) {
        let mut lists = self.lists.changes();
        let mut lans = Lans::new(&server);
        self.bind_lans(&mut lans).await;
        self.publish();
        loop {
            tokio::select! {
                changed = lists.changed() => if changed.is_err() { return },
                () = self.host.clock.sleep(LOOK) => {
                    self.bind(&server);
                    self.bind_lans(&mut lans).await;
                }
            }
            self.publish();
        }
    }

    /// Makes the site anew where it would say something else.
    fn publish(&self) {
        let input = self.input();
        let mut said = self.page.said.lock().unwrap_or_else(|e| e.into_inner());
        if said.as_ref() != Some(&input) {
            self.page.site.send_replace(Arc::new(Site::build(&input)));
            *said = Some(input);
        }
    }

    fn input(&self) -> Input {
        let state = self.ledger.state();
        let now_ms = self.client.now_ms();
        let issuers = state.issuers.values();
        let known = issuers.filter(|issuer| issuer.certificate.not_after_ms > now_ms);
        let mut lists: Vec<List> = known
            .map(|issuer| List {
                issuer: issuer.certificate.serial,
                node: state.name_of(issuer.node),
                state: self.list_state(issuer, now_ms),
            })
            .collect();
        lists.sort_by(|a, b| (&a.node, a.issuer).cmp(&(&b.node, b.issuer)));
        Input {
            domain: state.domain.to_string(),
            node: state.name_of(self.me),
            port: self.port(),
            root: state.root.der().to_vec(),
            root_begins_ms: state.root.not_before_ms,
            root_ends_ms: state.root.not_after_ms,
            lan: self.page.lan().addresses.clone(),
            lists,
        }
    }

    fn list_state(&self, issuer: &Listed, now_ms: u64) -> ListState {
        if issuer.revoked.is_some() {
            return ListState::IssuerRevoked;
        }
        let held = self.lists.of(&issuer.certificate.serial);
        match held.filter(|held| held.list.holds_at(now_ms)) {
            None => ListState::Missing,
            Some(held) => ListState::Good {
                der: held.der.clone(),
                number: held.list.number,
                revoked: held.list.revoked.len(),
                this_update_ms: held.list.this_update_ms,
                next_update_ms: held.list.next_update_ms,
            },
        }
    }

    /// The port that links name: where several are configured, the first.
    fn port(&self) -> u16 {
        let first = self.config.page_listen.first();
        first.map_or(self.config.page_port, SocketAddr::port)
    }

    /// Where it is to be served: where the configuration says, else on the node's
    /// own overlay addresses, those that `ca` leads to, and loopback.
    fn wanted(&self) -> Vec<SocketAddr> {
        let config = &self.config;
        if !config.page_listen.is_empty() {
            return config.page_listen.clone();
        }
        let mut ips: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        if config.backend != BackendChoice::None {
            let state = self.ledger.state();
            ips.push(resolver_v4(state.ipv4).into());
            ips.push(state.mesh.resolver_v6().into());
            if let Some(own) = state.members.get(&self.me) {
                ips.extend([IpAddr::V4(own.ipv4), IpAddr::V6(own.ipv6)]);
            }
        }
        let with_port = |ip| SocketAddr::new(ip, config.page_port);
        ips.into_iter().map(with_port).collect()
    }

    /// Listens wherever it should and doesn't yet.
    fn bind(&self, server: &Server) {
        let chosen = !self.config.page_listen.is_empty();
        let lock = |e: std::sync::PoisonError<_>| e.into_inner();
        let mut bound = self.page.bound.lock().unwrap_or_else(lock);
        for address in self.wanted() {
            if bound.contains(&address) {
                continue;
            }
            let mut trouble = self.page.trouble.lock().unwrap_or_else(|e| e.into_inner());
            match server.bind(&*self.host.net, address) {
                Ok(listener) => {
                    trouble.remove(&address);
                    bound.insert(address);
                    self.host.tasks.spawn(server.clone().serve(listener));
                }
                // A host may have no IPv6, which then nobody misses.
                Err(error) if address.is_ipv6() && !chosen && !is_taken(&error) => {}
                Err(error) => {
                    let why = error.to_string();
                    if trouble.get(&address) != Some(&why) {
                        tracing::warn!(%error, "the install page is not served");
                        trouble.insert(address, why);
                    }
                }
            }
        }
    }
}

impl PageKeeper {
    /// Follows this host's addresses on LANs, where it is to be served there.
    async fn bind_lans(&self, lans: &mut Lans) {
        if !self.config.page_lan {
            return;
        }
        let here = self.host.net.local_addresses().await;
        let state = self.ledger.state();
        let chosen = self.config.page_listen.iter().map(SocketAddr::ip).collect();
        let overlay = [IpNet::V4(state.ipv4), IpNet::V6(state.mesh.ula())];
        let private = private(&here, &self.config.interface, &overlay, &chosen);
        let at = private
            .into_iter()
            .map(|ip| SocketAddr::new(ip, self.port()));
        *self.page.lan() = lans.listen(&self.host, at.collect());
    }
}

fn is_taken(error: &ListenError) -> bool {
    matches!(error, ListenError::InUse { .. })
}
