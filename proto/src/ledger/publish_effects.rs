//! How publications and their links change.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::{
    publish::{PublicPort, Publication, Publish, PublishKey, PublishLink},
    state::State,
};
use crate::{id::NodeId, tunnel::TunnelKey};

impl State {
    pub(super) fn publish(&mut self, publish: Publish, by: NodeId) {
        let publication = Publication {
            name: publish.name,
            to_port: publish.to_port,
            proxy_protocol: publish.proxy_protocol,
            by,
            at_ms: self.stamp_ms,
        };
        let ports = &mut self.extension.published.ports;
        ports.insert(publish.at, publication);
    }

    pub(super) fn unpublish(&mut self, at: &PublicPort) {
        self.extension.published.ports.remove(at);
        self.drop_needless_links();
    }

    pub(super) fn set_publish_key(&mut self, inside: NodeId, set: PublishKey, ipv4: Ipv4Addr) {
        let link = PublishLink {
            key: set.key,
            ipv4,
            ipv6: PublishLink::ipv6_of(&self.mesh, inside, set.on),
        };
        let links = &mut self.extension.published.links;
        links.insert((inside, set.on), link);
    }

    /// Ends what names no longer lead to, and what a node has that is gone:
    /// whoever gets a name later isn't published by it.
    pub(super) fn forget_publications(&mut self) {
        if self.extension.published.ports.is_empty() {
            return;
        }
        let stands = |at: &PublicPort, publication: &Publication| {
            self.members.contains_key(&at.on) && !self.publishable_on(&publication.name).is_empty()
        };
        let gone = self.publications();
        let gone = gone.filter(|(at, publication)| !stands(at, publication));
        let gone: Vec<PublicPort> = gone.map(|(at, _)| *at).collect();
        for at in gone {
            self.extension.published.ports.remove(&at);
        }
        self.drop_needless_links();
    }

    fn drop_needless_links(&mut self) {
        let links = self.publish_links();
        let needless = links.filter(|((inside, on), _)| !self.needs_link(*inside, *on));
        let needless: Vec<(NodeId, NodeId)> = needless.map(|(ends, _)| *ends).collect();
        for ends in needless {
            self.extension.published.links.remove(&ends);
        }
    }

    /// Whether keys and addresses of links are nobody else's, and all that is
    /// published is of members.
    pub(super) fn publications_agree(&self) -> bool {
        let links = || self.publish_links();
        let keys: BTreeSet<TunnelKey> = links().map(|(_, link)| link.key).collect();
        let addresses: BTreeSet<Ipv4Addr> = links().map(|(_, link)| link.ipv4).collect();
        let is_free = |key: &TunnelKey| {
            self.tunnel_key_holder(key).is_none() && self.device_by_key(key).is_none()
        };
        let count = links().count();
        keys.len() == count
            && addresses.len() == count
            && keys.iter().all(is_free)
            && addresses
                .iter()
                .all(|ip| self.holder_of_address((*ip).into()).is_none())
            && links().all(|((inside, on), _)| self.needs_link(*inside, *on))
            && self.publications().all(|(at, publication)| {
                self.members.contains_key(&at.on)
                    && !self.publishable_on(&publication.name).is_empty()
            })
    }
}
