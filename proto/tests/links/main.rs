//! The links of whole meshes in simulated time: who is noticed to be dead, how soon, and
//! who never is. `cargo test --test links -- --ignored --nocapture` prints the figures.

mod figures;
mod hostile;
mod model;
mod scenarios;
