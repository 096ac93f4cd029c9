//! `agent dns secondary`: name servers that copy the mesh's zones.

use std::{
    fs,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use innermesh_proto::name::Label;

use super::{
    failure::Failure,
    output::{Detail, Output},
    show::{Cell, Column, Screen, Table},
};
use crate::{
    control::{
        Client,
        secondaries::{
            KeyText, SecondaryAddRequest, SecondaryAdded, SecondaryListRequest, SecondaryRmRequest,
            SecondaryRow, SecondaryZone,
        },
    },
    dns::{Algorithm, PORT},
};

/// Bytes of a key's file at most.
const KEY_BYTES: u64 = 16 * 1024;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Add(AddArguments),
    #[command(visible_alias = "ls")]
    List(ListArguments),
    Rm(RmArguments),
}

/// Let a name server copy zones from this node.
///
/// Prints its key, this once, and what to write into its configuration. It asks this
/// node by TCP and UDP port 53 at the address of this host that leads to it; the host's
/// firewall has to let that in.
///
/// To move to another node, add it there with the same key, give it that node as a
/// second primary, and remove it here: its serials go on.
#[derive(Debug, clap::Args)]
pub struct AddArguments {
    /// What to call it.
    #[arg(value_name = "NAME")]
    name: Label,
    /// Its address: changes are told there, and it asks from there.
    #[arg(long, value_name = "ADDRESS[:PORT]", required = true, value_parser = address)]
    address: Vec<SocketAddr>,
    /// Zone that it may have [default: all].
    #[arg(long, value_name = "ZONE")]
    zone: Vec<String>,
    /// Key to use: a file, - for standard input, or generated.
    ///
    /// A secret in base64, or what `tsig-keygen` prints.
    #[arg(long, value_name = "FILE", default_value = "generated")]
    key: PathBuf,
    /// hmac-sha256, hmac-sha384 or hmac-sha512.
    #[arg(long, value_name = "ALGORITHM", default_value_t = Algorithm::Sha256)]
    algorithm: Algorithm,
    /// Address of this host at which it asks.
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Print only the lines for this server.
    #[arg(long, value_name = "SERVER", conflicts_with = "json")]
    print: Option<Server>,
    #[command(flatten)]
    output: Output,
}

/// A server whose configuration is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Server {
    Bind,
    Knot,
    Nsd,
}

/// Show the secondaries of this node, and what they have.
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    #[command(flatten)]
    detail: Detail,
    #[command(flatten)]
    output: Output,
}

/// Give a name server nothing more.
///
/// What it is fetching ends at once. It has what it has fetched before.
#[derive(Debug, clap::Args)]
pub struct RmArguments {
    /// As it was called.
    #[arg(value_name = "NAME")]
    name: Label,
    #[command(flatten)]
    output: Output,
}

/// Not where a name server is asked.
#[derive(Debug, thiserror::Error)]
#[error("an IP address is expected, with or without a port")]
struct NoAddress;

/// An address, at port 53 where none is given.
fn address(text: &str) -> Result<SocketAddr, NoAddress> {
    let parsed = text.parse::<SocketAddr>();
    parsed.or_else(|_| {
        let ip = text.trim_start_matches('[').trim_end_matches(']');
        let ip = ip.parse::<IpAddr>().map_err(|_| NoAddress)?;
        Ok(SocketAddr::new(ip, PORT))
    })
}

pub async fn run(command: &Command, client: &Client) -> Result<(), Failure> {
    match command {
        Command::Add(arguments) => add(arguments, client).await,
        Command::List(arguments) => list(arguments, client).await,
        Command::Rm(arguments) => rm(arguments, client).await,
    }
}

async fn add(arguments: &AddArguments, client: &Client) -> Result<(), Failure> {
    let request = SecondaryAddRequest {
        name: arguments.name.clone(),
        addresses: arguments.address.clone(),
        zones: arguments.zone.clone(),
        listen: arguments.listen,
        key: read_key(&arguments.key)
            .map_err(|error| Failure::failed(format!("{}: {error}", arguments.key.display())))?,
        algorithm: Some(arguments.algorithm.to_string()),
    };
    let added = client.ask(&request).await?;
    let told = serde_json::json!({
        "name": added.name,
        "key": added.key,
        "listen": added.listen,
        "addresses": added.addresses,
        "zones": added.zones,
        "bind": bind(&added),
        "knot": knot(&added),
        "nsd": nsd(&added),
    });
    arguments.output.print(&told, || match arguments.print {
        Some(Server::Bind) => bind(&added),
        Some(Server::Knot) => knot(&added),
        Some(Server::Nsd) => nsd(&added),
        None => text(&added),
    })
}

fn read_key(path: &Path) -> io::Result<Option<KeyText>> {
    if path == Path::new("generated") {
        return Ok(None);
    }
    let mut text = String::new();
    if path == Path::new("-") {
        io::stdin().take(KEY_BYTES).read_to_string(&mut text)?;
    } else {
        fs::File::open(path)?
            .take(KEY_BYTES)
            .read_to_string(&mut text)?;
    }
    Ok(Some(KeyText(text)))
}

async fn rm(arguments: &RmArguments, client: &Client) -> Result<(), Failure> {
    let name = arguments.name.clone();
    client.ask(&SecondaryRmRequest { name }).await?;
    let name = &arguments.name;
    let told = serde_json::json!({ "name": name, "state": "removed" });
    arguments.output.print(&told, || {
        format!("{name} gets nothing more from this node\n")
    })
}

async fn list(arguments: &ListArguments, client: &Client) -> Result<(), Failure> {
    let rows = client.ask(&SecondaryListRequest {}).await?;
    let ListArguments { detail, output } = *arguments;
    output.show(detail, &rows, |screen| draw(screen, &rows))
}

fn text(added: &SecondaryAdded) -> String {
    format!(
        "{} may copy {} from {} with the key {} ({}):\n\n  {}\n\nIt is shown only this once. \
         What to write, in BIND:\n\n{}\nin Knot:\n\n{}\nor in NSD:\n\n{}",
        added.name,
        added.zones.join(", "),
        added.listen,
        added.key.name,
        added.key.algorithm,
        added.key.secret,
        bind(added),
        knot(added),
        nsd(added),
    )
}

/// Lines of named.conf.
fn bind(added: &SecondaryAdded) -> String {
    let key = &added.key;
    let (ip, port) = (added.listen.ip(), added.listen.port());
    let mut out = format!(
        "key \"{}\" {{ algorithm {}; secret \"{}\"; }};\n",
        key.name, key.algorithm, key.secret
    );
    for zone in &added.zones {
        out.push_str(&format!(
            "zone \"{zone}\" {{\n  type secondary;\n  file \"{zone}.zone\";\n  \
             primaries {{ {ip} port {port} key \"{}\"; }};\n}};\n",
            key.name
        ));
    }
    out
}

/// Lines of knot.conf.
fn knot(added: &SecondaryAdded) -> String {
    let (name, key) = (&added.name, &added.key);
    let (ip, port) = (added.listen.ip(), added.listen.port());
    let mut out = format!(
        "key:\n  - id: {key_name}\n    algorithm: {algorithm}\n    secret: {secret}\n\n\
         remote:\n  - id: {name}-primary\n    address: {ip}@{port}\n    key: {key_name}\n\n\
         acl:\n  - id: {name}-primary\n    address: {ip}\n    key: {key_name}\n    \
         action: notify\n\nzone:\n",
        key_name = key.name,
        algorithm = key.algorithm,
        secret = key.secret,
    );
    for zone in &added.zones {
        out.push_str(&format!(
            "  - domain: {zone}\n    master: {name}-primary\n    acl: {name}-primary\n"
        ));
    }
    out
}

/// Lines of nsd.conf. Without the first two it takes changes in once a second at most.
fn nsd(added: &SecondaryAdded) -> String {
    let key = &added.key;
    let (ip, port) = (added.listen.ip(), added.listen.port());
    let mut out = format!(
        "server:\n  xfrd-reload-timeout: 0\n\
         key:\n  name: \"{}\"\n  algorithm: {}\n  secret: \"{}\"\n",
        key.name, key.algorithm, key.secret
    );
    for zone in &added.zones {
        out.push_str(&format!(
            "zone:\n  name: \"{zone}\"\n  zonefile: \"{zone}.zone\"\n  \
             allow-notify: {ip} {name}\n  request-xfr: {ip}@{port} {name}\n",
            name = key.name
        ));
    }
    out
}

fn draw(screen: &mut Screen, rows: &[SecondaryRow]) {
    if rows.is_empty() {
        return screen.say(
            "this node has no secondaries; `agent dns secondary add NAME --address ADDRESS` adds one\n",
        );
    }
    let mut table = Table::new([
        Column::whole("NAME"),
        Column::whole("AT"),
        Column::new("ZONE"),
        Column::whole("SERIAL"),
        Column::whole("HAS"),
        Column::whole("ASKED"),
        Column::new("NOTIFY"),
    ]);
    for row in rows {
        for zone in &row.zones {
            table.add(cells(row, zone));
        }
    }
    screen.table(&table);
    for row in rows.iter().filter(|row| !row.listening) {
        screen.say(&format!(
            "{} asks at {}, where this node doesn't listen; `agent status` says why\n",
            row.name, row.listen
        ));
    }
}

fn cells(row: &SecondaryRow, zone: &SecondaryZone) -> [Cell; 7] {
    let at: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
    let has = match zone.fetched_serial {
        Some(serial) if zone.serial == Some(serial) => Cell::good(serial),
        other => Cell::or_dash(other),
    };
    [
        Cell::new(&row.name),
        Cell::new(at.join(" ")),
        Cell::new(&zone.zone),
        Cell::or_dash(zone.serial),
        has,
        Cell::or_dash(zone.asked_s.map(|seconds| format!("{seconds} s ago"))),
        match zone.notify.as_deref() {
            Some("answered") => Cell::good("answered"),
            Some(other) => Cell::care(other),
            None => Cell::or_dash(None::<String>),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::secondaries::SecondaryKey;

    fn added() -> SecondaryAdded {
        SecondaryAdded {
            name: "ns2".into(),
            key: SecondaryKey {
                name: "ns2.lab.internal".into(),
                algorithm: "hmac-sha256".into(),
                secret: "c2VjcmV0".into(),
            },
            listen: "[fd00::1]:53".parse().unwrap(),
            addresses: vec!["[fd00::53]:53".parse().unwrap()],
            zones: vec!["lab.internal".into(), "77.10.in-addr.arpa".into()],
        }
    }

    #[test]
    fn an_address_has_port_53_unless_another_is_given() {
        for (text, is) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5300", "192.0.2.53:5300"),
            ("fd00::53", "[fd00::53]:53"),
            ("[fd00::53]", "[fd00::53]:53"),
            ("[fd00::53]:5300", "[fd00::53]:5300"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), is);
        }
        for text in ["", "ns2", "192.0.2.53:", "192.0.2:53"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_to_write_names_the_key_each_zone_and_where_to_ask() {
        let added = added();
        for snippet in [bind(&added), knot(&added), nsd(&added)] {
            for part in [
                "ns2.lab.internal",
                "c2VjcmV0",
                "fd00::1",
                "77.10.in-addr.arpa",
            ] {
                assert!(snippet.contains(part), "{part} in {snippet}");
            }
            assert!(text(&added).contains(&snippet));
        }
        assert!(nsd(&added).contains("xfrd-reload-timeout: 0\n"));
    }
}
