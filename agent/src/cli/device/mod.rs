//! `agent device`: phones and other WireGuard clients without an agent.

mod deliver;
mod key;
mod list;
mod png;
mod qr;

use std::path::PathBuf;

use innermesh_proto::{name::Label, tunnel::TunnelKey};
use ipnet::IpNet;
use serde::Serialize;

use self::{
    deliver::{Configuration, Delivery, Prepared},
    key::DeviceKey,
};
use super::{
    consent::Consent,
    context::Context,
    failure::{self, Failure},
    init::node_name,
    output::{Output, note, warn},
};
use crate::{
    control::{
        Client,
        devices::{
            DeviceAddRequest, DeviceConfiguration, DeviceConfigured, DeviceRenameRequest,
            DeviceRenewRequest, DeviceRmRequest, DeviceRow,
        },
    },
    host::duration::Span,
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Add(AddArguments),
    #[command(visible_alias = "ls")]
    List(list::ListArguments),
    Show(list::ShowArguments),
    Renew(RenewArguments),
    Rename(RenameArguments),
    Rm(RmArguments),
}

/// Add a phone or another device with a WireGuard app.
///
/// The configuration has its private key, which is shown once and kept nowhere
/// else. Several gateways give one configuration each, with the same key and
/// addresses: when one is down, the person switches to the other.
#[derive(Debug, clap::Args)]
pub struct AddArguments {
    /// Name of the device.
    #[arg(value_name = "NAME", value_parser = node_name)]
    name: Label,
    /// Gateway by which it comes in (repeatable).
    ///
    /// Without it this node, where it is one, and another gateway as the second.
    #[arg(long = "gateway", value_name = "NODE")]
    gateways: Vec<Label>,
    /// Node that it belongs to, if it isn't this one.
    ///
    /// When that node is evicted the device is cut off too.
    #[arg(long, value_name = "NODE")]
    owner: Option<Label>,
    /// Network behind a gateway that it reaches (repeatable).
    ///
    /// This is also what allows it to.
    #[arg(long, value_name = "NET")]
    routes: Vec<IpNet>,
    /// Send all of its traffic through the gateway.
    ///
    /// Each of its gateways must have the role exit too.
    #[arg(long)]
    full_tunnel: bool,
    /// Leave its resolver alone.
    ///
    /// It then finds the mesh by addresses only, and has names while every gateway
    /// is down.
    #[arg(long)]
    no_dns: bool,
    /// Group for the policy's rules (repeatable).
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<Label>,
    /// Use a key made on the device, which keeps its private half.
    #[arg(long, value_name = "KEY")]
    public_key: Option<TunnelKey>,
    /// Remove it after this time, such as 2d.
    #[arg(long, value_name = "TIME")]
    ttl: Option<Span>,
    #[command(flatten)]
    delivery: Delivery,
    #[command(flatten)]
    output: Output,
}

/// Make a new key and configuration for a device.
///
/// The old key ends when the new one is first used. What isn't given stays as it
/// was; gateways that are gone are left out.
#[derive(Debug, clap::Args)]
pub struct RenewArguments {
    /// Name of the device.
    #[arg(value_name = "NAME")]
    name: Label,
    /// Gateway by which it comes in from now on (repeatable).
    #[arg(long = "gateway", value_name = "NODE")]
    gateways: Vec<Label>,
    /// Network behind a gateway that it reaches (repeatable).
    #[arg(long, value_name = "NET")]
    routes: Vec<IpNet>,
    /// Send all of its traffic through the gateway.
    #[arg(long)]
    full_tunnel: bool,
    /// Send only the mesh's traffic through the gateway.
    #[arg(long, conflicts_with_all = ["full_tunnel", "routes"])]
    mesh_only: bool,
    /// Leave its resolver alone.
    #[arg(long)]
    no_dns: bool,
    /// Use a key made on the device, which keeps its private half.
    #[arg(long, value_name = "KEY")]
    public_key: Option<TunnelKey>,
    /// Remove it after this time from now, such as 2d.
    #[arg(long, value_name = "TIME")]
    ttl: Option<Span>,
    #[command(flatten)]
    delivery: Delivery,
    #[command(flatten)]
    output: Output,
}

/// Give a device another name.
#[derive(Debug, clap::Args)]
pub struct RenameArguments {
    /// Name of the device.
    #[arg(value_name = "NAME")]
    name: Label,
    /// Its name from now on.
    #[arg(value_name = "NEW", value_parser = node_name)]
    to: Label,
    #[command(flatten)]
    output: Output,
}

/// Remove a device, and cut it off on every gateway.
#[derive(Debug, clap::Args)]
pub struct RmArguments {
    /// Name of the device.
    #[arg(value_name = "NAME")]
    name: Label,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    let client = &context.client();
    match command {
        Command::Add(arguments) => add(arguments, client).await,
        Command::List(arguments) => list::list(&arguments, client).await,
        Command::Show(arguments) => list::show(&arguments, client).await,
        Command::Renew(arguments) => renew(arguments, client).await,
        Command::Rename(arguments) => rename(arguments, client).await,
        Command::Rm(arguments) => rm(arguments, context).await,
    }
}

async fn add(arguments: AddArguments, client: &Client) -> Result<(), Failure> {
    let prepared = arguments.delivery.prepare()?;
    let key = DeviceKey::given_or_new(arguments.public_key);
    let request = DeviceAddRequest {
        name: arguments.name,
        public_key: key.public.to_string(),
        owner: arguments.owner,
        gateways: arguments.gateways,
        routes: arguments.routes,
        full_tunnel: arguments.full_tunnel,
        dns: !arguments.no_dns,
        groups: arguments.groups,
        ttl_s: arguments.ttl.map(|ttl| ttl.0),
    };
    let made = client.ask(&request).await?;
    hand_out(prepared, &made, &key, arguments.output, "is added")
}

async fn renew(arguments: RenewArguments, client: &Client) -> Result<(), Failure> {
    let prepared = arguments.delivery.prepare()?;
    let key = DeviceKey::given_or_new(arguments.public_key);
    let some = |list: Vec<IpNet>| (!list.is_empty()).then_some(list);
    let request = DeviceRenewRequest {
        name: arguments.name,
        public_key: key.public.to_string(),
        gateways: (!arguments.gateways.is_empty()).then_some(arguments.gateways),
        routes: if arguments.mesh_only {
            Some(Vec::new())
        } else {
            some(arguments.routes)
        },
        full_tunnel: match (arguments.full_tunnel, arguments.mesh_only) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        dns: arguments.no_dns.then_some(false),
        ttl_s: arguments.ttl.map(|ttl| ttl.0),
    };
    let made = client.ask(&request).await?;
    let done = "has a new key; the old one ends when the new one is first used";
    hand_out(prepared, &made, &key, arguments.output, done)
}

/// As `--json` prints a device that was added or renewed.
#[derive(Serialize)]
struct Printed<'a> {
    device: &'a DeviceRow,
    configurations: Vec<PrintedConfiguration<'a>>,
    /// In base64; null where it stays on the device.
    private_key: Option<&'a str>,
    files: Vec<PathBuf>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct PrintedConfiguration<'a> {
    #[serde(flatten)]
    parts: &'a DeviceConfiguration,
    /// The whole of it, as WireGuard's apps read it.
    config: &'a str,
}

fn hand_out(
    prepared: Prepared,
    made: &DeviceConfigured,
    key: &DeviceKey,
    output: Output,
    done: &str,
) -> Result<(), Failure> {
    let private = key.private.as_deref();
    let configurations: Vec<Configuration<'_>> = made
        .configurations
        .iter()
        .map(|it| Configuration {
            gateway: &it.gateway,
            text: it.text(private),
        })
        .collect();
    let files = prepared.deliver(&configurations, output.is_json())?;
    if output.is_json() {
        let parts = made.configurations.iter().zip(&configurations);
        let printed = Printed {
            device: &made.device,
            configurations: parts
                .map(|(parts, it)| PrintedConfiguration {
                    parts,
                    config: &it.text,
                })
                .collect(),
            private_key: private,
            files,
            warnings: &made.warnings,
        };
        return output.print(&printed, String::new);
    }
    warn(&made.warnings);
    let DeviceRow { name, fqdn, .. } = &made.device;
    note(&format!(
        "{name} {done}: {fqdn}, {}",
        super::init::join(&made.device.addresses)
    ));
    for file in &files {
        note(&format!("written: {}", file.display()));
    }
    if private.is_some() {
        note(&format!(
            "its private key isn't shown again; `agent device renew {name}` makes another"
        ));
    }
    Ok(())
}

async fn rename(arguments: RenameArguments, client: &Client) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Renamed<'a> {
        name: &'a Label,
        before: &'a Label,
    }
    let RenameArguments { name, to, output } = arguments;
    let request = DeviceRenameRequest {
        name: name.clone(),
        to: to.clone(),
    };
    client.ask(&request).await?;
    let renamed = Renamed {
        name: &to,
        before: &name,
    };
    output.print(&renamed, || {
        format!("{name} is called {to} now; its configuration stays as it is\n")
    })
}

async fn rm(arguments: RmArguments, context: &Context) -> Result<(), Failure> {
    let RmArguments {
        name,
        consent,
        output,
    } = arguments;
    let what = format!("{name} is cut off from the mesh, and its configuration never works again.");
    let command = format!("agent{} device rm {name}", context.paths.option());
    consent.ask(&what, &command)?;
    let removed = context.client().ask(&DeviceRmRequest { name }).await?;
    let shown = output.print(&removed, || {
        let name = &removed.name;
        if removed.removed {
            format!("{name} is removed: each gateway cuts it off as soon as it hears of it\n")
        } else {
            format!(
                "{name} is suspended; no CA node can be reached, so this agent removes it later, by \
                 itself, while it runs\n"
            )
        }
    });
    if removed.removed {
        return shown;
    }
    shown.and(Err(Failure::silent(failure::WAITING)))
}
