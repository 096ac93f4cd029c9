//! Which tunnel the settings ask for.

use std::{collections::BTreeSet, sync::Arc};

use innermesh_proto::filter::Interface;

use super::{
    BackendChoice, Recorded, Tunnel, TunnelError, TunnelSettings, WallClock, interface::Netlink,
    system::System,
};

/// Takes links of public nodes away that an earlier run left in the kernel; one in a
/// process ended with it.
///
/// # Errors
/// Some may still be there.
pub async fn remove_links(
    tunnel: &Interface,
    keep: &BTreeSet<Interface>,
) -> Result<(), TunnelError> {
    let failed = |source| TunnelError::system("take old interfaces away", source);
    let netlink = Netlink::open().map_err(failed)?;
    for link in netlink.links().await.map_err(failed)?.into_values() {
        let name = Interface::try_from(link.name).ok();
        let name = name.filter(|name| name.is_link_of(tunnel) && !keep.contains(name));
        if let Some(name) = name.filter(|_| link.wireguard) {
            netlink.delete(name.as_str()).await.map_err(failed)?;
        }
    }
    Ok(())
}

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
