//! Requests about certificates that are renewed by themselves.

#![allow(missing_docs, reason = "the names say it")]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::request::requests;
use innermesh_host::{UnixTime, identity::FileIdentity};

requests! {
    /// What is asked about renewals.
    RenewalsRequest {
        changes POST "/v1/renewals": Add(RenewalAddRequest) -> RenewalRow,
        changes POST "/v1/renewals/check": Check(RenewalCheckRequest) -> RenewalChecked,
        changes POST "/v1/renewals/now": Now(RenewNowRequest) -> RenewalRow,
        changes POST "/v1/renewals/remove": Rm(RenewalRmRequest) -> RenewalRow,
    }
}

/// Has a certificate that is in its files renewed from now on, for the user who
/// asks, in place of what was asked for the same files before; the command of that
/// stays where this one says nothing of any. That it can't be renewed as things are
/// now is no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RenewalAddRequest(pub RenewalWish);

/// A certificate in its files, and how to renew it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewalWish {
    /// Full names, the first one first.
    pub names: Vec<String>,
    /// Life of each certificate, in days.
    pub days: u32,
    /// The folder of its files, absolute.
    pub folder: PathBuf,
    /// What their names begin with.
    pub stem: String,
    /// Id of the user that the key's files belong to; null for the agent's.
    pub owner: Option<u32>,
    /// As `owner`, of the group.
    pub group: Option<u32>,
    /// Permission bits of the key's files.
    pub mode: u32,
    /// Whether each certificate is for a new key.
    pub new_key: bool,
    /// How long before its end to renew, in seconds; null for two thirds of
    /// the life.
    pub renew_before_s: Option<u64>,
    /// What to run after each renewal, by `sh -c`. Null leaves the command of an
    /// earlier wish for the same files, an empty one ends it.
    pub exec: Option<String>,
    /// Whether to run that now too.
    pub exec_now: bool,
}

/// Asks before a certificate is issued whether the agent could renew it in these
/// files.
///
/// # Errors
/// Why not: the agent sees another folder there, or may not write into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewalCheckRequest {
    /// The folder of its files, absolute.
    pub folder: PathBuf,
    /// What their names begin with.
    pub stem: String,
    /// Which folder it is, as whoever asks sees it.
    pub seen: FileIdentity,
}

/// What the agent knows of a place that it could renew a certificate in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalChecked {
    /// What was asked for the same files before.
    pub earlier: Option<RenewalWish>,
}

/// Renews now. Where it fails, the files are as they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewNowRequest {
    pub which: WhichRenewal,
    /// Whether to make a new key, this time.
    pub new_key: bool,
}

/// Renews a certificate no more. Its files stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RenewalRmRequest(pub WhichRenewal);

/// One of this machine's renewals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhichRenewal {
    /// As it was issued, or a full name.
    pub name: String,
    /// The folder of its files, where several are of that name.
    pub folder: Option<PathBuf>,
}

/// How a renewal stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalRow {
    /// As it was issued.
    pub name: String,
    pub names: Vec<String>,
    /// Serial number of the certificate in its files, in hexadecimal.
    pub serial: String,
    pub not_after: UnixTime,
    /// The certificate and its issuer.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The issuer and the root.
    pub chain: PathBuf,
    /// Certificate, issuer and key.
    pub pem: PathBuf,
    pub ca: PathBuf,
    /// When it is renewed, or that is tried again; null when it can't be.
    pub next: Option<UnixTime>,
    /// Whether each certificate is for a new key.
    pub new_key: bool,
    /// How often in a row it could not be renewed.
    pub failures: u32,
    /// Why the last attempt failed, or why there can be none.
    pub last_error: Option<String>,
    pub last_error_at: Option<UnixTime>,
    /// What is run after each renewal.
    pub exec: Option<String>,
    /// Whether that is yet to be run, again where it failed.
    pub exec_pending: bool,
    /// How it failed the last time, if it did.
    pub exec_error: Option<String>,
    pub exec_error_at: Option<UnixTime>,
}
