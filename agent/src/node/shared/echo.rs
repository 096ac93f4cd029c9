//! Pings by the tunnel.

use std::{io, net::IpAddr, time::Duration};

use crate::host::Host;

/// How long a peer may take to answer through the tunnel.
pub const PROBE: Duration = Duration::from_secs(3);
/// Between two pings of which the first wasn't answered.
const AGAIN: Duration = Duration::from_millis(500);
/// A ping as `ping` sends it, in bytes with its IP header.
pub const SMALL: u32 = 84;

/// Pings with packets of `bytes` bytes until one is answered or [`PROBE`] is over;
/// gives how long the answer took, `None` without one.
///
/// # Errors
/// Why this host lets the agent send none.
pub async fn echo(host: &Host, address: IpAddr, bytes: u32) -> io::Result<Option<Duration>> {
    let clock = &host.clock;
    let size = usize::try_from(bytes).unwrap_or(usize::MAX);
    let end = clock.now() + PROBE;
    while clock.now() < end {
        let began = clock.now();
        tokio::select! {
            sent = host.net.echo(address, size) => {
                sent?;
                return Ok(Some(clock.now().saturating_sub(began)));
            }
            () = clock.sleep(AGAIN) => {}
        }
    }
    Ok(None)
}
