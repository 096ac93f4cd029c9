//! One service as its person describes it: on the command line, in a request, in a
//! file of `services.d`, and in the file that keeps it.

use std::{collections::BTreeSet, net::IpAddr};

use innermesh_proto::{
    head::Instance,
    limits,
    name::{Label, NameError},
    service_address::is_service_address,
    zone::{Protocol, ServiceType},
};
use serde::{Deserialize, Serialize};

use super::check::Check;

/// A service on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Its name: `<name>.<node>.<domain>`, and `<name>.<domain>` once granted.
    pub name: Label,
    /// Its port, not 0.
    pub port: u16,
    /// Its transport; TCP where nothing is said.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// What it speaks, such as `https`; what its check and its port say where nothing is
    /// said.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub service_type: Option<ServiceType>,
    /// How its health is checked; without a check it counts as healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// Where it answers, when not on the node's overlay addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Nodes that may run it under the same name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub share: BTreeSet<Label>,
    /// Whether every name below its own answers like it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wildcard: bool,
}

fn tcp() -> Protocol {
    Protocol::Tcp
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Why a service can't be what its description says. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A name that is kept for the mesh.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Port 0.
    #[error("a service's port is a number from 1 to 65535")]
    Port,
    /// An address that means another machine to each reader.
    #[error("{0} can't be a service's address: other nodes must be able to reach it")]
    Address(IpAddr),
    /// A check by TCP for a service that has no TCP port.
    #[error(
        "a udp service can't be checked by tcp; leave the check out, or give an http:// address"
    )]
    UdpCheck,
    /// Shared with more nodes than is allowed.
    #[error("a service can be shared with at most {max} nodes", max = limits::SERVICE_SHARES)]
    Shares,
    /// Not TOML of a service.
    #[error("not the description of a service: {0}")]
    Toml(String),
}

/// Largest file of one service, in bytes.
const FILE_BYTES: usize = 64 * 1024;

impl Spec {
    /// A TCP service without a check, on the node's own addresses.
    pub fn new(name: Label, port: u16) -> Self {
        Self {
            name,
            port,
            protocol: Protocol::Tcp,
            service_type: None,
            check: None,
            address: None,
            share: BTreeSet::new(),
            wildcard: false,
        }
    }

    /// Reads the content of a service's file, as `services.d` has them:
    ///
    /// ```
    /// # use innermesh_control::spec::Spec;
    /// let spec = Spec::from_toml(b"name = 'photos'\nport = 443\ncheck = 'tcp'")?;
    /// assert_eq!(spec.port, 443);
    /// # Ok::<(), innermesh_control::spec::SpecError>(())
    /// ```
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn from_toml(bytes: &[u8]) -> Result<Self, SpecError> {
        if bytes.len() > FILE_BYTES {
            return Err(SpecError::Toml(format!("longer than {FILE_BYTES} bytes")));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| SpecError::Toml(e.to_string()))?;
        let spec: Self =
            toml::from_str(text).map_err(|e| SpecError::Toml(e.message().to_owned()))?;
        spec.validate()?;
        Ok(spec)
    }

    /// As the content of a file.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a description has a form in TOML")
    }

    /// Whether it can be a service.
    ///
    /// # Errors
    /// [`SpecError`], any but [`SpecError::Toml`].
    pub fn validate(&self) -> Result<(), SpecError> {
        self.name.clone().grantable()?;
        if self.port == 0 {
            return Err(SpecError::Port);
        }
        if let Some(address) = self.address.filter(|address| !is_service_address(*address)) {
            return Err(SpecError::Address(address));
        }
        if self.protocol == Protocol::Udp && self.check == Some(Check::Tcp) {
            return Err(SpecError::UdpCheck);
        }
        if self.share.len() > limits::SERVICE_SHARES {
            return Err(SpecError::Shares);
        }
        Ok(())
    }

    /// What it speaks, where its port doesn't say that to everybody.
    pub fn announced_type(&self) -> Option<ServiceType> {
        let said = self.service_type.clone().or_else(|| self.checked_type());
        said.filter(|said| ServiceType::of_port(self.protocol, self.port).as_ref() != Some(said))
    }

    /// What a check by HTTP of its own port says.
    fn checked_type(&self) -> Option<ServiceType> {
        let Some(Check::Http(http)) = &self.check else {
            return None;
        };
        let hosts = http.literals();
        let is_own = |ip: &IpAddr| ip.is_loopback() || self.address == Some(*ip);
        let is_here = hosts.is_empty() || hosts.iter().any(is_own);
        let is_its = self.protocol == Protocol::Tcp && http.port == self.port && is_here;
        is_its.then(ServiceType::http)
    }

    /// What the node announces of it.
    pub fn instance(&self, healthy: bool) -> Instance {
        Instance {
            port: self.port,
            protocol: self.protocol,
            address: self.address,
            healthy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_reads_back_as_it_was_written() {
        let mut spec = Spec::new("photos".parse().unwrap(), 443);
        assert_eq!(
            spec.to_toml(),
            "name = \"photos\"\nport = 443\nprotocol = \"tcp\"\n"
        );
        spec.check = Some("http://localhost:8080/health".parse().unwrap());
        spec.address = Some("192.0.2.7".parse().unwrap());
        spec.share = ["cedar".parse().unwrap()].into();
        spec.service_type = "https".parse().ok();
        spec.wildcard = true;
        assert_eq!(Spec::from_toml(spec.to_toml().as_bytes()), Ok(spec));
    }

    #[test]
    fn what_it_speaks_is_announced_where_the_port_does_not_say_it() {
        let announced = |port: u16, check: &str, said: &str| {
            let mut spec = Spec::new("a".parse().unwrap(), port);
            spec.check = check.parse().ok();
            spec.service_type = said.parse().ok();
            spec.announced_type().map(String::from)
        };
        let is = |said: &str| Some(said.to_owned());
        assert_eq!(announced(443, "", ""), None);
        assert_eq!(announced(443, "", "https"), None);
        assert_eq!(announced(443, "", "openvpn"), is("openvpn"));
        assert_eq!(announced(8443, "tcp", "https"), is("https"));
        // What answers the check is what is served, unless that is somewhere else.
        assert_eq!(announced(8080, "http://localhost:8080/", ""), is("http"));
        assert_eq!(announced(8080, "http://a.example:8080/", ""), is("http"));
        assert_eq!(announced(8443, "http://localhost:8080/", ""), None);
        assert_eq!(announced(8080, "http://192.0.2.9:8080/", ""), None);
        assert_eq!(announced(80, "http://localhost/", ""), None);
        assert_eq!(announced(8080, "http://localhost:8080/", "ipp"), is("ipp"));
    }

    #[test]
    fn a_description_that_can_not_be_is_refused_with_the_reason() {
        for (text, part) in [
            ("name = 'a'", "missing field `port`"),
            ("name = 'a'\nport = 0", "from 1 to 65535"),
            ("name = 'a'\nport = 65536", "65536"),
            ("name = 'wpad'\nport = 80", "reserved"),
            ("name = 'A_b'\nport = 80", "is not a name"),
            (
                "name = 'a'\nport = 80\nchek = 'tcp'",
                "unknown field `chek`",
            ),
            ("name = 'a'\nport = 80\ncheck = 'https://a/'", "https"),
            (
                "name = 'a'\nport = 80\nprotocol = 'udp'\ncheck = 'tcp'",
                "udp service",
            ),
            (
                "name = 'a'\nport = 80\naddress = '127.0.0.1'",
                "be able to reach",
            ),
            (
                "name = 'a'\nport = 80\ntype = '_http._tcp'",
                "is not what a service speaks",
            ),
            ("\u{0}", ""),
        ] {
            let error = Spec::from_toml(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
        assert!(Spec::from_toml(&[0xff]).is_err());
        assert!(Spec::from_toml(&vec![b'#'; FILE_BYTES + 1]).is_err());
    }
}
