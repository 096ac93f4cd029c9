//! What the project may depend on, and what the protocol crate may not: the
//! rules of ops/deny.toml, held offline, and the purity of `proto`.

mod programs;
mod rooms;
mod spdx;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use semver::{Version, VersionReq};
use toml::Table;

#[test]
fn every_compiled_package_has_a_licence_that_the_policy_allows() {
    let policy = policy();
    let licences = &policy["licenses"];
    let general = strings(&licences["allow"]);
    let exceptions: BTreeMap<&str, Vec<&str>> = licences["exceptions"]
        .as_array()
        .expect("exceptions are a list")
        .iter()
        .map(|e| (text(&e["crate"]), strings(&e["allow"])))
        .collect();

    let packages = compiled("normal,build,dev", &["--workspace"]);
    assert!(packages.len() > 100, "the graph was not read: {packages:?}");
    let mut refused = Vec::new();
    for package in &packages {
        let special = exceptions.get(package.name.as_str());
        let allowed = |licence: &str| {
            general.contains(&licence) || special.is_some_and(|s| s.contains(&licence))
        };
        match spdx::satisfied(&package.licence, &allowed) {
            Ok(true) => {}
            Ok(false) => refused.push(format!("{package:?}: not allowed")),
            Err(why) => refused.push(format!("{package:?}: {why}")),
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");

    for name in exceptions.keys() {
        assert!(
            packages.iter().any(|p| p.name == *name),
            "the exception for {name} is no longer needed: remove it"
        );
    }
}

#[test]
fn no_banned_package_or_version_is_compiled() {
    let policy = policy();
    let bans = policy["bans"]["deny"].as_array().expect("a list of bans");
    let packages = compiled("normal,build", &["-p", "innermesh-agent"]);
    let mut refused = Vec::new();
    for ban in bans {
        let (name, range) = match text(&ban["crate"]).split_once(':') {
            Some((name, range)) => (name, VersionReq::parse(range).expect("a version range")),
            None => (text(&ban["crate"]), VersionReq::STAR),
        };
        let wrappers = ban.get("wrappers").map(strings).unwrap_or_default();
        for package in packages.iter().filter(|p| p.name == name) {
            let users = match &*wrappers {
                [] => Vec::new(),
                _ => users(name),
            };
            let is_wrapped =
                !wrappers.is_empty() && users.iter().all(|user| wrappers.contains(&user.as_str()));
            if range.matches(&package.version) && !is_wrapped {
                refused.push(format!("{package:?}: {}", text(&ban["reason"])));
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn every_package_comes_from_the_registry_or_from_here() {
    let lock: Table = read("Cargo.lock").parse().expect("Cargo.lock is TOML");
    let packages = lock["package"].as_array().expect("a list of packages");
    assert!(packages.len() > 100);
    let workspace: Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let ours: BTreeSet<String> = strings(&workspace["workspace"]["members"])
        .into_iter()
        .map(|folder| {
            let manifest = read(&format!("{folder}/Cargo.toml"));
            let manifest: Table = manifest.parse().expect("a manifest is TOML");
            text(&manifest["package"]["name"]).to_owned()
        })
        .collect();
    for package in packages {
        match package.get("source").map(text) {
            None => assert!(
                ours.contains(text(&package["name"])),
                "{package} is neither from the registry nor of this workspace"
            ),
            Some(source) => {
                assert!(
                    source.starts_with("registry+"),
                    "{package} is not from the registry"
                );
                assert!(
                    package.get("checksum").is_some(),
                    "{package} has no checksum"
                );
            }
        }
    }
}

#[test]
fn an_ignored_advisory_says_why_and_still_concerns_the_graph() {
    let policy = policy();
    let ignored = policy["advisories"]["ignore"].as_array().expect("a list");
    let lock = read("Cargo.lock");
    for entry in ignored {
        let reason = text(&entry["reason"]);
        let package = reason
            .split(' ')
            .next()
            .expect("the reason opens with the package");
        assert!(
            lock.contains(&format!("name = \"{package}\"\n")),
            "{entry}: {package} is not in the graph; remove it"
        );
    }
}

#[test]
fn the_protocol_crate_depends_on_nothing_with_io_a_clock_or_randomness() {
    const BANNED: &[&str] = &[
        "async-",
        "aws-lc",
        "axum",
        "chitchat",
        "futures",
        "getrandom",
        "hickory",
        "hyper",
        "mio",
        "nix",
        "opentelemetry",
        "quinn",
        "rand",
        "rcgen",
        "reqwest",
        "ring",
        "rtnetlink",
        "rustls",
        "socket2",
        "tempfile",
        "tokio",
        "tracing",
        "wireguard",
        "gotatun",
    ];
    let packages = compiled("normal", &["-p", "innermesh-proto"]);
    assert!(packages.len() > 10, "the graph was not read: {packages:?}");
    let found: Vec<_> = packages
        .iter()
        .filter(|p| {
            BANNED.iter().any(|banned| p.name.starts_with(banned)) && p.name != "rustls-pki-types"
        })
        .collect();
    assert!(found.is_empty(), "proto must not depend on {found:#?}");
}

#[test]
fn the_protocol_crate_reaches_for_no_clock_file_socket_thread_or_environment() {
    const BANNED: &[&str] = &[
        "SystemTime",
        "Instant",
        "UdpSocket",
        "TcpStream",
        "TcpListener",
        "UnixStream",
        "File",
        "fs",
        "env",
        "thread",
        "process",
        "async",
        "println",
        "eprintln",
        "HashMap",
        "HashSet",
    ];
    let mut files = 0;
    let mut found = Vec::new();
    each_source(&root().join("proto/src"), &mut |path, source| {
        files += 1;
        for (number, line) in source.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in words(code).filter(|w| BANNED.contains(w)) {
                found.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    });
    assert!(files > 3, "proto/src was not read");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_engine_reaches_for_no_clock_file_socket_thread_or_environment() {
    const BANNED: &[&str] = &[
        "SystemTime",
        "UdpSocket",
        "File",
        "fs",
        "env",
        "fd",
        "thread",
        "process",
        "async",
        "println",
        "eprintln",
    ];
    let mut files = 0;
    let mut found = Vec::new();
    each_source(&root().join("agent/engine/src"), &mut |path, source| {
        files += 1;
        for (number, line) in source.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let has_clock = code.contains("Instant::now");
            if has_clock || words(code).any(|word| BANNED.contains(&word)) {
                found.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    });
    assert!(files > 3, "agent/engine/src was not read");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_crate_uses_only_those_of_ours_that_lie_below_it() {
    const BELOW: &[(&str, &[&str])] = &[
        ("innermesh-proto", &[]),
        ("innermesh-engine", &[]),
        ("innermesh-host", &["innermesh-engine", "innermesh-proto"]),
        (
            "innermesh-ca",
            &["innermesh-engine", "innermesh-host", "innermesh-proto"],
        ),
        (
            "innermesh-control",
            &["innermesh-engine", "innermesh-host", "innermesh-proto"],
        ),
        (
            "innermesh-net",
            &["innermesh-engine", "innermesh-host", "innermesh-proto"],
        ),
        (
            "innermesh-ledger",
            &[
                "innermesh-ca",
                "innermesh-engine",
                "innermesh-host",
                "innermesh-net",
                "innermesh-proto",
            ],
        ),
        (
            "innermesh-serve",
            &[
                "innermesh-ca",
                "innermesh-control",
                "innermesh-engine",
                "innermesh-host",
                "innermesh-proto",
            ],
        ),
        (
            "innermesh-agent",
            &[
                "innermesh-ca",
                "innermesh-control",
                "innermesh-engine",
                "innermesh-host",
                "innermesh-ledger",
                "innermesh-net",
                "innermesh-proto",
                "innermesh-serve",
            ],
        ),
    ];
    for (name, below) in BELOW {
        let packages = compiled("normal,build", &["-p", name]);
        let ours: Vec<&str> = packages
            .iter()
            .map(|package| package.name.as_str())
            .filter(|used| used.starts_with("innermesh-") && used != name)
            .collect();
        assert_eq!(ours, *below, "{name}");
    }
}

#[test]
fn every_planted_bug_fits_the_code() {
    let folder = root().join("simulations/planted");
    let entries = fs::read_dir(folder).expect("the planted bugs");
    let patches: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "patch"))
        .collect();
    assert!(patches.len() > 20, "the planted bugs were not found");
    for patch in patches {
        let checked = Command::new("git")
            .current_dir(root())
            .args(["apply", "--check"])
            .arg(&patch)
            .output()
            .expect("git can be run");
        let why = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{}: {why}", patch.display());
    }
}

/// A package that a build takes in.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: Version,
    licence: String,
}

/// The packages that a build on this host compiles, by the features in use
/// (which `cargo metadata` doesn't resolve).
/// The packages that use the one of this name themselves.
fn users(name: &str) -> Vec<String> {
    let of = ["-p", "innermesh-agent", "--invert", name, "--depth", "1"];
    let packages = compiled("normal,build", &of).into_iter();
    let users: Vec<String> = packages
        .map(|user| user.name)
        .filter(|n| n != name)
        .collect();
    assert!(!users.is_empty(), "who uses {name} was not read");
    users
}

fn compiled(edges: &str, selection: &[&str]) -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args([
            "tree",
            "--locked",
            "--offline",
            "--prefix",
            "none",
            "--no-dedupe",
        ])
        .args(["--format", "{p}|{l}", "--edges", edges])
        .args(selection)
        .output()
        .expect("cargo can be run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut packages: Vec<Package> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            // So marked is one whose tests use what uses it.
            let line = line.strip_suffix(" (*)").unwrap_or(line);
            let (package, licence) = line.split_once('|').expect("the format asked for");
            let mut words = package.split(' ');
            let name = words.next().expect("a name").to_owned();
            let version = words
                .next()
                .and_then(|v| v.strip_prefix('v'))
                .expect("a version");
            let version = Version::parse(version).expect("a version");
            Package {
                name,
                version,
                licence: licence.to_owned(),
            }
        })
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

fn policy() -> Table {
    read("ops/deny.toml")
        .parse()
        .expect("ops/deny.toml is TOML")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn text(value: &toml::Value) -> &str {
    value.as_str().expect("a text")
}

fn strings(value: &toml::Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(text).collect()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn each_source(folder: &Path, visit: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            each_source(&path, visit);
        } else if path.extension().is_some_and(|e| e == "rs") {
            visit(&path, &fs::read_to_string(&path).expect("a source file"));
        }
    }
}
