//! By which ways the tunnel's peers may be reached.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{MeshView, NodeView, tunnel_endpoint};
use crate::{
    endpoint::{self, is_plausible},
    id::NodeId,
    ledger::Role,
    limits,
    path::{Way, relay_of},
    tunnel::TunnelKey,
};

impl MeshView {
    /// Of those peers that announce where their tunnels are: they choose their way
    /// together with this node.
    pub(super) fn ways(&self) -> BTreeMap<TunnelKey, Way> {
        let others = self.nodes.iter().filter(|(node, _)| **node != self.me);
        let ways = others.filter_map(|(node, view)| {
            self.ledger.members.get(node)?;
            let announced = view.announcement.wireguard.as_ref()?;
            let key = self.tunnel_key(node, announced.key)?;
            Some((key, self.way(node, view, announced.port)?))
        });
        ways.collect()
    }

    fn way(&self, node: &NodeId, view: &NodeView, port: u16) -> Option<Way> {
        let places = &view.announcement.places;
        if !self.announces_places(node) {
            return None;
        }
        let overlay = endpoint::overlay(&self.ledger);
        let own = self.nodes.get(&self.me).map(|own| &own.announcement.places);
        let mine = |at: &SocketAddr| own.is_some_and(|own| own.candidates.contains(at));
        let known = tunnel_endpoint(view, port, &self.ledger);
        let all = places.candidates.iter().copied();
        let all = all.filter(|at| is_plausible(at, &overlay, true) && !mine(at));
        let mut candidates: Vec<_> = known.into_iter().collect();
        for at in all {
            if candidates.len() < limits::CANDIDATES && !candidates.contains(&at) {
                candidates.push(at);
            }
        }
        Some(Way {
            node: *node,
            candidates,
            relay: places.relay.filter(|relay| self.is_relay(relay)),
        })
    }

    fn announces_places(&self, node: &NodeId) -> bool {
        let view = self.nodes.get(node);
        view.is_some_and(|view| !view.announcement.places.candidates.is_empty())
    }

    /// Whether a member brings datagrams of tunnels to others.
    pub fn is_relay(&self, node: &NodeId) -> bool {
        let member = self.ledger.members.get(node);
        let is_one = member.is_some_and(|member| member.roles.contains(&Role::Relay));
        is_one && !self.held.contains_key(node)
    }

    /// The relay that this node should be connected with: itself where it is one.
    /// `avoid` are those that don't answer.
    pub fn own_relay(&self, avoid: impl Fn(&NodeId) -> bool) -> Option<NodeId> {
        if self.is_relay(&self.me) {
            return Some(self.me);
        }
        let nodes = self.nodes.iter().filter(|(_, view)| view.live);
        let relays = nodes.map(|(node, _)| *node);
        let relays = relays.filter(|node| self.is_relay(node) && !avoid(node));
        relay_of(&self.me, relays)
    }

    /// Whether the tunnel with a peer is kept open although nothing passes: with those
    /// that this node has links with, which see where its packets come from, with its
    /// relay, and where the other end doesn't look for ways. All others are silent.
    pub(super) fn keeps_alive(&self, node: &NodeId, view: &NodeView) -> bool {
        let own = self.nodes.get(&self.me).map(|own| &own.announcement);
        let is_own_relay = own.is_some_and(|own| own.places.relay == Some(*node));
        view.linked || is_own_relay || view.announcement.places.candidates.is_empty()
    }
}
