//! Which tunnel the settings ask for.

use std::sync::Arc;

use super::{
    BackendChoice, Recorded, Tunnel, TunnelError, TunnelSettings, WallClock, system::System,
};

/// Brings the interface up without peers, after clearing what a crash left:
/// a kernel interface with this key is taken over as it stands, a dead
/// process's socket is removed.
///
/// # Errors
/// Each says what to change on the host; the interface isn't up then.
pub async fn open(
    settings: TunnelSettings,
    clock: WallClock,
) -> Result<Arc<dyn Tunnel>, TunnelError> {
    match settings.backend {
        BackendChoice::None => Ok(Arc::new(Recorded::new(settings.listen_port))),
        _ => Ok(Arc::new(System::open(settings, clock).await?)),
    }
}
