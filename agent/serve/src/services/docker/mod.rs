//! Services from labels of containers on this host: what Docker tells by its socket,
//! which containers that makes services, and what is wrong with the labels of others.
//!
//! Docker's socket is root on this host for whoever may write to it. The agent reads
//! only: it sends GET requests, and nothing that Docker answers goes into another
//! request but ids of containers and images.
//!
//! Labels are the words of whoever starts containers, and names come out of them: they
//! stand behind what a person described, and the ledger grants them as it does all
//! others. Labels of an image are the words of whoever made it and count for nothing.

#![allow(missing_docs, reason = "the names say it")]

mod answer;
mod client;
mod label;
#[cfg(test)]
mod tests;
mod tracker;
mod watch;

use std::{collections::BTreeMap, fmt::Display};

use innermesh_control::{
    finding::{Finding, code},
    spec::Spec,
};
use innermesh_proto::name::Label;

pub use self::{
    answer::{image_labels, inspected, listed},
    client::Lines,
    label::service,
    watch::DockerWatch,
};

/// A service that the labels of a container describe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerService {
    /// As a person would have described it.
    pub spec: Spec,
    /// What is known of its health without a check of the agent's own; `None` where
    /// that decides, or nothing does.
    pub health: Option<Result<(), Unwell>>,
    /// The container's name.
    pub container: String,
}

/// Why a container's service doesn't count as healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwell {
    #[error("Docker says that its container is unhealthy")]
    Unhealthy,
    #[error("Docker says that its container is starting")]
    Starting,
    #[error("its container is paused")]
    Paused,
    #[error("Docker doesn't answer, so its container may be gone")]
    Unknown,
}

impl ContainerService {
    /// That it doesn't count, and why.
    pub(super) fn finding(&self, why: &dyn Display) -> Finding {
        finding(&self.container, why)
    }
}

/// What all containers come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Containers {
    pub services: BTreeMap<Label, ContainerService>,
    /// What a person should know.
    pub findings: Vec<Finding>,
}

fn finding(container: &str, why: &dyn Display) -> Finding {
    Finding::warning(
        code::CONTAINER_LABEL,
        format!("the labels of the container {container} make no service: {why}"),
        "Start it with other labels or ports, or remove its label innermesh.name",
    )
}
