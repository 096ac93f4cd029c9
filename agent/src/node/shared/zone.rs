//! Has DNS answer from the newest view.

use std::sync::Arc;

use innermesh_proto::{view::MeshView, zone::Zone};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::{
    dns::{Dns, MemberSources, Served},
    node::shared::{addresses::Addresses, enforced::Enforced},
};

/// Publishes the zone. Clones are the same.
#[derive(Clone)]
pub(crate) struct ZonePublisher {
    pub view: watch::Sender<Arc<MeshView>>,
    pub dns: Arc<Dns>,
    pub addresses: Addresses,
    pub enforced: Arc<Enforced>,
    /// Networks that count as this host.
    pub local_sources: Vec<IpNet>,
}

impl ZonePublisher {
    /// Publishes the zone of the newest view.
    pub fn publish(&self) {
        let view = self.view.borrow().clone();
        // A local client's packets come from the very address that they go to.
        let mut own = self.addresses.own();
        own.extend(self.addresses.resolvers());
        let mut local = self.local_sources.clone();
        local.extend(self.enforced.containers());
        self.dns.publish(move || Served {
            zone: Arc::new(Zone::build(&view.zone_input())),
            sources: Arc::new(MemberSources {
                own,
                members: view.member_addresses(),
                local,
            }),
        });
    }
}
