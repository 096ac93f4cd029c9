//! What a run says of something that must hold, and didn't.

#![allow(missing_docs, reason = "the names say it")]

use std::fmt;

/// Something that must hold, and didn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number in SAFETY.md.
    pub invariant: &'static str,
    /// What was seen.
    pub words: String,
    /// On which machine, by its number.
    pub node: usize,
    /// When, in milliseconds since the world began.
    pub at_ms: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            invariant,
            words,
            node,
            at_ms,
        } = self;
        write!(f, "{invariant} on node{node} at {at_ms} ms: {words}")
    }
}

/// A number and what was seen.
pub type Seen = (&'static str, String);
