//! What helps a person along: examples in each `--help`, and the right command
//! where another was typed.

mod examples;
mod mistakes;
mod pattern;
mod table;

#[cfg(test)]
mod tests;

pub use self::{
    examples::with_examples,
    mistakes::{advised, refused_anyway},
};
