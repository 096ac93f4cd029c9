//! What a person or a script asks about who may, passed on to what does it.

use async_trait::async_trait;
use innermesh_proto::name::Label;

use super::{control::AgentControl, evict, records};
use crate::control::{
    ControlError,
    authority::{Authority, EvictRequest, Evicted, RecordAdd, RecordRow},
};

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

    async fn evict_undo(&self, node: Label) -> Result<(), ControlError> {
        evict::undo(&self.0, &node).await
    }
}
