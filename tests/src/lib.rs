//! A laboratory for end-to-end tests and benchmarks: hosts that are network
//! namespaces of this machine, and real agents on them.

pub mod abuse;
pub mod acme;
pub mod agent;
pub mod dns;
pub mod docker;
pub mod lab;
pub mod mail;
pub mod mesh;
pub mod namespace;
pub mod nat;
pub mod page;
pub mod phone;
pub mod process;
pub mod quic;
pub mod roster;
pub mod structure;
pub mod wait;
pub mod web;

pub use innermesh_skip::{installed, leave_out, missing, skip};

pub use self::{
    agent::Agent,
    lab::{Host, Lab},
    namespace::inside,
    process::{Finished, Process},
    wait::wait_for,
};
