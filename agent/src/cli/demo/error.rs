//! Why a demo doesn't go on.

use std::io;

/// Why the demo did not go on. Nothing stays behind.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// This machine can't hold it; what to change, one to a line.
    #[error("this machine can't hold the demo yet:{}", .0.iter().map(|cure| format!("\n  - {cure}")).collect::<String>())]
    Unfit(Vec<String>),
    /// Something that the demo needs of the operating system failed.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// What came of it.
        error: io::Error,
    },
    /// What runs on the stage failed, and was told there.
    #[error("the demo failed")]
    Stage,
    /// A step didn't do what it should.
    #[error("{0} failed")]
    Step(String),
}

/// Says what was tried when it fails.
pub trait Tried<T> {
    /// The same, with what was tried.
    fn tried(self, what: impl Into<String>) -> Result<T, DemoError>;
}

impl<T, E: Into<io::Error>> Tried<T> for Result<T, E> {
    fn tried(self, what: impl Into<String>) -> Result<T, DemoError> {
        self.map_err(|error| DemoError::System {
            what: what.into(),
            error: error.into(),
        })
    }
}
