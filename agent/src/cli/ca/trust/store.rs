//! What all trust stores have in common.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{anchor::Anchor, machine::Barrier, program::ProgramError};

/// Whose store it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The system's, as Debian keeps it.
    Debian,
    /// The system's, as Fedora and Red Hat keep it.
    Fedora,
    /// The system's, as Arch keeps it.
    Arch,
    /// The system's, as SUSE keeps it.
    Suse,
    /// An NSS database of Chromium and its kin.
    Chromium,
    /// The NSS database of a Firefox profile.
    Firefox,
    /// A Java runtime's keystore.
    Java,
}

impl Kind {
    /// Whether it is the system's.
    pub fn is_system(self) -> bool {
        matches!(self, Self::Debian | Self::Fedora | Self::Arch | Self::Suse)
    }

    /// Whether it is an NSS database.
    pub fn is_nss(self) -> bool {
        matches!(self, Self::Chromium | Self::Firefox)
    }

    /// As a person calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Debian | Self::Fedora | Self::Arch | Self::Suse => "system",
            Self::Chromium => "Chromium",
            Self::Firefox => "Firefox",
            Self::Java => "Java",
        }
    }
}

/// A certificate in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What the store calls it; the bundle's file, where it has no names.
    pub name: String,
    /// The certificate.
    pub der: Vec<u8>,
    /// Whether servers are believed by it.
    pub trusted: bool,
}

/// Why a store can't be read, or isn't changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its program failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Its files can't be used.
    #[error("{0}")]
    Files(String),
    /// The program that keeps it isn't here. Nothing was changed.
    #[error("{program} isn't installed; `{advice}`")]
    NoTool {
        /// Its name.
        program: &'static str,
        /// How it is had.
        advice: String,
    },
}

/// One trust store of this machine.
#[async_trait]
pub trait Store: Send + Sync {
    /// Whose it is.
    fn kind(&self) -> Kind;

    /// What changes when the root is installed: a file or a folder.
    fn place(&self, anchor: &Anchor) -> String;

    /// What keeps this process from putting the root in, or taking it out.
    fn barrier(&self, anchor: &Anchor) -> Option<Barrier>;

    /// All certificates in it, whoever put them there.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn held(&self) -> Result<Vec<Held>, StoreError>;

    /// Puts the root into it, under [`Anchor::name`].
    ///
    /// # Errors
    /// [`StoreError`]; then [`Store::remove`] leaves nothing of it.
    async fn add(&self, anchor: &Anchor) -> Result<(), StoreError>;

    /// Takes out what [`Store::add`] put into it; where that is gone already,
    /// this changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn remove(&self, anchor: &Anchor) -> Result<(), StoreError>;

    /// Whether it still has what [`Store::add`] put into it.
    fn has(&self, anchor: &Anchor, held: &[Held]) -> bool {
        let name = anchor.name();
        held.iter().any(|h| h.name == name && h.der == anchor.der)
    }
}
