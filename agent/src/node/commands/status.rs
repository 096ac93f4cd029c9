//! `agent status`: all that this node concludes, for a person.

use std::{collections::BTreeMap, sync::Arc};

use innermesh_proto::{id::NodeId, ledger::Member, view::MeshView};

use crate::{
    control::{
        finding::Finding,
        node::{DnsStatus, LedgerStatus, NodeRow, Pending, Status, TunnelStatus},
    },
    host::Mono,
    node::{
        commands::{peers::Reach, services, tunnel::TunnelProber, warnings::Warnings},
        config::VERSION,
        follow::{dns::Listening, names::NameClaimer, overlay::OverlayKeeper},
        shared::{handles::Handles, relaying::Relaying},
    },
    tunnel::BackendChoice,
};

/// Tells all that this node concludes.
pub(crate) struct StatusDesk {
    pub node: Handles,
    pub started: Mono,
    pub listening: Arc<Listening>,
    pub names: Arc<NameClaimer>,
    pub overlay: Arc<OverlayKeeper>,
    pub relaying: Arc<Relaying>,
    pub warnings: Warnings,
}

impl StatusDesk {
    pub async fn status(&self, prober: &TunnelProber) -> Status {
        let view = self.node.view.borrow().clone();
        let state = &view.ledger;
        let reach = Reach::look(&self.node, prober).await;
        // Before the warnings, which tell what it found.
        let overlay = self.overlay.status().await;
        let findings = self.warnings.all(&view).await;
        let answers_at = self.listening.addresses();
        Status {
            mesh: state.mesh.to_string(),
            domain: state.domain.to_string(),
            node: own_name(&view),
            id: view.me.to_string(),
            version: VERSION.into(),
            uptime_s: self
                .node
                .host
                .clock
                .now()
                .saturating_sub(self.started)
                .as_secs(),
            dns: DnsStatus {
                address: answers_at.first().copied(),
                addresses: answers_at,
                resolver: Some(self.warnings.resolver.status()),
            },
            ledger: LedgerStatus {
                index: state.position.index,
                hash: state.position.hash.to_string(),
            },
            warnings: findings.iter().map(Finding::sentence).collect(),
            findings,
            nodes: state
                .members
                .iter()
                .map(|(node, member)| node_row(&view, &reach, *node, member))
                .collect(),
            services: services::granted(&view),
            pending: self
                .names
                .pending()
                .into_iter()
                .map(|(name, reason)| Pending {
                    name: name.to_string(),
                    reason,
                })
                .collect(),
            counters: self.counters(),
            overlay,
            tunnel: self.tunnel(),
        }
    }

    fn tunnel(&self) -> Option<TunnelStatus> {
        let config = &self.node.config;
        let own = self.node.gossip.own();
        let view = self.node.view.borrow().clone();
        (config.backend != BackendChoice::None).then(|| TunnelStatus {
            relay: own.places.relay.map(|relay| view.ledger.name_of(relay)),
            places: own.places.candidates.clone(),
            interface: config.interface.clone(),
            port: config.tunnel_port,
        })
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let gossip = self.node.gossip.counters();
        let mut counters: BTreeMap<String, u64> = self
            .node
            .transport
            .counters()
            .named()
            .into_iter()
            .map(|(name, value)| (name.to_string(), value))
            .collect();
        counters.insert("heads_refused".into(), gossip.refused);
        counters.insert("gossip_messages_refused".into(), gossip.gated);
        counters.insert("gossip_parts_dropped".into(), gossip.dropped);
        counters.insert("link_packets_refused".into(), gossip.packets);
        let relayed = self.relaying.counters().into_iter();
        counters.extend(relayed.map(|(name, count)| (name.to_owned(), count)));
        counters
    }
}

fn own_name(view: &MeshView) -> String {
    view.own_member()
        .map_or_else(|| view.me.to_string(), |member| member.name.to_string())
}

fn node_row(view: &MeshView, reach: &Reach<'_>, node: NodeId, member: &Member) -> NodeRow {
    let way = reach.way(view, &node, member);
    NodeRow {
        name: member.name.to_string(),
        id: node.to_string(),
        addresses: MeshView::addresses(member),
        roles: member.roles.iter().map(ToString::to_string).collect(),
        live: view.nodes.get(&node).is_some_and(|seen| seen.live) && !view.held.contains_key(&node),
        held: view.held.contains_key(&node),
        path: way.path,
        linked: way.linked,
        through: way.through,
        relay: way.relay,
        tcp: way.tcp,
    }
}
