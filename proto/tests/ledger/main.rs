//! The ledger with real keys and certificates: what it grants, what it
//! refuses, and that every node comes to the same state.

mod audit;
mod certificates;
mod chain;
mod device_home;
mod devices;
mod evict;
mod exit;
mod exit_view;
mod explained;
mod genesis;
mod join;
mod keys;
mod leads;
mod lifecycle;
mod measure;
mod names;
mod newer_records;
mod policy;
mod published;
mod published_view;
mod random;
mod records;
mod roles;
mod roster;
mod routed;
mod salts;
mod shares;
mod snapshot;
mod versions;
mod view;

use innermesh_testing::mesh;
