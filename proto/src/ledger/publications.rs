//! What the state knows of what is published.

#![allow(missing_docs, reason = "the names say it")]

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    publish::{PublicPort, Publication, PublishLink},
    state::{NameKind, State},
};
use crate::{id::NodeId, name::Label, tunnel::TunnelKey};

/// What is known of publications.
impl State {
    pub fn publications(&self) -> impl Iterator<Item = (&PublicPort, &Publication)> {
        self.extension.published.ports.iter()
    }

    pub fn publication(&self, at: &PublicPort) -> Option<&Publication> {
        self.extension.published.ports.get(at)
    }

    /// Links, by the node inside and the public one.
    pub fn publish_links(&self) -> impl Iterator<Item = (&(NodeId, NodeId), &PublishLink)> {
        self.extension.published.links.iter()
    }

    pub fn publish_link(&self, inside: NodeId, on: NodeId) -> Option<&PublishLink> {
        self.extension.published.links.get(&(inside, on))
    }

    /// The link that has a key (S26).
    pub fn publish_link_by_key(&self, key: &TunnelKey) -> Option<(NodeId, NodeId)> {
        let mut links = self.publish_links();
        let found = links.find(|(_, link)| link.key == *key);
        found.map(|(ends, _)| *ends)
    }

    /// Whether an address is one of a link's.
    pub(super) fn is_of_link(&self, address: IpAddr) -> bool {
        let mut links = self.publish_links();
        links.any(|(_, link)| link.addresses().contains(&address))
    }

    /// The nodes that a published name may lead to: the node of that name, or
    /// those that may run instances of the service.
    pub fn publishable_on(&self, name: &Label) -> BTreeSet<NodeId> {
        let Some(held) = self.names.get(name) else {
            return BTreeSet::new();
        };
        match held.kind {
            NameKind::Node => [held.owner].into(),
            NameKind::Service => {
                let all = std::iter::once(&held.owner).chain(&held.shared);
                all.copied().collect()
            }
            NameKind::Records | NameKind::Device => BTreeSet::new(),
        }
    }

    /// Whether packets that a public node forwards may lead to `inside`.
    pub(super) fn needs_link(&self, inside: NodeId, on: NodeId) -> bool {
        inside != on
            && self.publications().any(|(at, publication)| {
                at.on == on
                    && !publication.proxy_protocol
                    && self.publishable_on(&publication.name).contains(&inside)
            })
    }
}
