//! `agent service`.

use std::net::IpAddr;

use innermesh_proto::{
    name::Label,
    zone::{Protocol, ServiceType},
};
use serde::Serialize;

use super::{
    failure::Failure,
    init::{self, node_name},
    output::{Detail, Output, health, well},
    show::{Cell, Column, Frame, Screen, Table, Watch},
};
use crate::{
    control::{
        Client,
        services::{
            ServiceAddRequest, ServiceAdded, ServiceListRequest, ServiceRmRequest, ServiceRow,
            ServiceState,
        },
    },
    services::{Check, Spec},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Add(AddArguments),
    Rm(RmArguments),
    #[command(visible_alias = "ls")]
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
    /// What it speaks, such as https [default: by check or port].
    ///
    /// A name from IANA's registry of services. By it the service is found with
    /// DNS-SD, and a web site with https gets an HTTPS record, by which browsers
    /// come to its port. A port such as 443 says it by itself, and a check of that
    /// port by http:// says http.
    #[arg(long = "type", value_name = "TYPE")]
    service_type: Option<ServiceType>,
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
    watch: Watch,
    #[command(flatten)]
    detail: Detail,
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
    service.service_type = arguments.service_type;
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
    let ListArguments {
        watch,
        detail,
        output,
    } = *arguments;
    let look = async || {
        let services = client.ask(&ServiceListRequest {}).await?;
        Ok(Frame {
            shown: output.render(detail, &services, |screen| draw(screen, &services))?,
            news: format!("{services:?}"),
            warnings: Vec::new(),
        })
    };
    watch.run(output, look).await
}

fn draw(screen: &mut Screen, services: &[ServiceRow]) {
    if services.is_empty() {
        return screen
            .say("no node has a service; `agent service add NAME --port PORT` adds one\n");
    }
    let mut table = Table::new([
        Column::whole("SERVICE"),
        Column::whole("NODE"),
        Column::whole("PORT"),
        Column::whole("HEALTHY"),
        Column::whole("GRANTED"),
        Column::extra("TYPE"),
        Column::extra("CHECK"),
    ]);
    for service in services {
        table.add([
            Cell::new(&service.name),
            Cell::new(&service.node),
            Cell::new(format!("{}/{}", service.port, service.proto)),
            health(service.healthy, service.checked),
            well(service.granted),
            Cell::or_dash(service.service_type.as_ref()),
            Cell::or_dash(service.check.as_ref()),
        ]);
    }
    screen.table(&table.sorted());
    for service in services {
        if let Some(why) = &service.last_error {
            let ServiceRow { name, node, .. } = service;
            screen.say("\n");
            screen.paragraph(&format!("{name} on {node}: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::show::fits;

    #[test]
    fn services_fit_the_terminal_and_what_troubles_them_stands_below() {
        let row = |name: &str, last_error: Option<&str>| ServiceRow {
            name: name.into(),
            node: "raspberry-pi-in-the-garage-02".into(),
            port: 65535,
            proto: Protocol::Tcp,
            service_type: "pdl-datastream".parse().ok(),
            healthy: last_error.is_none(),
            checked: true,
            check: Some("http://localhost:8123/api/health?of=everything".into()),
            granted: true,
            last_error: last_error.map(Into::into),
        };
        let long = "http://localhost:8123/api/health answered 503 Service Unavailable, three times";
        let services = [row("wiki", None), row("home-assistant", Some(long))];
        let text = fits(|screen| draw(screen, &services));
        assert!(text.find("home-assistant") < text.find("wiki"), "{text}");
        assert!(text.contains("home-assistant on raspberry-pi"), "{text}");
    }
}
