//! Strangers' DNS, on nodes that have the role and listen for it: what they are told
//! follows from what is public in the view.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use innermesh_proto::{
    endpoint,
    ledger::Role,
    limits,
    view::MeshView,
    zone::{StrangerInput, StrangerZone},
};
use tokio::sync::watch;

use super::sinkhole::SinkholeTrouble;
use crate::{
    dns::{PublicDns, PublicServer, PublicSurroundings},
    host::Host,
    node::shared::{addresses::Addresses, announce::Announcer, handles::Handles},
};

/// How often what couldn't be had is tried.
const AGAIN: Duration = Duration::from_secs(5);

/// Answers while this node has the role.
pub(crate) struct SinkholeDnsKeeper {
    host: Host,
    listen: BTreeSet<SocketAddr>,
    dns: Arc<PublicDns>,
    around: PublicSurroundings,
    view: watch::Sender<Arc<MeshView>>,
    announcer: Announcer,
    trouble: Arc<SinkholeTrouble>,
    servers: BTreeMap<SocketAddr, PublicServer>,
    /// What is said now.
    said: Option<StrangerInput>,
}

impl SinkholeDnsKeeper {
    /// None where the configuration doesn't have it listen.
    pub fn new(
        node: &Handles,
        addresses: &Addresses,
        announcer: Announcer,
        trouble: Arc<SinkholeTrouble>,
    ) -> Option<Self> {
        let host = node.host.clone();
        let listen: BTreeSet<SocketAddr> = node.config.sinkhole_dns.iter().copied().collect();
        (!listen.is_empty()).then(|| Self {
            listen,
            dns: Arc::new(PublicDns::new(host.clock.clone(), &*host.keys)),
            around: PublicSurroundings::of(&host, addresses.sources()),
            host,
            view: node.view.clone(),
            announcer,
            trouble,
            servers: BTreeMap::new(),
            said: None,
        })
    }

    /// For as long as the agent runs.
    pub async fn run(mut self) {
        let mut views = self.view.subscribe();
        loop {
            let view = views.borrow_and_update().clone();
            let has_role = view
                .own_member()
                .is_some_and(|own| own.roles.contains(&Role::Sinkhole));
            if has_role {
                self.say(&view);
                self.listen();
            } else {
                self.end().await;
            }
            self.announce(&view);
            let clock = self.host.clock.clone();
            tokio::select! {
                () = clock.sleep(AGAIN) => {}
                changed = views.changed() => if changed.is_err() {
                    return;
                }
            }
        }
    }

    /// Publishes what strangers are told, where that is something else.
    fn say(&mut self, view: &MeshView) {
        let input = view.stranger_input();
        if self.said != input
            && let Some(input) = input
        {
            self.dns.publish(StrangerZone::build(input.clone()));
            self.said = Some(input);
        }
    }

    fn listen(&mut self) {
        let mut trouble = BTreeMap::new();
        for at in &self.listen {
            if self.servers.contains_key(at) {
                continue;
            }
            match PublicServer::start(&self.dns, &self.around, *at) {
                Ok(server) => {
                    tracing::info!(%at, "strangers' questions for names are answered");
                    self.servers.insert(*at, server);
                }
                Err(error) => {
                    trouble.insert(*at, error);
                }
            }
        }
        self.trouble.set_dns(trouble);
    }

    async fn end(&mut self) {
        for server in std::mem::take(&mut self.servers).into_values() {
            server.end().await;
        }
        self.trouble.set_dns(BTreeMap::new());
    }

    /// Tells the others where strangers reach this name server: at the addresses that it
    /// listens at, and where those are a router's to forward to, at this node's own
    /// public ones of that family.
    fn announce(&self, view: &MeshView) {
        let own = view.nodes.get(&view.me);
        let own = own
            .map(|own| own.announcement.quic.clone())
            .unwrap_or_default();
        let public: BTreeSet<IpAddr> = own
            .iter()
            .map(|at| at.ip().to_canonical())
            .filter(|ip| endpoint::is_public(*ip))
            .collect();
        let mut at = BTreeSet::new();
        for listening in self.servers.keys() {
            let ip = listening.ip().to_canonical();
            if endpoint::is_public(ip) && !ip.is_unspecified() {
                at.insert(ip);
            } else {
                let alike = public
                    .iter()
                    .filter(|other| other.is_ipv4() == ip.is_ipv4());
                at.extend(alike);
            }
        }
        let most = limits::SINKHOLE_NAME_SERVER_ADDRESSES;
        let at: BTreeSet<IpAddr> = at.into_iter().take(most).collect();
        let is_new = |said: &mut BTreeSet<IpAddr>| {
            let is_new = *said != at;
            *said = at;
            is_new
        };
        if self.announcer.name_server.send_if_modified(is_new) {
            self.announcer.announce();
        }
    }
}
