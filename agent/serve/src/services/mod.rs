//! The services that this node runs: what its person or its configuration
//! says of them, kept on disk, and whether they answer. It ends in the
//! [`Instance`]s that the node announces; who may hold which name is the
//! ledger's business, and what a name resolves to the zone's.
//!
//! [`Instance`]: innermesh_proto::head::Instance

mod check;
pub mod docker;
mod files;
mod health;
mod in_force;
mod registry;
#[cfg(test)]
mod tests;

pub use self::{
    docker::DockerWatch,
    files::{FileProblem, ServiceFiles},
    in_force::{Origin, ServiceStatus},
    registry::{Registry, ServiceError},
};
pub use innermesh_control::{
    check::{Check, CheckError, HttpCheck},
    spec::{Spec, SpecError},
};
