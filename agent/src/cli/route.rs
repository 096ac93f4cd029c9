//! `agent route`: networks that gateways bring into the mesh.

use std::net::IpAddr;

use innermesh_proto::name::Label;
use ipnet::IpNet;

use super::{
    failure::Failure,
    output::{Detail, Output, note},
    show::{Cell, Column, Screen, Table},
};
use crate::control::{
    Client,
    routes::{RouteChangeRequest, RouteChanged, RouteListRequest, RouteRow, RouteWay},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Add(AddArguments),
    Rm(RmArguments),
    #[command(visible_alias = "ls")]
    List(ListArguments),
}

/// Let nodes and devices reach a network by this gateway.
///
/// The network is one that this machine stands in, such as a LAN; its hosts see
/// the true addresses of nodes and devices, and reach them as the mesh's policy
/// says. This node needs the role gateway. Its invite must have granted the
/// network, or an admin runs this. Nodes that stand in the network themselves go
/// on without the tunnel.
///
/// What the network's router needs, so that its hosts can answer, is printed;
/// `agent status` tells of it until a packet has come back that way.
#[derive(Debug, clap::Args)]
pub struct AddArguments {
    /// Network, such as 192.168.1.0/24.
    #[arg(value_name = "NET", value_parser = net)]
    net: IpNet,
    /// Another gateway than this node; for admins.
    #[arg(long, value_name = "NODE")]
    gateway: Option<Label>,
    #[command(flatten)]
    output: Output,
}

/// Stop reaching a network by this gateway.
///
/// Connections through it end at once, unless another gateway brings the same
/// network.
#[derive(Debug, clap::Args)]
pub struct RmArguments {
    /// Network, such as 192.168.1.0/24.
    #[arg(value_name = "NET", value_parser = net)]
    net: IpNet,
    /// Another gateway than this node; for admins.
    #[arg(long, value_name = "NODE")]
    gateway: Option<Label>,
    #[command(flatten)]
    output: Output,
}

/// Show the networks behind gateways.
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    #[command(flatten)]
    detail: Detail,
    #[command(flatten)]
    output: Output,
}

/// Not a network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NetError {
    #[error("\"{0}\" is no network; one looks like 192.168.1.0/24 or 2001:db8:1::/64")]
    Unread(String),
    #[error("{0} is an address; its network looks like {0}/24")]
    Address(IpAddr),
    #[error("{0} is an address within a network; that is {1}")]
    Within(IpNet, IpNet),
}

fn net(text: &str) -> Result<IpNet, NetError> {
    match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(net), _) if net.trunc() != net => Err(NetError::Within(net, net.trunc())),
        (Ok(net), _) => Ok(net),
        (Err(_), Ok(address)) if address.is_ipv4() => Err(NetError::Address(address)),
        _ => Err(NetError::Unread(text.chars().take(60).collect())),
    }
}

pub async fn run(command: Command, client: &Client) -> Result<(), Failure> {
    match command {
        Command::Add(AddArguments {
            net,
            gateway,
            output,
        }) => change(net, gateway, true, output, client).await,
        Command::Rm(RmArguments {
            net,
            gateway,
            output,
        }) => change(net, gateway, false, output, client).await,
        Command::List(arguments) => list(&arguments, client).await,
    }
}

async fn change(
    net: IpNet,
    gateway: Option<Label>,
    give: bool,
    output: Output,
    client: &Client,
) -> Result<(), Failure> {
    let request = RouteChangeRequest { net, gateway, give };
    let changed = client.ask(&request).await?;
    output.print(&changed, || told(&changed))?;
    if changed.led == Some(false) {
        note(&format!(
            "no interface of this machine has an address in {net}; see `ip route get` with one of it"
        ));
    }
    Ok(())
}

/// What became of it.
fn told(changed: &RouteChanged) -> String {
    let RouteChanged {
        net,
        gateway,
        give,
        returns,
        ..
    } = changed;
    if !give {
        return format!("{net} isn't reached by {gateway} any more\n");
    }
    let mut text = format!("{net} is reached by {gateway} now\n");
    if !returns.is_empty() {
        text.push_str("Its hosts can answer once the router of that network has this route:\n");
        for command in returns {
            text.push_str(&format!("    {command}\n"));
        }
    }
    text
}

async fn list(arguments: &ListArguments, client: &Client) -> Result<(), Failure> {
    let ListArguments { detail, output } = *arguments;
    let routes = client.ask(&RouteListRequest {}).await?;
    output.show(detail, &routes, |screen| draw(screen, &routes))
}

fn draw(screen: &mut Screen, routes: &[RouteRow]) {
    if routes.is_empty() {
        return screen.say("no gateway brings a network; `agent route add NET` on one adds it\n");
    }
    let mut table = Table::new([
        Column::whole("NET"),
        Column::whole("GATEWAY"),
        Column::whole("LIVE"),
        Column::whole("FROM HERE"),
        Column::new("ROUTE BACK"),
    ]);
    for row in routes {
        table.add([
            Cell::new(row.net),
            Cell::new(&row.gateway),
            if row.live {
                Cell::good("yes")
            } else {
                Cell::bad("no")
            },
            way(row),
            back(row),
        ]);
    }
    screen.table(&table.sorted());
}

fn way(row: &RouteRow) -> Cell {
    match row.way {
        RouteWay::Own => Cell::new("this node"),
        RouteWay::Tunnel if row.used => Cell::good("tunnel"),
        RouteWay::Tunnel => Cell::new("another gateway"),
        RouteWay::Direct => Cell::good("direct"),
        RouteWay::Overlap => Cell::bad("own network"),
        RouteWay::None => Cell::bad("none"),
    }
}

fn back(row: &RouteRow) -> Cell {
    match (row.back.as_deref(), &row.returns) {
        (Some("seen"), _) => Cell::good("seen"),
        (Some("missing"), Some(command)) => Cell::bad(format!("missing: {command}")),
        (Some(_), Some(command)) => Cell::care(format!("not seen: {command}")),
        (Some(word), None) => Cell::care(word),
        (None, _) => Cell::or_dash(None::<String>),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_and_what_is_none_is_told_with_what_may_be_meant() {
        assert!(net("192.168.1.0/24").is_ok() && net("2001:db8::/64").is_ok());
        let error = |text| net(text).unwrap_err().to_string();
        assert!(error("192.168.1.5/24").contains("192.168.1.0/24"));
        assert!(error("192.168.1.0").contains("192.168.1.0/24"));
        assert!(error("home").contains("home"));
    }

    #[test]
    fn the_route_back_stands_below_what_was_added() {
        let mut changed = RouteChanged {
            net: "192.168.1.0/24".parse().unwrap(),
            gateway: "attic".into(),
            give: true,
            returns: vec!["ip route add 10.77.0.0/16 via 192.168.1.5".into()],
            led: Some(true),
        };
        let text = told(&changed);
        assert!(text.contains("reached by attic"), "{text}");
        assert!(text.contains("\n    ip route add 10.77.0.0/16 via 192.168.1.5\n"));
        changed.give = false;
        assert!(told(&changed).contains("any more"));
    }
}
