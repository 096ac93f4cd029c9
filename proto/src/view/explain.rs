//! Why a name is answered as it is: whose each record is, and what could have been
//! answered and isn't. For people; nothing is decided by it.

mod left_out;
mod owner;

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;

use super::MeshView;
use crate::{
    limits,
    name::Label,
    zone::{DomainName, LanAddresses, Protocol, Rdata, Record, RecordType},
};

/// LANs that are told what is in them.
#[derive(Clone, Copy, Debug)]
pub struct LanView<'l> {
    pub addresses: &'l LanAddresses,
    pub nets: &'l [IpNet],
}

/// Whose record it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordOwner {
    /// Each mesh has it, such as its name servers.
    Mesh,
    Node(Label),
    Device(Label),
    /// Instances that say it, by node; of no node where all together do.
    Service {
        service: Label,
        nodes: Vec<(Label, Condition)>,
    },
    /// A member, by the name that it has or had.
    User(String),
}

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Good,
    NotLive,
    Unhealthy,
}

/// What could be answered, and isn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub what: Candidate,
    pub why: LeftOutReason,
}

/// What could be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidate {
    Node(Label),
    Instance { service: Label, node: Label },
    Record { data: Rdata, by: String },
}

/// Why it isn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOutReason {
    /// An admin cut the node off.
    Held,
    NotLive,
    Unhealthy,
    /// Nothing was heard of the node yet.
    Unheard,
    NotGranted,
    /// The name is another node's service, which isn't shared.
    NotShared {
        owner: String,
    },
    /// The name is no service's.
    NameTaken,
    /// It may not lead there.
    Address(IpAddr),
    NotInLan,
    Transport(Protocol),
    /// It isn't known to speak what was asked for.
    Type,
    /// A user's record that its author may not have any more.
    NotAllowed,
    /// A node or a service of the name comes first.
    Displaced,
}

/// What is to be known of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerExplanation {
    /// Of each record, in order; none where it isn't the mesh's.
    pub owners: Vec<Option<RecordOwner>>,
    /// At most [`limits::QUERY_LEFT_OUT`].
    pub left_out: Vec<LeftOut>,
}

impl MeshView {
    /// Explains the answer to a question of class IN: `answers` is all of it that comes
    /// from the mesh's zone, `lan` for who is in one.
    pub fn explain(
        &self,
        name: &DomainName,
        rtype: RecordType,
        answers: &[Record],
        lan: Option<LanView<'_>>,
    ) -> AnswerExplanation {
        let aliases = answers.iter().filter_map(|record| match &record.data {
            Rdata::Cname(target) => Some(target),
            _ => None,
        });
        let names: BTreeSet<&DomainName> = std::iter::once(name).chain(aliases).collect();
        let mut left_out = Vec::new();
        for name in names {
            let subject = self.subject(name);
            left_out.extend(self.left_out_of(&subject, rtype, lan));
            left_out.extend(self.records_left_out(name, rtype, answers, lan));
        }
        left_out.truncate(limits::QUERY_LEFT_OUT);
        let owners = answers.iter().map(|record| self.owner(record, lan));
        AnswerExplanation {
            owners: owners.collect(),
            left_out,
        }
    }

    fn is_overlay(&self, data: &Rdata) -> bool {
        match data {
            Rdata::A(ip) => self.is_inner((*ip).into()),
            Rdata::Aaaa(ip) => self.is_inner((*ip).into()),
            _ => true,
        }
    }

    fn is_inner(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(v4) => self.ledger.ipv4.contains(&v4),
            IpAddr::V6(v6) => self.ula().contains(&v6),
        }
    }
}

fn condition(live: bool, healthy: bool) -> Condition {
    if !live {
        Condition::NotLive
    } else if healthy {
        Condition::Good
    } else {
        Condition::Unhealthy
    }
}

impl fmt::Display for RecordOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => f.write_str("every mesh has it"),
            Self::Node(node) => write!(f, "node {node}"),
            Self::Device(device) => write!(f, "device {device}"),
            Self::Service { service, nodes } => {
                write!(f, "service {service}")?;
                for (number, (node, condition)) in nodes.iter().enumerate() {
                    let before = if number == 0 { " on" } else { "," };
                    write!(f, "{before} {node}")?;
                    match condition {
                        Condition::Good => {}
                        Condition::NotLive => f.write_str(" (not live; the last answer)")?,
                        Condition::Unhealthy => f.write_str(" (check fails; the last answer)")?,
                    }
                }
                Ok(())
            }
            Self::User(node) => write!(f, "added by {node}"),
        }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Instance { service, node } => write!(f, "service {service} on {node}"),
            Self::Record { data, by } => {
                write!(f, "{} {data}, added by {by}", data.record_type())
            }
        }
    }
}

impl fmt::Display for LeftOutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("an admin cut its node off"),
            Self::NotLive => f.write_str("its node isn't live"),
            Self::Unhealthy => f.write_str("its check fails"),
            Self::Unheard => f.write_str("its node wasn't heard yet"),
            Self::NotGranted => f.write_str("its name isn't granted"),
            Self::NotShared { owner } => {
                write!(
                    f,
                    "the name is {owner}'s, which doesn't share it with that node"
                )
            }
            Self::NameTaken => f.write_str("the name is a node's, a device's or a record's"),
            Self::Address(ip) => write!(f, "it may not lead to {ip} without an admin's consent"),
            Self::NotInLan => f.write_str("it wasn't reached in the LAN"),
            Self::Transport(protocol) => write!(f, "it is reached by {protocol}"),
            Self::Type => f.write_str("it isn't known to speak that"),
            Self::NotAllowed => f.write_str("its author may not have it lead there any more"),
            Self::Displaced => {
                f.write_str("a node, a service or an alias of that name comes first")
            }
        }
    }
}

impl RecordOwner {
    /// A word for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Node(_) => "node",
            Self::Device(_) => "device",
            Self::Service { .. } => "service",
            Self::User(_) => "user",
        }
    }
}

impl LeftOutReason {
    /// A word for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::NotLive => "not-live",
            Self::Unhealthy => "unhealthy",
            Self::Unheard => "unheard",
            Self::NotGranted => "not-granted",
            Self::NotShared { .. } => "not-shared",
            Self::NameTaken => "name-taken",
            Self::Address(_) => "address",
            Self::NotInLan => "not-in-lan",
            Self::Transport(_) => "transport",
            Self::Type => "type",
            Self::NotAllowed => "not-allowed",
            Self::Displaced => "displaced",
        }
    }
}
