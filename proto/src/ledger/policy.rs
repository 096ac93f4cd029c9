//! The mesh's policy as a fact: one text for all, whose newest is in force.

#![allow(missing_docs, reason = "the names say it")]

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{id::NodeId, policy::Policy};

/// The text of a policy, as an admin asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyText(pub String);

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyFact {
    pub text: String,
    /// Who set it.
    pub by: NodeId,
    /// When, in milliseconds of ledger time.
    pub at_ms: u64,
    /// How many there were, with this one.
    pub number: u64,
}

/// What the state holds of it; a clone shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct PolicyInForce(Option<Arc<Read>>);

#[derive(Debug)]
struct Read {
    fact: PolicyFact,
    policy: Arc<Policy>,
}

impl PolicyInForce {
    pub fn new(fact: PolicyFact, policy: Policy) -> Self {
        let policy = Arc::new(policy);
        Self(Some(Arc::new(Read { fact, policy })))
    }

    /// None where the defaults are in force.
    pub fn fact(&self) -> Option<&PolicyFact> {
        self.0.as_deref().map(|read| &read.fact)
    }

    /// What the text says.
    pub fn policy(&self) -> Option<&Arc<Policy>> {
        self.0.as_deref().map(|read| &read.policy)
    }
}

/// The text says what was read from it.
impl PartialEq for PolicyInForce {
    fn eq(&self, other: &Self) -> bool {
        let fact = |one: &Self| one.0.as_ref().map(|read| read.fact.clone());
        match (&self.0, &other.0) {
            (Some(one), Some(other)) if Arc::ptr_eq(one, other) => true,
            _ => fact(self) == fact(other),
        }
    }
}

impl Eq for PolicyInForce {}

impl Serialize for PolicyInForce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().map(|read| &read.fact).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PolicyInForce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(fact) = Option::<PolicyFact>::deserialize(deserializer)? else {
            return Ok(Self::default());
        };
        let policy = Policy::parse(&fact.text).map_err(D::Error::custom)?;
        Ok(Self::new(fact, policy))
    }
}
