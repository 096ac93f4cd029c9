//! What a person is answered whose wish isn't done, and having the ledger do one.

use std::time::Duration;

use innermesh_proto::{
    ledger::{Content, Refusal},
    name::Label,
};

use crate::{
    control::{ControlError, ErrorCode},
    ledger::client::{Accepted, Client, RequestError},
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

/// Why the ledger didn't do what was asked.
pub(crate) fn not_done(error: RequestError) -> ControlError {
    match error {
        RequestError::Refused(refusal) => by_refusal(&refusal),
        RequestError::Unavailable(error) => unavailable(error),
    }
}

/// Has the ledger do what a person waits for.
pub(crate) async fn decide(client: &Client, content: &Content) -> Result<Accepted, ControlError> {
    client.ask(content, PATIENCE).await.map_err(not_done)
}

pub(crate) fn unavailable(why: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorCode::Unavailable, why)
}

pub(crate) fn internal(why: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorCode::Internal, why)
}
