//! The member that asks.

use crate::{
    id::NodeId,
    ledger::{refusal::Refusal, request::Role, state::Member},
};

/// The member that asks.
#[derive(Clone, Copy)]
pub struct AskingMember<'s> {
    pub node: NodeId,
    pub member: &'s Member,
}

impl AskingMember<'_> {
    pub fn is_admin(&self) -> bool {
        self.member.roles.contains(&Role::Admin)
    }

    pub fn require_admin(&self) -> Result<(), Refusal> {
        self.is_admin().then_some(()).ok_or(Refusal::NotAdmin)
    }
}
