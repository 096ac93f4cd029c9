//! Why a program's certificate isn't renewed.

use std::path::PathBuf;

use innermesh_proto::certificate::CertificateError;

use crate::{host::outside::SetError, node::shared::certify::CertifyError};

/// What the agent sees where somebody else sees a folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HiddenError {
    #[error("for it there is nothing")]
    Nothing,
    #[error("for it there is another one")]
    Another,
    #[error("{0}")]
    Closed(std::io::Error),
}

/// What keeps a certificate from being renewed until somebody does something. The
/// files are as they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlockedError {
    #[error(
        "the agent finds none of its files in {folder}: they are gone, or its unit keeps that folder \
         from it (ProtectHome=, PrivateTmp=); `agent cert issue` makes them anew, `agent cert rm \
         {stem}` renews it no more"
    )]
    Gone { folder: String, stem: String },
    #[error(
        "the agent doesn't see the folder {folder}: {why}. Its unit shows it no home folders (ProtectHome=) and \
         a /tmp of its own (PrivateTmp=); choose a folder elsewhere, such as one below \
         /etc/innermesh", folder = .folder.display()
    )]
    Hidden { folder: PathBuf, why: HiddenError },
    #[error(
        "{folder}/{stem}.key and {stem}.crt are not a pair of this mesh any more, and are left as \
         they are; move them away and `agent cert issue` again, or `agent cert rm {stem}`"
    )]
    NoPair { folder: String, stem: String },
    #[error(
        "it was revoked, and is not replaced by itself; `agent cert renew {0} --new-key` makes a new \
         key and certificate, `agent cert rm {0}` renews it no more"
    )]
    Revoked(String),
    #[error("{} was replaced by somebody and is left alone; move it away and `agent cert issue` again", .0.display())]
    Foreign(PathBuf),
    #[error(
        "{0}; the agent must be able to write there (systemd's unit lets it into few folders: see \
         `agent cert issue --help`)"
    )]
    Unwritable(SetError),
    #[error(transparent)]
    Files(SetError),
    #[error(transparent)]
    Root(#[from] CertificateError),
    #[error("it was removed meanwhile")]
    Removed,
}

impl From<SetError> for BlockedError {
    fn from(error: SetError) -> Self {
        match error {
            SetError::Foreign(path) => Self::Foreign(path),
            error @ (SetError::Link(_) | SetError::Io(..)) => Self::Files(error),
        }
    }
}

/// Why an attempt failed; the next may not. The files are as they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FailedError {
    #[error("it was removed meanwhile")]
    Removed,
    #[error(transparent)]
    Certify(#[from] CertifyError),
    #[error("another certificate was issued than was asked for")]
    OtherCertificate,
    #[error(transparent)]
    Files(#[from] BlockedError),
}

/// Why there is no new certificate. The files are as they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// Trying again doesn't help until somebody does something.
    #[error(transparent)]
    Blocked(BlockedError),
    /// It may go at the next attempt.
    #[error(transparent)]
    Failed(#[from] FailedError),
}

/// Why it can't be written down how a renewal stands.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewalStoreError {
    #[error(transparent)]
    Toml(#[from] toml::ser::Error),
    #[error(transparent)]
    Disk(#[from] std::io::Error),
}
