//! A resolver that agents leave alone.

use async_trait::async_trait;

use super::{Applied, Choice, HostResolver, LookUp, ResolverError, ResolverPlan};

/// Nothing of the host is looked at or changed; with the reason why.
pub struct Unmanaged(String);

impl Unmanaged {
    pub fn because(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

#[async_trait]
impl HostResolver for Unmanaged {
    fn left_alone(&self) -> Option<String> {
        Some(self.0.clone())
    }

    async fn choose(&self) -> Choice {
        Choice {
            method: None,
            why: self.0.clone(),
            resolved_is_away: false,
        }
    }

    async fn apply(&self, _plan: &ResolverPlan) -> Result<Applied, ResolverError> {
        Err(ResolverError::ByHand(self.0.clone()))
    }

    async fn restore(&self, _interface: &str) -> Result<(), ResolverError> {
        Ok(())
    }

    async fn changed(&self) {
        std::future::pending().await
    }

    async fn look_up(&self, _name: &str) -> LookUp {
        LookUp::NotAsked
    }
}
