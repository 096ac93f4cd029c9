//! Which names are answered.

use serde::{Deserialize, Serialize};

/// Which names are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerScope {
    /// The mesh's, and by other name servers all others.
    #[default]
    All,
    /// The mesh's alone: for a host whose own name server forwards them here.
    Mesh,
}
