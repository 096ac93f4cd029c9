//! Gossip on this node: its own head, the table of the others', and what
//! brings heads in and out. Heads are judged in [`innermesh_proto::head`];
//! chitchat only compares versions (`version_exchange`); who is live is said by heads and by
//! the links that they name (`links`).

mod ahead;
mod bodies;
mod budget;
pub mod generation;
mod handle;
pub mod known;
mod ledger;
mod links;
mod member_index;
mod messages;
mod neighbours;
mod own;
mod pace;
mod passing;
mod push;
mod repair;
mod state;
mod table;
mod version_exchange;

pub use self::{handle::Gossip, ledger::Ledger, links::LiveBy, state::Counters};
