//! What the ACME server needs of the mesh.

#![allow(missing_docs, reason = "the names say it")]

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use async_trait::async_trait;
use innermesh_proto::{certificate::Serial, zone::Caa};

use super::order::{Certified, Identifier};

/// What is asked of the ledger and of the zone.
#[async_trait]
pub trait Mesh: Send + Sync {
    fn domain(&self) -> String;
    /// Whether this node may have a certificate for it.
    fn may_have(&self, identifier: &Identifier) -> bool;
    /// The overlay addresses that the zone gives a name, this node's first.
    fn addresses(&self, name: &str) -> Vec<IpAddr>;
    /// Whether it is the overlay address of a member.
    fn is_member(&self, address: IpAddr) -> bool;
    /// The texts at a name: the strings of each record put together.
    fn texts(&self, name: &str) -> Vec<Vec<u8>>;
    /// The CAA records at exactly this name.
    fn caa(&self, name: &str) -> Vec<Caa>;
    /// Has the ledger issue a certificate; asks for as long as `patience`.
    async fn certify(&self, wanted: Wanted, patience: Duration) -> Result<Certified, IssueError>;
    /// What the ledger knows of a certificate.
    fn certificate(&self, serial: &Serial) -> Option<Known>;
    /// Has the ledger revoke a certificate.
    async fn revoke(&self, serial: Serial) -> Result<(), IssueError>;
}

/// A certificate that is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// SubjectPublicKeyInfo of its key, DER.
    pub spki: Vec<u8>,
    /// Its names, and addresses as text.
    pub names: BTreeSet<String>,
    /// For how many days.
    pub days: u32,
}

/// Why the ledger did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// It may not be.
    #[error("{0}")]
    Refused(String),
    /// Nobody can be reached who decides.
    #[error("{0}")]
    Unavailable(String),
    /// Too much was asked of the ledger; not before so long.
    #[error("{0}")]
    Spent(String, Duration),
}

/// What is known of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub names: Vec<String>,
    /// The beginning of its life, in milliseconds since 1970.
    pub not_before_ms: u64,
    pub not_after_ms: u64,
    /// Whether it is revoked, or whoever signed it is.
    pub is_revoked: bool,
    /// Whether another issuer signs in place of its own.
    pub is_superseded: bool,
    /// Whether it is this node's.
    pub is_own: bool,
}
