//! Whether systemd runs the agent here.

use std::path::Path;

use super::paths::Paths;

/// The agent's unit.
pub const UNIT: &str = "innermesh.service";
/// Where systemd looks for units (systemd.unit(5)).
const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Whether systemd runs the agent of these files.
pub fn by_systemd(paths: &Paths) -> bool {
    paths.dir.is_none() && is_installed(UNIT)
}

/// Whether this host runs systemd, and has the unit.
pub fn is_installed(unit: &str) -> bool {
    // sd_booted(3).
    Path::new("/run/systemd/system").is_dir()
        && FOLDERS
            .iter()
            .any(|folder| Path::new(folder).join(unit).exists())
}
