//! What the state holds from rules 1 on. Under rules 0 it is empty and no part
//! of the state's encoding, so that builds of either kind agree on its hash.

use serde::{Deserialize, Serialize};

use super::{shares::Shares, tunnel_keys::TunnelKeys};

/// Facts that rules 1 brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extension {
    /// What each node takes up of the state.
    pub shares: Shares,
    /// WireGuard keys.
    pub tunnel: TunnelKeys,
}
