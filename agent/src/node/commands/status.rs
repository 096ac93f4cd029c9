//! `agent status`: all that this node concludes, for a person.

use std::collections::BTreeMap;

use innermesh_proto::{id::NodeId, ledger::Member, view::MeshView};

use crate::{
    control::node::{DnsStatus, LedgerStatus, NodeRow, Pending, Status},
    node::{
        Inner, VERSION,
        commands::{
            peers::{path, paths},
            services, spenders, warnings,
        },
        follow::overlay,
    },
    quic::PeerInfo,
};

/// All of it.
pub async fn status(inner: &Inner) -> Status {
    let view = inner.view.borrow().clone();
    let state = &view.ledger;
    let paths = paths(inner);
    // Before the warnings, which tell what it found.
    let overlay = overlay::status(inner).await;
    let mut warnings = warnings::all(inner, &view);
    warnings.extend(warnings::lost(inner).await);
    warnings.extend(warnings::room(inner).await);
    warnings.extend(spenders::warnings(inner, &view).await);
    Status {
        mesh: state.mesh.to_string(),
        domain: state.domain.to_string(),
        node: own_name(&view),
        id: view.me.to_string(),
        version: VERSION.into(),
        uptime_s: inner
            .host
            .clock
            .now()
            .saturating_sub(inner.started)
            .as_secs(),
        dns: DnsStatus {
            address: inner.dns_addresses().first().copied(),
        },
        ledger: LedgerStatus {
            index: state.position.index,
            hash: state.position.hash.to_string(),
        },
        warnings,
        findings: warnings::findings(inner),
        nodes: state
            .members
            .iter()
            .map(|(node, member)| node_row(&view, &paths, *node, member))
            .collect(),
        services: services::granted(&view),
        pending: inner
            .names
            .pending()
            .into_iter()
            .map(|(name, reason)| Pending {
                name: name.to_string(),
                reason,
            })
            .collect(),
        counters: counters(inner),
        overlay,
    }
}

fn own_name(view: &MeshView) -> String {
    view.own_member()
        .map_or_else(|| view.me.to_string(), |member| member.name.to_string())
}

fn counters(inner: &Inner) -> BTreeMap<String, u64> {
    let gossip = inner.gossip.counters();
    let mut counters: BTreeMap<String, u64> = inner
        .transport
        .counters()
        .named()
        .into_iter()
        .map(|(name, value)| (name.to_string(), value))
        .collect();
    counters.insert("heads_refused".into(), gossip.refused);
    counters.insert("gossip_messages_refused".into(), gossip.gated);
    counters.insert("gossip_parts_dropped".into(), gossip.dropped);
    counters
}

fn node_row(
    view: &MeshView,
    paths: &BTreeMap<NodeId, PeerInfo>,
    node: NodeId,
    member: &Member,
) -> NodeRow {
    NodeRow {
        name: member.name.to_string(),
        id: node.to_string(),
        addresses: MeshView::addresses(member),
        roles: member.roles.iter().map(ToString::to_string).collect(),
        live: view.nodes.get(&node).is_some_and(|seen| seen.live) && !view.held.contains_key(&node),
        held: view.held.contains_key(&node),
        path: path(paths.contains_key(&node) || node == view.me),
    }
}
