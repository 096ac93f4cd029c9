//! By which way the tunnel of a pair goes: straight, as far as the NATs and firewalls
//! between the two let it, and else by a relay that both are connected with.
//!
//! Owns the choice ([`Selector`]), what it may cost ([`Budget`]), what a node announces
//! about itself for it ([`Places`]), what goes over TCP to a relay ([`lane`]), and how one is told whom a datagram is for
//! ([`Frame`]). Must not know sockets, clocks and keys: all that it is told to have been
//! heard was authenticated by the tunnel.

mod budget;
mod fallback;
mod frame;
pub mod lane;
mod places;
mod selector;

pub use self::{
    budget::Budget,
    fallback::{Fallback, Lead, Seen},
    frame::{Frame, Halves, Part, is_frame, pieces},
    lane::{LaneUrl, LaneUrlError},
    places::{Places, Tier, Way, relay_of, tier},
    selector::{Heard, Output, Report, Selector, Via, WhyNot},
};
