//! Runs other programs to their end, within bounds on how long they take and
//! on what is kept of their output.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

/// Where programs are looked for, whatever the agent's own environment says.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long is waited for the last words of a program that has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How much is read at a time, in bytes.
const CHUNK: usize = 4096;

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// Whether it succeeded.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

/// Why a program didn't come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It didn't start. Nothing was changed.
    #[error(transparent)]
    Start(io::Error),
    /// It was ended by force, with all that it had started.
    #[error("it didn't end in time")]
    TimedOut,
    /// How it ended can't be told.
    #[error(transparent)]
    Lost(io::Error),
}

/// What is kept of each output.
#[derive(Clone, Copy, Debug)]
pub enum Outputs {
    /// All, up to so many bytes: it is read until nobody holds it open.
    All(u64),
    /// The last bytes of what was written until the program ended: it may leave
    /// others running that hold it open.
    Tail(usize),
}

/// Runs `command` in a process group of its own, with `input` on its standard
/// input; kills the group at `end`.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    mut command: Command,
    input: &[u8],
    outputs: Outputs,
    end: impl Future<Output = ()>,
) -> Result<Ended, RunError> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(RunError::Start)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // One that doesn't want it has ended, and says why.
            let _ = stdin.write_all(input).await;
        }
    };
    let work = async {
        let said = async { tokio::join!(feed, outputs.of(stdout), outputs.of(stderr)) };
        tokio::pin!(said);
        let mut heard = None;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                all = &mut said, if heard.is_none() => heard = Some(all),
            }
        };
        let ((), out, err) = match (heard, outputs) {
            (Some(heard), _) => heard,
            (None, Outputs::All(_)) => said.await,
            (None, Outputs::Tail(_)) => timeout(LAST_WORDS, said).await.unwrap_or_default(),
        };
        let status = status.map_err(RunError::Lost)?;
        Ok(Ended { status, out, err })
    };
    tokio::select! {
        done = work => done,
        () = end => {
            if let Some(group) = group {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            Err(RunError::TimedOut)
        }
    }
}

impl Outputs {
    async fn of(self, from: Option<impl AsyncRead + Unpin>) -> String {
        let Some(mut from) = from else {
            return String::new();
        };
        let mut kept = Vec::new();
        // What came before an error is shown all the same.
        match self {
            Self::All(most) => {
                let _ = from.take(most).read_to_end(&mut kept).await;
            }
            Self::Tail(most) => {
                let mut chunk = vec![0; CHUNK];
                while let Ok(count) = from.read(&mut chunk).await {
                    if count == 0 {
                        break;
                    }
                    kept.extend_from_slice(chunk.get(..count).unwrap_or_default());
                    kept.drain(..kept.len().saturating_sub(most));
                }
            }
        }
        String::from_utf8_lossy(&kept).into_owned()
    }
}
