//! One guard for everything that listens: DNS over TCP, ACME, the install
//! page, the control socket, and QUIC's strangers. Each has a [`Room`] with so
//! many places; who comes when there is none waits for one, and who holds the
//! most gives way first.
//!
//! Must not know what is spoken on a connection.

mod accept;
mod error;
pub mod guard;
mod room;
mod sources;

pub use self::{
    accept::{Listener, Tcp, serve},
    error::ListenError,
    guard::{Class, Shares, Source, Who},
    room::{Place, Room, Working},
    sources::Sources,
};
