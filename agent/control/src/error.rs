//! Why a request isn't answered, as it goes over the socket.

#![allow(missing_docs, reason = "the names say it")]

use std::fmt;

use serde::{Deserialize, Serialize};

/// A refusal. Nothing was changed unless its code says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    /// What kind of refusal.
    pub code: ErrorCode,
    /// Lower case, no trailing stop; says what to do next.
    pub message: String,
}

impl ControlError {
    pub fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request makes no sense.
    Invalid,
    /// The caller's user may not ask this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The mesh's rules are against it.
    Refused,
    /// Nobody who could do it is reached now.
    Unavailable,
    /// It took too long. It may still be done.
    Timeout,
    /// The agent failed, or says something that this build doesn't know. It
    /// may be done in part.
    #[serde(other)]
    Internal,
}
