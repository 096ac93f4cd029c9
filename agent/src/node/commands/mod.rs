//! What a person or a script asks of the running agent, answered from the
//! newest view.

mod acme;
pub mod admit;
pub mod authority;
mod ca;
mod ca_status;
pub mod certificates;
mod dns;
pub mod evict;
pub mod invite;
pub mod leave;
mod peers;
pub mod records;
pub mod recovery;
mod services;
pub mod spenders;
mod status;
mod voters;
mod warnings;

use std::sync::Arc;

use async_trait::async_trait;
use innermesh_proto::name::Label;

use crate::{
    control::{
        Control,
        api::{
            CertRequest, CertRow, ControlError, Invite, InviteRequest, Issued, Peer, PingReply,
            QueryReport, ServiceAdded, ServiceRow, Status,
        },
    },
    node::{Inner, follow::program_certs},
    services::Spec,
};

/// The control interface of an agent.
pub struct AgentControl(pub Arc<Inner>);

#[async_trait]
impl Control for AgentControl {
    async fn status(&self) -> Status {
        status::status(&self.0).await
    }

    async fn peers(&self) -> Vec<Peer> {
        peers::peers(&self.0)
    }

    async fn ping(&self, node: Label, count: u32) -> Result<PingReply, ControlError> {
        peers::ping(&self.0, node, count).await
    }

    async fn invite(&self, request: InviteRequest) -> Result<Invite, ControlError> {
        invite::invite(&self.0, request)
    }

    async fn service_add(&self, service: Spec) -> Result<ServiceAdded, ControlError> {
        services::add(&self.0, service).await
    }

    async fn service_rm(&self, name: Label, release: bool) -> Result<(), ControlError> {
        services::rm(&self.0, name, release).await
    }

    async fn service_list(&self) -> Vec<ServiceRow> {
        services::list(&self.0)
    }

    async fn configure_services(&self, services: Vec<Spec>) -> Result<(), ControlError> {
        services::configure(&self.0, services).await
    }

    async fn cert_issue(&self, request: CertRequest) -> Result<Issued, ControlError> {
        certificates::issue(&self.0, request).await
    }

    async fn cert_list(&self) -> Vec<CertRow> {
        let mut rows = certificates::list(&self.0.ledger.state());
        program_certs::join(&self.0, &mut rows);
        rows
    }

    async fn dns_query(&self, name: String, rtype: String) -> Result<QueryReport, ControlError> {
        dns::query(&self.0, name, rtype).await
    }

    async fn dns_zone(&self) -> String {
        dns::zone(&self.0)
    }
}
