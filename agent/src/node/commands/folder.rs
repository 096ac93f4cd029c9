//! The state folder, which somebody may take away while the agent runs.

use crate::{
    control::{
        ControlError,
        finding::{Finding, Severity, code},
    },
    host::Host,
    node::shared::refusals::unavailable,
};

/// Whether what people ask for can be kept.
///
/// # Errors
/// That it can't, and what to do.
pub async fn is_there(host: &Host) -> Result<(), ControlError> {
    match finding(host).await {
        Some(finding) => Err(unavailable(finding.sentence())),
        None => Ok(()),
    }
}

/// Says so where the state folder is gone.
pub async fn finding(host: &Host) -> Option<Finding> {
    if host.disk.is_there().await {
        return None;
    }
    Some(Finding::new(
        code::STATE_FOLDER_GONE,
        Severity::Error,
        format!(
            "the state folder {} was removed or replaced while the agent runs: nothing can be kept, \
             and nothing is changed any more",
            host.disk.root().display()
        ),
        "Stop the agent and put the folder back; where it is lost, have an admin `agent evict` this \
         node and let it join anew with an invite",
    ))
}
