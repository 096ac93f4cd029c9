//! The overlay as the agent drives it: a whole plan, applied idempotently.

#![allow(missing_docs, reason = "the names say it")]

use std::{collections::BTreeMap, io, net::IpAddr};

use async_trait::async_trait;
use innermesh_proto::filter::{FilterPlan, HostNetworks, Interface, nft::Dropped};

use super::{
    others::{Lost, Rewriter},
    setting::Setting,
};

/// The effect: makes the host equal to a plan, whole and idempotently.
#[async_trait]
pub trait Overlay: Send + Sync {
    /// What a plan depends on of the host's networks. Of `resolvers`, those on
    /// a link of this host are neighbours there.
    ///
    /// # Errors
    /// [`OverlayError::Routing`].
    async fn networks(
        &self,
        tunnel: &Interface,
        resolvers: &[IpAddr],
    ) -> Result<HostNetworks, OverlayError>;

    /// Makes the packet filter equal to `plan`; nothing is written where it
    /// is. Works without the tunnel's interface.
    ///
    /// # Errors
    /// What was in force before stays.
    async fn filter(&self, plan: &FilterPlan) -> Result<Filtered, OverlayError>;

    /// Makes routes and rules equal to `plan`; those through the tunnel once
    /// its interface is up. Nothing is written where they are.
    ///
    /// # Errors
    /// What was done before the error stands, and opens nothing.
    async fn route(&self, plan: &FilterPlan) -> Result<(), OverlayError>;

    /// How many packets were dropped, by reason, since the tables were made.
    ///
    /// # Errors
    /// Where they can't be read.
    async fn dropped(&self) -> Result<BTreeMap<Dropped, u64>, OverlayError>;

    /// How many packets each rule of the access plan let pass, by its label, since
    /// the rule is there.
    ///
    /// # Errors
    /// Where they can't be read.
    async fn allowed(&self) -> Result<BTreeMap<String, u64>, OverlayError>;

    /// What others' filters dropped since then of what ours let pass, and
    /// whose they are.
    ///
    /// # Errors
    /// Where it can't be read.
    async fn lost(&self, tunnel: &Interface) -> Result<Vec<Lost>, OverlayError>;

    /// Rules of others that would put another source in place of an overlay
    /// address, or of one of `lans`, were it not for ours.
    ///
    /// # Errors
    /// Where they can't be read.
    async fn rewriters(&self, plan: &FilterPlan) -> Result<Vec<Rewriter>, OverlayError>;

    /// What would drop packets that a gateway forwards, whether or not some came.
    ///
    /// # Errors
    /// Where it can't be read.
    async fn forward_droppers(&self, tunnel: &Interface) -> Result<Vec<Lost>, OverlayError>;

    /// How many packets the kernel has dropped since boot for the way that their
    /// sources would be reached by (`rp_filter`).
    async fn dropped_by_source(&self) -> Option<u64>;

    /// A setting of the kernel; `None` where there is no such.
    async fn setting(&self, setting: &Setting) -> Option<String>;

    /// Makes a setting another.
    ///
    /// # Errors
    /// The operating system's, such as in a container that may not.
    async fn set(&self, setting: &Setting, value: &str) -> io::Result<()>;

    /// [`Setting::accept_ra`] of the interfaces that take routers' announcements as
    /// long as they don't forward, also of those to come.
    async fn accepting_ra(&self) -> Vec<Setting>;

    /// Waits until what was applied, or what it depends on, may have changed.
    async fn changed(&self);

    /// Takes all of it away: this machine has no overlay any more.
    ///
    /// # Errors
    /// Some of it may still be there; calling again is fine.
    async fn remove(&self) -> Result<(), OverlayError>;
}

/// What became of the packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtered {
    /// It was equal to the plan.
    Stood,
    Written,
    /// Somebody else had changed what was written before; it was put back.
    Restored,
}

/// Why the host isn't as the plan says.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// There is no `nft`.
    #[error("`nft` isn't installed: install the package nftables")]
    NoNft,
    /// `nft` refuses; what it says.
    #[error("nftables refuses the filter: {0}")]
    Nft(String),
    /// Routes, rules or interfaces can't be read or set.
    #[error("can't {doing}: {source}")]
    Routing {
        /// What was being done.
        doing: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
}

impl OverlayError {
    pub(super) fn routing(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Routing { doing, source }
    }
}
