//! What helps a person along: examples in each `--help`, and the right command
//! where another was typed.

mod examples;
mod help;
mod mistakes;
mod pattern;
mod table;

#[cfg(test)]
mod tests;

pub use self::{
    help::with_examples,
    mistakes::{advised, refused_anyway},
};
