//! Starts the agent after `init` and `join`.

use std::path::Path;

use super::{context::Context, failure::Failure, output::note, run};

const UNIT: &str = "innermesh.service";
/// Closes the overlay at each boot, also where the agent doesn't start.
const OVERLAY_UNIT: &str = "innermesh-overlay.service";
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
    if context.paths.dir.is_none() && is_installed(UNIT) {
        return through_systemd().await;
    }
    note("the agent runs in the foreground now; Ctrl-C ends it");
    run::run(&run::Arguments::default(), context).await
}

fn is_installed(unit: &str) -> bool {
    // sd_booted(3).
    Path::new("/run/systemd/system").is_dir()
        && UNIT_FOLDERS
            .iter()
            .any(|folder| Path::new(folder).join(unit).exists())
}

async fn through_systemd() -> Result<(), Failure> {
    if is_installed(OVERLAY_UNIT) && !systemctl(&["enable", "--quiet", OVERLAY_UNIT]).await? {
        note(&format!(
            "{OVERLAY_UNIT} could not be enabled: after a boot the overlay is open until the agent \
             runs"
        ));
    }
    if systemctl(&["enable", "--now", UNIT]).await? {
        note("the agent runs, and will after each boot; `agent status` tells how the mesh is");
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{UNIT} did not start; `journalctl -u {UNIT} -n 50` tells why"
    )))
}

/// Whether it succeeds.
async fn systemctl(arguments: &[&str]) -> Result<bool, Failure> {
    let done = tokio::process::Command::new("systemctl")
        .args(arguments)
        .status()
        .await;
    done.map(|done| done.success()).map_err(|e| {
        Failure::failed(format!(
            "systemctl can't be run: {e}; start {UNIT} yourself"
        ))
    })
}
