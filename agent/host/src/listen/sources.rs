//! Where a TCP connection comes from: an address, and for programs of this
//! host the user that runs them.

use std::net::{IpAddr, SocketAddr};

use super::guard::{Class, Source, Who};

/// Says what an address is to this node.
pub trait Sources: Send + Sync {
    /// Its class; IPv4 comes as such, never mapped into IPv6.
    fn class(&self, address: IpAddr) -> Class;
}

impl<F: Fn(IpAddr) -> Class + Send + Sync> Sources for F {
    fn class(&self, address: IpAddr) -> Class {
        self(address)
    }
}

/// The source of a connection from `from`, which is a program of `user` where it
/// is one of this host.
pub(super) fn source(
    sources: &dyn Sources,
    from: SocketAddr,
    user: impl FnOnce() -> Option<u32>,
) -> Source {
    let address = from.ip().to_canonical();
    let class = sources.class(address);
    // A network that counts as this host has its own addresses, but for what
    // comes from the host itself, which also goes to one of its addresses.
    let user = if class == Class::Local { user() } else { None };
    let who = match user {
        Some(uid) => Who::User(Some(uid)),
        None if address.is_loopback() => Who::User(None),
        None => Who::Address(address),
    };
    Source { class, who }
}
