//! What every command is given.

use tracing::Span;

use super::{failure::Failure, paths::Paths};
use crate::{config::LogConfig, control::Client, telemetry};

/// What every command is given.
pub struct Context {
    /// What the program was called by.
    pub program: &'static str,
    /// Where its files are.
    pub paths: Paths,
    /// Logs and traces, once they are set up.
    pub telemetry: Option<telemetry::Guard>,
}

impl Context {
    /// Asks the agent of these files.
    pub fn client(&self) -> Client {
        Client::new(&self.paths.socket)
    }

    /// Sets logs and traces up, once.
    pub fn log(&mut self, config: &LogConfig) -> Result<(), Failure> {
        if self.telemetry.is_none() {
            self.telemetry = Some(
                telemetry::init(config.format, config.level.clone()).map_err(Failure::failed)?,
            );
        }
        Ok(())
    }

    /// The span of a command, with logs and traces set up, where the
    /// environment asks for either. Elsewhere than in the agent, logs would
    /// only stand between the lines that a person reads.
    pub fn span(&mut self, command: &str, config: &LogConfig) -> Result<Span, Failure> {
        if !telemetry::is_asked_for() {
            return Ok(Span::none());
        }
        self.log(config)?;
        Ok(telemetry::command_span(command))
    }
}
