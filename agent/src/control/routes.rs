//! The requests of [`Authority`](super::authority::Authority) over HTTP.

use axum::{
    Json, Router,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    response::IntoResponse,
    routing::{delete, get, post},
};
use innermesh_proto::{certificate::Serial, name::Label};
use serde::{Deserialize, Serialize};

use super::{
    authority::{
        Admitted, ApproveRequest, CertRevoked, Denied, EvictRequest, Evicted, Left, RecordAdd,
        RecordRow, Rekeyed, RequestRow,
    },
    server::{Answer, Done, Shared, body, invalid},
};

/// Those that only look.
pub(super) fn reading() -> Router<Shared> {
    Router::new().route("/v1/records", get(record_list))
}

/// Those that change something.
pub(super) fn changing() -> Router<Shared> {
    Router::new()
        .route("/v1/records", post(record_add))
        .route("/v1/records", delete(record_rm))
        .route("/v1/evictions", post(evict))
        .route("/v1/evictions/{node}", delete(evict_undo))
        .route("/v1/leave", post(leave))
        .route("/v1/tunnel/rekey", post(tunnel_rekey))
        .route("/v1/requests", post(request_list))
        .route("/v1/requests/approve", post(approve))
        .route("/v1/requests/deny", post(deny))
        .route("/v1/certificates/{serial}", delete(cert_revoke))
}

async fn record_list(State(shared): State<Shared>) -> impl IntoResponse {
    Json(shared.control.record_list().await)
}

async fn record_add(
    State(shared): State<Shared>,
    request: Result<Json<RecordAdd>, JsonRejection>,
) -> Answer<RecordRow> {
    shared.control.record_add(body(request)?).await.map(Json)
}

#[derive(Serialize, Deserialize)]
pub(super) struct RecordQuery {
    name: String,
    #[serde(rename = "type")]
    rtype: String,
}

async fn record_rm(
    State(shared): State<Shared>,
    query: Result<Query<RecordQuery>, QueryRejection>,
) -> Answer<Done> {
    let Query(RecordQuery { name, rtype }) = query.map_err(|e| invalid(e.body_text()))?;
    shared.control.record_rm(name, rtype).await?;
    Ok(Json(Done {}))
}

async fn evict(
    State(shared): State<Shared>,
    request: Result<Json<EvictRequest>, JsonRejection>,
) -> Answer<Evicted> {
    shared.control.evict(body(request)?).await.map(Json)
}

async fn evict_undo(
    State(shared): State<Shared>,
    node: Result<Path<Label>, PathRejection>,
) -> Answer<Done> {
    let Path(node) = node.map_err(|e| invalid(e.body_text()))?;
    shared.control.evict_undo(node).await?;
    Ok(Json(Done {}))
}

async fn leave(State(shared): State<Shared>) -> Answer<Left> {
    shared.control.leave().await.map(Json)
}

async fn tunnel_rekey(State(shared): State<Shared>) -> Answer<Rekeyed> {
    shared.control.tunnel_rekey().await.map(Json)
}

async fn cert_revoke(
    State(shared): State<Shared>,
    serial: Result<Path<String>, PathRejection>,
) -> Answer<CertRevoked> {
    let Path(serial) = serial.map_err(|e| invalid(e.body_text()))?;
    let serial: Serial = serial.parse().map_err(invalid)?;
    shared.control.cert_revoke(serial).await.map(Json)
}

/// It has machines show their codes: more than looking.
async fn request_list(State(shared): State<Shared>) -> Answer<Vec<RequestRow>> {
    shared.control.request_list().await.map(Json)
}

async fn approve(
    State(shared): State<Shared>,
    request: Result<Json<ApproveRequest>, JsonRejection>,
) -> Answer<Admitted> {
    shared.control.approve(body(request)?).await.map(Json)
}

#[derive(Serialize, Deserialize)]
pub(super) struct DenyRequest {
    pub which: String,
}

async fn deny(
    State(shared): State<Shared>,
    request: Result<Json<DenyRequest>, JsonRejection>,
) -> Answer<Denied> {
    let DenyRequest { which } = body(request)?;
    shared.control.deny(which).await.map(Json)
}
