//! What is published: on the public node where each port leads, on the node inside
//! by which link it comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{KEEPALIVE_S, MeshView, tunnel_endpoint};
use crate::{
    filter::{HostNetworks, Interface, LinkFilter, PublishFilter, PublishedPort, publish},
    id::NodeId,
    ledger::publish::{PublicPort, Publication, PublishLink},
    name::Label,
    tunnel::{TunnelKey, TunnelPeer, TunnelPlan},
};

/// A link that ends at this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsideLink {
    /// What the ledger says of it; nothing before this node has asked.
    pub link: Option<PublishLink>,
    /// The public node as the only peer; none while it isn't known to be a member.
    pub peer: Option<(TunnelKey, TunnelPeer)>,
    /// Ports that are published; none while the public node isn't live, as it may
    /// not have heard that they are no longer.
    pub ports: BTreeSet<u16>,
}

impl InsideLink {
    /// What the link's interface should be.
    pub fn plan(&self) -> TunnelPlan {
        let addresses = self.link.iter().flat_map(PublishLink::addresses);
        TunnelPlan {
            addresses: addresses.map(IpNet::from).collect(),
            peers: self.peer.clone().into_iter().collect(),
            ..TunnelPlan::default()
        }
    }
}

impl MeshView {
    /// What is published on this node, and on which node it ends now; none where
    /// none that is live runs it and has a link.
    pub fn published_here(&self) -> Vec<(PublicPort, &Publication, Option<NodeId>)> {
        let own = self.ledger.publications();
        let own = own.filter(|(at, _)| at.on == self.me);
        own.map(|(at, publication)| (*at, publication, self.publish_target(at.on, publication)))
            .collect()
    }

    /// Where what a public node publishes leads now. Healthy instances come first; of
    /// several it is the one with the smallest id.
    pub fn publish_target(&self, on: NodeId, publication: &Publication) -> Option<NodeId> {
        let inside = self.ledger.publishable_on(&publication.name).into_iter();
        let able = |node: &NodeId| {
            let is_linked = *node != on && self.ledger.publish_link(*node, on).is_some();
            self.is_current(node)
                && self.runs(node, &publication.name)
                && (publication.proxy_protocol || is_linked)
        };
        inside
            .filter(able)
            .min_by_key(|node| (!self.is_healthy(node, &publication.name), *node))
    }

    /// Whether a node is here and as far as this one knows a member still.
    fn is_current(&self, node: &NodeId) -> bool {
        let view = self.nodes.get(node);
        self.ledger.members.contains_key(node)
            && !self.held.contains_key(node)
            && view.is_some_and(|view| view.live && view.ledger_caught_up)
    }

    /// Whether a published name leads to a node now: it is the node's own, or of a
    /// service that it runs.
    pub fn runs(&self, node: &NodeId, name: &Label) -> bool {
        if !self.ledger.publishable_on(name).contains(node) {
            return false;
        }
        let member = self.ledger.members.get(node);
        let is_own = member.is_some_and(|member| member.name == *name);
        let view = self.nodes.get(node);
        let instance = view.and_then(|view| view.announcement.services.get(name));
        // Elsewhere than on the node it can't be led to.
        is_own || instance.is_some_and(|instance| instance.address.is_none())
    }

    fn is_healthy(&self, node: &NodeId, name: &Label) -> bool {
        let view = self.nodes.get(node);
        let instance = view.and_then(|view| view.announcement.services.get(name));
        instance.is_none_or(|instance| instance.healthy)
    }

    /// The links that end at this node, by their public nodes.
    pub fn inside_links(&self) -> BTreeMap<NodeId, InsideLink> {
        let mut links: BTreeMap<NodeId, InsideLink> = BTreeMap::new();
        for (at, publication) in self.ledger.publications() {
            let leads_here = at.on != self.me
                && !publication.proxy_protocol
                && !self.held.contains_key(&at.on)
                && self.runs(&self.me, &publication.name);
            if !leads_here {
                continue;
            }
            let link = links.entry(at.on).or_insert_with(|| InsideLink {
                link: self.ledger.publish_link(self.me, at.on).copied(),
                peer: self.public_peer(&at.on),
                ports: BTreeSet::new(),
            });
            if self.is_current(&at.on) {
                link.ports.insert(publication.to_port);
            }
        }
        links
    }

    /// A public node as a link's peer: it sends from anywhere.
    fn public_peer(&self, on: &NodeId) -> Option<(TunnelKey, TunnelPeer)> {
        let view = self.nodes.get(on).filter(|view| view.ledger_caught_up)?;
        let wireguard = view.announcement.wireguard.as_ref()?;
        let key = self.tunnel_key(on, wireguard.key)?;
        let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        let peer = TunnelPeer {
            allowed_ips: everything.into(),
            endpoint: tunnel_endpoint(view, wireguard.port, &self.ledger),
            keepalive_s: Some(KEEPALIVE_S),
            preshared_key: None,
        };
        Some((key, peer))
    }

    /// The inside ends of links as peers of this node, the public one. They come by
    /// themselves, and one that isn't current is sent nothing (S13).
    pub(super) fn link_peers(&self) -> BTreeMap<TunnelKey, TunnelPeer> {
        let links = self.ledger.publish_links();
        let links = links.filter(|((inside, on), _)| *on == self.me && self.is_current(inside));
        links
            .map(|(_, link)| {
                let peer = TunnelPeer {
                    allowed_ips: link.addresses().map(IpNet::from).into(),
                    ..TunnelPeer::default()
                };
                (link.key, peer)
            })
            .collect()
    }

    pub(super) fn publish_filter(&self, tunnel: &Interface, host: &HostNetworks) -> PublishFilter {
        let mut ports = BTreeSet::new();
        for (at, publication, target) in self.published_here() {
            let link = target.and_then(|target| self.ledger.publish_link(target, self.me));
            let Some(link) = link.filter(|_| !publication.proxy_protocol) else {
                continue;
            };
            ports.extend(link.addresses().map(|to| PublishedPort {
                port: at.port,
                to,
                to_port: publication.to_port,
            }));
        }
        let links: BTreeSet<LinkFilter> = self
            .inside_links()
            .into_iter()
            .filter_map(|(on, inside)| {
                let addresses: BTreeSet<IpAddr> = inside.link?.addresses().into();
                Some(LinkFilter {
                    interface: tunnel.link_to(&on),
                    addresses,
                    ports: inside.ports,
                })
            })
            .collect();
        if ports.is_empty() && links.is_empty() {
            return PublishFilter::default();
        }
        PublishFilter {
            outer: publish::outer(host),
            never: self.never_public(host, !links.is_empty()),
            ports,
            links,
            ..PublishFilter::default()
        }
    }

    /// Sources that nothing published is open to: what a service may take for its own
    /// side. Of a public node's own networks only private ones are among them, unless
    /// `all_own` are, as on the node inside.
    fn never_public(&self, host: &HostNetworks, all_own: bool) -> BTreeSet<IpNet> {
        let overlay = [IpNet::V4(self.ledger.ipv4.trunc()), IpNet::V6(self.ula())];
        let is_own = |net: &&IpNet| all_own || publish::is_private(net);
        let own = host.own_networks.iter().filter(is_own);
        let routed = self.ledger.routes().map(|(net, _)| net);
        publish::never(overlay.iter().chain(routed), own)
    }

    /// As the filter's: for what a public node's agent itself accepts.
    pub fn not_strangers(&self, host: &HostNetworks) -> BTreeSet<IpNet> {
        self.never_public(host, false)
    }
}
