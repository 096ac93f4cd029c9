//! Runs a program of the host and hears what it says.

use std::{process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command};

use super::ResolverError;

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs `program` with `input`; its exit code.
///
/// # Errors
/// [`ResolverError::Program`] when it can't be run, takes too long, or ends by a signal.
pub(super) async fn run(
    program: &str,
    arguments: &[&str],
    input: &str,
) -> Result<i32, ResolverError> {
    let failed = |why: String| ResolverError::Program(program.to_string(), why);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let work = async {
        if let Some(mut stdin) = child.stdin.take() {
            // One that doesn't read says by its exit code whether it is well.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait().await
    };
    let status = tokio::time::timeout(LIMIT, work)
        .await
        .map_err(|_| failed("it took too long".to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    status.code().ok_or_else(|| failed(status.to_string()))
}
