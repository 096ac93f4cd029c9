//! How a machine gets into a mesh: the first one makes it ([`mod@init`]), the
//! others join with a
//! token ([`mod@join`], [`token`]) or ask to be let in ([`mod@ask`]). What a member's state
//! folder holds besides the ledger is here too ([`kept`]), and how it
//! has a ledger again whose files are damaged ([`refetch`]).

pub mod ask;
mod fetch;
pub mod init;
pub mod join;
mod join_error;
pub mod kept;
pub mod refetch;
mod seed;
pub mod token;

pub(crate) use self::seed::parse_seed;
pub use self::{
    ask::{AskOptions, AskStep, ask},
    init::{InitError, InitOptions, InitReport, init},
    join::{JoinOptions, join},
    join_error::{JoinError, JoinReport},
    seed::DEFAULT_PORT,
};
