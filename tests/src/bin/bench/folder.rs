//! What an agent's folder holds, read beside the agent.

use std::path::Path;

use innermesh_agent::{
    host::{Host, system},
    ledger::loading,
};
use innermesh_proto::ledger::State;

/// The host of an agent, by its `--dir`.
pub fn host(dir: &Path) -> Host {
    system::host(dir.join("state"))
}

/// The state that its ledger leads to.
pub async fn ledger(host: &Host) -> Result<State, String> {
    let loaded = loading::load(&*host.disk)
        .await
        .map_err(|e| e.to_string())?;
    let keys = &*host.keys;
    let begun = match &loaded.start {
        None => State::genesis(&loaded.genesis, keys).map_err(|e| e.to_string()),
        Some(start) => start.open(&loaded.genesis, keys).map_err(|e| e.to_string()),
    };
    let mut state = begun?;
    for batch in &loaded.batches {
        state = state.next(batch, keys).map_err(|e| e.to_string())?.0;
    }
    Ok(state)
}
