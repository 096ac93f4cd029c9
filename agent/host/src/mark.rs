//! Sockets whose packets go by this host's own routes, also where it sends everything
//! else by an exit.

use std::os::fd::AsFd;

use innermesh_proto::filter::MARK;
use nix::sys::socket::{setsockopt, sockopt};

/// Marks what a socket sends. Whoever may not mark can't route by an exit either.
pub fn past_exit(socket: &impl AsFd) {
    if let Err(error) = setsockopt(socket, sockopt::Mark, &MARK) {
        tracing::debug!(%error, "a socket can't be marked");
    }
}
