//! `agent dns docker`: has containers ask the mesh's resolver.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    daemon_json::{self, Merged},
    failure::Failure,
    files,
    output::{Output, note},
};
use crate::control::{
    Client,
    node::{Status, StatusRequest},
};

/// Where Docker's daemon looks for its configuration.
const DAEMON_JSON: &str = "/etc/docker/daemon.json";
/// The only port that a container's resolv.conf can name.
const PORT: u16 = 53;

/// Print what Docker's daemon.json needs for the mesh's names.
///
/// With it containers of all networks ask the agent of this host, once Docker was
/// restarted and they were started anew. Other names are forwarded.
#[derive(Debug, clap::Args)]
pub struct DockerArguments {
    /// Write it to FILE, and keep what else stands there.
    ///
    /// Docker isn't restarted: that may stop containers.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = DAEMON_JSON)]
    write: Option<PathBuf>,
    /// Replace other name servers that FILE has.
    #[arg(long, requires = "write")]
    replace: bool,
    #[command(flatten)]
    output: Output,
}

/// What daemon.json needs.
#[derive(Debug, Serialize)]
struct Report {
    /// Name servers for containers.
    dns: [IpAddr; 1],
    /// The file that has them now; null where none was asked for.
    file: Option<PathBuf>,
    /// Whether it was changed.
    changed: bool,
}

pub async fn run(arguments: &DockerArguments, client: &Client) -> Result<(), Failure> {
    let status = client.ask(&StatusRequest {}).await?;
    let server = server(&status).map_err(Failure::failed)?;
    let Some(file) = &arguments.write else {
        let report = Report {
            dns: [server],
            file: None,
            changed: false,
        };
        return arguments.output.print(&report, || fragment(server));
    };
    let changed = write(file, server, arguments.replace)?;
    let report = Report {
        dns: [server],
        file: Some(file.clone()),
        changed,
    };
    arguments.output.print(&report, || {
        let file = file.display();
        if changed {
            format!("{file} has containers ask {server}\n")
        } else {
            format!("{file} has containers ask {server} already\n")
        }
    })?;
    if changed {
        note(
            "it counts once Docker is restarted (`systemctl restart docker`), which stops containers \
             unless `live-restore` is set, and for containers that are started from then on",
        );
    }
    Ok(())
}

/// As a file of its own.
fn fragment(server: IpAddr) -> String {
    format!("{{ \"dns\": [\"{server}\"] }}\n")
}

/// Why containers can't ask.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NoServer {
    #[error(
        "names are answered nowhere on this host, so containers can't ask either; `agent status` \
         says why"
    )]
    Nowhere,
    #[error(
        "names are answered at {0} only, where containers can't ask: they need an IPv4 address \
         that isn't 127.0.0.1, and port {PORT}; set `listen` of [dns] in the configuration, or remove \
         it"
    )]
    Beside(SocketAddr),
}

/// The resolver's address that containers reach: by IPv4, which all of them have.
fn server(status: &Status) -> Result<IpAddr, NoServer> {
    let first = status.dns.address.ok_or(NoServer::Nowhere)?;
    let suits = |at: &&SocketAddr| at.is_ipv4() && at.port() == PORT && !at.ip().is_loopback();
    let all = std::iter::once(&first).chain(&status.dns.addresses);
    let found = all.clone().find(suits).ok_or(NoServer::Beside(first))?;
    if !found.ip().is_unspecified() {
        return Ok(found.ip());
    }
    // At all addresses: then at the node's own too.
    let own = status.nodes.iter().find(|node| node.name == status.node);
    let mut own = own.into_iter().flat_map(|node| &node.addresses);
    let own = own.find(|ip| ip.is_ipv4());
    own.copied().ok_or(NoServer::Beside(first))
}

/// Whether the file was changed.
fn write(file: &Path, server: IpAddr, replace: bool) -> Result<bool, Failure> {
    let before = files::read(file).map_err(Failure::failed)?;
    let text = before.as_deref().unwrap_or_default();
    let merged = daemon_json::merge(text, server, replace)
        .map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
    let Merged::Changed(text) = merged else {
        return Ok(false);
    };
    files::replace(file, text.as_bytes()).map_err(Failure::failed)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn status(addresses: &[&str]) -> Status {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|at| at.parse().unwrap()).collect();
        let mut value = serde_json::json!({
            "mesh": "", "domain": "lab.internal", "node": "alpha", "id": "", "version": "",
            "uptime_s": 0, "ledger": { "index": 0, "hash": "" }, "warnings": [], "services": [],
            "pending": [], "counters": {}, "nodes": [{
                "name": "alpha", "id": "", "addresses": ["fd77::1", "10.77.0.1"], "roles": [],
                "live": true, "path": "direct", "held": false,
            }],
        });
        value["dns"] = serde_json::json!({
            "address": addresses.first(), "addresses": addresses,
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn containers_are_given_an_address_and_port_that_they_can_ask() {
        let ip = |text: &str| Ok(text.parse().unwrap());
        let usual = status(&["10.77.0.53:53", "[fd77::53]:53", "10.77.0.53:5354"]);
        assert_eq!(server(&usual), ip("10.77.0.53"));
        let lan = status(&["[::1]:53", "127.0.0.1:53", "192.168.1.2:53"]);
        assert_eq!(server(&lan), ip("192.168.1.2"));
        assert_eq!(server(&status(&["0.0.0.0:53"])), ip("10.77.0.1"));
        for beside in ["127.0.0.1:53", "10.77.0.53:5354", "[fd77::53]:53"] {
            let told = server(&status(&[beside]));
            assert_eq!(told, Err(NoServer::Beside(beside.parse().unwrap())));
        }
        assert_eq!(server(&status(&[])), Err(NoServer::Nowhere));
    }

    #[test]
    fn a_file_is_written_once_and_keeps_its_mode_and_place() {
        let folder = tempfile::tempdir().unwrap();
        let server = "10.77.0.53".parse().unwrap();
        let file = folder.path().join("docker/daemon.json");
        assert!(write(&file, server, false).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), fragment(server));
        assert!(!write(&file, server, false).unwrap());

        let target = folder.path().join("theirs.json");
        fs::write(&target, "{\n  \"debug\": true\n}\n").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link.json");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(write(&link, server, false).unwrap());
        assert!(link.is_symlink());
        let text = fs::read_to_string(&target).unwrap();
        assert!(
            text.contains("\"debug\": true") && text.contains("10.77.0.53"),
            "{text}"
        );
        let mode = fs::metadata(&target).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);

        fs::write(&target, "{ \"dns\": [\"9.9.9.9\"] }").unwrap();
        let refused = write(&target, server, false).unwrap_err().to_string();
        assert!(
            refused.contains("theirs.json") && refused.contains("--replace"),
            "{refused}"
        );
        assert_eq!(
            fs::read_to_string(&target).unwrap(),
            "{ \"dns\": [\"9.9.9.9\"] }"
        );
        assert!(write(&target, server, true).unwrap());
        let names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 3, "nothing is left beside it: {names:?}");
    }
}
