//! What is known of each secondary's copies, for people.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use innermesh_host::Mono;
use innermesh_proto::zone::DomainName;

use super::notify::NoticeState;

/// How it stands with one zone at one secondary.
#[derive(Clone, Debug)]
pub struct ZoneReport {
    pub zone: DomainName,
    /// What there is here.
    pub serial: u32,
    pub fetched: Option<Fetched>,
    /// When it last asked for the zone, in monotonic time.
    pub asked: Option<Mono>,
    /// Since when it could have asked.
    pub since: Mono,
    pub notice: Option<NoticeState>,
}

/// A copy that was taken, or found to be the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Monotonic.
    pub at: Mono,
    pub serial: u32,
    /// All of it, and not only what had changed.
    pub is_whole: bool,
    /// Bytes that were sent.
    pub bytes: usize,
}

/// What is known of one zone at one secondary.
#[derive(Clone, Debug, Default)]
pub(super) struct Copy {
    pub asked: Option<Mono>,
    pub fetched: Option<Fetched>,
    /// The last serials that each of its addresses was given: only from those do
    /// changes lead on, as another primary may have given the same number to something
    /// else.
    pub given: BTreeMap<IpAddr, VecDeque<u32>>,
}
