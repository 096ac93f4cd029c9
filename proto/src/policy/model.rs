//! What a policy's text says.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::{filter::access::Ports, name::Label};

/// A policy that was read; its groups are all there, and none contains itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub default: Defaults,
    pub groups: BTreeMap<Label, Group>,
    pub rules: Vec<Rule>,
    pub tests: Vec<Expect>,
    /// Members that may add devices of their own.
    pub may_add_devices: Vec<Subject>,
}

/// What holds beneath all rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Members reach members, and the networks behind gateways.
    pub members_open: bool,
    /// Devices reach the ports of services.
    pub devices_reach_services: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            members_open: true,
            devices_reach_services: true,
        }
    }
}

/// Members of the same kind in one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub line: usize,
    /// Devices that the ledger has in it belong to it, too.
    pub members: Vec<Subject>,
}

/// Whatever is in `from` may reach whatever is in `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The line that it begins at.
    pub line: usize,
    pub from: Vec<Subject>,
    pub to: Vec<Target>,
}

/// Somebody or something by name or address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Members,
    Devices,
    Group(Label),
    /// A node, a device or a service.
    Name(Label),
    Net(IpNet),
}

/// Something to be reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub subject: Subject,
    /// None stands for a service's own ports, and for all of anything else.
    pub ports: Option<BTreeSet<Ports>>,
}

/// A test: what the rules must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    pub line: usize,
    pub from: Subject,
    pub to: Target,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny,
}

impl Rule {
    /// The name of its counter, which follows from what it says: it goes on
    /// counting where rules around it change.
    pub fn label(&self) -> String {
        let list = |items: Vec<String>| items.join(",");
        let from = list(self.from.iter().map(ToString::to_string).collect());
        let to = list(self.to.iter().map(ToString::to_string).collect());
        let hash = Sha256::digest(format!("{from} {to}"));
        format!("rule_{}", data_encoding::HEXLOWER.encode(&hash[..6]))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Members => f.write_str("members"),
            Self::Devices => f.write_str("devices"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Name(name) => write!(f, "{name}"),
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => {
                write!(f, "{}", net.addr())
            }
            Self::Net(net) => write!(f, "{net}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(ports) = &self.ports else {
            return write!(f, "{}", self.subject);
        };
        match &self.subject {
            Subject::Net(IpNet::V6(_)) => write!(f, "[{}]:", self.subject)?,
            _ => write!(f, "{}:", self.subject)?,
        }
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        f.write_str(&ports.join(","))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}
