//! The DNS service on real sockets, asked by dig.

mod aliases;
mod bench;
mod edns;
mod forwarding;
mod records;
mod sockets;
mod zone;
