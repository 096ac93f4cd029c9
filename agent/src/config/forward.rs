//! `[dns.forward]`: name servers of their own for the names of a zone.

use std::{collections::BTreeMap, net::SocketAddr};

use innermesh_proto::{limits, zone::DomainName};
use serde::{Deserialize, Serialize};

use super::values::Upstream;
use crate::dns::NameServer;

/// Nothing below these is ever looked up elsewhere (RFC 6761, RFC 7686, RFC 9462,
/// RFC 9476).
const NOT_FORWARDED: [&str; 6] = [
    "localhost",
    "invalid",
    "onion",
    "alt",
    "resolver.arpa",
    "127.in-addr.arpa",
];

/// The name of a zone, such as corp.example or 10.in-addr.arpa.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ZoneName(DomainName);

/// Not a zone whose names can be forwarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneNameError {
    /// Not a name.
    #[error(
        "\"{0}\" can't be a zone of [dns.forward]: give a domain such as corp.example or \
         10.in-addr.arpa, an internationalised one in its ASCII form (xn--…)"
    )]
    NoName(String),
    /// The root.
    #[error("\".\" in [dns.forward] would be all names: set `upstream` of [dns] for those")]
    Root,
    /// A name with a meaning of its own.
    #[error("\"{0}\" can't be a zone of [dns.forward]: names in {1} are never looked up elsewhere")]
    Special(String, &'static str),
}

impl TryFrom<String> for ZoneName {
    type Error = ZoneNameError;

    fn try_from(text: String) -> Result<Self, ZoneNameError> {
        let shown = || text.chars().take(80).collect::<String>();
        let is_plain = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
        let name: DomainName = text
            .parse()
            .ok()
            .filter(|_| is_plain)
            .ok_or_else(|| ZoneNameError::NoName(shown()))?;
        if name.labels().next().is_none() {
            return Err(ZoneNameError::Root);
        }
        let within = NOT_FORWARDED.into_iter().find(|special| {
            let special = special.parse::<DomainName>();
            special.is_ok_and(|special| name.is_within(&special))
        });
        match within {
            Some(special) => Err(ZoneNameError::Special(shown(), special)),
            None => Ok(Self(name)),
        }
    }
}

impl From<ZoneName> for String {
    fn from(zone: ZoneName) -> Self {
        let text = zone.0.to_string();
        text.strip_suffix('.').unwrap_or(&text).to_owned()
    }
}

/// The rules, by zone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Forwards(BTreeMap<ZoneName, Vec<Upstream>>);

impl Forwards {
    /// Who is asked for the names of each zone.
    pub fn servers(&self) -> BTreeMap<DomainName, Vec<NameServer>> {
        let all = |servers: &[Upstream]| servers.iter().map(|of| of.server.clone()).collect();
        let rules = self.0.iter();
        rules
            .map(|(zone, servers)| (zone.0.clone(), all(servers)))
            .collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of it can work; `own` is where this agent answers.
    ///
    /// # Errors
    /// [`ForwardRuleError`] of the first that can't.
    pub fn check(&self, own: &[SocketAddr]) -> Result<(), ForwardRuleError> {
        if self.0.len() > limits::DNS_FORWARD_ZONES {
            return Err(ForwardRuleError::TooMany(self.0.len()));
        }
        for (zone, servers) in &self.0 {
            let zone = || String::from(zone.clone());
            if servers.is_empty() || servers.len() > limits::DNS_UPSTREAMS {
                return Err(ForwardRuleError::Servers(zone(), servers.len()));
            }
            for Upstream { server, .. } in servers {
                let ip = server.address.ip();
                if ip.is_unspecified() || ip.is_multicast() {
                    return Err(ForwardRuleError::Nobody(zone(), server.clone().into()));
                }
                if own.contains(&server.address) {
                    return Err(ForwardRuleError::Own(zone(), server.clone().into()));
                }
            }
        }
        Ok(())
    }
}

/// A rule that can't work.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardRuleError {
    #[error("[dns.forward] has {0} zones; at most {most} are used", most = limits::DNS_FORWARD_ZONES)]
    TooMany(usize),
    #[error("`{0}` of [dns.forward] has {1} name servers; give 1 to {most}", most = limits::DNS_UPSTREAMS)]
    Servers(String, usize),
    #[error(
        "`{0}` of [dns.forward] has {1}, which nobody can ask; give the address of a name server"
    )]
    Nobody(String, Box<NameServer>),
    #[error(
        "`{0}` of [dns.forward] has {1}, where this agent listens itself; give the address of \
         another name server"
    )]
    Own(String, Box<NameServer>),
}
