//! The ledger with real keys and certificates: what it grants, what it
//! refuses, and that every node comes to the same state.

mod chain;
mod genesis;
mod join;
mod measure;
mod mesh;
mod names;
mod random;
mod view;
