//! `agent demo`: a whole mesh on one machine, to look at. Three hosts, each a
//! network namespace with an agent process of its own, and what a person would
//! try on them. It uses the program's own command line only, as a person does.
//!
//! Nothing stays behind, however it ends. This process starts a *stage*: itself
//! again in fresh namespaces, the first process of its PID namespace, so that
//! with the stage all that runs on it ends. The stage holds the reading end of
//! a pipe from here and ends with the pipe: also when this process is killed.
//! All files are on a file system in memory that the namespace alone sees.

mod error;
mod fit;
mod host;
mod lifeline;
mod page;
mod report;
mod stage;
mod story;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use self::error::{DemoError, Tried};
use super::failure::{FAILED, Failure};
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

/// Show a whole mesh of three hosts on this machine.
#[derive(Debug, clap::Args)]
#[command(disable_help_subcommand = true, args_conflicts_with_subcommands = true)]
pub struct Demo {
    /// Print one line for each step and exit.
    ///
    /// With 0 when all went well, else with 1.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the demo runs of itself.
#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Build the hosts and play the story, in new namespaces.
    #[command(hide = true)]
    Stage {
        #[arg(long)]
        check: bool,
    },
    /// Hold the namespaces of one host.
    #[command(hide = true)]
    Host { name: String },
    /// Serve one page by HTTPS.
    #[command(hide = true)]
    Page {
        #[arg(long)]
        listen: SocketAddr,
        /// The certificate, in PEM.
        #[arg(long)]
        cert: PathBuf,
        /// What leads from it to the root, in PEM.
        #[arg(long)]
        chain: PathBuf,
        /// Its private key, PKCS #8 in PEM.
        #[arg(long)]
        key: PathBuf,
    },
}

/// How long the stage may take to end by itself.
const ENDING: Duration = Duration::from_secs(10);

/// Runs it.
pub(super) async fn run(demo: Demo) -> Result<(), Failure> {
    let done = match demo.part {
        None => outside(demo.check).await,
        Some(Part::Stage { check }) => return stage::run(check).await,
        Some(Part::Host { name }) => host::hold(&name).await,
        Some(Part::Page {
            listen,
            cert,
            chain,
            key,
        }) => page::run(listen, &cert, &chain, &key).await,
    };
    match done {
        Ok(()) => Ok(()),
        // The stage has said what failed.
        Err(DemoError::Stage) => Err(Failure::silent(FAILED)),
        Err(error) => Err(Failure::failed(error)),
    }
}

/// Starts the stage and waits for it, or for a signal to end it.
async fn outside(check: bool) -> Result<(), DemoError> {
    let way = fit::look().await?;
    let program = std::env::current_exe().tried("finding this program")?;
    let mut command = Command::new("unshare");
    command
        .args(way.unshare())
        .arg(program)
        .args(["demo", "stage"]);
    if check {
        command.arg("--check");
    }
    // In a group of its own: Ctrl-C reaches this process alone, which then
    // ends the stage in order.
    let mut stage = command
        .env("PATH", fit::path())
        .env(stage::ENTER, way.enter())
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .tried("unshare")?;
    let lifeline = stage.stdin.take();
    tokio::select! {
        ended = stage.wait() => return judged(ended.tried("waiting for the stage")?),
        stopped = told_to_stop() => stopped.tried("waiting for signals")?,
    }
    drop(lifeline);
    match timeout(ENDING, stage.wait()).await {
        Ok(ended) => judged(ended.tried("waiting for the stage")?),
        Err(_) => {
            // `unshare --kill-child` takes the stage with it.
            stage.kill().await.tried("ending the stage")?;
            Err(DemoError::Stage)
        }
    }
}

fn judged(status: ExitStatus) -> Result<(), DemoError> {
    if status.success() {
        Ok(())
    } else {
        Err(DemoError::Stage)
    }
}

async fn told_to_stop() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}
