//! How much this agent logs.

use crate::{
    control::{
        ControlError,
        log::{LogLevels, LogSetRequest},
    },
    node::shared::refusals::unavailable,
    telemetry,
};

/// How much is logged now.
///
/// # Errors
/// That nothing is.
pub fn levels() -> Result<LogLevels, ControlError> {
    let levels = telemetry::levels().ok_or_else(|| unavailable("this agent writes no log"))?;
    let (level, configured) = levels;
    Ok(LogLevels { level, configured })
}

/// Logs as much from now on.
///
/// # Errors
/// As [`levels`].
pub fn set(request: LogSetRequest) -> Result<LogLevels, ControlError> {
    if telemetry::set_level(request.level) {
        let levels = levels()?;
        tracing::info!(level = %levels.level, "the log's level was set");
        return Ok(levels);
    }
    Err(unavailable("this agent writes no log"))
}
