//! The install page on LANs: at this host's private addresses, which come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use innermesh_proto::limits;
use ipnet::IpNet;
use tokio::task::JoinHandle;

use crate::{
    host::{Host, listen::ListenError},
    page::{Server, is_of_a_lan},
};

/// What listens on LANs.
pub(super) struct Lans {
    server: Server,
    listeners: BTreeMap<SocketAddr, JoinHandle<()>>,
}

/// Where the page is served on LANs now.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// The likeliest first.
    pub addresses: Vec<SocketAddr>,
    /// Why it isn't served everywhere.
    pub trouble: Option<String>,
}

impl Lans {
    /// Takes none of the places of the mesh.
    pub fn new(server: &Server) -> Self {
        Self {
            server: server.for_lans(),
            listeners: BTreeMap::new(),
        }
    }

    /// Listens at these addresses, and at no others any more.
    pub fn listen(&mut self, host: &Host, wanted: Vec<SocketAddr>) -> Served {
        self.listeners.retain(|address, listener| {
            let stays = wanted.contains(address) && !listener.is_finished();
            if !stays {
                listener.abort();
            }
            stays
        });
        let mut served = Served::default();
        if wanted.is_empty() {
            let why = "this host has no address on a private network";
            served.trouble = Some(why.to_owned());
        }
        for address in wanted {
            match self.listen_at(host, address) {
                Ok(()) => served.addresses.push(address),
                Err(why) => served.trouble = served.trouble.or(Some(why.to_string())),
            }
        }
        served
    }

    fn listen_at(&mut self, host: &Host, address: SocketAddr) -> Result<(), ListenError> {
        if self.listeners.contains_key(&address) {
            return Ok(());
        }
        let server = self.server.at_lan(address);
        let listener = server.bind(&*host.net, address)?;
        tracing::info!("the install page is on the LAN at http://{address}/");
        let task = host.tasks.spawn(server.serve(listener));
        self.listeners.insert(address, task);
        Ok(())
    }
}

/// This host's addresses on private networks: not those of the overlay, nor of its
/// own `interface`, nor any where the page is served anyway.
pub(super) fn private(
    here: &[(String, IpAddr)],
    interface: &str,
    overlay: &[IpNet],
    served: &BTreeSet<IpAddr>,
) -> Vec<IpAddr> {
    let of_the_overlay = |ip: &IpAddr| overlay.iter().any(|net| net.contains(ip));
    let private = here.iter().filter(|(on, ip)| {
        on != interface && is_of_a_lan(*ip) && !of_the_overlay(ip) && !served.contains(ip)
    });
    let private = private.map(|(_, ip)| *ip);
    private.take(limits::PAGE_LAN_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_on_private_networks_and_neither_on_the_overlay_nor_on_the_internet() {
        let here = [
            ("eth0", "192.168.1.2"),
            ("eth0", "2001:db8::2"),
            ("eth0", "fd99::2"),
            ("ppp0", "203.0.113.7"),
            ("wlan0", "10.3.3.3"),
            ("im0", "10.9.0.2"),
            ("eth1", "10.9.1.7"),
            ("eth1", "192.168.7.7"),
        ];
        let here = here.map(|(on, ip)| (on.to_owned(), ip.parse().unwrap()));
        let overlay = ["10.9.0.0/16", "fd12:3456:789a::/48"].map(|net| net.parse().unwrap());
        let served = BTreeSet::from(["192.168.7.7".parse().unwrap()]);
        let found = private(&here, "im0", &overlay, &served);
        let found: Vec<String> = found.iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["192.168.1.2", "fd99::2", "10.3.3.3"]);
        let many: Vec<_> = (0..20u8)
            .map(|n| ("eth0".to_owned(), IpAddr::from([192, 168, 1, n])))
            .collect();
        let found = private(&many, "im0", &overlay, &BTreeSet::new());
        assert_eq!(found.len(), limits::PAGE_LAN_ADDRESSES);
    }
}
