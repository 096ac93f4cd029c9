//! How a command fails: what to say, and the exit code, which scripts rely on.

use std::{fmt, process::ExitCode};

use crate::control::{ClientError, ErrorCode};

/// It failed.
pub const FAILED: u8 = 1;
/// The command line was wrong.
pub const USAGE: u8 = 2;
/// The agent isn't running.
pub const NOT_RUNNING: u8 = 3;
/// It took too long.
pub const TIMED_OUT: u8 = 4;
/// It was taken, and isn't done yet.
pub const WAITING: u8 = 5;

/// As `--help` tells them.
pub const CODES: &str = "\
Exit codes:
  0  Done
  1  Failed; nothing was changed unless the error says so
  2  Wrong usage, or nobody to ask whether to go on
  3  The agent isn't running
  4  Timed out
  5  Taken, and not done yet: it waits for a second admin or for a CA node";

/// Ends a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    message: String,
}

impl Failure {
    /// What was asked can't be done.
    pub fn failed(why: impl fmt::Display) -> Self {
        Self::new(FAILED, why)
    }

    /// What was asked makes no sense.
    pub fn usage(why: impl fmt::Display) -> Self {
        Self::new(USAGE, why)
    }

    /// It took too long.
    pub fn timed_out(why: impl fmt::Display) -> Self {
        Self::new(TIMED_OUT, why)
    }

    /// Ends without a word, because all was said.
    pub fn silent(code: u8) -> Self {
        Self::new(code, "")
    }

    fn new(code: u8, why: impl fmt::Display) -> Self {
        Self {
            code,
            message: why.to_string(),
        }
    }

    /// Says one thing more.
    #[must_use]
    pub fn with(mut self, more: &str) -> Self {
        self.message = format!("{}; {more}", self.message);
        self
    }

    /// Tells the person, and gives the exit code.
    pub fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            super::output::note(&format!("error: {}", self.message));
        }
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::NotRunning(_) => NOT_RUNNING,
            ClientError::Timeout(_) => TIMED_OUT,
            ClientError::Refused(refusal) if refusal.code == ErrorCode::Timeout => TIMED_OUT,
            _ => FAILED,
        };
        Self::new(code, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ControlError;

    #[test]
    fn each_way_to_fail_has_the_code_that_scripts_know() {
        let refused = |code| ClientError::Refused(ControlError::new(code, "no"));
        for (error, code) in [
            (ClientError::NotRunning("/x".into()), 3),
            (ClientError::Timeout("/x".into()), 4),
            (refused(ErrorCode::Timeout), 4),
            (refused(ErrorCode::Forbidden), 1),
            (ClientError::Broken("x".into()), 1),
        ] {
            assert_eq!(Failure::from(error).code, code);
        }
    }
}
