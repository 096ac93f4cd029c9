//! For how long it is told what others did.

use std::time::Duration;

use innermesh_proto::limits;

use crate::host::Mono;

/// Whether what others did is still told.
pub(crate) fn is_recent(then: Option<Mono>, now: Mono) -> bool {
    let told = Duration::from_millis(limits::OTHERS_TOLD_MS);
    then.is_some_and(|then| now.saturating_sub(then) < told)
}
