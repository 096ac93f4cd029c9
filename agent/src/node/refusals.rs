//! What a person is answered whose wish isn't done, and having the ledger decide
//! one.

use std::time::Duration;

use innermesh_proto::{
    ledger::{Content, Outcome, Refusal},
    name::Label,
};

use crate::{
    control::{ControlError, ErrorCode},
    node::Inner,
};

/// How long the ledger may take to decide what a person waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

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

pub(crate) fn unavailable(why: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorCode::Unavailable, why)
}

pub(crate) fn internal(why: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorCode::Internal, why)
}
