//! What a person or a script asks about who may, passed on to what does it.

use async_trait::async_trait;
use innermesh_proto::{certificate::Serial, name::Label};

use crate::control::{
    ControlError,
    acme::{AcmeControl, ExternalAccount},
    authority::{
        Admitted, ApproveRequest, Authority, CertRevoked, Denied, EvictRequest, Evicted, Left,
        RecordAdd, RecordRow, Rekeyed, RequestRow,
    },
    renewals::{RenewNow, RenewalRow, RenewalWish, Renewals, WhichRenewal},
};
use crate::node::commands::AgentControl;
use crate::node::commands::acme;
use crate::node::commands::admit;
use crate::node::commands::certificates;
use crate::node::commands::evict;
use crate::node::commands::leave;
use crate::node::commands::records;
use crate::node::follow::program_certs;
use crate::node::follow::tunnel_keys;

#[async_trait]
impl Authority for AgentControl {
    async fn record_list(&self) -> Vec<RecordRow> {
        records::list(&self.0)
    }

    async fn record_add(&self, record: RecordAdd) -> Result<RecordRow, ControlError> {
        records::add(&self.0, record).await
    }

    async fn record_rm(&self, name: String, rtype: String) -> Result<(), ControlError> {
        records::rm(&self.0, &name, &rtype).await
    }

    async fn evict(&self, request: EvictRequest) -> Result<Evicted, ControlError> {
        evict::evict(&self.0, request).await
    }

    async fn request_list(&self) -> Result<Vec<RequestRow>, ControlError> {
        admit::list(&self.0).await
    }

    async fn approve(&self, request: ApproveRequest) -> Result<Admitted, ControlError> {
        admit::approve(&self.0, request).await
    }

    async fn deny(&self, which: String) -> Result<Denied, ControlError> {
        admit::deny(&self.0, &which).await
    }

    async fn cert_revoke(&self, serial: Serial) -> Result<CertRevoked, ControlError> {
        certificates::revoke(&self.0, serial).await
    }

    async fn leave(&self) -> Result<Left, ControlError> {
        leave::leave(&self.0).await
    }

    async fn tunnel_rekey(&self) -> Result<Rekeyed, ControlError> {
        tunnel_keys::rekey(&self.0).await
    }

    async fn evict_undo(&self, node: Label) -> Result<(), ControlError> {
        evict::undo(&self.0, &node).await
    }
}

#[async_trait]
impl Renewals for AgentControl {
    async fn renewal_add(&self, wish: RenewalWish, uid: u32) -> Result<RenewalRow, ControlError> {
        program_certs::add(&self.0, wish, uid).await
    }

    async fn renewal_now(&self, request: RenewNow) -> Result<RenewalRow, ControlError> {
        program_certs::now(&self.0, request).await
    }

    async fn renewal_rm(&self, which: WhichRenewal) -> Result<RenewalRow, ControlError> {
        program_certs::remove(&self.0, which).await
    }
}

#[async_trait]
impl AcmeControl for AgentControl {
    async fn eab_add(&self, name: String) -> Result<ExternalAccount, ControlError> {
        acme::eab_add(&self.0, name).await
    }

    async fn eab_rm(&self, name: String) -> Result<(), ControlError> {
        acme::eab_rm(&self.0, name).await
    }
}
