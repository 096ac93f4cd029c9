//! Where the mesh's names are answered on this node.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    dns::{Dns, DnsServer, Surroundings},
    listen::ListenError,
    node::shared::{addresses::Addresses, handles::Handles},
    tunnel::BackendChoice,
};

/// Listens for DNS: where the configuration says, else on the resolver's
/// addresses, of which IPv6's may be missing where the host has none.
pub(crate) fn serve(
    node: &Handles,
    dns: &Arc<Dns>,
    addresses: &Addresses,
) -> Result<DnsServer, ListenError> {
    let around = Surroundings::of(&node.host, addresses.sources());
    let start = |listen: &[SocketAddr]| DnsServer::start(dns.clone(), &around, listen);
    if !node.config.dns_listen.is_empty() || node.config.backend == BackendChoice::None {
        return start(&node.config.dns_listen);
    }
    let [v4, v6] = addresses.resolvers().map(|ip| SocketAddr::new(ip, 53));
    match start(&[v4, v6]) {
        Ok(server) => Ok(server),
        Err(error) => match start(&[v4]) {
            Ok(server) => {
                tracing::warn!(%error, "names are answered over IPv4 only");
                Ok(server)
            }
            Err(error) => Err(error),
        },
    }
}
