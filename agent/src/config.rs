//! The configuration file, as values. Pure: who reads the file, and where it
//! lies, is the command line's business.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use innermesh_proto::limits;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    host::duration::Span,
    page,
    services::Spec,
    telemetry::LogFormat,
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
    /// What a CA node does.
    pub ca: CaConfig,
    /// The server that ACME clients ask.
    pub acme: AcmeConfig,
    /// Containers on this host.
    pub containers: ContainersConfig,
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
    pub listen_port: u16,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// What carries the packets.
    pub backend: BackendChoice,
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
    upstream: Vec<Address>,
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
    /// Its port.
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
}

/// QUIC's port; WireGuard's is the one beside it.
pub const QUIC_PORT: u16 = 51819;
/// WireGuard's registered port.
pub const WIREGUARD_PORT: u16 = 51820;
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
    /// The file.
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
            local_sources: Vec::new(),
            tunnel: TunnelConfig::default(),
            dns: DnsConfig::default(),
            page: PageConfig::default(),
            ca: CaConfig::default(),
            acme: AcmeConfig::default(),
            containers: ContainersConfig::default(),
            log: LogConfig::default(),
            services: Vec::new(),
        }
    }
}

impl Default for TunnelConfig {
    fn default() -> Self {
        Self {
            interface: InterfaceName("im0".into()),
            listen_port: WIREGUARD_PORT,
            mtu: DEFAULT_MTU,
            backend: BackendChoice::default(),
        }
    }
}

impl Default for PageConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            port: page::PORT,
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
        let TunnelConfig {
            listen_port, mtu, ..
        } = self.tunnel;
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
            ("upstream` of `[dns]", &self.dns.upstream),
            ("listen` of `[acme]", &self.acme.listen),
            ("listen` of `[page]", &self.page.listen),
        ];
        for (name, list) in lists {
            if list.len() > ADDRESSES {
                return Err(format!(
                    "`{name}` has {} entries; at most {ADDRESSES} are used",
                    list.len()
                ));
            }
        }
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
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        with_port(&self.upstream, DNS_PORT)
    }
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
        message: error.to_string(),
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
        message: error.message().trim().to_string(),
    })
}

/// An address, with a port or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Address {
    ip: IpAddr,
    port: Option<u16>,
}

fn with_port(list: &[Address], default: u16) -> Vec<SocketAddr> {
    list.iter()
        .map(|a| SocketAddr::new(a.ip, a.port.unwrap_or(default)))
        .collect()
}

/// Not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an address such as 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:5353")]
struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(s: &str) -> Result<Self, AddressError> {
        if let Ok(address) = s.parse::<SocketAddr>() {
            return Ok(Self {
                ip: address.ip(),
                port: Some(address.port()),
            });
        }
        match s.parse() {
            Ok(ip) => Ok(Self { ip, port: None }),
            Err(_) => Err(AddressError(s.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(s: String) -> Result<Self, AddressError> {
        s.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

/// A name that Linux takes for a network interface, and a file name too: the
/// embedded tunnel's socket is called after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Not the name of an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" can't be the tunnel's interface: use 1 to 15 letters, digits, hyphens and underscores, such as im0"
)]
pub struct InterfaceNameError(String);

impl TryFrom<String> for InterfaceName {
    type Error = InterfaceNameError;

    fn try_from(s: String) -> Result<Self, InterfaceNameError> {
        let good = (1..=15).contains(&s.len())
            && s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            // iproute2 and wg would take it for an option.
            && !s.starts_with('-')
            && s != "lo";
        if good {
            Ok(Self(s))
        } else {
            Err(InterfaceNameError(s.chars().take(80).collect()))
        }
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0
    }
}

/// How long one CA node leads, as people write it: `6h`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LeaderTerm(String);

/// Shorter ones would have the CA nodes do little else.
const LEAST_TERM: Duration = Duration::from_secs(60);
const MOST_TERM: Duration = Duration::from_secs(30 * 24 * 3600);

impl LeaderTerm {
    /// As a length of time.
    pub fn duration(&self) -> Duration {
        self.0.parse::<Span>().map_or(MOST_TERM, Span::duration)
    }
}

impl Default for LeaderTerm {
    fn default() -> Self {
        Self("6h".into())
    }
}

/// Not how long a CA node may lead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" can't be `term` of [ca]: use 1m to 30d, such as 6h")]
pub struct LeaderTermError(String);

impl TryFrom<String> for LeaderTerm {
    type Error = LeaderTermError;

    fn try_from(s: String) -> Result<Self, LeaderTermError> {
        let term = s.parse::<Span>().map(Span::duration);
        if term.is_ok_and(|term| (LEAST_TERM..=MOST_TERM).contains(&term)) {
            Ok(Self(s))
        } else {
            Err(LeaderTermError(s.chars().take(40).collect()))
        }
    }
}

impl From<LeaderTerm> for String {
    fn from(term: LeaderTerm) -> Self {
        term.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/etc/innermesh/config.toml"))
    }

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_leaders_term_is_a_minute_to_a_month() {
        let term = |text: &str| parse(&format!("[ca]\nterm = \"{text}\"")).map(|c| c.ca.term);
        assert_eq!(Config::default().ca.term.duration().as_secs(), 6 * 3600);
        assert_eq!(term("1h30m").unwrap().duration().as_secs(), 5400);
        for bad in ["", "5s", "60d", "soon"] {
            assert!(term(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let config = parse("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(
            config.listen(),
            [
                "[::]:51819".parse().unwrap(),
                "0.0.0.0:51819".parse().unwrap()
            ]
        );
        assert_eq!(config.tunnel.interface.as_str(), "im0");
        assert_eq!(
            (config.tunnel.listen_port, config.tunnel.mtu),
            (51820, 1280)
        );
        assert!(config.dns.listens().is_empty() && config.dns.upstreams().is_empty());
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            r#"
            listen = "192.0.2.1:1000"
            advertise = ["198.51.100.7", "[2001:db8::1]:2000"]
            [tunnel]
            interface = "mesh-0"
            listen_port = 3000
            mtu = 1420
            backend = "none"
            [dns]
            listen = ["127.0.0.1:5353"]
            upstream = ["9.9.9.9"]
            [page]
            listen = ["192.0.2.1", "192.0.2.2:80"]
            port = 4000
            [containers]
            mesh = false
            [log]
            format = "json"
            "#,
        )
        .unwrap();
        assert!(!config.containers.mesh && Config::default().containers.mesh);
        assert_eq!(config.listen(), ["192.0.2.1:1000".parse().unwrap()]);
        assert_eq!(
            config.advertised(),
            [
                "198.51.100.7:1000".parse().unwrap(),
                "[2001:db8::1]:2000".parse().unwrap()
            ]
        );
        assert_eq!(config.tunnel.backend, BackendChoice::None);
        assert_eq!(config.dns.listens(), ["127.0.0.1:5353".parse().unwrap()]);
        assert_eq!(config.dns.upstreams(), ["9.9.9.9:53".parse().unwrap()]);
        assert_eq!(
            config.page.listens(),
            [
                "192.0.2.1:4000".parse().unwrap(),
                "192.0.2.2:80".parse().unwrap()
            ]
        );
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(
            parse(&config.to_toml()),
            Ok(config),
            "what is printed can be read"
        );
    }

    #[test]
    fn a_key_that_does_not_exist_is_named_with_its_file_and_line() {
        let text = refusal("listen = \"[::]:1\"\n[tunnel]\nport = 1\n");
        assert!(
            text.starts_with("/etc/innermesh/config.toml, line 3: "),
            "{text}"
        );
        assert!(text.contains("`port`"), "{text}");
        assert!(refusal("lsten = 1").contains("`lsten`"));
    }

    #[test]
    fn values_that_can_not_work_are_refused_with_the_reason() {
        for (text, reason) in [
            ("listen = \"[::]:51820\"", "both port 51820"),
            ("[page]\nport = 0", "[page] has port 0"),
            ("[page]\nlisten = [\"[::1]:0\"]", "[page] has port 0"),
            ("[tunnel]\nmtu = 1279", "1280 to 9000"),
            (
                "[tunnel]\ninterface = \"a/b\"",
                "can't be the tunnel's interface",
            ),
            (
                "[tunnel]\ninterface = \"lo\"",
                "can't be the tunnel's interface",
            ),
            ("[tunnel]\nbackend = \"magic\"", "`magic`"),
            ("advertise = [\"0.0.0.0\"]", "nobody can reach"),
            ("advertise = [\"a.example\"]", "is not an address"),
            ("[dns]\nupstream = [\"1.1.1.1:99999\"]", "is not an address"),
        ] {
            let message = refusal(text);
            assert!(message.contains(reason), "{text}: {message}");
        }
        let many = vec!["\"192.0.2.1\""; ADDRESSES + 1].join(",");
        assert!(refusal(&format!("advertise = [{many}]")).contains("at most 16"));
    }

    #[test]
    fn a_service_file_is_read_and_two_for_one_name_are_refused() {
        let file = |name: &str| PathBuf::from(name);
        let text = "name = \"photos\"\nport = 8080\ncheck = \"tcp\"";
        let photos = parse_service(text.as_bytes(), &file("a.toml")).unwrap();
        assert_eq!((photos.name.as_str(), photos.port), ("photos", 8080));
        let twice = vec![(file("a.toml"), photos.clone()), (file("b.toml"), photos)];
        let error = merge_services(twice).unwrap_err().to_string();
        assert_eq!(error, "b.toml: the service photos stands in a.toml already");
        let error = parse_service(b"name = 'a'\nport = 0", &file("c.toml")).unwrap_err();
        assert!(
            error.to_string().starts_with("c.toml: a service's port"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
            let _ = parse(&text);
            let _ = parse_service(text.as_bytes(), Path::new("x"));
        }

        #[test]
        fn no_mix_of_what_toml_is_made_of_makes_the_parser_panic(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("listen"), Just("advertise"), Just("[tunnel]"), Just("[[dns]]"), Just("mtu"),
                    Just("interface"), Just(" = "), Just("\n"), Just("\""), Just("'''"), Just("["),
                    Just("]"), Just("{"), Just("}"), Just(","), Just("."), Just("-1"), Just("99999999999"),
                    Just("[::]:1"), Just("im0"), Just("é"), Just("name"), Just("port"), Just("\\u"),
                ],
                0..40,
            ),
        ) {
            let text = parts.concat();
            let _ = parse(&text);
            let _ = parse_service(text.as_bytes(), Path::new("x"));
        }
    }
}
