//! Whether this machine can hold the demo, and exactly what to change where it
//! can't.

use std::{
    env,
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, ErrorKind},
    path::PathBuf,
    process::Stdio,
};

use nix::unistd::geteuid;
use tokio::process::Command;

use super::error::DemoError;

/// How namespaces are had on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As root.
    Root,
    /// In a user namespace, in which an ordinary user is root.
    UserNamespace,
}

impl Way {
    /// The arguments of `unshare` that make the stage's namespaces.
    pub fn unshare(self) -> &'static [&'static str] {
        const BOTH: [&str; 5] = ["--net", "--mount", "--pid", "--fork", "--kill-child"];
        const USER: [&str; 7] = [
            "--user",
            "--map-root-user",
            BOTH[0],
            BOTH[1],
            BOTH[2],
            BOTH[3],
            BOTH[4],
        ];
        match self {
            Self::Root => &BOTH,
            Self::UserNamespace => &USER,
        }
    }

    /// The command by which the user gets into a host; the process id and the
    /// program to run follow.
    pub fn enter(self) -> &'static str {
        match self {
            Self::Root if env::var_os("SUDO_USER").is_some() => "sudo nsenter -m -u -n -p -t",
            Self::Root => "nsenter -m -u -n -p -t",
            // In a user namespace the groups can't be set.
            Self::UserNamespace => "nsenter --preserve-credentials -U -m -u -n -p -t",
        }
    }
}

/// The programs that the demo calls, and the Debian packages that hold them.
const PROGRAMS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("curl", "curl"),
    ("ping", "iputils-ping"),
    ("getent", "libc-bin"),
    ("env", "coreutils"),
];

/// Looks at all that the demo needs.
///
/// # Errors
/// [`DemoError::Unfit`] with everything that is missing, not only the first.
pub async fn look() -> Result<Way, DemoError> {
    let mut cures: Vec<String> = packages(|program| find(program).is_some())
        .into_iter()
        .collect();
    cures.extend(tun(
        open_tun().map_err(|error| error.kind()),
        geteuid().is_root(),
    ));
    if let Err(error) = fs::metadata("/etc/resolv.conf") {
        cures.push(format!(
            "/etc/resolv.conf: {error}; make one, an empty file will do"
        ));
    }
    let way = if cures.is_empty() {
        trial().await
    } else {
        Err(DemoError::Unfit(Vec::new()))
    };
    match way {
        Ok(way) => Ok(way),
        Err(DemoError::Unfit(more)) => {
            cures.extend(more);
            Err(DemoError::Unfit(cures))
        }
        Err(error) => Err(error),
    }
}

/// Where programs are looked for. An ordinary user's path leaves out the
/// folders of the system's own, where some distributions have `ip`.
pub fn path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

/// Where a program lies.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = path();
    let mut candidates = env::split_paths(&path).map(|folder| folder.join(program));
    candidates.find(|candidate| candidate.is_file())
}

fn packages(is_there: impl Fn(&str) -> bool) -> Option<String> {
    let missing = || PROGRAMS.iter().filter(|(program, _)| !is_there(program));
    let programs: Vec<&str> = missing().map(|(program, _)| *program).collect();
    let mut packages: Vec<&str> = missing().map(|(_, package)| *package).collect();
    packages.dedup();
    (!programs.is_empty()).then(|| {
        format!(
            "these programs are missing: {}; on Debian: sudo apt install {}",
            programs.join(", "),
            packages.join(" ")
        )
    })
}

fn open_tun() -> io::Result<()> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    device.map(drop)
}

fn tun(opened: Result<(), ErrorKind>, root: bool) -> Option<String> {
    Some(match (opened, root) {
        (Ok(()), _) => return None,
        (Err(ErrorKind::PermissionDenied), false) => {
            "/dev/net/tun may be opened by root only: run this as root, or sudo chmod 0666 /dev/net/tun".to_owned()
        }
        (Err(ErrorKind::PermissionDenied), true) => {
            "/dev/net/tun may not be opened in this container: start it with --device /dev/net/tun".to_owned()
        }
        (Err(_), _) => "/dev/net/tun is not there: sudo modprobe tun, or in a container start it with \
                        --device /dev/net/tun"
            .to_owned(),
    })
}

/// Makes namespaces, a bridge and a cable for a moment, to see whether they can be had.
async fn trial() -> Result<Way, DemoError> {
    const TRIAL: &str =
        "ip link add name a type bridge && ip link add name b type veth peer name c";
    let root = geteuid().is_root();
    let ways: &[Way] = if root {
        // Root of a container may be allowed no more than an ordinary user is.
        &[Way::Root, Way::UserNamespace]
    } else {
        &[Way::UserNamespace]
    };
    let mut said = String::new();
    for way in ways {
        let output = Command::new("unshare")
            .args(way.unshare())
            .args(["sh", "-c", TRIAL])
            .env("PATH", path())
            .stdin(Stdio::null())
            .output()
            .await;
        match output {
            Ok(output) if output.status.success() => return Ok(*way),
            Ok(output) => said = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => said = error.to_string(),
        }
    }
    Err(DemoError::Unfit(vec![cure(root, &Switches::read(), &said)]))
}

/// The kernel's switches for user namespaces, where they exist.
#[derive(Debug, Default)]
struct Switches {
    max: Option<u64>,
    debian: Option<u64>,
    apparmor: Option<u64>,
}

impl Switches {
    fn read() -> Self {
        let read = |path: &str| {
            fs::read_to_string(format!("/proc/sys/{path}"))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        Self {
            max: read("user/max_user_namespaces"),
            debian: read("kernel/unprivileged_userns_clone"),
            apparmor: read("kernel/apparmor_restrict_unprivileged_userns"),
        }
    }
}

/// What to change, from what the trial `said`.
fn cure(root: bool, switches: &Switches, said: &str) -> String {
    if !said.contains("unshare:") {
        return format!("the kernel has no bridge or veth ({said}): sudo modprobe -a bridge veth");
    }
    if root {
        return format!(
            "namespaces are not permitted here ({said}): in a container, start it with --privileged --device /dev/net/tun"
        );
    }
    let switch = if switches.max == Some(0) {
        "sudo sysctl user.max_user_namespaces=15000"
    } else if switches.debian == Some(0) {
        "sudo sysctl kernel.unprivileged_userns_clone=1"
    } else if switches.apparmor == Some(1) {
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        return format!(
            "user namespaces are not permitted here ({said}): run this as root, or in a container start it with \
             --security-opt seccomp=unconfined --device /dev/net/tun"
        );
    };
    format!("user namespaces are switched off for ordinary users: run this as root, or {switch}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_told_with_the_packages_that_hold_them() {
        assert_eq!(packages(|_| true), None);
        let told = packages(|program| program != "ping" && program != "ip").unwrap();
        assert!(
            told.contains("ip, ping") && told.ends_with("apt install iproute2 iputils-ping"),
            "{told}"
        );
        let told = packages(|program| !["nsenter", "unshare"].contains(&program)).unwrap();
        assert!(told.ends_with("apt install util-linux"), "{told}");
    }

    #[test]
    fn a_device_that_can_not_be_opened_is_told_with_its_cure() {
        assert_eq!(tun(Ok(()), false), None);
        let told = tun(Err(ErrorKind::PermissionDenied), false).unwrap();
        assert!(told.contains("sudo chmod 0666 /dev/net/tun"), "{told}");
        let told = tun(Err(ErrorKind::NotFound), true).unwrap();
        assert!(told.contains("modprobe tun"), "{told}");
    }

    #[test]
    fn the_switch_that_forbids_user_namespaces_is_named() {
        let said = "unshare: unshare failed: Operation not permitted";
        let off = |max, debian, apparmor| Switches {
            max,
            debian,
            apparmor,
        };
        for (switches, part) in [
            (off(Some(0), Some(1), None), "user.max_user_namespaces="),
            (
                off(Some(9), Some(0), None),
                "kernel.unprivileged_userns_clone=1",
            ),
            (
                off(Some(9), None, Some(1)),
                "apparmor_restrict_unprivileged_userns=0",
            ),
            (off(Some(9), Some(1), Some(0)), "seccomp=unconfined"),
        ] {
            let told = cure(false, &switches, said);
            assert!(told.contains(part), "{told}");
        }
        assert!(cure(true, &Switches::default(), said).contains("--privileged"));
        let told = cure(true, &Switches::default(), "Error: Unknown device type.");
        assert!(told.contains("modprobe -a bridge veth"), "{told}");
    }
}
