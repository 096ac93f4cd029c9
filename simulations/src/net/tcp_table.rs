//! What listens and what is connected over TCP in one world, and whose tunnels
//! lead where.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Weak,
};

use innermesh_agent::host::Accepted;
use ipnet::IpNet;
use tokio::sync::mpsc;

use super::{pipe::Connection, place::HostId};
use crate::tunnel::SimTunnels;

/// What listens, what is connected, and whose tunnels there are.
#[derive(Default)]
pub(super) struct Tcp {
    pub(super) listening: BTreeMap<(HostId, SocketAddr), mpsc::Sender<Accepted>>,
    pub(super) connections: Vec<Weak<Connection>>,
    pub(super) tunnels: BTreeMap<HostId, SimTunnels>,
    /// The port that the newest connection comes from.
    pub(super) port: u16,
}

impl Tcp {
    /// Has a host's overlay addresses be those of its tunnel.
    pub(super) fn set_tunnels(&mut self, host: HostId, tunnels: SimTunnels) {
        self.tunnels.insert(host, tunnels);
    }

    /// Takes from a host whatever it has open.
    pub(super) fn unplug(&mut self, host: HostId) {
        self.listening.retain(|(at, _), _| *at != host);
        self.connections.retain(|connection| {
            let Some(connection) = connection.upgrade() else {
                return false;
            };
            let is_its = connection.hosts.contains(&host);
            if is_its {
                connection.break_off();
            }
            !is_its
        });
    }

    /// The overlay addresses of a host, those of its resolver too.
    pub(super) fn overlay(&self, host: HostId) -> Vec<IpAddr> {
        let Some(plan) = self.tunnels.get(&host).map(SimTunnels::plan) else {
            return Vec::new();
        };
        let own = plan.addresses.iter().map(IpNet::addr);
        let resolver = plan.resolver_v4.map(IpAddr::from).into_iter();
        let resolver = resolver.chain(plan.resolver_v6.map(IpAddr::from));
        own.chain(resolver).collect()
    }

    /// Where the tunnel of a host leads to: another host, and from which address.
    pub(super) fn through_tunnel(&self, host: HostId, to: IpAddr) -> Option<(IpAddr, HostId)> {
        let plan = self.tunnels.get(&host)?.plan();
        let mut routes = plan.peers.values().flat_map(|peer| &peer.allowed_ips);
        if !routes.any(|net| net.contains(&to)) {
            return None;
        }
        let mut own = plan.addresses.iter().map(IpNet::addr);
        let from = own.find(|ip| ip.is_ipv4() == to.is_ipv4())?;
        let others = self.tunnels.iter().filter(|(other, _)| **other != host);
        let mut there = others.filter(|(_, tunnels)| {
            let plan = tunnels.plan();
            plan.addresses.iter().any(|net| net.addr() == to)
        });
        Some((from, *there.next()?.0))
    }

    /// The socket that listens at an address of a host.
    pub(super) fn listener(&self, host: HostId, to: SocketAddr) -> Option<&mpsc::Sender<Accepted>> {
        let any = SocketAddr::new(unspecified(to.ip()), to.port());
        let at = |address| self.listening.get(&(host, address));
        at(to).or_else(|| at(any))
    }
}

pub(super) fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}
