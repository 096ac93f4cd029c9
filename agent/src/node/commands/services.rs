//! The services of this node, and those that others announce.

use std::{collections::BTreeMap, sync::Arc};

use innermesh_proto::{ledger::state::NameKind, name::Label, view::MeshView};

use crate::{
    control::{
        ControlError, ErrorCode,
        node::ServiceStatus,
        services::{ServiceAdded, ServiceRow, ServiceState},
    },
    node::{
        follow::names::NameClaimer,
        shared::{
            announce::Announcer,
            handles::Handles,
            refusals::{no_node, not_member, refused},
        },
    },
    services::{Registry, ServiceError, Spec},
};

/// Adds and removes services of this node, and lists all.
pub(crate) struct ServiceDesk {
    pub node: Handles,
    pub services: Registry,
    pub announcer: Announcer,
    pub names: Arc<NameClaimer>,
}

impl ServiceDesk {
    /// Adds a service of this node, or changes it.
    ///
    /// # Errors
    /// When it can't be stored, or can never come to pass. A name that isn't granted
    /// yet is no error: the service is then pending.
    pub async fn add(&self, service: Spec) -> Result<ServiceAdded, ControlError> {
        let view = self.node.view.borrow().clone();
        let own = view.own_member().ok_or_else(not_member)?.clone();
        for node in &service.share {
            view.ledger
                .member_by_name(node)
                .ok_or_else(|| no_node(node))?;
        }
        self.names.check(&service).map_err(refused)?;
        self.services
            .add(service.clone())
            .await
            .map_err(service_error)?;
        self.announcer.announce();
        let secured = self.names.secure(&service).await;
        let leads = self.names.leads(&service).is_ok();
        let domain = &self.node.view.borrow().ledger.domain.clone();
        let mut reachable = vec![format!("{}.{}", service.name, domain.join(&own.name))];
        let granted = self.names.is_granted(&service.name);
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
    pub async fn rm(&self, name: Label, release: bool) -> Result<(), ControlError> {
        let removed = self.services.rm(&name).await;
        match removed {
            Ok(_) => {
                self.names.forget(&name);
                self.announcer.announce();
            }
            // The name may still be held after an earlier `rm` without it.
            Err(ServiceError::Unknown(_)) if release && self.owns(&name) => {}
            Err(error) => return Err(service_error(error)),
        }
        if release {
            self.names.release(&name).await.map_err(refused)?;
        }
        Ok(())
    }

    /// All of them that nodes announce.
    pub fn list(&self) -> Vec<ServiceRow> {
        let view = self.node.view.borrow().clone();
        let own: BTreeMap<Label, _> = self
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
                    service_type: seen.announcement.service_type(name, instance),
                    healthy: seen.live && instance.healthy,
                    checked: !seen.announcement.unchecked.contains(name),
                    check: status
                        .and_then(|status| status.spec.check.as_ref().map(ToString::to_string)),
                    granted: view.ledger.may_serve(*node, name),
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
    pub async fn configure(&self, services: Vec<Spec>) -> Result<(), ControlError> {
        self.services
            .configure(services)
            .await
            .map_err(service_error)?;
        self.announcer.announce();
        Ok(())
    }

    fn owns(&self, name: &Label) -> bool {
        let state = self.node.ledger.state();
        let held = state.names.get(name);
        held.is_some_and(|held| held.kind == NameKind::Service && held.owner == self.node.me)
    }
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
            if view.ledger.may_serve(*node, name) {
                rows.push(ServiceStatus {
                    name: name.to_string(),
                    node: member.name.to_string(),
                    port: instance.port,
                    healthy: seen.live && instance.healthy,
                    checked: !seen.announcement.unchecked.contains(name),
                });
            }
        }
    }
    rows.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
    rows
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
