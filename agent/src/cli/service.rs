//! `agent service`.

use std::net::IpAddr;

use innermesh_proto::{name::Label, zone::Protocol};
use serde::Serialize;

use super::{
    failure::Failure,
    init::{self, node_name},
    output::{Output, health, or_dash, table, yes_no},
};
use crate::{
    control::{
        Client,
        services::{
            ServiceAddRequest, ServiceAdded, ServiceListRequest, ServiceRmRequest, ServiceState,
        },
    },
    services::{Check, Spec},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Add(AddArguments),
    Rm(RmArguments),
    List(ListArguments),
}

/// Add a service of this node, or change it.
///
/// NAME.<node>.<domain> answers at once; NAME.<domain> as soon as the mesh
/// grants it.
#[derive(Debug, clap::Args)]
pub struct AddArguments {
    /// Name of the service.
    #[arg(value_name = "NAME", value_parser = node_name)]
    name: Label,
    /// Port of the service.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Its transport: tcp or udp.
    #[arg(long, default_value_t = Protocol::Tcp)]
    proto: Protocol,
    /// Check that it works: `tcp`, or a URL.
    ///
    /// Such as http://localhost:8080/health.
    #[arg(long)]
    check: Option<Check>,
    /// Address, if it isn't this node's in the mesh.
    ///
    /// An address outside the mesh, such as a printer's, needs an admin's
    /// consent: this node is an admin, its invite granted the address, or an
    /// admin adds a record with it to NAME. Another node's address isn't taken:
    /// share NAME with that node, and run the service there.
    #[arg(long)]
    address: Option<IpAddr>,
    /// Let another node run it under the same name (repeatable).
    #[arg(long, value_name = "NODE")]
    share: Vec<Label>,
    #[command(flatten)]
    output: Output,
}

/// Remove a service of this node.
#[derive(Debug, clap::Args)]
pub struct RmArguments {
    /// Name of the service.
    #[arg(value_name = "NAME")]
    name: Label,
    /// Release the name too, so that another node can have it.
    #[arg(long)]
    release: bool,
    #[command(flatten)]
    output: Output,
}

/// Show the services of all nodes.
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    #[command(flatten)]
    output: Output,
}

pub async fn run(command: Command, client: &Client) -> Result<(), Failure> {
    match command {
        Command::Add(arguments) => add(arguments, client).await,
        Command::Rm(arguments) => rm(&arguments, client).await,
        Command::List(arguments) => list(&arguments, client).await,
    }
}

async fn add(arguments: AddArguments, client: &Client) -> Result<(), Failure> {
    let mut service = Spec::new(arguments.name, arguments.port);
    service.protocol = arguments.proto;
    service.check = arguments.check;
    service.address = arguments.address;
    service.share = arguments.share.into_iter().collect();
    service.validate().map_err(Failure::usage)?;
    let added = client.ask(&ServiceAddRequest(service)).await?;
    arguments.output.print(&added, || added_text(&added))
}

fn added_text(added: &ServiceAdded) -> String {
    let mut out = match added.state {
        ServiceState::Granted => format!("{} is added\n", added.name),
        ServiceState::Pending => format!(
            "{} is added; {} pending: {}\n",
            added.name,
            if added.reachable.is_empty() {
                "it is"
            } else {
                "its short name is"
            },
            added.reason.as_deref().unwrap_or("the mesh decides")
        ),
    };
    for name in &added.reachable {
        out.push_str(&format!("  {name}  {}\n", init::join(&added.addresses)));
    }
    out
}

async fn rm(arguments: &RmArguments, client: &Client) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Removed<'a> {
        name: &'a Label,
        released: bool,
    }
    let RmArguments { name, release, .. } = arguments;
    let request = ServiceRmRequest {
        name: name.clone(),
        release: *release,
    };
    client.ask(&request).await?;
    let removed = Removed {
        name,
        released: *release,
    };
    arguments.output.print(&removed, || {
        if *release {
            format!("{name} is removed, and anybody may have the name\n")
        } else {
            format!("{name} is removed; the name stays with this machine\n")
        }
    })
}

async fn list(arguments: &ListArguments, client: &Client) -> Result<(), Failure> {
    let services = client.ask(&ServiceListRequest {}).await?;
    let rows = services.iter().map(|service| {
        [
            service.name.clone(),
            service.node.clone(),
            format!("{}/{}", service.port, service.proto),
            health(service.healthy, service.checked),
            yes_no(service.granted),
            or_dash(service.check.as_ref()),
            or_dash(service.last_error.as_ref()),
        ]
    });
    arguments.output.print(&services, || {
        table(
            [
                "SERVICE", "NODE", "PORT", "HEALTHY", "GRANTED", "CHECK", "TROUBLE",
            ],
            &rows.collect::<Vec<_>>(),
        )
    })
}
