//! The ledger: how it is decided, followed, kept and fetched again.

mod answers;
mod asking;
mod behind;
mod budgets;
mod council;
mod following;
mod in_between;
mod ledger_file;
mod ledgers;
mod past;
mod recover;
mod refetch;
mod requests;
mod roster;
mod starts;

/// As the program `simulate` has it.
#[global_allocator]
static MEMORY: simulations::memory::Watched = simulations::memory::Watched;
