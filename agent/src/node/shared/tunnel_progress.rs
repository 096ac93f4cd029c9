//! How far the tunnel is as planned, and what a person should know of that.

use std::{sync::Arc, time::Duration};

use innermesh_proto::tunnel::TunnelPlan;

use crate::{
    control::finding::{Finding, Severity, code},
    host::Mono,
};

/// A plan that takes longer than this is told.
const SLOW: Duration = Duration::from_secs(3);
/// What helps where the device refuses the plan.
const RESTART: &str = "`systemctl restart innermesh` makes the interface anew";
/// How far the interface is as planned.
#[derive(Clone, Debug, Default)]
pub(crate) struct TunnelProgress {
    /// The plan that the interface was last made equal to.
    pub plan: Arc<TunnelPlan>,
    /// The newest view whose plan that is.
    pub view: u64,
    /// Since when another plan has been waiting.
    pub waiting: Option<Mono>,
    /// Why it couldn't be applied.
    pub error: Option<String>,
}

impl TunnelProgress {
    /// That the interface isn't as planned.
    pub fn finding(&self, now: Mono) -> Option<Finding> {
        let since = now.saturating_sub(self.waiting?);
        let since_s = since.as_secs();
        match &self.error {
            Some(error) => Some(Finding::new(
                code::TUNNEL_NOT_APPLIED,
                Severity::Error,
                format!(
                    "the tunnel has not been as it should be for {since_s} s: {error}. It is tried \
                     again every second; until then new nodes may lack a route here, and evicted ones \
                     may keep theirs"
                ),
                RESTART,
            )),
            None if since > SLOW => Some(Finding::new(
                code::TUNNEL_SLOW,
                Severity::Error,
                format!(
                    "the tunnel has been changed for {since_s} s and isn't done: new nodes may lack a \
                     route here, and evicted ones may keep theirs"
                ),
                RESTART,
            )),
            None => None,
        }
    }
}
