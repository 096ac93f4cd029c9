//! A phone without an agent, and what is known of it.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

/// The phone, and what is known of it.
#[derive(Default)]
pub struct Phone {
    /// Whether anything of this was done.
    pub is_used: bool,
    /// The gateway that it uses.
    pub at: Option<usize>,
    /// Whether it begins anew, as its user asked it to.
    pub wants: bool,
    pub tried: Option<Instant>,
    pub known: Known,
    /// Gateways that bring the LAN.
    pub bring: BTreeSet<usize>,
    /// Machines that stand in a LAN of the same range.
    pub strangers: BTreeSet<usize>,
    /// What isn't as it should be on each machine, and since when.
    pub late: BTreeMap<(usize, &'static str), (String, Instant)>,
}

/// What people were told of it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Known {
    /// Nothing, or nothing sure.
    #[default]
    Unsure,
    Added,
    Removed,
}
