//! Opens, wires and starts an agent.

use tokio::sync::watch;

use super::{
    agent::Agent, build_error::BuildError, config::AgentConfig, loading::Loading, opened,
    parts::Parts,
};
use crate::host::Host;

impl Agent {
    /// Opens the state folder and starts the agent in the background.
    ///
    /// # Errors
    /// [`BuildError`]; what was started before the error has ended.
    pub async fn build(config: AgentConfig, host: Host) -> Result<Self, BuildError> {
        Self::build_telling(config, host, &watch::Sender::default()).await
    }

    /// As [`Agent::build`]; `loading` is set if the ledger has to be fetched
    /// again first, which takes until another node is reached.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn build_telling(
        config: AgentConfig,
        host: Host,
        loading: &watch::Sender<Option<Loading>>,
    ) -> Result<Self, BuildError> {
        let opened = opened::open(config, host, loading).await?;
        let running = Parts::wire(opened).start().await?;
        Ok(Self::new(running))
    }
}
