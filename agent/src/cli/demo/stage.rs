//! The stage: the namespaces in which the hosts are, the cable between them,
//! and the order in which it all goes up and comes down.

use std::{
    env,
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr},
    os::{fd::AsRawFd, unix::fs::symlink},
    path::{Component, Path, PathBuf},
    process::Stdio,
};

use nix::mount::{MsFlags, mount};
use tokio::process::Command;

use super::{
    error::{DemoError, Tried},
    fit,
    host::{FOLDER, Host},
    lifeline,
    report::Report,
    story,
};
use crate::cli::failure::{FAILED, Failure};

/// Carries [`fit::Way::enter`] to the stage.
pub const ENTER: &str = "INNERMESH_DEMO_ENTER";

/// The hosts' names, in the order in which they come to the mesh.
const NAMES: [&str; 3] = ["birch", "cedar", "maple"];

/// `agent demo stage`: as [`super`] says.
pub async fn run(check: bool) -> Result<(), Failure> {
    let report = Report::new(check);
    let mut hosts = Vec::new();
    let end = lifeline::ends();
    tokio::pin!(end);
    let played = tokio::select! {
        played = play(&mut hosts, &report) => played,
        _ = &mut end => {
            report.line("ended before all was shown");
            return Err(Failure::silent(FAILED));
        }
    };
    if let Err(error) = played {
        report.failure(&error, &hosts);
        return Err(Failure::silent(FAILED));
    }
    if !check {
        report.shells(&hosts, &env::var(ENTER).unwrap_or_default());
        // An error ends it as well as the end does.
        let _ = end.await;
    }
    Ok(())
}

async fn play(hosts: &mut Vec<Host>, report: &Report) -> Result<(), DemoError> {
    report.chapter(
        "Three hosts on this machine, each with its own network, on one cable: 192.0.2.0/24",
    );
    let program = env::current_exe().tried("finding this program")?;
    cover_run(&program).tried("giving the hosts a /run of their own")?;
    fs::create_dir_all(Path::new(FOLDER).join("bin")).tried(FOLDER)?;
    symlink(&program, Path::new(FOLDER).join("bin/agent")).tried(FOLDER)?;

    ip(&["link", "add", "name", "cable", "type", "bridge"]).await?;
    ip(&["link", "set", "cable", "up"]).await?;
    for (name, number) in NAMES.into_iter().zip(11..) {
        let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, number));
        let host = Host::start(name, address, &program).await?;
        plug_in(&host).await?;
        report.line(&format!("{name}  {address}"));
        hosts.push(host);
    }
    story::play(hosts, report).await
}

/// Puts a host on the cable.
async fn plug_in(host: &Host) -> Result<(), DemoError> {
    let (name, pid) = (host.name, host.inner_pid().to_string());
    ip(&[
        "link", "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", &pid,
    ])
    .await?;
    ip(&["link", "set", name, "master", "cable", "up"]).await?;
    let address = format!("{}/24", host.address);
    for words in [
        &["ip", "link", "set", "lo", "up"][..],
        &["ip", "address", "add", &address, "dev", "eth0"],
        &["ip", "link", "set", "eth0", "up"],
    ] {
        succeed(host.command(words), &words.join(" ")).await?;
    }
    Ok(())
}

async fn ip(words: &[&str]) -> Result<(), DemoError> {
    let mut command = Command::new("ip");
    command.args(words).stdin(Stdio::null());
    succeed(command, &format!("ip {}", words.join(" "))).await
}

async fn succeed(mut command: Command, what: &str) -> Result<(), DemoError> {
    let output = command.output().await.tried(what)?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(io::Error::other(said)).tried(what)
    }
}

/// Lays an empty file system over /run, in this namespace only: agents keep
/// sockets there, and none of the machine's own services shall be reached. What
/// the search path and the program need of /run stays: on NixOS that is all.
fn cover_run(program: &Path) -> io::Result<()> {
    let run = Path::new("/run");
    let mut kept = Vec::new();
    for name in needed(program, &fit::path()) {
        let path = run.join(name);
        match fs::read_link(&path) {
            Ok(to) => kept.push((path, Err(to))),
            Err(_) => kept.extend(File::open(&path).ok().map(|opened| (path, Ok(opened)))),
        }
    }
    let none: Option<&str> = None;
    mount(
        Some("tmpfs"),
        run,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )?;
    for (path, what) in kept {
        match what {
            Err(to) => symlink(to, path)?,
            Ok(opened) => {
                fs::create_dir(&path)?;
                let covered = format!("/proc/self/fd/{}", opened.as_raw_fd());
                mount(
                    Some(covered.as_str()),
                    &path,
                    none,
                    MsFlags::MS_BIND | MsFlags::MS_REC,
                    none,
                )?;
            }
        }
    }
    let old = Path::new("/var/run");
    if old.is_dir() && fs::symlink_metadata(old)?.is_dir() {
        mount(
            Some(run),
            old,
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        )?;
    }
    uncover_resolver()
}

/// The entries of /run that lead to the program or to programs it calls.
fn needed(program: &Path, path: &std::ffi::OsStr) -> Vec<PathBuf> {
    let folders = env::split_paths(path).chain([program.to_owned()]);
    let mut names: Vec<PathBuf> = folders
        .filter_map(
            |folder| match folder.strip_prefix("/run").ok()?.components().next()? {
                Component::Normal(name) => Some(PathBuf::from(name)),
                _ => None,
            },
        )
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Where /etc/resolv.conf leads to /run, as systemd-resolved has it, makes an
/// empty file there, over which each host's own is mounted.
fn uncover_resolver() -> io::Result<()> {
    let link = Path::new("/etc/resolv.conf");
    if link.exists() {
        return Ok(());
    }
    let target = Path::new("/etc").join(fs::read_link(link)?);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    File::create(target).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_run_only_what_leads_to_programs_is_needed() {
        let path = "/usr/bin:/run/current-system/sw/bin:/run/wrappers/bin:/run:/run/current-system/x:/runner";
        let names = needed(Path::new("/run/user/agent"), path.as_ref());
        assert_eq!(
            names,
            ["current-system", "user", "wrappers"].map(PathBuf::from)
        );
        assert!(needed(Path::new("/usr/bin/agent"), "/usr/bin".as_ref()).is_empty());
    }
}
