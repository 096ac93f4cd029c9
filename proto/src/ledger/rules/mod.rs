//! Who may have what: the pure rule that decides each request against the
//! state just before it. The leader asks it before it proposes, every node
//! when it applies; the answer is the same.

mod asking;
mod certificates;
mod devices;
mod evict;
mod join;
mod names;
mod policy;
mod publish;
mod records;
mod roles;
mod roster;
mod routes;
mod rule;
mod second;
mod tunnel_keys;
mod version;

pub use self::evict::Eviction;
pub(super) use self::{
    join::{free_ipv4, membership_plan},
    rule::rule,
};
pub use super::{effect::Decision, outcome::Outcome, refusal::Refusal};
