//! Starts the agent after `init` and `join`.

use std::path::Path;

use super::{context::Context, failure::Failure, output::note, root_key, run};
use crate::control::{ClientError, node::StatusRequest};

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

/// Why a machine can't be in one more mesh, and what it is to do in the one that
/// it is in: its join may have been cut short once all was written.
pub async fn in_a_mesh(context: &Context) -> Failure {
    let which = match root_key::Mesh::of(&context.paths) {
        Ok(mesh) => format!("the mesh {}", mesh.domain),
        Err(_) => "a mesh".into(),
    };
    let next = match context.client().ask(&StatusRequest {}).await {
        Err(ClientError::NotRunning(_)) => {
            let by_systemd = context.paths.dir.is_none() && is_installed(UNIT);
            let command = if by_systemd {
                "systemctl enable --now innermesh".into()
            } else {
                format!("agent{} run", context.paths.option())
            };
            format!("its agent doesn't run: start it with `{command}`")
        }
        _ => format!("its agent runs: `agent{} status`", context.paths.option()),
    };
    Failure::failed(format!(
        "this machine is in {which} already, and {next}. For one more mesh use another --dir"
    ))
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
