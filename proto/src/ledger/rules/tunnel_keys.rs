//! Who may have which WireGuard key.

use crate::{
    id::NodeId,
    ledger::{effect::Effect, refusal::Refusal, state::State},
    tunnel::TunnelKey,
};

/// A member sets or changes its own key.
pub(super) fn rule_tunnel_key(
    state: &State,
    node: NodeId,
    key: TunnelKey,
) -> Result<Effect, Refusal> {
    state.check_tunnel_key(node, key)?;
    if state
        .tunnel_keys(&node)
        .is_some_and(|keys| keys.current == key)
    {
        return Ok(Effect::Nothing);
    }
    Ok(Effect::TunnelKey(node, key))
}
