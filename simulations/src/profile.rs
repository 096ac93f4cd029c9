//! What simulated agents talk over.

use serde::{Deserialize, Serialize};

/// What the agents talk over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Real quinn and TLS over simulated UDP.
    #[default]
    Wire,
    /// Messages over simulated links, with neither packets nor TLS.
    Message,
}
