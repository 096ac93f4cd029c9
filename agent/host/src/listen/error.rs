//! Why nothing listens at an address, and what to do about it.

#![allow(missing_docs, reason = "the names say it")]

use std::{io, net::SocketAddr};

use crate::{
    Network,
    holder::{Holder, Kind},
};

/// Why nothing listens there. Nothing is left bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program has the port.
    #[error(
        "{transport} port {} on {} is taken by {}; stop that program, or {instead}",
        address.port(), address.ip(), words(holder)
    )]
    InUse {
        address: SocketAddr,
        /// UDP or TCP.
        transport: Kind,
        /// Who, as far as can be told.
        holder: Option<Holder>,
        /// What else can be done, such as "set `port` of `[page]` in the config".
        instead: &'static str,
    },
    /// Ports below 1024 take a privilege.
    #[error(
        "{transport} port {} on {} needs root or CAP_NET_BIND_SERVICE; run as a service, or {instead}",
        address.port(), address.ip()
    )]
    Denied {
        address: SocketAddr,
        /// UDP or TCP.
        transport: Kind,
        /// What else can be done.
        instead: &'static str,
    },
    /// The address isn't this host's.
    #[error("no interface of this host has {}; {instead}", address.ip())]
    NotHere {
        address: SocketAddr,
        /// What can be done.
        instead: &'static str,
    },
    /// Anything else.
    #[error("can't listen on {transport} {address}: {error}; {instead}")]
    Other {
        address: SocketAddr,
        /// UDP or TCP.
        transport: Kind,
        /// The operating system's error.
        #[source]
        error: io::Error,
        /// What can be done.
        instead: &'static str,
    },
}

impl ListenError {
    /// What `error` of binding a socket says; `instead` is what a person can set
    /// so that it listens elsewhere.
    pub fn new(
        net: &dyn Network,
        transport: Kind,
        address: SocketAddr,
        error: io::Error,
        instead: &'static str,
    ) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse {
                address,
                transport,
                holder: net.holder(transport, address),
                instead,
            },
            io::ErrorKind::PermissionDenied => Self::Denied {
                address,
                transport,
                instead,
            },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { address, instead },
            _ => Self::Other {
                address,
                transport,
                error,
                instead,
            },
        }
    }
}

fn words(holder: &Option<Holder>) -> String {
    let holder = holder.as_ref();
    holder.map_or_else(|| "another program".into(), Holder::to_string)
}
