//! `dns` of `[sinkhole]`: where strangers ask.

use std::net::SocketAddr;

/// What of it can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SinkholeDnsError {
    /// Members are answered there.
    #[error(
        "`dns` of [sinkhole] has {0}, where `listen` of [dns] has the mesh's own names answered; \
         list the addresses one by one, each in one of the two"
    )]
    Taken(SocketAddr),
    /// Other sockets are at the same port of all addresses.
    #[error(
        "`dns` of [sinkhole] has {0}, which would take strangers for members and members for \
         strangers; give the address that strangers ask, such as 203.0.113.7"
    )]
    Everywhere(SocketAddr),
}

/// Whether strangers and members ask at different sockets.
///
/// # Errors
/// [`SinkholeDnsError`] of the first address that can't be.
pub(super) fn check(inside: &[SocketAddr], outside: &[SocketAddr]) -> Result<(), SinkholeDnsError> {
    for at in outside {
        if at.ip().is_unspecified() || at.ip().is_loopback() || at.ip().is_multicast() {
            return Err(SinkholeDnsError::Everywhere(*at));
        }
        let is_same = |own: &&SocketAddr| {
            own.port() == at.port() && (own.ip() == at.ip() || own.ip().is_unspecified())
        };
        if inside.iter().any(|own| is_same(&own)) {
            return Err(SinkholeDnsError::Taken(*at));
        }
    }
    Ok(())
}
