//! What can go wrong with the tunnel interface, and what to do about it.

use std::{io, net::Ipv6Addr};

use innermesh_proto::tunnel::Overlap;

use crate::holder::{self, Holder, Kind};

/// Why the interface could not be made, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The plan gives an address to two peers (S11). Nothing changed.
    #[error("the plan gives {0}: they overlap, so neither is applied")]
    Overlap(Box<Overlap>),
    /// The configured name can't be a Linux interface's. Nothing changed.
    #[error(
        "`{0}` can't be the name of an interface: set `tunnel.interface` to 1 to 15 letters, \
         digits, `-` or `_`"
    )]
    Name(String),
    /// Something else has the interface's name. Nothing changed.
    #[error(
        "the interface {interface} belongs to {holder}: set `tunnel.interface` to another name, \
         or remove that one with `ip link delete {interface}` if nothing needs it"
    )]
    Taken {
        /// The name asked for.
        interface: String,
        /// What has it.
        holder: &'static str,
    },
    /// The process may not make or change interfaces. Nothing changed.
    #[error(
        "no permission to {0}: it needs CAP_NET_ADMIN, so run the agent as root, or set \
         `AmbientCapabilities=CAP_NET_ADMIN` in its unit"
    )]
    Permission(&'static str),
    /// The kernel has no TUN devices here. Nothing changed.
    #[error(
        "/dev/net/tun is missing: load the module with `modprobe tun`; in a container also pass \
         the device in (`--device /dev/net/tun`)"
    )]
    TunMissing,
    /// /dev/net/tun is there, and this process may not open it. Nothing changed.
    #[error(
        "/dev/net/tun may not be opened: run the agent as root or `chmod 0666 /dev/net/tun`; in \
         a unit with `DevicePolicy` set add `DeviceAllow=/dev/net/tun rw`"
    )]
    TunForbidden,
    /// Another program has the UDP port. The interface isn't up.
    #[error(
        "UDP port {port} is taken by {}; stop that or set `tunnel.listen_port` to a free port",
        by(*port, holder)
    )]
    PortInUse {
        /// The port.
        port: u16,
        /// Who has it, where that can be told.
        holder: Option<Holder>,
    },
    /// `tunnel.backend = "kernel"` on a kernel without WireGuard. Nothing changed.
    #[error(
        "this kernel has no WireGuard: load it with `modprobe wireguard`, or set \
         `tunnel.backend` to \"auto\" or \"embedded\""
    )]
    NoKernelWireGuard,
    /// The folder or socket that `wg` reads an embedded device through can't be
    /// made. The tunnel works without.
    #[error("{path}: {source}; the agent must be able to make and write it")]
    Socket {
        /// The folder or the socket.
        path: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The interface was taken down. Nothing changed.
    #[error("the tunnel is down: applying a plan brings it up again")]
    Down,
    /// Any other refusal of the operating system. What was done before it
    /// stands; applying the plan again goes on from there.
    #[error("can't {doing}: {source}")]
    System {
        /// What was being done.
        doing: String,
        /// What the operating system says.
        source: io::Error,
    },
}

fn by(port: u16, holder: &Option<Holder>) -> String {
    match holder {
        Some(holder) => holder.to_string(),
        None => format!("another program: `ss -ulpn sport = :{port}` shows which"),
    }
}

impl TunnelError {
    /// Another program has the UDP port.
    pub(super) fn port_in_use(port: u16) -> Self {
        let holder = holder::of_address(Kind::Udp, (Ipv6Addr::UNSPECIFIED, port).into());
        Self::PortInUse { port, holder }
    }

    /// Names the cause of an operating system's refusal where it is known.
    pub(super) fn system(doing: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission(doing),
            _ => Self::System {
                doing: doing.to_owned(),
                source,
            },
        }
    }
}
