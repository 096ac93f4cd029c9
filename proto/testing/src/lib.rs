//! Tests of the ledger's rules need keys, a root and certificates, which `proto`
//! must not make by itself. Here they come from the host and the CA; nothing but
//! tests uses this crate.

#![allow(missing_docs, reason = "made for tests")]

pub mod mesh;

pub use innermesh_ca as ca;
pub use innermesh_host as host;
