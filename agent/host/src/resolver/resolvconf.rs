//! The program resolvconf, Debian's or openresolv's: it merges what each
//! interface brings into /etc/resolv.conf.

use std::{fs, path::Path};

use super::{Resolvconf, ResolverError, ResolverPlan, command, resolv_conf};
use crate::resolv;

/// Where distributions have it.
const PROGRAMS: [&str; 4] = [
    "usr/sbin/resolvconf",
    "sbin/resolvconf",
    "usr/bin/resolvconf",
    "usr/local/sbin/resolvconf",
];
/// Our record; Debian's order of interfaces has `lo.*` before all others.
const RECORD: &str = "lo.innermesh";
/// openresolv's way to say that a record was not there (netbirdio/netbird#4811).
const NOT_THERE: i32 = 99;

/// Which resolvconf there is, and where; none where it is systemd's resolvectl,
/// which sets resolved.
pub(super) fn find(root: &Path) -> Option<(Resolvconf, String)> {
    let path = PROGRAMS
        .iter()
        .map(|name| root.join(name))
        .find(|path| path.exists())?;
    let real = fs::canonicalize(&path).ok()?;
    if real
        .file_name()
        .is_some_and(|name| name == "resolvectl" || name == "systemd-resolve")
    {
        return None;
    }
    let text = fs::read(&real).ok()?;
    let open = text.windows(10).any(|window| window == b"openresolv");
    let kind = if open {
        Resolvconf::Openresolv
    } else {
        Resolvconf::Debian
    };
    Some((kind, path.to_string_lossy().into_owned()))
}

/// Has our record stand first; whether that was done just now.
pub(super) async fn apply(root: &Path, plan: &ResolverPlan) -> Result<bool, ResolverError> {
    if stands(root, plan) {
        return Ok(false);
    }
    let (kind, program) = found(root)?;
    let record: String = plan
        .servers
        .iter()
        .take(1)
        .map(|ip| format!("nameserver {ip}\n"))
        .collect();
    let record = format!("{record}search {}\n", plan.domain);
    let arguments: &[&str] = match kind {
        Resolvconf::Debian => &["-a", RECORD],
        Resolvconf::Openresolv => &["-m", "0", "-a", RECORD],
    };
    match command::run(&program, arguments, &record).await? {
        0 if stands(root, plan) => Ok(true),
        0 => Err(ResolverError::Program(
            program,
            "it left /etc/resolv.conf as it was; does that lead to resolvconf's own file?"
                .to_string(),
        )),
        code => Err(ResolverError::Program(
            program,
            format!("it ended with {code}"),
        )),
    }
}

/// Takes our record away.
pub(super) async fn restore(root: &Path) -> Result<(), ResolverError> {
    let Some((_, program)) = find(root) else {
        return Ok(());
    };
    match command::run(&program, &["-d", RECORD], "").await? {
        0 | NOT_THERE => Ok(()),
        code => Err(ResolverError::Program(
            program,
            format!("it ended with {code}"),
        )),
    }
}

fn found(root: &Path) -> Result<(Resolvconf, String), ResolverError> {
    find(root).ok_or_else(|| {
        ResolverError::Program(
            "resolvconf".to_string(),
            "it isn't there any more".to_string(),
        )
    })
}

/// Whether the agent stands first in what resolvconf made.
pub(super) fn stands(root: &Path, plan: &ResolverPlan) -> bool {
    let text = resolv_conf::base(root).unwrap_or_default();
    let first = resolv::name_servers(&text, |_| Some(1))
        .first()
        .map(|server| server.ip());
    first.is_some() && first == plan.servers.first().copied()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_resolvconf_that_is_resolvectl_is_none() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["usr/bin", "usr/sbin"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        assert_eq!(find(root.path()), None);
        fs::write(root.path().join("usr/bin/resolvectl"), "\x7fELF").unwrap();
        symlink("../bin/resolvectl", root.path().join("usr/sbin/resolvconf")).unwrap();
        assert_eq!(find(root.path()), None);
    }

    #[test]
    fn debian_s_and_openresolv_s_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sbin")).unwrap();
        let program = root.path().join("sbin/resolvconf");
        fs::write(&program, "#!/bin/sh\n# maintains name server information\n").unwrap();
        assert_eq!(
            find(root.path()).map(|(kind, _)| kind),
            Some(Resolvconf::Debian)
        );
        fs::write(&program, "#!/bin/sh\nVERSION=openresolv-3.12.0\n").unwrap();
        assert_eq!(
            find(root.path()).map(|(kind, _)| kind),
            Some(Resolvconf::Openresolv)
        );
    }
}
