//! What a person or a script asks of the running agent, answered from the
//! newest view.

mod acme;
pub mod admit;
mod answer;
mod ca_status;
pub mod certificates;
mod dns;
pub mod evict;
pub mod invite;
pub mod leave;
mod peers;
pub mod records;
pub mod recovery;
mod services;
pub mod spenders;
mod status;
mod voters;
mod warnings;

pub use self::{answer::AgentControl, services::configure as configure_services};
