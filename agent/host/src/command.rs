//! Commands of users: run by the shell, as who set them up, to their end.

#![allow(missing_docs, reason = "the names say it")]

use std::{fmt, io, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use nix::unistd::{Uid, User, geteuid};
use tokio::{process::Command, time::sleep};

use super::program::{self, Ended, Outputs, RunError};

/// How much of a command's output is kept, in bytes.
const OUTPUT_BYTES: usize = 4096;

/// A command of a user's, by `sh -c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCommand {
    /// What the shell is given.
    pub line: String,
    /// Id of the user that it runs as.
    pub uid: u32,
    /// Variables besides those that every command is given.
    pub environment: Vec<(&'static str, String)>,
    /// How long it may take.
    pub limit: Duration,
}

/// Why a command wasn't run to a good end.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The shell can't be started. Nothing was run.
    #[error("sh can't be started: {0}")]
    Shell(io::Error),
    /// The agent may run nothing as that user. Nothing was run.
    #[error("the agent runs as user id {own} and can't run it as user id {uid}")]
    OtherUser {
        /// The agent's own user.
        own: Uid,
        /// The command's.
        uid: Uid,
    },
    /// It took longer than it may, and was killed with what it had started.
    #[error("it didn't end within {} s and was killed", .0.as_secs())]
    Killed(Duration),
    /// How it ended can't be told.
    #[error("{0}")]
    Lost(io::Error),
    /// It ended badly.
    #[error("{end}{}{said}", if said.is_empty() { "" } else { ": " })]
    Failed {
        end: End,
        /// The last line that it wrote, of errors where there are some.
        said: String,
    },
}

/// How a command ended that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// The operating system says neither.
    Unknown,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "it ended with {code}"),
            Self::Signal(signal) => write!(f, "signal {signal} ended it"),
            Self::Unknown => f.write_str("it failed"),
        }
    }
}

/// Runs a command to its end.
pub(crate) async fn run(command: &UserCommand) -> Result<(), CommandError> {
    let outputs = Outputs::Tail(OUTPUT_BYTES);
    let done = program::run(shell(command)?, b"", outputs, sleep(command.limit)).await;
    let Ended { status, out, err } = done.map_err(|error| match error {
        RunError::Start(error) => CommandError::Shell(error),
        RunError::TimedOut => CommandError::Killed(command.limit),
        RunError::Lost(error) => CommandError::Lost(error),
    })?;
    if status.success() {
        return Ok(());
    }
    let (out, err) = (last_line(&out), last_line(&err));
    let said = if err.is_empty() { out } else { err };
    let end = End::of(status);
    Err(CommandError::Failed { end, said })
}

impl End {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

/// The shell of a command.
fn shell(command: &UserCommand) -> Result<Command, CommandError> {
    let uid = Uid::from_raw(command.uid);
    let user = User::from_uid(uid).ok().flatten();
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", &command.line])
        .env_clear()
        .env("PATH", program::PATH)
        .envs(command.environment.iter().map(|(k, v)| (k, v)))
        .current_dir("/");
    if let Some(user) = &user {
        shell.env("HOME", &user.dir);
        shell.env("USER", &user.name).env("LOGNAME", &user.name);
    }
    let own = geteuid();
    if uid != own {
        if !own.is_root() {
            return Err(CommandError::OtherUser { own, uid });
        }
        let gid = user.map_or(command.uid, |user| user.gid.as_raw());
        shell.uid(command.uid).gid(gid);
    }
    Ok(shell)
}

/// The last line of what something said.
fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or_default().trim().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn command(line: &str, limit: Duration) -> UserCommand {
        UserCommand {
            line: line.into(),
            uid: geteuid().as_raw(),
            environment: vec![("INNERMESH_NAME", "photos.in.example.org".into())],
            limit,
        }
    }

    #[tokio::test]
    async fn a_command_has_its_variables_and_none_of_the_agent_s() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let line = format!(
            "echo \"$INNERMESH_NAME $PWD ${{CARGO:-none}}\" >{}",
            out.display()
        );
        let patient = Duration::from_secs(60);
        run(&command(&line, patient)).await.unwrap();
        let written = fs::read_to_string(out).unwrap();
        assert_eq!(written, "photos.in.example.org / none\n");
    }

    #[tokio::test]
    async fn how_a_command_failed_is_told() {
        let patient = Duration::from_secs(60);
        let run = |line: &'static str| async move {
            let error = super::run(&command(line, patient)).await;
            error.unwrap_err().to_string()
        };
        assert_eq!(
            run("echo one; echo no such unit >&2; exit 3").await,
            "it ended with 3: no such unit"
        );
        assert_eq!(run("kill -9 $$").await, "signal 9 ended it");
        assert!(run("no-such-program").await.contains("not found"));
        let nobody = UserCommand {
            uid: 12345,
            ..command("exit 7", patient)
        };
        let told = super::run(&nobody).await.unwrap_err().to_string();
        let wanted = if geteuid().is_root() {
            "with 7"
        } else {
            "can't run it"
        };
        assert!(told.contains(wanted), "{told}");
    }

    #[tokio::test]
    async fn a_command_that_does_not_end_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let line = format!("sleep 1000 & echo $! >{}; wait", pid.display());
        let told = run(&command(&line, Duration::from_secs(2))).await;
        let told = told.unwrap_err().to_string();
        assert!(told.contains("didn't end within 2 s"), "{told}");
        let pid = fs::read_to_string(pid).unwrap();
        let state = || fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        // Gone, or waiting for a parent to notice.
        while state().is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    }
}
