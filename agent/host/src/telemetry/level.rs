//! How much is logged: as the configuration says, and otherwise for a while.

use std::{
    fmt,
    str::FromStr,
    sync::{Mutex, OnceLock, PoisonError},
};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// What of libraries is logged, unless a filter says otherwise.
/// What h2 warns of is what a client does, which may do it without end.
const QUIET: &str =
    "quinn=warn,quinn_proto=warn,quinn_udp=warn,hickory_server=warn,chitchat=warn,h2=error";
/// The levels, from the least to the most.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Longest filter, in bytes.
const LONGEST: usize = 1024;

/// How much is logged: a level, or a filter in the syntax of `EnvFilter`, such as
/// `info,innermesh_net::quic=trace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogLevel(String);

/// Not a level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no log level; use off, error, warn, info, debug or trace, or a filter such as \
     `info,innermesh_net::quic=trace`"
)]
pub struct LogLevelError(String);

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".into())
    }
}

impl LogLevel {
    pub(super) fn filter(&self) -> EnvFilter {
        if LEVELS.contains(&self.0.as_str()) {
            EnvFilter::new(format!("{QUIET},{}", self.0))
        } else {
            EnvFilter::new(&self.0)
        }
    }
}

impl FromStr for LogLevel {
    type Err = LogLevelError;

    fn from_str(typed: &str) -> Result<Self, LogLevelError> {
        let text = typed.trim();
        let lower = text.to_ascii_lowercase();
        if LEVELS.contains(&lower.as_str()) {
            return Ok(Self(lower));
        }
        // A single word would be taken for a part of the program, at every level.
        let is_filter = text.contains('=') && text.len() <= LONGEST;
        match EnvFilter::try_new(text) {
            Ok(_) if is_filter => Ok(Self(text.to_owned())),
            _ => Err(LogLevelError(typed.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for LogLevel {
    type Error = LogLevelError;

    fn try_from(text: String) -> Result<Self, LogLevelError> {
        text.parse()
    }
}

impl From<LogLevel> for String {
    fn from(level: LogLevel) -> Self {
        level.0
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Puts another filter in the place of the one in force.
pub(super) type Replace = dyn Fn(EnvFilter) -> bool + Send + Sync;

/// What this process logs.
struct InForce {
    /// From the start on.
    configured: LogLevel,
    now: Mutex<LogLevel>,
    replace: Box<Replace>,
}

static IN_FORCE: OnceLock<InForce> = OnceLock::new();

/// Says what is in force from the start on.
pub(super) fn install(configured: LogLevel, replace: Box<Replace>) {
    let now = Mutex::new(configured.clone());
    // There is one subscriber to a process.
    let _ = IN_FORCE.set(InForce {
        configured,
        now,
        replace,
    });
}

/// What this process logs now, and what it did at its start; `None` where it logs
/// nothing.
pub fn levels() -> Option<(LogLevel, LogLevel)> {
    let logs = IN_FORCE.get()?;
    let now = logs.now.lock().unwrap_or_else(PoisonError::into_inner);
    Some((now.clone(), logs.configured.clone()))
}

/// Logs as much as `level` says, until this process ends; what it did at its start
/// where there is none. Whether it logs anything at all.
pub fn set_level(level: Option<LogLevel>) -> bool {
    let Some(logs) = IN_FORCE.get() else {
        return false;
    };
    let level = level.unwrap_or_else(|| logs.configured.clone());
    let mut now = logs.now.lock().unwrap_or_else(PoisonError::into_inner);
    let done = (logs.replace)(level.filter());
    if done {
        *now = level;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_or_a_filter_is_taken_and_a_mistyped_word_is_not() {
        let parsed = |text: &str| text.parse::<LogLevel>().map(String::from);
        assert_eq!(parsed("DEBUG").as_deref(), Ok("debug"));
        let filter = "info,innermesh_net::quic=trace";
        assert_eq!(parsed(filter).as_deref(), Ok(filter));
        for wrong in ["", "debgu", "info,warn", "a=b=c", &"x=".repeat(600)] {
            let error = parsed(wrong).expect_err(wrong);
            assert!(error.to_string().contains("use off, error"), "{error}");
        }
    }

    #[test]
    fn a_level_leaves_libraries_quiet() {
        let filter = LogLevel::from_str("trace").unwrap().filter().to_string();
        assert!(filter.contains("quinn=warn"), "{filter}");
        assert!(filter.contains("trace"), "{filter}");
    }
}
