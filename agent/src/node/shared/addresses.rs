//! The host's own addresses and the resolver's, and what an address is to
//! whatever listens here.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use innermesh_proto::id::resolver_v4;
use ipnet::IpNet;

use crate::{
    dns::Dns,
    host::Network,
    ledger::Ledger,
    listen::{Class, Sources},
    node::shared::handles::Handles,
};

/// Which addresses are this host's. Clones are the same.
#[derive(Clone)]
pub(crate) struct Addresses {
    net: Arc<dyn Network>,
    ledger: Ledger,
    dns: Arc<Dns>,
    /// Networks that count as the host itself.
    local: Vec<IpNet>,
    /// As they were last looked at.
    own: Arc<Mutex<BTreeSet<IpAddr>>>,
}

impl Addresses {
    pub fn new(node: &Handles, dns: Arc<Dns>) -> Self {
        Self {
            net: node.host.net.clone(),
            ledger: node.ledger.clone(),
            dns,
            local: node.config.local_sources.clone(),
            own: Arc::default(),
        }
    }

    /// The host's own, as they were last looked at.
    pub fn own(&self) -> BTreeSet<IpAddr> {
        self.own
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Looks at the host's own.
    pub async fn look(&self) {
        let own = self.net.local_addresses().await;
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) =
            own.into_iter().map(|(_, ip)| ip).collect();
    }

    /// Those at which each node has the mesh's resolver.
    pub fn resolvers(&self) -> [IpAddr; 2] {
        let state = self.ledger.state();
        [
            IpAddr::V4(resolver_v4(state.ipv4)),
            IpAddr::V6(state.mesh.resolver_v6()),
        ]
    }

    /// Whether a source is this host, or counts as it. Packets from an address of
    /// this host's own come over loopback only.
    fn is_local(&self, source: IpAddr) -> bool {
        source.is_loopback()
            || self.resolvers().contains(&source)
            || self.own().contains(&source)
            || self.local.iter().any(|net| net.contains(&source))
    }

    /// What an address is to whatever listens here. Members are those of the
    /// zone that is being served.
    pub fn sources(&self) -> Arc<dyn Sources> {
        let addresses = self.clone();
        Arc::new(move |address: IpAddr| {
            if addresses.is_local(address) {
                Class::Local
            } else if addresses.dns.is_internal(address) {
                Class::Member
            } else {
                Class::Other
            }
        })
    }
}
