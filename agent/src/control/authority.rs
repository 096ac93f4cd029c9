//! Requests about who may: users' records, evictions, leaving, revoked
//! certificates, and machines that ask to be let in. As in [`super::api`],
//! field names are a contract with scripts.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::api::ControlError;

/// What the running agent can be asked about who may.
#[async_trait]
pub trait Authority: Send + Sync {
    /// Users' DNS records.
    async fn record_list(&self) -> Vec<RecordRow>;
    /// Adds one.
    ///
    /// # Errors
    /// [`ErrorCode::Invalid`](super::ErrorCode::Invalid) for what is no record,
    /// [`ErrorCode::Refused`](super::ErrorCode::Refused) where the mesh's rules
    /// are against it.
    async fn record_add(&self, record: RecordAdd) -> Result<RecordRow, ControlError>;
    /// Takes all records of one name and type away.
    ///
    /// # Errors
    /// As [`Authority::record_add`].
    async fn record_rm(&self, name: String, rtype: String) -> Result<(), ControlError>;
}

/// A DNS record to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordAdd {
    /// Its full name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub rtype: String,
    /// What it says, as in a master file; names in it are full.
    pub value: String,
    /// Whether strangers may see it too.
    pub public: bool,
}

/// One row of `record list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRow {
    /// Its full name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub rtype: String,
    /// What it says, as in a master file.
    pub value: String,
    /// Whether strangers may see it too.
    pub public: bool,
    /// Name of the node that added it.
    pub owner: String,
}
