//! What is done to a name server that nobody should do: floods of questions from
//! strangers, and clients that hold connections and say little, too much or nonsense.

#![allow(missing_docs, reason = "the names say it")]

mod flood;
mod http2;
mod slow;
mod world;

pub use self::{
    flood::{FORMS, Flood},
    slow::{Abuse, HARMS, Harm, Target},
    world::{HTTPS, RATE, World},
};
