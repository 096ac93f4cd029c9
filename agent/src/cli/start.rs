//! Starts the agent after `init` and `join`.

use std::path::Path;

use super::{Context, failure::Failure, output::note, run};

const UNIT: &str = "innermesh.service";
/// Where systemd looks for units (systemd.unit(5)).
const UNIT_FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Through systemd where its unit is installed and the folders are the usual
/// ones, otherwise in this process until it is told to end.
pub async fn start(context: &mut Context) -> Result<(), Failure> {
    if context.paths.dir.is_none() && unit_is_installed() {
        return through_systemd().await;
    }
    note("the agent runs in the foreground now; Ctrl-C ends it");
    run::run(&run::Arguments::default(), context).await
}

fn unit_is_installed() -> bool {
    // sd_booted(3).
    Path::new("/run/systemd/system").is_dir()
        && UNIT_FOLDERS
            .iter()
            .any(|folder| Path::new(folder).join(UNIT).exists())
}

async fn through_systemd() -> Result<(), Failure> {
    let done = tokio::process::Command::new("systemctl")
        .args(["enable", "--now", UNIT])
        .status()
        .await
        .map_err(|e| {
            Failure::failed(format!(
                "systemctl can't be run: {e}; start {UNIT} yourself"
            ))
        })?;
    if done.success() {
        note("the agent runs, and will after each boot; `agent status` tells how the mesh is");
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{UNIT} did not start; `journalctl -u {UNIT} -n 50` tells why"
    )))
}
