//! `agent publish` and `agent unpublish`: ports of public nodes that lead to services
//! inside.

use innermesh_proto::name::Label;

use super::{
    failure::Failure,
    output::{Detail, Output},
    show::{Cell, Column, Screen, Table},
};
use crate::control::{
    Client,
    publish::{
        PublishListRequest, PublishRequest, PublishRow, Published, UnpublishRequest, Unpublished,
    },
};

/// Let strangers reach a service by a public node.
///
/// A TCP port of a node that has a public address, such as a small rented server,
/// leads to a service that runs on another node. The service sees the true address
/// of each client. Nothing else of either node becomes reachable, and nothing passes
/// that comes from the mesh, from devices, or from private networks.
///
/// Both agents need root, or CAP_NET_ADMIN, and nftables on the public node; the
/// service must listen on all addresses. Where the way back can't be had, as for
/// services in containers, --proxy-protocol has the public node's agent connect to
/// the service and send the client's address ahead (PROXY protocol, version 2): the
/// service must expect that. Ports below 1024 then take root or
/// CAP_NET_BIND_SERVICE on the public node, and nothing the other side.
///
/// Admins only. Without a name it shows what is published.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Service, or node.
    #[arg(value_name = "NAME", requires_all = ["port", "on"])]
    name: Option<Label>,
    /// Port of the public node.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), requires = "name")]
    port: Option<u16>,
    /// Port inside; the service's own without it.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), requires = "name")]
    to_port: Option<u16>,
    /// Public node.
    #[arg(long, value_name = "NODE", requires = "name")]
    on: Option<Label>,
    /// Tell the client's address by the PROXY protocol.
    #[arg(long, requires = "name")]
    proxy_protocol: bool,
    #[command(flatten)]
    detail: Detail,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(visible_alias = "ls")]
    List(ListArguments),
}

/// Show what is published.
#[derive(Debug, clap::Args)]
struct ListArguments {
    #[command(flatten)]
    detail: Detail,
    #[command(flatten)]
    output: Output,
}

/// Stop letting strangers reach a service.
///
/// Connections that are open end at once. The public node itself may do this too,
/// for what is published on it.
#[derive(Debug, clap::Args)]
pub struct UnpublishArguments {
    /// Service, or node.
    #[arg(value_name = "NAME")]
    name: Label,
    /// That port alone.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// On that public node alone.
    #[arg(long, value_name = "NODE")]
    on: Option<Label>,
    #[command(flatten)]
    output: Output,
}

pub async fn run(arguments: Arguments, client: &Client) -> Result<(), Failure> {
    if let Some(Command::List(ListArguments { detail, output })) = arguments.command {
        return list(detail, output, client).await;
    }
    let Arguments {
        name,
        port,
        to_port,
        on,
        proxy_protocol,
        detail,
        output,
        ..
    } = arguments;
    let (Some(name), Some(port), Some(on)) = (name, port, on) else {
        return list(detail, output, client).await;
    };
    let request = PublishRequest {
        name,
        port,
        to_port,
        on,
        proxy_protocol,
    };
    let published = client.ask(&request).await?;
    output.print(&published, || told(&published))
}

pub async fn unpublish(arguments: UnpublishArguments, client: &Client) -> Result<(), Failure> {
    let UnpublishArguments {
        name,
        port,
        on,
        output,
    } = arguments;
    let ended = client.ask(&UnpublishRequest { name, port, on }).await?;
    output.print(&ended, || ended_text(&ended))
}

fn told(published: &Published) -> String {
    let Published {
        name,
        port,
        on,
        to_port,
        ..
    } = published;
    let mut text = format!("port {port} of {on} leads to {name}:{to_port} now\n");
    for need in &published.needs {
        text.push_str(&format!("  - {need}\n"));
    }
    text
}

fn ended_text(unpublished: &Unpublished) -> String {
    let ended = unpublished.ended.iter();
    let lines = ended.map(|ended| {
        format!(
            "port {} of {} doesn't lead to {} any more\n",
            ended.port, ended.on, unpublished.name
        )
    });
    lines.collect()
}

async fn list(detail: Detail, output: Output, client: &Client) -> Result<(), Failure> {
    let rows = client.ask(&PublishListRequest {}).await?;
    output.show(detail, &rows, |screen| draw(screen, &rows))
}

fn draw(screen: &mut Screen, rows: &[PublishRow]) {
    if rows.is_empty() {
        return screen.say(
            "nothing is published; `agent publish NAME --port PORT --on NODE` publishes a service\n",
        );
    }
    let mut table = Table::new([
        Column::whole("NAME"),
        Column::whole("ON"),
        Column::whole("PORT"),
        Column::whole("TO"),
        Column::whole("SOURCE"),
        Column::new("STATE"),
    ]);
    for row in rows {
        table.add([
            Cell::new(&row.name),
            Cell::new(&row.on),
            Cell::new(row.port),
            match &row.to {
                Some(to) => Cell::new(format!("{to}:{}", row.to_port)),
                None => Cell::or_dash(None::<String>),
            },
            Cell::new(if row.proxy_protocol {
                "PROXY header"
            } else {
                "kept"
            }),
            state(row),
        ]);
    }
    screen.table(&table.sorted());
}

fn state(row: &PublishRow) -> Cell {
    match (&row.trouble, &row.to) {
        (Some(why), _) => Cell::bad(why),
        (None, _) if !row.live => Cell::bad(format!("{} is away", row.on)),
        (None, None) => Cell::bad("no live node is ready for it"),
        (None, Some(_)) => Cell::good("open"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_side_needs_stands_below_what_was_published() {
        let published = Published {
            name: "mail".into(),
            port: 25,
            on: "vps".into(),
            to_port: 2525,
            proxy_protocol: false,
            inside: vec!["attic".into()],
            needs: vec!["vps forwards".into()],
        };
        assert_eq!(
            told(&published),
            "port 25 of vps leads to mail:2525 now\n  - vps forwards\n"
        );
    }
}
