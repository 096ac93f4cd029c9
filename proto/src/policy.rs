//! Who may reach what, as an admin writes it down: `policy.toml`.
//!
//! A [`Policy`] is what its text says; what the mesh has by those names is a
//! [`Directory`]; [`compile`] makes of both what one node enforces
//! ([`crate::filter::access::AccessPlan`]). Owns the words of a policy and what
//! they mean. Knows no ledger, gossip and packet filter: `view` and
//! `ledger::policy` bring them together.

mod check;
mod compile;
mod directory;
mod error;
mod explain;
mod model;
mod parse;
mod resolve;
mod target;

pub use self::{
    check::{Note, Trouble, check, failed_tests, known, notes, unknown_names},
    compile::{FULL_TUNNEL, GATEWAY, Place, ROUTES, SERVICES, compile, everywhere},
    directory::{DeviceEntry, Directory, InstanceEntry, NodeEntry, ServiceEntry, ServicePorts},
    error::{NotKnown, PolicyError, WordError},
    explain::{By, Ends, Explained, explain},
    model::{Defaults, Expect, Group, Policy, Rule, Subject, Target, Verdict},
    target::{INTERNET, parse_subject, parse_target},
};

#[cfg(test)]
mod tests;
