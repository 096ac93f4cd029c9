//! Has DNS answer from the newest view.

use std::sync::Arc;

use innermesh_proto::{
    view::MeshView,
    zone::{Zone, ZoneInput},
};
use ipnet::IpNet;
use tokio::sync::{Notify, watch};

use crate::{
    dns::{Dns, MemberSources, Served, SourceTable},
    node::shared::{
        addresses::Addresses, enforced::Enforced, in_lan::InLan, secondaries::Secondaries,
        zone_serial::ZoneSerial,
    },
};

/// Publishes the zone. Clones are the same.
#[derive(Clone)]
pub(crate) struct ZonePublisher {
    pub view: watch::Sender<Arc<MeshView>>,
    pub dns: Arc<Dns>,
    pub addresses: Addresses,
    pub enforced: Arc<Enforced>,
    pub serial: ZoneSerial,
    /// Networks that count as this host.
    pub local_sources: Vec<IpNet>,
    /// LANs whose hosts may ask, and who is where in them.
    pub lan: Vec<IpNet>,
    pub in_lan: Arc<InLan>,
    /// Those that copy the zone have serials of their own.
    pub secondaries: Arc<Secondaries>,
    /// There is another zone than before.
    pub news: Arc<Notify>,
}

impl ZonePublisher {
    /// Publishes the zone of the newest view.
    pub fn publish(&self) {
        self.publish_quietly();
        self.news.notify_one();
    }

    /// As [`ZonePublisher::publish`], where nothing has changed but serials.
    pub fn publish_quietly(&self) {
        let view = self.view.borrow().clone();
        // A local client's packets come from the very address that they go to.
        let mut own = self.addresses.own();
        own.extend(self.addresses.resolvers());
        let mut local = self.local_sources.clone();
        local.extend(self.enforced.containers());
        let serial = self.serial.next();
        let serials = self.secondaries.serials();
        let (lan, in_lan) = (self.lan.clone(), self.in_lan.clone());
        self.dns.publish(move || {
            let input = ZoneInput {
                serial,
                ..view.zone_input()
            };
            let overlay = [IpNet::V4(input.ipv4.trunc()), IpNet::V6(input.ula.trunc())];
            let mut zone = Zone::build(&input);
            for (origin, serial) in &serials {
                zone.set_serial(origin, *serial);
            }
            let of_lan = (!lan.is_empty())
                .then(|| Zone::build(&input.for_lan(&in_lan.addresses(&view), &lan)));
            Served {
                zone: Arc::new(zone),
                lan: of_lan.map(Arc::new),
                sources: Arc::new(SourceTable::from(&MemberSources {
                    own,
                    members: view.member_addresses(),
                    local,
                    lan,
                    overlay: overlay.into(),
                })),
            }
        });
    }
}

/// The zone of a view.
pub(crate) fn zone_of(view: &MeshView, serial: u32) -> Zone {
    Zone::build(&ZoneInput {
        serial,
        ..view.zone_input()
    })
}
