//! What a member may do beyond having a name and an address.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a member may do beyond having a name and an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Invites, approves, evicts.
    Admin,
    /// May be in the roster that decides the ledger.
    Ca,
    /// Forwards between the overlay and networks beside it.
    Gateway,
    /// Carries packets for pairs that have no direct path.
    Relay,
    /// Answers DNS to everybody, with its own address.
    Sinkhole,
    /// Forwards what members and devices send to the internet; from rules 5 on.
    Exit,
}

impl Role {
    const ALL: [Self; 6] = [
        Self::Admin,
        Self::Ca,
        Self::Gateway,
        Self::Relay,
        Self::Sinkhole,
        Self::Exit,
    ];

    /// Whether an admin with the roles `own` may give this one. Those that
    /// decide about others are given by who has them; the rest say what a
    /// machine is used for.
    pub fn is_given_by(self, own: &BTreeSet<Self>) -> bool {
        match self {
            Self::Admin | Self::Ca => own.contains(&self),
            Self::Gateway | Self::Relay | Self::Sinkhole | Self::Exit => own.contains(&Self::Admin),
        }
    }

    /// The first rules that know it: to builds of earlier ones what names it is
    /// no request and no grant.
    pub fn since_rules(self) -> u32 {
        match self {
            Self::Exit => 5,
            _ => 0,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Ca => "ca",
            Self::Gateway => "gateway",
            Self::Relay => "relay",
            Self::Sinkhole => "sinkhole",
            Self::Exit => "exit",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a role: admin, ca, gateway, exit, relay or sinkhole")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(s: &str) -> Result<Self, RoleError> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == s)
            .ok_or_else(|| RoleError(s.chars().take(40).collect()))
    }
}
