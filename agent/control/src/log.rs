//! Requests about what the agent logs.

#![allow(missing_docs, reason = "the names say it")]

use serde::{Deserialize, Serialize};

use super::request::requests;
use innermesh_host::telemetry::LogLevel;

requests! {
    /// What is asked about logs.
    LogsRequest {
        looks GET "/v1/log": Levels(LogRequest) -> LogLevels,
        changes POST "/v1/log": Set(LogSetRequest) -> LogLevels,
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {}

/// Logs as much from now on, until the agent ends; what the configuration says
/// where no level is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSetRequest {
    #[serde(default)]
    pub level: Option<LogLevel>,
}

/// How much is logged now, and by the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevels {
    pub level: LogLevel,
    pub configured: LogLevel,
}
