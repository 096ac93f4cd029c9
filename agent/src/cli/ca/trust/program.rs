//! Runs the programs that keep a store, and says why one failed.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{process::Command, time::sleep};

use super::machine::Owner;
use crate::host::program::{self, Ended, Outputs, RunError};

/// How long one may take. Debian's `update-ca-certificates` makes Java's
/// keystore anew, which takes some seconds on a small machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Most bytes that are read of what one prints; keystores are some hundred
/// kilobytes.
const OUTPUT_BYTES: u64 = 16 << 20;

/// Why a program didn't do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It didn't start. Nothing was changed.
    #[error("{0} can't be run: {1}")]
    Start(PathBuf, io::Error),
    /// It was ended by force. What was asked may be done or not.
    #[error("{} didn't end within {} s, and was ended", .0.display(), PATIENCE.as_secs())]
    TimedOut(PathBuf),
    /// It says that it failed.
    #[error("{} failed: {}", .0.display(), .1)]
    Failed(PathBuf, String),
}

/// One call of a program.
#[derive(Debug)]
pub struct Call<'a> {
    program: &'a Path,
    arguments: Vec<&'a OsStr>,
    input: &'a [u8],
    owner: Option<Owner>,
}

impl<'a> Call<'a> {
    /// `program` without arguments.
    pub fn new(program: &'a Path) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            input: b"",
            owner: None,
        }
    }

    /// With these arguments more.
    pub fn with<A: AsRef<OsStr> + ?Sized>(mut self, arguments: &[&'a A]) -> Self {
        let arguments = arguments.iter().map(|argument| A::as_ref(argument));
        self.arguments.extend(arguments);
        self
    }

    /// With this on its standard input.
    pub fn input(mut self, input: &'a str) -> Self {
        self.input = input.as_bytes();
        self
    }

    /// As another user, so that what it writes is that user's.
    pub fn owner(mut self, owner: Option<Owner>) -> Self {
        self.owner = owner;
        self
    }

    /// Runs it to its end: what it printed.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub async fn run(self) -> Result<String, ProgramError> {
        self.run_until(sleep(PATIENCE)).await
    }

    async fn run_until(self, end: impl Future<Output = ()>) -> Result<String, ProgramError> {
        let mut command = Command::new(self.program);
        command
            .args(&self.arguments)
            .env("LC_ALL", "C")
            .current_dir("/");
        if let Some(Owner { uid, gid }) = self.owner {
            // This also leaves the other groups of this process behind.
            command.uid(uid).gid(gid).env_remove("HOME");
        }
        let program = || self.program.to_owned();
        let done = program::run(command, self.input, Outputs::All(OUTPUT_BYTES), end).await;
        let Ended { status, out, err } = done.map_err(|error| match error {
            RunError::Start(error) | RunError::Lost(error) => ProgramError::Start(program(), error),
            RunError::TimedOut => ProgramError::TimedOut(program()),
        })?;
        if status.success() {
            return Ok(out);
        }
        let told = [err, out];
        let told = told.iter().map(|text| text.trim()).find(|t| !t.is_empty());
        let why = told.map_or_else(|| status.to_string(), one_line);
        Err(ProgramError::Failed(program(), why))
    }
}

/// The end of a text, where programs say what went wrong.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    lines[lines.len().saturating_sub(2)..].join("; ")
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read};

    use super::*;

    fn shell(script: &str) -> Call<'_> {
        Call::new(Path::new("/bin/sh")).with(&["-c", script])
    }

    #[tokio::test]
    async fn a_program_gets_its_input_and_says_why_it_failed() {
        let out = shell("cat; echo out").input("in").run().await;
        assert_eq!(out.unwrap(), "inout\n");
        let error = shell("echo one >&2; echo two >&2; exit 3").run().await;
        assert_eq!(error.unwrap_err().to_string(), "/bin/sh failed: one; two");
        let error = shell("exit 3").run().await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        let none = Call::new(Path::new("/nonexistent")).run().await;
        assert!(matches!(none, Err(ProgramError::Start(..))), "{none:?}");
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let made = Call::new(Path::new("/usr/bin/mkfifo")).with(&[&fifo]);
        made.run().await.unwrap();
        let script = format!("sleep 1000 > {} & wait", fifo.display());
        let mut reader = None;
        // The time is over once the inner process has opened its end.
        let end = async {
            let open = tokio::task::spawn_blocking(move || File::open(fifo));
            reader = Some(open.await.unwrap().unwrap());
        };
        let ended = shell(&script).run_until(end).await;
        assert!(matches!(ended, Err(ProgramError::TimedOut(_))), "{ended:?}");
        let mut rest = Vec::new();
        reader.unwrap().read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
}
