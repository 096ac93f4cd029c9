//! What a person or a script asks of the running agent, answered from the
//! newest view.

mod acme;
mod admit;
mod alone;
mod answer;
mod ca_status;
mod certificates;
mod challenges;
mod devices;
mod dns;
mod dns_delegation;
mod dns_public;
mod evict;
mod exits;
mod folder;
mod invite;
mod invites;
mod leave;
mod logs;
mod netcheck;
mod peers;
mod policy;
mod port_mapping;
mod publish;
mod records;
pub mod recovery;
mod roles;
mod routes;
mod secondaries;
mod seeds;
mod services;
mod spenders;
mod status;
mod tunnel;
mod voters;
mod warnings;

pub(crate) use self::{
    acme::ExternalAccounts, admit::Approvals, answer::AgentControl, devices::DeviceDesk,
    evict::Evictions, exits::ExitDesk, leave::LeaveDesk, publish::PublishDesk, routes::RouteDesk,
    secondaries::SecondaryDesk, services::ServiceDesk, status::StatusDesk, tunnel::TunnelProber,
    warnings::Warnings,
};
