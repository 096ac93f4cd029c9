//! What an agent is told besides what its state folder holds.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use innermesh_proto::{
    endpoint::is_public,
    id::resolver_v4,
    ledger::State,
    name::MeshDomain,
    path::LaneUrl,
    zone::{DomainName, reverse_zones},
};
use ipnet::IpNet;

use crate::{
    config::TunnelEndpoint,
    dns::{AnswerScope, FallThroughRule, NameServer, TLS_PORT, TlsChoice},
    services::Spec,
    tunnel::BackendChoice,
};

/// What an agent is told besides what its state folder holds.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The QUIC endpoint's address: the first of these that can be had.
    pub listen: Vec<SocketAddr>,
    /// Endpoints to announce before those of the host's own interfaces.
    pub advertise: Vec<SocketAddr>,
    /// Whether this host's router is asked to map the ports by which others reach this
    /// node.
    pub port_mapping: bool,
    /// The tunnel interface's name.
    pub interface: String,
    /// WireGuard's UDP port.
    pub tunnel_port: u16,
    /// Whether it stays that one although another program has it.
    pub tunnel_port_is_fixed: bool,
    /// Where devices find this node as their gateway; else the best address that
    /// it announces.
    pub tunnel_endpoint: Option<TunnelEndpoint>,
    /// Largest packet through the tunnel, in bytes.
    pub mtu: u32,
    /// What carries the tunnel's packets.
    pub backend: BackendChoice,
    /// Whether the embedded device lets the kernel cut and join packets.
    pub offloads: bool,
    /// Where DNS is answered; the resolver addresses when empty.
    pub dns_listen: Vec<SocketAddr>,
    /// Name servers for other names; the host's own when empty.
    pub dns_upstream: Vec<NameServer>,
    /// Whether DNS is answered over TLS, at port 853 of the same addresses.
    pub dns_tls: TlsChoice,
    /// The port of the same addresses at which it is answered over HTTPS.
    pub dns_https: Option<u16>,
    /// Whether the host's own resolver is set and kept.
    pub manage_resolver: bool,
    /// Which names are answered.
    pub dns_answer: AnswerScope,
    /// Where strangers are told that access is denied, on a sinkhole; this host's own
    /// addresses when empty.
    pub sinkhole_listen: Vec<SocketAddr>,
    /// The page that they get.
    pub sinkhole_page: Vec<u8>,
    /// Where strangers' DNS is answered, on a sinkhole; nowhere when empty.
    pub sinkhole_dns: Vec<SocketAddr>,
    /// Names of the mesh's domain that the public DNS is asked for.
    pub dns_fall_through: Vec<FallThroughRule>,
    /// Networks beside the mesh whose hosts may ask for names.
    pub dns_lan: Vec<IpNet>,
    /// Name servers for the names of these zones.
    pub dns_forward: BTreeMap<DomainName, Vec<NameServer>>,
    /// Where the install page is served; this node's overlay addresses and
    /// loopback when empty.
    pub page_listen: Vec<SocketAddr>,
    pub page_port: u16,
    /// Whether it is served on this host's private networks too.
    pub page_lan: bool,
    /// Where lanes are taken in.
    pub lane: LaneSettings,
    /// How long one CA node leads, of ledger time.
    pub ca_term: Duration,
    /// The newest rules of the ledger that it goes along with.
    pub known_rules: u32,
    /// The port that ACME is served on.
    pub acme_port: u16,
    /// Where ACME is served; the resolver's addresses when empty.
    pub acme_listen: Vec<SocketAddr>,
    /// Networks of this host that count as the host itself.
    pub local_sources: Vec<IpNet>,
    /// Whether this host's containers reach other nodes, as this node.
    pub containers_reach_mesh: bool,
    /// Docker's socket, whose labelled containers are services; none without.
    pub docker_socket: Option<PathBuf>,
    /// Services from the configuration.
    pub services: Vec<Spec>,
}

/// Where lanes are taken in, and where others are told to dial.
#[derive(Clone, Debug, Default)]
pub struct LaneSettings {
    /// By plain HTTP, of a proxy.
    pub listen: Vec<SocketAddr>,
    /// By TLS.
    pub listen_tls: Vec<SocketAddr>,
    pub address: Option<LaneUrl>,
}

impl LaneSettings {
    /// Whether they are taken in anywhere.
    pub fn is_set(&self) -> bool {
        !self.listen.is_empty() || !self.listen_tls.is_empty()
    }

    /// Where others dial: as the configuration says, or where TLS listens, by the best of
    /// this node's addresses.
    pub fn announced(&self, endpoints: &[SocketAddr]) -> Option<LaneUrl> {
        if self.address.is_some() || !self.is_set() {
            return self.address.clone();
        }
        let public = endpoints.iter().filter(|at| is_public(at.ip()));
        let best: Vec<IpAddr> = public.chain(endpoints).map(SocketAddr::ip).collect();
        self.listen_tls.iter().find_map(|listen| {
            // A listener of IPv6 takes no IPv4 in.
            let fits = |ip: &&IpAddr| listen.is_ipv6() == ip.is_ipv6();
            let ip = if listen.ip().is_unspecified() {
                *best.iter().find(fits)?
            } else {
                listen.ip()
            };
            LaneUrl::at(SocketAddr::new(ip, listen.port()), LANE_PATH)
        })
    }
}

/// The path of a lane, where nothing else says one.
const LANE_PATH: &str = "/innermesh";

/// The version that this agent announces.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The lock that two agents on one folder can't both hold.
pub(crate) const LOCK: &str = "lock";

/// A rule of `[dns.forward]` that makes no sense in this mesh. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The mesh's own names.
    #[error("[dns.forward] of the configuration has {0}, which is the mesh's own; remove it")]
    Own(DomainName),
    /// This very agent.
    #[error(
        "[dns.forward] of the configuration has {server} for {zone}, where this agent answers \
         itself; give the address of another name server"
    )]
    Loop {
        zone: DomainName,
        server: Box<NameServer>,
    },
}

impl AgentConfig {
    /// TCP ports that the agent itself uses on this host.
    pub fn tcp_ports(&self) -> BTreeSet<u16> {
        let listen = [
            &self.dns_listen,
            &self.acme_listen,
            &self.page_listen,
            &self.lane.listen,
            &self.lane.listen_tls,
        ];
        let listen = listen.into_iter().flatten().map(SocketAddr::port);
        let encrypted = (self.dns_tls != TlsChoice::Off).then_some(TLS_PORT);
        listen
            .chain([self.page_port, self.acme_port])
            .chain(encrypted)
            .chain(self.dns_https)
            .collect()
    }

    /// Whether the rules of forwarding leave the names of a mesh alone.
    ///
    /// # Errors
    /// `ForwardError`.
    pub fn check_domain(&self, domain: &MeshDomain) -> Result<(), ForwardError> {
        let domain = domain.as_str().parse::<DomainName>();
        self.check_zones(domain.ok().as_slice())
    }

    /// As [`AgentConfig::check_domain`], with its addresses.
    ///
    /// # Errors
    /// `ForwardError`.
    pub fn check_mesh(&self, state: &State) -> Result<(), ForwardError> {
        self.check_domain(&state.domain)?;
        self.check_zones(&reverse_zones(state.ipv4, state.mesh.ula()))?;
        let own = [
            IpAddr::V4(resolver_v4(state.ipv4)),
            IpAddr::V6(state.mesh.resolver_v6()),
        ];
        for (zone, servers) in &self.dns_forward {
            if let Some(server) = servers
                .iter()
                .find(|server| own.contains(&server.address.ip()))
            {
                return Err(ForwardError::Loop {
                    zone: zone.clone(),
                    server: server.clone().into(),
                });
            }
        }
        Ok(())
    }

    fn check_zones(&self, own: &[DomainName]) -> Result<(), ForwardError> {
        let mut rules = self.dns_forward.keys();
        let wrong = rules.find(|zone| own.iter().any(|own| zone.is_within(own)));
        wrong.map_or(Ok(()), |zone| Err(ForwardError::Own(zone.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_the_url_of_the_configuration_or_where_tls_listens() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let endpoints = ["10.0.0.1:51819", "[2001:db8::1]:51819", "203.0.113.7:51819"].map(at);
        let told = |listen_tls: &[&str], address: Option<&str>| {
            let lane = LaneSettings {
                listen: Vec::new(),
                listen_tls: listen_tls.iter().map(|text| at(text)).collect(),
                address: address.map(|url| url.parse().unwrap()),
            };
            lane.announced(&endpoints).map(|url| url.to_string())
        };
        let own = "wss://relay.example.org/innermesh";
        for (listen_tls, address, expected) in [
            (&[][..], None, None),
            (&["0.0.0.0:443"], Some(own), Some(own)),
            (&["0.0.0.0:443"], None, Some("wss://203.0.113.7/innermesh")),
            (
                &["[::]:8443"],
                None,
                Some("wss://[2001:db8::1]:8443/innermesh"),
            ),
            (&["10.0.0.9:443"], None, Some("wss://10.0.0.9/innermesh")),
        ] {
            let told = told(listen_tls, address);
            assert_eq!(told.as_deref(), expected, "{listen_tls:?}");
        }
    }
}
