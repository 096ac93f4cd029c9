//! Has innermesh-resolver.service write what the agent's own unit may not.
//!
//! The agent leaves the plan in a file, a path unit starts the service on each
//! change of that file or of /etc/resolv.conf, and the service applies the plan
//! outside the agent's sandbox. What it reads comes from a process that is
//! trusted less than itself, so that it is checked word by word: it ends up in
//! configurations that can name programs to run.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use innermesh_proto::zone::DomainName;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::AccessFlags,
};

use super::{ResolverError, ResolverPlan};

/// The plan that the agent left, below the root.
const PLAN: &str = "run/innermesh/resolver.json";
/// Who works on the host's files holds it.
const LOCK: &str = "run/innermesh/resolver.lock";
/// How often the lock is tried, and how many times.
const TRY: Duration = Duration::from_millis(100);
const TRIES: u32 = 100;
/// Largest plan, in bytes.
const PLAN_BYTES: u64 = 16 * 1024;
/// Most servers, and most zones, of a plan.
const SERVERS: usize = 16;
const ZONES: usize = 32;

/// Whether this process sees the host's configuration and may not write it,
/// while others may.
pub(super) fn is_sandboxed(root: &Path) -> bool {
    let etc = root.join("etc");
    nix::unistd::access(&etc, AccessFlags::W_OK) == Err(Errno::EROFS)
}

/// Leaves a plan to the service, which is started by that.
pub(super) fn leave(root: &Path, plan: &ResolverPlan) -> Result<(), ResolverError> {
    let file = root.join(PLAN);
    let beside = file.with_extension("new");
    let text = serde_json::to_string(plan).unwrap_or_default();
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, &file))
        .map_err(|error| ResolverError::Io(file, error))
}

/// Leaves a plan, unless it is there already.
pub(super) fn leave_once(root: &Path, plan: &ResolverPlan) -> Result<(), ResolverError> {
    match left(root) {
        Ok(Some(left)) if left == *plan => Ok(()),
        _ => leave(root, plan),
    }
}

/// The plan that was left; none where the agent wants nothing written.
pub(super) fn left(root: &Path) -> Result<Option<ResolverPlan>, ResolverError> {
    let file = root.join(PLAN);
    let failed = |error| ResolverError::Io(file.clone(), error);
    let opened = match fs::File::open(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    opened
        .take(PLAN_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let plan: ResolverPlan =
        serde_json::from_slice(&bytes).map_err(|error| failed(io::Error::other(error)))?;
    checked(plan).map(Some)
}

/// Wants nothing written any more.
pub(super) fn withdraw(root: &Path) -> Result<(), ResolverError> {
    let file: PathBuf = root.join(PLAN);
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ResolverError::Io(file, error))
        }
        _ => Ok(()),
    }
}

/// Keeps the service and who undoes its work apart; none where they can't be,
/// or one takes too long.
pub(super) async fn alone(root: &Path) -> Option<Flock<fs::File>> {
    let mut file = fs::File::create(root.join(LOCK)).ok()?;
    for _ in 0..TRIES {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((again, _)) => file = again,
        }
        tokio::time::sleep(TRY).await;
    }
    None
}

/// Only what can stand in any resolver's configuration as one word.
fn checked(plan: ResolverPlan) -> Result<ResolverPlan, ResolverError> {
    let is_zone = |text: &str| {
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        plain && !text.starts_with('.') && text.parse::<DomainName>().is_ok()
    };
    let is_interface = |text: &str| {
        (1..=15).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let mut zones = std::iter::once(&plan.domain).chain(&plan.reverse);
    if let Some(zone) = zones.find(|zone| !is_zone(zone)) {
        return Err(unusable(zone));
    }
    if !is_interface(&plan.interface) {
        return Err(unusable(&plan.interface));
    }
    if plan.servers.is_empty() || plan.servers.len() > SERVERS || plan.reverse.len() > ZONES {
        return Err(unusable("such a number of servers or zones"));
    }
    Ok(plan)
}

fn unusable(text: &str) -> ResolverError {
    ResolverError::Unusable(text.escape_default().take(80).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> ResolverPlan {
        ResolverPlan {
            interface: "im0".into(),
            servers: vec!["10.77.0.53".parse().unwrap(), "fd00::53".parse().unwrap()],
            domain: "in.example.org".into(),
            reverse: vec!["77.10.in-addr.arpa".into()],
        }
    }

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run/innermesh")).unwrap();
        root
    }

    #[test]
    fn what_the_agent_leaves_is_read_until_it_is_withdrawn() {
        let root = root();
        assert_eq!(left(root.path()).unwrap(), None);
        leave(root.path(), &plan()).unwrap();
        assert_eq!(left(root.path()).unwrap(), Some(plan()));
        withdraw(root.path()).unwrap();
        withdraw(root.path()).unwrap();
        assert_eq!(left(root.path()).unwrap(), None);
    }

    #[test]
    fn a_plan_that_would_write_lines_of_its_own_is_refused() {
        let root = root();
        let refuses = |plan: ResolverPlan| {
            leave(root.path(), &plan).unwrap();
            matches!(left(root.path()), Err(ResolverError::Unusable(_)))
        };
        for word in [
            "in.example.org\ndhcp-script=/tmp/x",
            "in.example.org/10.0.0.1",
            "in example",
            "",
            ".",
            "#",
        ] {
            let mut domain = plan();
            domain.domain = word.into();
            assert!(refuses(domain), "{word:?} as a domain");
            let mut reverse = plan();
            reverse.reverse.push(word.into());
            assert!(refuses(reverse), "{word:?} as a zone");
        }
        for word in ["", "../lo", "a b", "sixteen-letters-"] {
            let mut interface = plan();
            interface.interface = word.into();
            assert!(refuses(interface), "{word:?} as an interface");
        }
        let mut silent = plan();
        silent.servers.clear();
        assert!(refuses(silent));
        let mut many = plan();
        many.reverse = vec!["a".into(); ZONES + 1];
        assert!(refuses(many));
    }

    #[test]
    fn what_is_no_plan_is_an_error_and_never_the_end() {
        let root = root();
        for text in ["", "{", "[]", &"x".repeat(20_000)] {
            fs::write(root.path().join(PLAN), text).unwrap();
            assert!(left(root.path()).is_err());
        }
    }

    #[test]
    fn a_folder_that_can_be_written_is_no_sandbox() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        assert!(!is_sandboxed(root.path()));
        assert!(!is_sandboxed(&root.path().join("nothing")));
    }
}
