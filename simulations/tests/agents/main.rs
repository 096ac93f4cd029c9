//! Meshes of whole agents, and what becomes of them.

mod attacks;
mod datagrams;
mod dialing;
mod holding;
mod issuers;
mod joining_keys;
mod leaving;
mod never_granted;
mod offline;
mod older_nodes;
mod relays;
mod renewals;
mod serving;
mod told;
mod transports;
mod two_agents;

/// As the program `simulate` has it; what attacks may make an agent ask for is seen by it.
#[global_allocator]
static MEMORY: simulations::memory::Watched = simulations::memory::Watched;
