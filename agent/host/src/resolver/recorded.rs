//! A host's resolver that only remembers, for tests and simulated hosts.

use std::sync::Mutex;

use async_trait::async_trait;

use super::{Applied, Choice, HostResolver, Method, ResolverError, ResolverPlan};

/// Remembers the plan.
#[derive(Debug, Default)]
pub struct RecordedResolver(Mutex<Option<ResolverPlan>>);

impl RecordedResolver {
    /// The plan that stands.
    pub fn plan(&self) -> Option<ResolverPlan> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

#[async_trait]
impl HostResolver for RecordedResolver {
    async fn choose(&self) -> Choice {
        Choice {
            method: Some(Method::ResolvConf),
            why: "it is a recorded one".to_string(),
        }
    }

    async fn apply(&self, plan: &ResolverPlan) -> Result<Applied, ResolverError> {
        let mut stands = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if stands.as_ref() == Some(plan) {
            return Ok(Applied::Stood(Method::ResolvConf));
        }
        *stands = Some(plan.clone());
        Ok(Applied::Set(Method::ResolvConf))
    }

    async fn restore(&self, _: &str) -> Result<(), ResolverError> {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = None;
        Ok(())
    }

    async fn changed(&self) {
        std::future::pending().await
    }
}
