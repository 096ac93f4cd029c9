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
use innermesh_proto::name::Label;
use serde::{Deserialize, Serialize};

use super::{
    authority::{EvictRequest, Evicted, RecordAdd, RecordRow},
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
