//! The agent first in /etc/resolv.conf, with what stood there kept beside it
//! and put back.
//!
//! A header marks the file as ours. What stood before is the base, also after a
//! crash, and never a file of ours or one without servers. A link stays a link:
//! it is moved aside and back, and read through while it waits, so that changes
//! of what it leads to are followed.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::{ResolverError, ResolverPlan};
use crate::resolv;

/// Where the file that stood before is kept, below the root.
pub const BACKUP: &str = "etc/resolv.conf.before-innermesh";
const FILE: &str = "etc/resolv.conf";
/// What ours begins with.
const HEADER: &str = "# Written by innermesh.";
/// libc reads so many servers (resolv.conf(5), MAXNS).
const SERVERS: usize = 3;
/// Largest file that is read, in bytes.
const FILE_BYTES: u64 = 64 * 1024;

/// Whether a text is one of ours.
pub fn is_ours(text: &str) -> bool {
    text.starts_with(HEADER)
}

/// The base: what stands there, or stood before ours.
pub(super) fn base(root: &Path) -> Option<String> {
    match read(&root.join(FILE)).ok().flatten() {
        Some(text) if is_ours(&text) => read(&root.join(BACKUP)).ok().flatten(),
        text => text,
    }
}

/// Whether the agent stands first, before all that the base has now.
pub(super) fn stands(root: &Path, plan: &ResolverPlan) -> bool {
    Now::read(root, plan).is_ok_and(|now| now.text == now.wanted)
}

/// Whether the file is ours.
pub(super) fn is_set(root: &Path) -> bool {
    let text = read(&root.join(FILE)).ok().flatten();
    text.is_some_and(|text| is_ours(&text))
}

/// Whether whoever writes the file (a DHCP client at work) is not done.
pub(super) fn is_unfinished(root: &Path, plan: &ResolverPlan) -> bool {
    let text = read(&root.join(FILE)).ok().flatten();
    text.is_some_and(|text| !is_ours(&text) && others(&text, plan).is_empty())
}

/// What stands there, and what should.
struct Now {
    text: String,
    base: String,
    wanted: String,
}

impl Now {
    fn read(root: &Path, plan: &ResolverPlan) -> Result<Self, ResolverError> {
        let text = read(&root.join(FILE))?.unwrap_or_default();
        let base = if is_ours(&text) {
            // Where the base was lost, its servers still stand in ours.
            read(&root.join(BACKUP))?.unwrap_or_else(|| text.clone())
        } else {
            text.clone()
        };
        let wanted = merged(plan, &base, is_musl(root));
        Ok(Self { text, base, wanted })
    }
}

/// Puts the agent first; whether that was done just now.
pub(super) fn apply(root: &Path, plan: &ResolverPlan) -> Result<bool, ResolverError> {
    let (file, backup) = (root.join(FILE), root.join(BACKUP));
    let Now { text, base, wanted } = Now::read(root, plan)?;
    if wanted == text {
        return Ok(false);
    }
    if !is_ours(&text) {
        let missing =
            matches!(fs::symlink_metadata(&file), Err(e) if e.kind() == io::ErrorKind::NotFound);
        if !missing && others(&base, plan).is_empty() {
            return Err(ResolverError::Empty(file));
        }
        if !missing {
            keep(&file, &backup)?;
        }
    }
    write(&file, &wanted)?;
    Ok(true)
}

/// Puts back what stood before, unless somebody else has written the file since.
pub(super) fn restore(root: &Path) -> Result<(), ResolverError> {
    let (file, backup) = (root.join(FILE), root.join(BACKUP));
    let text = read(&file)?.unwrap_or_default();
    let kept = fs::symlink_metadata(&backup).is_ok();
    if !is_ours(&text) {
        return match fs::remove_file(&backup) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ResolverError::Io(backup, error))
            }
            _ => Ok(()),
        };
    }
    if !kept {
        return match without_first(&text) {
            // There was none before.
            None => fs::remove_file(&file).map_err(|error| ResolverError::Io(file, error)),
            Some(rest) => write(&file, &rest),
        };
    }
    match fs::rename(&backup, &file) {
        // A mount point, as in a container: it can only be written in place.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let base = read(&backup)?.unwrap_or_default();
            in_place(&file, &base)?;
            fs::remove_file(&backup).map_err(|error| ResolverError::Io(backup, error))
        }
        other => other.map_err(|error| ResolverError::Io(file, error)),
    }
}

/// Our file: the agent, then the servers of the base, so that names go on when
/// the agent is gone; on musl the agent alone, as it asks all at once and takes
/// the first answer.
fn merged(plan: &ResolverPlan, base: &str, musl: bool) -> String {
    let mut text = format!(
        "{HEADER} The agent answers here, and asks the servers that stood before.\n\
         # They are kept in /{BACKUP}; `agent dns restore` puts them back.\n"
    );
    let lines = |keyword: &'static str| {
        base.lines()
            .filter(move |line| line.split_ascii_whitespace().next() == Some(keyword))
    };
    let search: Vec<_> = lines("search").chain(lines("domain")).collect();
    if search.is_empty() {
        text.push_str(&format!("search {}\n", plan.domain));
    }
    let kept = search
        .into_iter()
        .chain(lines("options"))
        .chain(lines("sortlist"));
    for line in kept {
        text.push_str(line.trim());
        text.push('\n');
    }
    let mut servers: Vec<String> = plan
        .servers
        .iter()
        .take(1)
        .map(ToString::to_string)
        .collect();
    if musl {
        servers = plan.servers.iter().map(ToString::to_string).collect();
    } else {
        servers.extend(others(base, plan));
    }
    for server in servers.iter().take(SERVERS) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}

/// The base's own servers, as libc reads them.
fn others(base: &str, plan: &ResolverPlan) -> Vec<String> {
    let is_own = |word: &str| {
        word.parse::<IpAddr>()
            .is_ok_and(|ip| plan.servers.contains(&ip))
    };
    let servers = base.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver") && line.starts_with("nameserver"))
            .then(|| words.next().map(resolv::bare))
            .flatten()
    });
    let known =
        |word: &&str| !resolv::name_servers(&format!("nameserver {word}"), |_| Some(1)).is_empty();
    servers
        .filter(known)
        .filter(|word| !is_own(word))
        .map(str::to_string)
        .collect()
}

/// Ours without its header and the agent, where other servers are left.
fn without_first(ours: &str) -> Option<String> {
    let mut servers = 0;
    let rest = ours.lines().filter(|line| {
        servers += usize::from(line.starts_with("nameserver"));
        !line.starts_with('#') && (servers != 1 || !line.starts_with("nameserver"))
    });
    let rest: String = rest.map(|line| format!("{line}\n")).collect();
    (servers > 1).then_some(rest)
}

/// Keeps what stands there: a link as a link, a file as a copy.
fn keep(file: &Path, backup: &Path) -> Result<(), ResolverError> {
    let failed = |error| ResolverError::Io(backup.to_owned(), error);
    let beside = beside(backup);
    let _ = fs::remove_file(&beside);
    match fs::read_link(file) {
        Ok(target) => symlink(target, &beside),
        Err(_) => fs::copy(file, &beside).map(drop),
    }
    .and_then(|()| fs::rename(&beside, backup))
    .map_err(failed)
}

fn write(file: &Path, text: &str) -> Result<(), ResolverError> {
    let failed = |error| ResolverError::Io(file.to_owned(), error);
    let beside = beside(file);
    let replaced = fs::write(&beside, text)
        .and_then(|()| fs::set_permissions(&beside, fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::File::open(&beside)?.sync_all())
        .and_then(|()| fs::rename(&beside, file));
    match replaced {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let _ = fs::remove_file(&beside);
            in_place(file, text)
        }
        other => other
            .inspect_err(|_| drop(fs::remove_file(&beside)))
            .map_err(failed),
    }
}

fn in_place(file: &Path, text: &str) -> Result<(), ResolverError> {
    fs::write(file, text).map_err(|error| ResolverError::Io(file.to_owned(), error))
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// The text of a file, links followed; `None` where there is none.
fn read(file: &Path) -> Result<Option<String>, ResolverError> {
    use io::Read as _;
    let failed = |error| ResolverError::Io(file.to_owned(), error);
    let opened = match fs::File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    opened
        .take(FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Whether this host's libc is musl, which asks all servers at once. Hosts with
/// glibc may have musl's loader too.
fn is_musl(root: &Path) -> bool {
    let names = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten();
        let names = entries.flatten().map(|entry| entry.file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
    };
    let (mut musl, mut glibc) = (false, false);
    for name in names("lib").into_iter().chain(names("lib64")) {
        musl |= name.starts_with("ld-musl-");
        glibc |= name.starts_with("ld-linux");
    }
    musl && !glibc
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROUTER: &str = "# by dhclient\nsearch lan\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\noptions edns0\n";

    fn plan() -> ResolverPlan {
        ResolverPlan {
            interface: "innermesh0".into(),
            servers: vec!["100.77.0.53".parse().unwrap(), "fd00::53".parse().unwrap()],
            domain: "in.example.org".into(),
            reverse: vec!["77.100.in-addr.arpa".into()],
        }
    }

    struct Root(tempfile::TempDir);

    impl Root {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("etc")).unwrap();
            fs::create_dir_all(root.path().join("run")).unwrap();
            Self(root)
        }

        fn with(text: &str) -> Self {
            let root = Self::new();
            root.set(text);
            root
        }

        fn set(&self, text: &str) {
            fs::write(self.file(), text).unwrap();
        }

        fn file(&self) -> PathBuf {
            self.0.path().join(FILE)
        }

        fn text(&self) -> String {
            fs::read_to_string(self.file()).unwrap()
        }

        fn servers(&self) -> Vec<String> {
            let all = resolv::name_servers(&self.text(), |_| None);
            all.iter().map(|server| server.ip().to_string()).collect()
        }

        fn apply(&self) -> Result<bool, ResolverError> {
            apply(self.0.path(), &plan())
        }

        fn restore(&self) {
            restore(self.0.path()).unwrap();
        }

        fn files(&self) -> Vec<String> {
            let entries = fs::read_dir(self.0.path().join("etc")).unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        }
    }

    #[test]
    fn the_agent_stands_before_the_servers_that_were_there() {
        let root = Root::with(ROUTER);
        assert!(root.apply().unwrap());
        assert_eq!(root.servers(), ["100.77.0.53", "192.0.2.1", "192.0.2.2"]);
        assert!(root.text().contains("\nsearch lan\n"));
        assert!(root.text().contains("\noptions edns0\n"));
        assert!(!root.apply().unwrap());
        root.restore();
        assert_eq!(root.text(), ROUTER);
        assert_eq!(root.files(), ["resolv.conf"]);
    }

    #[test]
    fn the_mesh_s_domain_is_searched_where_the_host_has_none() {
        let root = Root::with("nameserver 192.0.2.1\n");
        root.apply().unwrap();
        assert!(root.text().contains("\nsearch in.example.org\n"));
    }

    #[test]
    fn on_musl_only_the_agent_is_asked() {
        let root = Root::with(ROUTER);
        fs::create_dir(root.0.path().join("lib")).unwrap();
        fs::write(root.0.path().join("lib/ld-musl-x86_64.so.1"), "").unwrap();
        root.apply().unwrap();
        assert_eq!(root.servers(), ["100.77.0.53", "fd00::53"]);
    }

    #[test]
    fn a_link_is_put_back_as_a_link_and_followed_meanwhile() {
        for target in ["../run/resolv.conf", "/nowhere/resolv.conf"] {
            let root = Root::new();
            let absolute = target.starts_with('/');
            let behind = root.0.path().join("run/resolv.conf");
            fs::write(&behind, "nameserver 192.0.2.1\n").unwrap();
            let target = if absolute {
                behind.clone()
            } else {
                target.into()
            };
            symlink(&target, root.file()).unwrap();
            root.apply().unwrap();
            assert_eq!(root.servers(), ["100.77.0.53", "192.0.2.1"]);
            assert_eq!(
                fs::read_to_string(&behind).unwrap(),
                "nameserver 192.0.2.1\n"
            );
            fs::write(&behind, "nameserver 192.0.2.9\n").unwrap();
            assert!(root.apply().unwrap());
            assert_eq!(root.servers(), ["100.77.0.53", "192.0.2.9"]);
            root.restore();
            assert_eq!(fs::read_link(root.file()).unwrap(), target);
        }
    }

    #[test]
    fn a_file_that_a_dhcp_client_wrote_meanwhile_is_the_base_of_the_next() {
        let root = Root::with(ROUTER);
        root.apply().unwrap();
        root.set("nameserver 198.51.100.1\n");
        assert!(root.apply().unwrap());
        assert_eq!(root.servers(), ["100.77.0.53", "198.51.100.1"]);
        root.restore();
        assert_eq!(root.text(), "nameserver 198.51.100.1\n");
    }

    #[test]
    fn an_empty_file_is_no_base() {
        let root = Root::with("");
        assert!(matches!(root.apply(), Err(ResolverError::Empty(_))));
        assert_eq!(root.text(), "");
        let root = Root::with(ROUTER);
        root.apply().unwrap();
        root.set("# dhclient is at work\n");
        assert!(matches!(root.apply(), Err(ResolverError::Empty(_))));
        root.restore();
        assert_eq!(root.text(), "# dhclient is at work\n");
    }

    #[test]
    fn after_a_crash_the_base_is_what_stood_before_ours() {
        let root = Root::with(ROUTER);
        root.apply().unwrap();
        // Another plan finds ours in place, as after a crash and an update.
        let mut other = plan();
        other.servers = vec!["100.99.0.53".parse().unwrap()];
        apply(root.0.path(), &other).unwrap();
        assert_eq!(root.servers(), ["100.99.0.53", "192.0.2.1", "192.0.2.2"]);
        root.restore();
        assert_eq!(root.text(), ROUTER);
    }

    #[test]
    fn a_lost_backup_loses_no_server() {
        let root = Root::with(ROUTER);
        root.apply().unwrap();
        fs::remove_file(root.0.path().join(BACKUP)).unwrap();
        assert!(root.apply().is_ok());
        assert_eq!(root.servers(), ["100.77.0.53", "192.0.2.1", "192.0.2.2"]);
        root.restore();
        assert_eq!(root.servers(), ["192.0.2.1", "192.0.2.2"]);
        assert!(!is_ours(&root.text()));
    }

    #[test]
    fn what_somebody_else_wrote_is_not_replaced_by_what_stood_before() {
        let root = Root::with(ROUTER);
        root.apply().unwrap();
        root.set("nameserver 9.9.9.9\n");
        root.restore();
        assert_eq!(root.text(), "nameserver 9.9.9.9\n");
        assert_eq!(root.files(), ["resolv.conf"]);
    }

    #[test]
    fn a_host_without_a_file_gets_one_and_loses_it_again() {
        let root = Root::new();
        root.apply().unwrap();
        assert_eq!(root.servers(), ["100.77.0.53"]);
        root.restore();
        assert!(root.files().is_empty());
    }

    #[test]
    fn servers_that_stood_there_are_written_as_libc_reads_them() {
        let base = "nameserver 127.0.0.1#eth0\nnameserver fe80::1%eth0\nnameserver 100.77.0.53%x\n";
        let text = merged(&plan(), base, false);
        assert!(
            text.ends_with(
                "nameserver 100.77.0.53\nnameserver 127.0.0.1\nnameserver fe80::1%eth0\n"
            ),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn whatever_stood_there_comes_back_as_it_was(text in "(nameserver |search |#|[ \n.:]|[0-9a-f]{1,3}|\\PC){0,40}") {
            prop_assume!(!is_ours(&text));
            let root = Root::with(&text);
            let applied = root.apply();
            if applied.is_ok() {
                prop_assert_eq!(&root.servers()[0], "100.77.0.53");
            }
            root.restore();
            prop_assert_eq!(root.text(), text);
        }
    }
}
