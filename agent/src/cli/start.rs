//! Starts the agent after `init` and `join`.

use std::fs;

use super::{
    context::Context,
    failure::Failure,
    output::note,
    paths::Paths,
    root_key, run, stopped,
    unit::{UNIT, by_systemd, is_installed},
};
use crate::{
    config::Config,
    control::{ClientError, node::StatusRequest},
    tunnel::BackendChoice,
};

/// Closes the overlay at each boot, also where the agent doesn't start.
const OVERLAY_UNIT: &str = "innermesh-overlay.service";

/// Whether an agent that this process would become could make its interface: asked
/// before anything is written.
///
/// # Errors
/// What to do instead.
pub fn check(paths: &Paths, config: &Config) -> Result<(), Failure> {
    let needs = config.tunnel.backend != BackendChoice::None && !by_systemd(paths);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !needs || has_net_admin(&status) {
        return Ok(());
    }
    let remedy = if nix::unistd::geteuid().is_root() {
        "give this container CAP_NET_ADMIN (--cap-add NET_ADMIN)"
    } else {
        "run this as root, with sudo"
    };
    Err(Failure::failed(format!(
        "the agent couldn't make its WireGuard interface, for which it needs CAP_NET_ADMIN: {remedy}. \
         Nothing was written; `--no-start` writes the state alone"
    )))
}

/// Whether a process with this `/proc/PID/status` may set up interfaces (proc(5),
/// capabilities(7)); where that can't be read, it shows later.
fn has_net_admin(status: &str) -> bool {
    const CAP_NET_ADMIN: u32 = 12;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_none_or(|set| set >> CAP_NET_ADMIN & 1 == 1)
}

/// Through systemd where its unit is installed and the folders are the usual
/// ones, otherwise in this process until it is told to end.
pub async fn start(context: &mut Context) -> Result<(), Failure> {
    if by_systemd(&context.paths) {
        return through_systemd(context).await;
    }
    note("starting the agent in the foreground; Ctrl-C ends it");
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
            format!(
                "its agent doesn't run: {}",
                stopped::remedy(&context.paths).await
            )
        }
        _ => format!("its agent runs: `agent{} status`", context.paths.option()),
    };
    Failure::failed(format!(
        "this machine is in {which} already, and {next}. For one more mesh use another --dir"
    ))
}

async fn through_systemd(context: &Context) -> Result<(), Failure> {
    if is_installed(OVERLAY_UNIT) && !systemctl(&["enable", "--quiet", OVERLAY_UNIT]).await? {
        note(&format!(
            "{OVERLAY_UNIT} could not be enabled: after a boot the overlay is open until the agent \
             runs"
        ));
    }
    // A condition that isn't met is no error to systemctl.
    let asked = systemctl(&["enable", "--now", UNIT]).await?;
    if asked && systemctl(&["is-active", "--quiet", UNIT]).await? {
        note("the agent runs, and will after each boot; `agent status` tells how the mesh is");
        return Ok(());
    }
    let remedy = stopped::remedy(&context.paths).await;
    Err(Failure::failed(format!(
        "all is written, and {UNIT} did not start; {remedy}"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_interfaces_may_be_set_up_is_read_from_the_process_s_status() {
        let status = |set: &str| format!("Name:\tagent\nCapEff:\t{set}\nCapBnd:\t0\n");
        assert!(has_net_admin(&status("000001ffffffffff")));
        assert!(has_net_admin(&status("0000000000001000")));
        assert!(!has_net_admin(&status("0000000000000000")));
        assert!(!has_net_admin(&status("0000000000000fff")));
        assert!(has_net_admin("Name:\tagent\n"), "it shows later");
    }
}
