//! How a machine gets into a mesh: the first one makes it ([`mod@init`]), the
//! others join with a
//! token ([`mod@join`], [`token`]) or ask to be let in ([`mod@ask`]). What a member's state
//! folder holds besides the ledger is here too ([`kept`]), and how it
//! has a ledger again whose files are damaged ([`refetch`]).

pub mod ask;
pub mod init;
pub mod join;
pub mod kept;
pub mod refetch;
pub mod token;

pub use self::{
    ask::{AskOptions, Step, ask},
    init::{InitError, InitOptions, InitReport, init},
    join::{JoinError, JoinOptions, JoinReport, join},
};
