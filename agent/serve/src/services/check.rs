//! Asks a service whether it works.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use innermesh_control::check::{Check, HttpCheck};
use innermesh_host::Network;

/// Asks once, at the first of the service's addresses that answers.
///
/// # Errors
/// What a person needs to know of the last address that was tried.
pub(super) async fn probe(
    check: &Check,
    net: &dyn Network,
    ips: &[IpAddr],
    port: u16,
) -> Result<(), String> {
    let mut last = Err("the service has no address to check".to_owned());
    let (ips, port) = match check {
        Check::Tcp => (ips.to_vec(), port),
        Check::Http(http) => (
            http.literal().map_or_else(|| ips.to_vec(), |ip| vec![ip]),
            http.port,
        ),
    };
    for ip in ips {
        let address = SocketAddr::new(ip, port);
        last = match check {
            Check::Tcp => net.probe_tcp(address).await,
            Check::Http(http) => fetch(http, net, address).await,
        }
        .map_err(|error| format!("{address}: {error}"));
        if last.is_ok() {
            break;
        }
    }
    last
}

async fn fetch(http: &HttpCheck, net: &dyn Network, address: SocketAddr) -> io::Result<()> {
    let status = net
        .probe_http(address, &http.authority(), &http.path)
        .await?;
    match status {
        200..400 => Ok(()),
        _ => Err(io::Error::other(format!("HTTP status {status}"))),
    }
}
