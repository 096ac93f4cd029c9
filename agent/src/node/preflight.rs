//! The ports that an agent is going to need: looked at before anything is
//! written, so that a machine isn't half in a mesh.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::config::AgentConfig;
use crate::{
    host::{
        Host, Presence,
        holder::{Holder, Kind},
    },
    tunnel::BackendChoice,
};

/// Ports after the usual one among which a free one is looked for.
const NEXT_PORTS: u16 = 64;
/// How often a port is looked at before it counts as taken, and how far apart: a
/// program that just ended may hold it a moment longer.
const LOOKS: u32 = 3;
const APART: Duration = Duration::from_millis(200);
/// The mesh's addresses aren't known yet. These stand for them, as no interface
/// has them either (RFC 5737, RFC 3849): only who listens at all addresses is in
/// the way.
const NOBODYS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 53)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x53)),
];

/// The UDP port that WireGuard is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireGuardPort {
    pub port: u16,
    /// The port that it should have had, and who has that.
    pub taken: Option<(u16, Option<Holder>)>,
}

/// A port that the agent needs is taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{transport} port {port}, which {what} needs, is taken by {}; stop that program, or {instead}. Nothing was changed",
    by(holder)
)]
pub struct PortTaken {
    pub transport: Kind,
    pub port: u16,
    /// What would listen there.
    what: &'static str,
    pub holder: Option<Holder>,
    /// What else a person can do.
    instead: &'static str,
}

fn by(holder: &Option<Holder>) -> String {
    let holder = holder.as_ref();
    holder.map_or_else(|| "another program".into(), Holder::to_string)
}

/// Looks at the ports that an agent with this configuration needs; the one that
/// its tunnel is to have. Port 53 isn't among them: an agent runs without.
///
/// # Errors
/// [`PortTaken`].
pub async fn check(host: &Host, config: &AgentConfig) -> Result<WireGuardPort, PortTaken> {
    quic(host, &config.listen).await?;
    let wireguard = wireguard(host, config).await?;
    let page = Server {
        what: "the install page",
        instead: "set `port` of [page] in the configuration",
    };
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    page.check(host, &config.page_listen, &loopback, config.page_port)
        .await?;
    let acme = Server {
        what: "the ACME server",
        instead: "set `port` of [acme] in the configuration, on all nodes alike",
    };
    acme.check(host, &config.acme_listen, &NOBODYS, config.acme_port)
        .await?;
    Ok(wireguard)
}

/// The ports that WireGuard may have instead of `taken`, in order.
pub(super) fn next_ports(taken: u16, config: &AgentConfig) -> impl Iterator<Item = u16> + use<> {
    let others: Vec<u16> = config.listen.iter().map(SocketAddr::port).collect();
    let last = taken.saturating_add(NEXT_PORTS);
    (taken.saturating_add(1)..=last).filter(move |port| *port != taken && !others.contains(port))
}

/// As the transport does: the first address that can be had.
async fn quic(host: &Host, listen: &[SocketAddr]) -> Result<(), PortTaken> {
    let open = || {
        let mut tried = listen.iter().map(|at| (at, host.net.quic_socket(*at)));
        let first = tried
            .next()
            .and_then(|(at, tried)| Some((*at, tried.err()?)));
        first.filter(|_| !tried.any(|(_, tried)| tried.is_ok()))
    };
    let Some(at) = taken(host, open).await else {
        return Ok(());
    };
    Err(PortTaken {
        transport: Kind::Udp,
        port: at.port(),
        what: "the mesh",
        holder: host.net.holder(Kind::Udp, at),
        instead: "set `listen` in the configuration",
    })
}

async fn wireguard(host: &Host, config: &AgentConfig) -> Result<WireGuardPort, PortTaken> {
    let wanted = config.tunnel_port;
    let free = |port: u16| host.net.try_udp_port(port);
    let at = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), wanted);
    let open = || free(wanted).err().map(|error| (at, error));
    let is_free =
        config.backend == BackendChoice::None || wanted == 0 || taken(host, open).await.is_none();
    if is_free {
        return Ok(WireGuardPort {
            port: wanted,
            taken: None,
        });
    }
    let holder = host.net.holder(Kind::Udp, at);
    let next = if config.tunnel_port_is_fixed {
        None
    } else {
        next_ports(wanted, config).find(|port| free(*port).is_ok())
    };
    match next {
        Some(port) => Ok(WireGuardPort {
            port,
            taken: Some((wanted, holder)),
        }),
        None => Err(PortTaken {
            transport: Kind::Udp,
            port: wanted,
            what: "WireGuard",
            holder,
            instead: "set `listen_port` of [tunnel] in the configuration to a free port",
        }),
    }
}

/// What listens on TCP.
struct Server {
    what: &'static str,
    instead: &'static str,
}

impl Server {
    async fn check(
        &self,
        host: &Host,
        chosen: &[SocketAddr],
        usual: &[IpAddr],
        port: u16,
    ) -> Result<(), PortTaken> {
        let usual = usual.iter().map(|ip| SocketAddr::new(*ip, port));
        let all: Vec<SocketAddr> = if chosen.is_empty() {
            usual.collect()
        } else {
            chosen.to_vec()
        };
        for at in all {
            let open = || {
                let listener = host.net.listen_tcp(at, Presence::Awaited);
                listener.err().map(|error| (at, error))
            };
            if let Some(at) = taken(host, open).await {
                return Err(PortTaken {
                    transport: Kind::Tcp,
                    port: at.port(),
                    what: self.what,
                    holder: host.net.holder(Kind::Tcp, at),
                    instead: self.instead,
                });
            }
        }
        Ok(())
    }
}

/// Where somebody has the port each time it is tried.
async fn taken(
    host: &Host,
    open: impl Fn() -> Option<(SocketAddr, io::Error)>,
) -> Option<SocketAddr> {
    for look in 1..=LOOKS {
        let (at, error) = open()?;
        // What else there may be, such as an address that comes later, is told when
        // the agent runs.
        if error.kind() != io::ErrorKind::AddrInUse {
            return None;
        }
        if look == LOOKS {
            return Some(at);
        }
        host.clock.sleep(APART).await;
    }
    None
}
