//! What a person or a script asks of the running agent, answered from the
//! newest view.

pub mod admit;
pub mod authority;
mod ca;
pub mod certificates;
pub mod evict;
pub mod invite;
pub mod leave;
pub mod records;
pub mod recovery;
pub mod spenders;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use innermesh_proto::{
    id::NodeId,
    ledger::{Content, Member, Outcome, Refusal, state::NameKind},
    name::Label,
    rpc::method,
    view::MeshView,
    zone::{DomainName, RecordType},
};

use crate::node::Inner;
use crate::node::VERSION;
use crate::node::follow::holds;
use crate::node::follow::names;
use crate::node::follow::overlay;
use crate::node::follow::program_certs;
use crate::node::follow::tunnel;
use crate::{
    ca::csr::Csr,
    control::{
        Control,
        api::{
            CertRequest, CertRow, ControlError, DnsStatus, ErrorCode, Invite, InviteRequest,
            Issued, LedgerStatus, NodeRow, Path, Peer, Pending, PingReply, QueryReport,
            ServiceAdded, ServiceRow, ServiceState, ServiceStatus, Status,
        },
        finding::Finding,
    },
    host::UnixTime,
    quic::PeerInfo,
    services::{ServiceError, Spec},
};

/// How long the ledger may take to decide what a person waits for.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one probe may take.
const PROBE: Duration = Duration::from_secs(3);
/// Between two probes.
const PROBE_PAUSE: Duration = Duration::from_millis(200);
/// Most probes of one `ping`.
const PROBES: u32 = 100;

/// The control interface of an agent.
pub struct AgentControl(pub Arc<Inner>);

#[async_trait]
impl Control for AgentControl {
    async fn status(&self) -> Status {
        let view = self.view();
        let state = &view.ledger;
        let paths = self.paths();
        // Before the warnings, which tell what it found.
        let overlay = overlay::status(&self.0).await;
        let mut warnings = self.warnings(&view);
        warnings.extend(self.lost_warnings().await);
        warnings.extend(self.room_warning().await);
        warnings.extend(spenders::warnings(&self.0, &view).await);
        Status {
            mesh: state.mesh.to_string(),
            domain: state.domain.to_string(),
            node: self.own_name(&view),
            id: view.me.to_string(),
            version: VERSION.into(),
            uptime_s: self
                .0
                .host
                .clock
                .now()
                .saturating_sub(self.0.started)
                .as_secs(),
            dns: DnsStatus {
                address: self.0.dns_addresses().first().copied(),
            },
            ledger: LedgerStatus {
                index: state.position.index,
                hash: state.position.hash.to_string(),
            },
            warnings,
            findings: self.findings(),
            nodes: state
                .members
                .iter()
                .map(|(node, member)| node_row(&view, &paths, *node, member))
                .collect(),
            services: self.granted_services(&view),
            pending: self
                .0
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
        }
    }

    async fn peers(&self) -> Vec<Peer> {
        let view = self.view();
        let paths = self.paths();
        let others = view
            .ledger
            .members
            .iter()
            .filter(|(node, _)| **node != view.me);
        others
            .map(|(node, member)| {
                let info = paths.get(node);
                Peer {
                    name: member.name.to_string(),
                    path: path(info.is_some()),
                    endpoint: info.map(|info| info.remote),
                    rtt_ms: info.map(|info| info.rtt.as_secs_f64() * 1000.0),
                    psk: false,
                }
            })
            .collect()
    }

    async fn ping(&self, node: Label, count: u32) -> Result<PingReply, ControlError> {
        let view = self.view();
        let (id, _) = view
            .ledger
            .member_by_name(&node)
            .ok_or_else(|| no_node(&node))?;
        let clock = &self.0.host.clock;
        let sent = count.clamp(1, PROBES);
        let mut rtt_ms = Vec::new();
        for probe in 0..sent {
            if probe > 0 {
                clock.sleep(PROBE_PAUSE).await;
            }
            let start = clock.now();
            let answered = if id == view.me {
                true
            } else {
                let call =
                    self.0
                        .transport
                        .call(id, method::PING, probe.to_le_bytes().to_vec(), PROBE);
                call.await.is_ok()
            };
            if answered {
                rtt_ms.push(clock.now().saturating_sub(start).as_secs_f64() * 1000.0);
            }
        }
        let info = self.paths().remove(&id);
        Ok(PingReply {
            node: node.to_string(),
            path: path(info.is_some() || id == view.me),
            endpoint: info.map(|info| info.remote),
            sent,
            rtt_ms,
            tunnel: tunnel::ping(&self.0, &view, id).await,
        })
    }

    async fn invite(&self, request: InviteRequest) -> Result<Invite, ControlError> {
        invite::invite(&self.0, request)
    }

    async fn service_add(&self, service: Spec) -> Result<ServiceAdded, ControlError> {
        let view = self.view();
        let own = view.own_member().ok_or_else(not_member)?.clone();
        for node in &service.share {
            view.ledger
                .member_by_name(node)
                .ok_or_else(|| no_node(node))?;
        }
        self.0
            .services
            .add(service.clone())
            .await
            .map_err(service_error)?;
        crate::node::follow::view::announce(&self.0, None);
        let secured = names::secure(&self.0, &service).await;
        let leads = names::leads(&self.0, &service).is_ok();
        let domain = &self.view().ledger.domain;
        let mut reachable = vec![format!("{}.{}", service.name, domain.join(&own.name))];
        let granted = names::is_granted(&self.0, &service.name);
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

    async fn service_rm(&self, name: Label, release: bool) -> Result<(), ControlError> {
        let removed = self.0.services.rm(&name).await;
        match removed {
            Ok(_) => {
                self.0.names.forget(&name);
                crate::node::follow::view::announce(&self.0, None);
            }
            // The name may still be held after an earlier `rm` without it.
            Err(ServiceError::Unknown(_)) if release && self.owns(&name) => {}
            Err(error) => return Err(service_error(error)),
        }
        if release {
            names::release(&self.0, &name).await.map_err(refused)?;
        }
        Ok(())
    }

    async fn service_list(&self) -> Vec<ServiceRow> {
        let view = self.view();
        let own: BTreeMap<Label, _> = self
            .0
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

    async fn configure_services(&self, services: Vec<Spec>) -> Result<(), ControlError> {
        self.0
            .services
            .configure(services)
            .await
            .map_err(service_error)?;
        crate::node::follow::view::announce(&self.0, None);
        Ok(())
    }

    async fn cert_issue(&self, request: CertRequest) -> Result<Issued, ControlError> {
        let csr = Csr::parse(&request.csr.0).map_err(invalid)?;
        let names: BTreeSet<String> = request
            .names
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect();
        if csr.dns != names || !csr.ips.is_empty() {
            return Err(invalid(
                "the signing request is for other names than those that were asked for",
            ));
        }
        certificates::certify(&self.0, csr.spki, names, request.days).await
    }

    async fn cert_list(&self) -> Vec<CertRow> {
        let mut rows = certificates::list(&self.0.ledger.state());
        program_certs::join(&self.0, &mut rows);
        rows
    }

    async fn dns_query(&self, name: String, rtype: String) -> Result<QueryReport, ControlError> {
        let name: DomainName = name.parse().map_err(invalid)?;
        let rtype: RecordType = rtype.to_ascii_uppercase().parse().map_err(invalid)?;
        Ok(self.0.dns.query(&name, rtype).await)
    }

    async fn dns_zone(&self) -> String {
        let zone = self.0.dns.zone();
        let mut text = String::new();
        for line in zone.records() {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

impl AgentControl {
    fn view(&self) -> Arc<MeshView> {
        self.0.view.borrow().clone()
    }

    fn wall(&self) -> UnixTime {
        UnixTime::from_ms(self.0.host.clock.wall_ms())
    }

    fn paths(&self) -> BTreeMap<NodeId, PeerInfo> {
        let connected = self.0.transport.connected();
        connected
            .into_iter()
            .map(|peer| (peer.node, peer))
            .collect()
    }

    fn own_name(&self, view: &MeshView) -> String {
        view.own_member()
            .map_or_else(|| view.me.to_string(), |member| member.name.to_string())
    }

    fn owns(&self, name: &Label) -> bool {
        let state = self.0.ledger.state();
        let held = state.names.get(name);
        held.is_some_and(|held| held.kind == NameKind::Service && held.owner == self.0.me)
    }

    fn granted_services(&self, view: &MeshView) -> Vec<ServiceStatus> {
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

    fn counters(&self) -> BTreeMap<String, u64> {
        let gossip = self.0.gossip.counters();
        let mut counters: BTreeMap<String, u64> = self
            .0
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

    /// A disk that is nearly full.
    async fn room_warning(&self) -> Option<String> {
        let disk = &self.0.host.disk;
        let free = disk
            .free()
            .await
            .ok()
            .filter(|free| *free < crate::ledger::ROOM)?;
        Some(format!(
            "{} KiB are left on the disk of {}: free some space; with none this machine doesn't \
             follow the ledger",
            free >> 10,
            disk.root().display()
        ))
    }

    /// Others say that this machine is no member any more: an evicted one gets
    /// nothing more of the ledger that says so.
    fn turned_away(&self, view: &MeshView) -> Option<String> {
        const NAMED: usize = 3;
        let all = self.0.membership.turned_away.lock();
        let all = all.unwrap_or_else(|e| e.into_inner());
        if all.is_empty() {
            return None;
        }
        let names: Vec<String> = all
            .iter()
            .take(NAMED)
            .map(|node| view.ledger.name_of(*node))
            .collect();
        let more = match all.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "{}{more} turned this machine away: it was evicted, or has left. To come back, move {} \
             away and `agent join` with a new invite",
            names.join(", "),
            self.0.host.disk.root().display()
        ))
    }

    fn findings(&self) -> Vec<Finding> {
        let tunnel = tunnel::finding(&self.0).into_iter();
        tunnel.chain(self.0.enforced.findings()).collect()
    }

    fn warnings(&self, view: &MeshView) -> Vec<String> {
        let mut warnings = self.expiry_warnings(view);
        warnings.extend(self.turned_away(view));
        for node in self.0.gossip.conflicts() {
            let name = view
                .ledger
                .members
                .get(&node)
                .map(|member| member.name.to_string());
            warnings.push(format!(
                "two machines use the key of {}: a cloned disk. Stop one, and join it anew with a fresh state folder",
                name.unwrap_or_else(|| node.to_string())
            ));
        }
        let unknown = self.0.ledger.council().borrow().unknown_rules;
        warnings.extend(unknown.map(|rules| {
            format!(
                "the ledger follows rules {rules}, which this version doesn't know: this node no \
                 longer sees changes of members, names and certificates. Update the agent"
            )
        }));
        if self.0.ledger.was_damaged() {
            warnings.push(was_damaged(self.0.ledger.behind()));
        }
        // Of a copy that runs all that is told is the copy.
        let twin = self.0.gossip.conflicts().contains(&view.me);
        if self.0.gossip.was_rolled_back() && !twin {
            warnings.push(rolled_back(view));
        }
        warnings.extend(holds::warnings(&view.ledger, &view.held, view.me));
        warnings.extend(self.findings().iter().map(Finding::sentence));
        warnings.extend(self.0.services.warnings());
        let trouble = self.0.acme_trouble.borrow().clone();
        warnings.extend(trouble.map(|why| format!("ACME isn't served: {why}")));
        warnings.extend(self.0.enforced.warnings(self.0.host.clock.now()));
        warnings.extend(self.0.page.warnings());
        warnings.extend(self.0.lists.warnings(&view.ledger, self.0.now_ms()));
        if let Some(why) = &*self
            .0
            .membership
            .failure
            .lock()
            .unwrap_or_else(|e| e.into_inner())
        {
            warnings.push(format!(
                "the membership certificate could not be renewed: {why}"
            ));
        }
        warnings.extend(self.0.renewals.warnings(self.wall().ms()));
        if view.ledger.members.len() > 2 {
            warnings.extend(ca::roster_advice(&view.ledger));
        }
        warnings
    }
}

fn was_damaged(behind: Option<u64>) -> String {
    let now = match behind {
        Some(index) => format!("it had come to batch {index}, and doesn't have all up to that yet"),
        None => "what was lost was fetched again".into(),
    };
    format!(
        "the ledger's files on this machine were damaged when the agent started: {now}. A copy is \
         in ledger.damaged or ledger.snapshot.damaged; look at the disk"
    )
}

fn rolled_back(view: &MeshView) -> String {
    let next = if view.ledger.voters.contains_key(&view.me) {
        "It is a CA node, and may have forgotten what it promised the others: have an admin \
             `agent ca demote` it and then `agent ca promote` it"
    } else {
        "If the machine that the snapshot is of runs too, stop one of the two"
    };
    format!(
        "this machine's state was older than what it had announced before, as after a restored \
         snapshot; it goes on above that. {next}"
    )
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

fn holds(view: &MeshView, name: &Label, node: NodeId) -> bool {
    view.ledger.names.get(name).is_some_and(|held| {
        held.kind == NameKind::Service && (held.owner == node || held.shared.contains(&node))
    })
}

fn path(connected: bool) -> Path {
    if connected { Path::Direct } else { Path::None }
}

pub(crate) fn invalid(why: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorCode::Invalid, why)
}

pub(crate) fn refused(why: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorCode::Refused, why)
}

pub(crate) fn not_member() -> ControlError {
    refused("this machine is not a member of the mesh any more")
}

pub(crate) fn no_node(name: &Label) -> ControlError {
    ControlError::new(
        ErrorCode::NotFound,
        format!("{name} is not a member; `agent status` lists the members"),
    )
}

pub(crate) fn by_refusal(refusal: &Refusal) -> ControlError {
    match refusal {
        Refusal::CertificateBounds => invalid(refusal),
        _ => refused(refusal),
    }
}

/// Has the ledger decide what this node asks; a refusal is an error.
pub(crate) async fn decide(inner: &Inner, content: &Content) -> Result<Outcome, ControlError> {
    match submit(inner, content).await? {
        Outcome::Refused(refusal) => Err(by_refusal(&refusal)),
        outcome => Ok(outcome),
    }
}

/// As [`decide`], with a refusal as an outcome.
pub(crate) async fn submit(inner: &Inner, content: &Content) -> Result<Outcome, ControlError> {
    let request = inner.client.request(content, inner.now_ms());
    let submitted = inner.client.submit(&request, PATIENCE).await;
    submitted.map_err(|error| ControlError::new(ErrorCode::Unavailable, error))
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
