//! The host's own resolver: has every program of this host find the mesh's
//! names, and takes that back.
//!
//! There are four ways, tried in this order: systemd-resolved, resolvconf,
//! NetworkManager's dnsmasq, and /etc/resolv.conf itself. Each knows its own
//! settings again, so that taking them back needs no memory of who made them.

#![allow(missing_docs, reason = "the names say it")]

mod choice;
mod command;
mod dnsmasq;
mod look_up;
mod resolv_conf;
mod resolvconf;
mod resolved;
mod signals;
mod system;
mod unit;
mod unmanaged;

use std::{fmt, io, net::IpAddr, path::PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::{
    choice::{Facts, Resolvconf, choose},
    look_up::LookUp,
    resolv_conf::{BACKUP, is_ours},
    system::SystemResolver,
    unmanaged::Unmanaged,
};

/// What the host's resolver has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverPlan {
    /// The tunnel's interface, which systemd-resolved ties the servers to.
    pub interface: String,
    /// Where the agent answers, IPv4 first.
    pub servers: Vec<IpAddr>,
    /// The mesh's domain.
    pub domain: String,
    /// Zones of the overlay's addresses, below `in-addr.arpa` and `ip6.arpa`.
    pub reverse: Vec<String>,
}

/// How a host's resolver is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// systemd-resolved asks the agent for the mesh's names, by D-Bus.
    Resolved,
    /// The program resolvconf puts the agent first.
    Resolvconf,
    /// NetworkManager's dnsmasq asks the agent for the mesh's names.
    Dnsmasq,
    /// The agent stands first in /etc/resolv.conf.
    ResolvConf,
}

impl Method {
    /// In the order in which they are tried.
    pub const ALL: [Self; 4] = [
        Self::Resolved,
        Self::Resolvconf,
        Self::Dnsmasq,
        Self::ResolvConf,
    ];
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Resolved => "systemd-resolved",
            Self::Resolvconf => "resolvconf",
            Self::Dnsmasq => "NetworkManager's dnsmasq",
            Self::ResolvConf => "/etc/resolv.conf",
        })
    }
}

/// The method for a host, and why no better one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// `None` where a person has to change something.
    pub method: Option<Method>,
    /// One sentence for a person.
    pub why: String,
    /// Whether libc asks systemd-resolved alone, which doesn't run just now.
    pub resolved_is_away: bool,
}

/// What became of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub method: Method,
    /// One sentence for a person: why this method.
    pub why: String,
    /// Whether it was set, or set again, just now; else it stood already.
    pub is_new: bool,
}

/// Why the host's resolver can't be set. What it was stands.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// A person has to change something; says what.
    #[error("{0}")]
    ByHand(String),
    /// The file has no name server yet: whoever writes it hasn't done so.
    #[error("{} names no name server yet", .0.display())]
    Empty(PathBuf),
    /// The tunnel's interface isn't there.
    #[error("there is no interface {0} to tie the name servers to")]
    NoInterface(String),
    /// A file can't be read or written.
    #[error("{}: {error}", .0.display(), error = .1)]
    Io(PathBuf, io::Error),
    /// A program failed.
    #[error("{0}: {1}")]
    Program(String, String),
    /// The plan has names or addresses that no agent gives.
    #[error("{0} can't be written into a resolver's configuration")]
    Unusable(String),
    /// The agent may not write the host's files, and the unit that does it in
    /// its place did nothing.
    #[error(
        "the agent's own unit can't write {0}, and innermesh-resolver.service didn't: see \
         `journalctl -u innermesh-resolver`"
    )]
    UnitIdle(Method),
    /// D-Bus, or who answers there.
    #[error("systemd-resolved: {0}")]
    Bus(#[from] zbus::Error),
}

#[async_trait]
pub trait HostResolver: Send + Sync {
    /// Why agents here leave it alone; none where they set it.
    fn left_alone(&self) -> Option<String>;
    /// How it would be set here.
    async fn choose(&self) -> Choice;
    /// Has it ask the agent for the mesh's names, unless it does already.
    ///
    /// # Errors
    /// [`ResolverError`].
    async fn apply(&self, plan: &ResolverPlan) -> Result<Applied, ResolverError>;
    /// Takes all that the agent set away again, by whatever method.
    ///
    /// # Errors
    /// [`ResolverError`] of the first that failed; the others are taken away.
    async fn restore(&self, interface: &str) -> Result<(), ResolverError>;
    /// Waits until what was applied may be gone, as far as the host says so:
    /// systemd-resolved came or went, or the machine woke up.
    async fn changed(&self);
    /// What a program of this host finds for a name, asking libc.
    async fn look_up(&self, name: &str) -> LookUp;
}
