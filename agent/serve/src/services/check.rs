//! Asks a service whether it works.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use innermesh_control::check::{Check, HttpCheck};
use innermesh_host::Network;

/// Why a service doesn't work, as far as its check can tell.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckFailure {
    #[error("the service has no address to check")]
    NoAddress,
    /// It isn't reached, or doesn't speak HTTP.
    #[error("{0}: {1}")]
    Io(SocketAddr, io::Error),
    #[error("{0}: HTTP status {1}")]
    Status(SocketAddr, u16),
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

/// Asks once, at the first of the service's addresses that answers.
///
/// # Errors
/// That of the last address that was tried; but what answered tells more than what
/// didn't.
pub(super) async fn probe(
    check: &Check,
    net: &dyn Network,
    ips: &[IpAddr],
    port: u16,
) -> Result<(), CheckFailure> {
    let mut last = Err(CheckFailure::NoAddress);
    let (ips, port) = match check {
        Check::Tcp => (ips.to_vec(), port),
        Check::Http(http) => {
            let literals = http.literals();
            let ips = if literals.is_empty() { ips } else { &literals };
            (ips.to_vec(), http.port)
        }
    };
    for ip in ips {
        let address = SocketAddr::new(ip, port);
        let this = match check {
            Check::Tcp => {
                let reached = net.probe_tcp(address).await;
                reached.map_err(|error| CheckFailure::Io(address, error))
            }
            Check::Http(http) => fetch(http, net, address).await,
        };
        if this.is_ok() {
            return this;
        }
        if !matches!(last, Err(CheckFailure::Status(..))) {
            last = this;
        }
    }
    last
}

async fn fetch(
    http: &HttpCheck,
    net: &dyn Network,
    address: SocketAddr,
) -> Result<(), CheckFailure> {
    let status = net.probe_http(address, &http.authority(), &http.path).await;
    match status.map_err(|error| CheckFailure::Io(address, error))? {
        200..400 => Ok(()),
        status => Err(CheckFailure::Status(address, status)),
    }
}
