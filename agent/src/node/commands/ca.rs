//! What is asked of the running agent about the certificate authority, passed on
//! to what does it.

use async_trait::async_trait;
use innermesh_proto::name::Label;

use crate::{
    control::api::{
        CaControl, CaKeys, CaRecovery, CaRoot, CaStatus, ControlError, Der, PromoteRequest,
    },
    node::commands::{AgentControl, ca_status, recovery, voters},
};

#[async_trait]
impl CaControl for AgentControl {
    async fn ca_status(&self) -> CaStatus {
        ca_status::status(&self.0).await
    }

    async fn ca_root(&self) -> CaRoot {
        ca_status::root(&self.0)
    }

    async fn ca_keys(&self, node: Label) -> Result<CaKeys, ControlError> {
        voters::keys(&self.0, node).await
    }

    async fn ca_promote(&self, request: PromoteRequest) -> Result<(), ControlError> {
        voters::promote(&self.0, request).await
    }

    async fn ca_demote(&self, node: Label) -> Result<(), ControlError> {
        voters::demote(&self.0, node).await
    }

    async fn ca_recovery(&self) -> Result<CaRecovery, ControlError> {
        recovery::asked(&self.0).await
    }

    async fn ca_recover(&self, signed: Der) -> Result<(), ControlError> {
        recovery::recover(&self.0, signed).await
    }
}
