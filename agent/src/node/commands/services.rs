//! The services of this node, and those that others announce.

use std::collections::BTreeMap;

use innermesh_proto::{id::NodeId, ledger::state::NameKind, name::Label, view::MeshView};

use crate::{
    control::{
        ControlError, ErrorCode,
        node::ServiceStatus,
        services::{ServiceAdded, ServiceRow, ServiceState},
    },
    node::{
        Inner,
        follow::{names, view},
        refusals::{no_node, not_member, refused},
    },
    services::{ServiceError, Spec},
};

/// Adds a service of this node, or changes it.
///
/// # Errors
/// When it can't be stored. A name that isn't granted is no error: the service
/// is then pending.
pub async fn add(inner: &Inner, service: Spec) -> Result<ServiceAdded, ControlError> {
    let view = inner.view.borrow().clone();
    let own = view.own_member().ok_or_else(not_member)?.clone();
    for node in &service.share {
        view.ledger
            .member_by_name(node)
            .ok_or_else(|| no_node(node))?;
    }
    inner
        .services
        .add(service.clone())
        .await
        .map_err(service_error)?;
    view::announce(inner, None);
    let secured = names::secure(inner, &service).await;
    let leads = names::leads(inner, &service).is_ok();
    let domain = &inner.view.borrow().ledger.domain.clone();
    let mut reachable = vec![format!("{}.{}", service.name, domain.join(&own.name))];
    let granted = names::is_granted(inner, &service.name);
    if granted {
        reachable.insert(0, domain.join(&service.name));
    }
    if !leads {
        reachable.clear();
    }
    Ok(ServiceAdded {
        name: service.name.to_string(),
        state: if granted && leads {
            ServiceState::Granted
        } else {
            ServiceState::Pending
        },
        reason: secured.err().map(|why| why.to_string()),
        reachable,
        addresses: match service.address {
            Some(address) => vec![address],
            None => MeshView::addresses(&own),
        },
    })
}

/// Takes a service of this node away.
///
/// # Errors
/// When there is none, or its name can't be given back.
pub async fn rm(inner: &Inner, name: Label, release: bool) -> Result<(), ControlError> {
    let removed = inner.services.rm(&name).await;
    match removed {
        Ok(_) => {
            inner.names.forget(&name);
            view::announce(inner, None);
        }
        // The name may still be held after an earlier `rm` without it.
        Err(ServiceError::Unknown(_)) if release && owns(inner, &name) => {}
        Err(error) => return Err(service_error(error)),
    }
    if release {
        names::release(inner, &name).await.map_err(refused)?;
    }
    Ok(())
}

/// All of them that nodes announce.
pub fn list(inner: &Inner) -> Vec<ServiceRow> {
    let view = inner.view.borrow().clone();
    let own: BTreeMap<Label, _> = inner
        .services
        .list()
        .into_iter()
        .map(|status| (status.spec.name.clone(), status))
        .collect();
    let mut rows = Vec::new();
    for (node, seen) in &view.nodes {
        let Some(member) = view.ledger.members.get(node) else {
            continue;
        };
        if view.held.contains_key(node) {
            continue;
        }
        for (name, instance) in &seen.announcement.services {
            let status = own.get(name).filter(|_| *node == view.me);
            rows.push(ServiceRow {
                name: name.to_string(),
                node: member.name.to_string(),
                port: instance.port,
                proto: instance.protocol,
                healthy: seen.live && instance.healthy,
                check: status
                    .and_then(|status| status.spec.check.as_ref().map(ToString::to_string)),
                granted: holds(&view, name, *node),
                last_error: status.and_then(|status| status.last_error.clone()),
            });
        }
    }
    rows.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
    rows
}

/// Takes what the configuration says.
///
/// # Errors
/// When one makes no sense, or can't be stored.
pub async fn configure(inner: &Inner, services: Vec<Spec>) -> Result<(), ControlError> {
    inner
        .services
        .configure(services)
        .await
        .map_err(service_error)?;
    view::announce(inner, None);
    Ok(())
}

/// Those that are granted to whoever announces them.
pub fn granted(view: &MeshView) -> Vec<ServiceStatus> {
    let mut rows = Vec::new();
    for (node, seen) in &view.nodes {
        let Some(member) = view.ledger.members.get(node) else {
            continue;
        };
        if view.held.contains_key(node) {
            continue;
        }
        for (name, instance) in &seen.announcement.services {
            if holds(view, name, *node) {
                rows.push(ServiceStatus {
                    name: name.to_string(),
                    node: member.name.to_string(),
                    port: instance.port,
                    healthy: seen.live && instance.healthy,
                });
            }
        }
    }
    rows.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
    rows
}

fn owns(inner: &Inner, name: &Label) -> bool {
    let state = inner.ledger.state();
    let held = state.names.get(name);
    held.is_some_and(|held| held.kind == NameKind::Service && held.owner == inner.me)
}

fn holds(view: &MeshView, name: &Label, node: NodeId) -> bool {
    view.ledger.names.get(name).is_some_and(|held| {
        held.kind == NameKind::Service && (held.owner == node || held.shared.contains(&node))
    })
}

fn service_error(error: ServiceError) -> ControlError {
    let code = match error {
        ServiceError::Unknown(_) => ErrorCode::NotFound,
        ServiceError::Disk { .. } => ErrorCode::Internal,
        ServiceError::Spec(_) => ErrorCode::Invalid,
        _ => ErrorCode::Refused,
    };
    ControlError::new(code, error)
}
