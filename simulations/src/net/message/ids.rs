//! What names agents and their connections in one world.

#![allow(missing_docs, reason = "the names say it")]

/// A connection's number in its world.
pub(in crate::net) type ConnectionId = u64;

/// An agent's number in its world; another after each start.
pub(in crate::net) type DeskId = usize;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::net) enum Side {
    /// Who dialed.
    Dialer,
    Dialed,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Dialer, Self::Dialed];

    pub(super) fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Dialed,
            Self::Dialed => Self::Dialer,
        }
    }
}
