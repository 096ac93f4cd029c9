//! Whether IPv4 datagrams of a socket may be cut on their way.

#![allow(
    missing_docs,
    reason = "options of sockets are named after their constants"
)]

use std::os::fd::AsFd;

use nix::{libc, setsockopt_impl, sockopt_impl, sys::socket::setsockopt};

sockopt_impl!(
    IpMtuDiscover,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int
);

sockopt_impl!(
    Ipv6MtuDiscover,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    libc::c_int
);

sockopt_impl!(
    Ipv6DontFragment,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_DONTFRAG,
    libc::c_int
);

/// A hop that is narrower than the tunnel's packets and says nothing would
/// swallow all that fill one: over IPv4 routers cut them. Over IPv6 only the
/// sender may, and Linux does so only once it knows of the hop (`IPV6_MTU` is
/// looked at for packets that the route's own MTU has cut already).
pub(crate) fn let_be_cut(socket: &impl AsFd) {
    discover(socket, libc::IP_PMTUDISC_DONT);
}

/// The same over IPv6, as far as the sender does it: datagrams that are longer than what
/// it knows of the way.
pub(crate) fn let_be_cut_v6(socket: &impl AsFd) {
    let set = setsockopt(socket, Ipv6MtuDiscover, &libc::IPV6_PMTUDISC_WANT)
        .and_then(|()| setsockopt(socket, Ipv6DontFragment, &0));
    if let Err(error) = set {
        tracing::debug!(%error, "a socket's path MTU discovery couldn't be set");
    }
}

/// Answers of DNS are short enough for every way (RFC 9715 §3.1): pieces of them could
/// be exchanged for others. What is said of a narrower way is nobody's proof.
pub(crate) fn never_cut(socket: &impl AsFd) {
    discover(socket, libc::IP_PMTUDISC_PROBE);
}

fn discover(socket: &impl AsFd, how: libc::c_int) {
    if let Err(error) = setsockopt(socket, IpMtuDiscover, &how) {
        tracing::debug!(%error, "a socket's path MTU discovery couldn't be set");
    }
}
