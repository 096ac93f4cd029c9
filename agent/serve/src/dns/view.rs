//! What is said to whom, as one view of the mesh has it.

use std::{
    net::IpAddr,
    ops::Deref,
    sync::{Arc, LazyLock},
};

use arc_swap::Guard;
use innermesh_proto::{crypto::Hash, zone::Zone};

use super::{
    prompt::Answers,
    source::{Source, SourcePolicy},
};

/// What is answered, and to whom. Made when the first question needs it: views
/// change more often than anybody asks, and a large mesh's zone takes
/// milliseconds.
pub(super) type LazyView = LazyLock<View, Box<dyn FnOnce() -> View + Send>>;

/// What one view says, and how that is encoded.
pub(super) struct View {
    pub sources: Arc<dyn SourcePolicy>,
    pub internal: ZoneView,
    lan: Option<ZoneView>,
}

/// A zone as some clients see it.
pub(super) struct ZoneView {
    pub zone: Arc<Zone>,
    pub answers: Answers,
    /// Hash of the origins: what is below none of them is upstream's to answer.
    pub origins: Hash,
    /// The origins, as names end that are below them.
    ends: Box<[Box<[u8]>]>,
}

impl ZoneView {
    /// Whether a name may be the zone's, as it stands in a message but for the root's
    /// octet, in lower case. It is found out sooner than what the zone has.
    pub fn may_have(&self, name: &[u8]) -> bool {
        self.ends.iter().any(|end| name.ends_with(end))
    }
}

impl View {
    /// The zone as `source` may see it.
    pub fn of(&self, source: IpAddr) -> Option<&ZoneView> {
        match self.sources.class(source.to_canonical()) {
            Source::Internal => Some(&self.internal),
            Source::Lan => self.lan.as_ref(),
            Source::Stranger => None,
        }
    }
}

impl From<Served> for View {
    fn from(served: Served) -> Self {
        Self {
            sources: served.sources,
            internal: served.zone.into(),
            lan: served.lan.map(ZoneView::from),
        }
    }
}

impl From<Arc<Zone>> for ZoneView {
    fn from(zone: Arc<Zone>) -> Self {
        let ends = zone
            .origins()
            .map(|origin| Vec::from(origin.clone()).into());
        let ends: Box<[Box<[u8]>]> = ends.collect();
        let mut origins = Vec::new();
        for end in &ends {
            origins.extend_from_slice(end);
            origins.push(0);
        }
        Self {
            zone,
            answers: Answers::default(),
            origins: Hash::of(&origins),
            ends,
        }
    }
}

/// What one view says.
#[allow(missing_docs, reason = "the names say it")]
pub struct Served {
    pub zone: Arc<Zone>,
    /// The same as a LAN sees it; none where no LAN may ask.
    pub lan: Option<Arc<Zone>>,
    pub sources: Arc<dyn SourcePolicy>,
}

/// A view that is made when it is needed.
pub(super) fn lazy(view: impl FnOnce() -> Served + Send + 'static) -> LazyView {
    LazyView::new(Box::new(|| view().into()))
}

pub(super) struct Viewed(pub Guard<Arc<LazyView>>);

impl Deref for Viewed {
    type Target = View;

    fn deref(&self) -> &View {
        &self.0
    }
}
