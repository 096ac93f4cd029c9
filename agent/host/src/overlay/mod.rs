//! The overlay belongs to its interface (S25): the host's packet filter and
//! routing, made equal to a [`FilterPlan`](innermesh_proto::filter::FilterPlan).
//!
//! Owns two nftables tables, one routing table and the rules that lead there.
//! Must not know the mesh, and changes nothing that others have set.

mod effect;
pub mod forwarding;
mod networks;
mod nft;
pub mod others;
mod recorded;
mod routing;
mod setting;
mod settings;
pub mod stored;
mod system;
mod watch;

pub use self::{
    effect::{Filtered, Overlay, OverlayError},
    nft::parse_counters,
    recorded::RecordedOverlay,
    setting::{Setting, SettingError},
    system::SystemOverlay,
};
