//! The configuration file, as values. Pure: who reads the file, and where it
//! lies, is the command line's business.

#![allow(missing_docs, reason = "the names say it")]

mod docker;
mod forward;
mod lan;
mod lane;
mod near;
mod sinkhole_dns;
mod values;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use innermesh_proto::{limits, zone::DomainName};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::docker::DockerConfig;
pub use self::lane::LaneConfig;
pub use self::values::{
    InterfaceName, InterfaceNameError, LeaderTerm, LeaderTermError, TunnelEndpoint, TunnelPort,
    WIREGUARD_PORT,
};
use self::{
    forward::{ForwardRuleError, Forwards},
    lan::LanError,
    values::{Address, Upstream, with_port},
};
use crate::{
    dns::{AnswerScope, FallThroughRule, NameServer, TLS_PORT, TlsChoice},
    page,
    services::Spec,
    sinkhole,
    telemetry::{LogFormat, LogLevel},
    tunnel::{BackendChoice, DEFAULT_MTU},
};

/// What `config.toml` may say. All of it is optional.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where QUIC listens; see [`Config::listen`].
    listen: SocketAddr,
    /// Addresses under which peers reach this node from afar, such as a
    /// forwarded port of the router; see [`Config::advertised`].
    advertise: Vec<Address>,
    /// Whether the router before this host is asked to map the ports by which others
    /// reach this node.
    pub port_mapping: bool,
    /// Networks on this host that count as the host itself, such as a
    /// container bridge: they see the mesh's names and may ask for
    /// certificates.
    pub local_sources: Vec<IpNet>,
    /// The WireGuard interface.
    pub tunnel: TunnelConfig,
    /// The resolver.
    pub dns: DnsConfig,
    /// The install page.
    pub page: PageConfig,
    /// Where a relay takes in lanes.
    pub lane: LaneConfig,
    /// What strangers get on a node with the role `sinkhole`.
    pub sinkhole: SinkholeConfig,
    /// What a CA node does.
    pub ca: CaConfig,
    /// The server that ACME clients ask.
    pub acme: AcmeConfig,
    /// Containers on this host.
    pub containers: ContainersConfig,
    /// Services by labels of containers.
    pub docker: DockerConfig,
    /// What the agent writes about itself.
    pub log: LogConfig,
    /// The services that stand in `services.d`; not part of this file.
    #[serde(skip)]
    pub services: Vec<Spec>,
}

/// `[tunnel]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TunnelConfig {
    /// The interface's name.
    pub interface: InterfaceName,
    /// UDP port of WireGuard.
    pub listen_port: TunnelPort,
    /// Where devices find this gateway, with the port of `listen_port` unless
    /// said otherwise; the best announced address without it.
    pub endpoint: Option<TunnelEndpoint>,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// What carries the packets.
    pub backend: BackendChoice,
    /// Whether the embedded device lets the kernel cut and join packets.
    pub offloads: bool,
}

/// `[dns]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsConfig {
    /// Where the resolver listens, port 53 unless said otherwise; empty for
    /// the mesh's resolver addresses. See [`DnsConfig::listens`].
    listen: Vec<Address>,
    /// Who is asked for other names; empty for the host's name servers. See
    /// [`DnsConfig::upstreams`].
    upstream: Vec<Upstream>,
    /// Whether DNS is answered over TLS, at port 853 of the same addresses.
    pub tls: TlsChoice,
    /// The port of the same addresses at which it is answered over HTTPS.
    pub https: Option<u16>,
    /// Whether the agent sets this host's own resolver.
    pub manage: ManageResolver,
    /// Which names are answered.
    pub answer: AnswerScope,
    /// Networks beside the mesh whose hosts may ask too.
    pub lan: Vec<IpNet>,
    /// Names of the mesh's domain that are asked of the public DNS where the mesh has
    /// none.
    pub fall_through: Vec<FallThroughRule>,
    /// Who is asked for the names of a zone instead; see [`DnsConfig::forwards`].
    forward: Forwards,
}

/// Whether the agent sets this host's own resolver, so that every program here
/// finds the mesh's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManageResolver {
    /// By whatever this host uses: systemd-resolved, resolvconf,
    /// NetworkManager's dnsmasq or /etc/resolv.conf.
    #[default]
    Auto,
    Off,
}

/// `[page]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageConfig {
    /// Where the install page is served, at `port` unless said otherwise; empty
    /// for this node's overlay addresses and loopback. See
    /// [`PageConfig::listens`].
    listen: Vec<Address>,
    /// Its TCP port.
    pub port: u16,
    /// Whether it is served on this host's private networks too, where a phone can
    /// get the root and nothing else.
    pub lan: bool,
}

/// `[sinkhole]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SinkholeConfig {
    /// Where strangers are answered, at port 80 unless said otherwise; empty for this
    /// host's addresses outside of the mesh. See [`SinkholeConfig::listens`].
    listen: Vec<Address>,
    /// Where strangers' questions for the mesh's domain are answered, at port 53 unless
    /// said otherwise; empty for nowhere. See [`SinkholeConfig::dns_listens`].
    dns: Vec<Address>,
    /// A file with a page of HTML in place of the usual one; see
    /// [`SinkholeConfig::page`].
    pub page: Option<PathBuf>,
    /// What stands in that file; not part of this one.
    #[serde(skip)]
    pub own_page: Option<Vec<u8>>,
}

impl SinkholeConfig {
    /// Where to listen; empty for this host's own addresses.
    pub fn listens(&self) -> Vec<SocketAddr> {
        with_port(&self.listen, sinkhole::PORT)
    }

    /// Where strangers' DNS is answered.
    pub fn dns_listens(&self) -> Vec<SocketAddr> {
        with_port(&self.dns, DNS_PORT)
    }

    /// What strangers are shown.
    pub fn page(&self) -> Vec<u8> {
        let own = self.own_page.clone();
        own.unwrap_or_else(|| sinkhole::PAGE.as_bytes().to_vec())
    }
}

/// `[ca]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaConfig {
    /// How long one CA node leads before the next does.
    pub term: LeaderTerm,
    /// Goes along with these rules of the ledger at most; none for all that
    /// this version knows. A CA node keeps the mesh from newer ones by it, so
    /// that going back to the version before stays possible.
    pub rules: Option<u32>,
}

/// `[acme]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcmeConfig {
    /// Where it listens, [`AcmeConfig::port`] unless said otherwise; empty for
    /// the mesh's resolver addresses.
    listen: Vec<Address>,
    pub port: u16,
}

impl Default for AcmeConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            port: crate::acme::PORT,
        }
    }
}

impl AcmeConfig {
    /// Where it listens; empty for the mesh's resolver addresses.
    pub fn listens(&self) -> Vec<SocketAddr> {
        with_port(&self.listen, self.port)
    }
}

/// `[containers]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainersConfig {
    /// Whether containers reach other nodes, as this node. This node's own
    /// overlay addresses and its resolver they reach always.
    pub mesh: bool,
}

impl Default for ContainersConfig {
    fn default() -> Self {
        Self { mesh: true }
    }
}

/// `[log]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How lines are written.
    pub format: LogFormat,
    /// How much is logged; `agent log level` changes it until the next start.
    pub level: LogLevel,
}

/// A file with all keys, each with its default and behind a `#`.
pub const EXAMPLE: &str = include_str!("config/example.toml");

/// QUIC's port; WireGuard's is the one beside it.
pub const QUIC_PORT: u16 = 51819;
const DNS_PORT: u16 = 53;
/// IPv6 works from here on (RFC 8200 §5).
const LEAST_MTU: u32 = 1280;
const MOST_MTU: u32 = 9000;
/// Entries of one list of addresses.
const ADDRESSES: usize = limits::ENDPOINTS;

/// A file that is refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message}", .file.display(), .line.map(|n| format!(", line {n}")).unwrap_or_default())]
pub struct ConfigError {
    pub file: PathBuf,
    /// Where in it, from 1, if that is known.
    pub line: Option<usize>,
    /// What to change.
    pub message: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0u16; 8], QUIC_PORT)),
            advertise: Vec::new(),
            port_mapping: false,
            local_sources: Vec::new(),
            tunnel: TunnelConfig::default(),
            dns: DnsConfig::default(),
            page: PageConfig::default(),
            lane: LaneConfig::default(),
            sinkhole: SinkholeConfig::default(),
            ca: CaConfig::default(),
            acme: AcmeConfig::default(),
            containers: ContainersConfig::default(),
            docker: DockerConfig::default(),
            log: LogConfig::default(),
            services: Vec::new(),
        }
    }
}

impl Default for TunnelConfig {
    fn default() -> Self {
        Self {
            interface: InterfaceName("im0".into()),
            listen_port: TunnelPort::default(),
            endpoint: None,
            mtu: DEFAULT_MTU,
            backend: BackendChoice::default(),
            offloads: true,
        }
    }
}

impl Default for PageConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            port: page::PORT,
            lan: false,
        }
    }
}

impl Config {
    /// Reads the text of `file`, whose name is for messages only.
    ///
    /// # Errors
    /// [`ConfigError`], also for keys that don't exist.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let config = from_toml(text, file)?;
        config.check().map_err(|message| ConfigError {
            file: file.to_owned(),
            line: None,
            message,
        })?;
        Ok(config)
    }

    /// Where QUIC listens: the first of these that works. The second is there
    /// for hosts whose IPv6 is switched off.
    pub fn listen(&self) -> Vec<SocketAddr> {
        let any_v6 = self.listen.is_ipv6() && self.listen.ip().is_unspecified();
        let fallback = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.listen.port()));
        std::iter::once(self.listen)
            .chain(any_v6.then_some(fallback))
            .collect()
    }

    /// What to announce beside the host's own addresses; the port is that of
    /// [`Config::listen`] unless said otherwise.
    pub fn advertised(&self) -> Vec<SocketAddr> {
        with_port(&self.advertise, self.listen.port())
    }

    /// All of it as TOML, defaults too.
    pub fn to_toml(&self) -> String {
        // It is made of tables, numbers and strings, which TOML has.
        toml::to_string(self).unwrap_or_default()
    }

    fn check(&self) -> Result<(), String> {
        let mtu = self.tunnel.mtu;
        let listen_port = self.tunnel.listen_port.number();
        if self.listen.port() != 0 && self.listen.port() == listen_port {
            return Err(format!(
                "`listen` and `listen_port` of [tunnel] are both port {listen_port}; choose two"
            ));
        }
        if !(LEAST_MTU..=MOST_MTU).contains(&mtu) {
            return Err(format!(
                "`mtu` of [tunnel] is {mtu}; it must be {LEAST_MTU} to {MOST_MTU}"
            ));
        }
        if self.page.port == 0 || self.page.listens().iter().any(|a| a.port() == 0) {
            return Err("[page] has port 0; choose one of 1 to 65535, such as 7480".into());
        }
        let lists = [
            ("advertise", &self.advertise),
            ("listen` of `[dns]", &self.dns.listen),
            ("listen` of `[acme]", &self.acme.listen),
            ("listen` of `[page]", &self.page.listen),
            ("listen` of `[sinkhole]", &self.sinkhole.listen),
            ("dns` of `[sinkhole]", &self.sinkhole.dns),
        ];
        for (name, list) in lists {
            if list.len() > ADDRESSES {
                return Err(format!(
                    "`{name}` has {} entries; at most {ADDRESSES} are used",
                    list.len()
                ));
            }
        }
        self.dns.check().map_err(|error| error.to_string())?;
        self.docker.check().map_err(|error| error.to_string())?;
        self.lane.check().map_err(|error| error.to_string())?;
        if self.dns.https == Some(self.acme.port) {
            return Err(format!(
                "`https` of [dns] and `port` of [acme] are both {}; choose two",
                self.acme.port
            ));
        }
        sinkhole_dns::check(&self.dns.listens(), &self.sinkhole.dns_listens())
            .map_err(|error| error.to_string())?;
        match self
            .advertise
            .iter()
            .find(|a| a.ip.is_unspecified() || a.ip.is_multicast())
        {
            Some(address) => Err(format!(
                "`advertise` has {address}, which nobody can reach; give the address that peers see"
            )),
            None => Ok(()),
        }
    }
}

impl DnsConfig {
    /// Where to listen; empty for the mesh's resolver addresses.
    pub fn listens(&self) -> Vec<SocketAddr> {
        with_port(&self.listen, DNS_PORT)
    }

    /// Who to ask; empty for the host's name servers.
    pub fn upstreams(&self) -> Vec<NameServer> {
        let all = self.upstream.iter();
        all.map(|upstream| upstream.server.clone()).collect()
    }

    /// Who to ask for the names of a zone.
    pub fn forwards(&self) -> BTreeMap<DomainName, Vec<NameServer>> {
        self.forward.servers()
    }

    fn check(&self) -> Result<(), DnsConfigError> {
        if self.answer == AnswerScope::Mesh && !self.forward.is_empty() {
            return Err(DnsConfigError::NoUse);
        }
        if self.upstream.len() > limits::DNS_UPSTREAMS {
            return Err(DnsConfigError::Upstreams(self.upstream.len()));
        }
        let listens = self.listens();
        let taken = listens.iter().map(SocketAddr::port);
        let mut taken = taken.chain([0, DNS_PORT, TLS_PORT]);
        if let Some(port) = self.https.filter(|https| taken.any(|port| port == *https)) {
            return Err(DnsConfigError::Https(port));
        }
        if self.answer == AnswerScope::Mesh && !self.fall_through.is_empty() {
            return Err(DnsConfigError::FallThroughNoUse);
        }
        if self.fall_through.len() > limits::DNS_FALL_THROUGH {
            return Err(DnsConfigError::FallThroughs(self.fall_through.len()));
        }
        lan::check(&self.lan)?;
        Ok(self.forward.check(&listens)?)
    }
}

/// What of `[dns]` can't work.
#[derive(Debug, thiserror::Error)]
enum DnsConfigError {
    #[error(
        "[dns.forward] has no use where `answer` of [dns] is \"mesh\": other names are refused \
         then; remove one of the two"
    )]
    NoUse,
    #[error("`upstream` of `[dns]` has {0} entries; at most {most} are used", most = limits::DNS_UPSTREAMS)]
    Upstreams(usize),
    #[error(
        "`https` of [dns] is {0}, a port that has another use; give a TCP port such as 443 or 8443"
    )]
    Https(u16),
    #[error(
        "`fall_through` of [dns] has no use where `answer` of [dns] is \"mesh\": nobody is asked \
         for other names then; remove one of the two"
    )]
    FallThroughNoUse,
    #[error(
        "`fall_through` of [dns] has {0} rules; at most {most} are used",
        most = limits::DNS_FALL_THROUGH
    )]
    FallThroughs(usize),
    #[error(transparent)]
    Rule(#[from] ForwardRuleError),
    #[error(transparent)]
    Lan(#[from] LanError),
}

impl PageConfig {
    /// Where to listen; empty for this node's overlay addresses and loopback.
    pub fn listens(&self) -> Vec<SocketAddr> {
        with_port(&self.listen, self.port)
    }
}

/// Reads one file of `services.d`, whose name is for messages only.
///
/// # Errors
/// [`ConfigError`].
pub fn parse_service(bytes: &[u8], file: &Path) -> Result<Spec, ConfigError> {
    Spec::from_toml(bytes).map_err(|error| ConfigError {
        file: file.to_owned(),
        line: None,
        message: near::explained(&error.to_string()),
    })
}

/// One list from the files of `services.d`.
///
/// # Errors
/// [`ConfigError`] for two files that describe one service, or too many.
pub fn merge_services(files: Vec<(PathBuf, Spec)>) -> Result<Vec<Spec>, ConfigError> {
    let mut merged: BTreeMap<_, (PathBuf, Spec)> = BTreeMap::new();
    for (file, service) in files {
        let refused = |message| ConfigError {
            file: file.clone(),
            line: None,
            message,
        };
        if let Some((first, _)) = merged.get(&service.name) {
            let (name, first) = (&service.name, first.display());
            return Err(refused(format!(
                "the service {name} stands in {first} already"
            )));
        }
        if merged.len() >= limits::NAMES_PER_NODE {
            let most = limits::NAMES_PER_NODE;
            return Err(refused(format!("more than {most} services; remove some")));
        }
        merged.insert(service.name.clone(), (file, service));
    }
    Ok(merged.into_values().map(|(_, service)| service).collect())
}

fn from_toml(text: &str, file: &Path) -> Result<Config, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError {
        file: file.to_owned(),
        line: error
            .span()
            .and_then(|span| text.get(..span.start))
            .map(|before| before.matches('\n').count() + 1),
        message: near::explained(error.message().trim()),
    })
}
