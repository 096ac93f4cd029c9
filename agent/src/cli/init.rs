//! `agent init`.

use std::{fs, net::IpAddr, path::PathBuf};

use innermesh_proto::{
    ledger::RULES,
    name::{Label, MeshDomain, NameError},
};
use ipnet::Ipv4Net;
use serde::Serialize;
use tracing::Instrument;

use super::{
    context::Context,
    dns_setup,
    failure::Failure,
    files,
    output::{Output, note},
    ports::Ports,
    run, start,
};
use crate::{
    enroll::{self, InitError, InitOptions, InitReport},
    host::system,
};

/// Create a mesh with this machine as its first node.
///
/// Starts the agent when it is done: through systemd where its unit is
/// installed and no --dir is given, otherwise in the foreground.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Domain of the mesh's names, such as lab.internal.
    ///
    /// A domain below one that you own, such as in.example.org, works as well.
    #[arg(long, value_name = "DOMAIN")]
    domain: MeshDomain,
    /// Name of this node [default: its host name].
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    name: Option<Label>,
    /// IPv4 network of the mesh [default: a free /16 in 10.0.0.0/8].
    #[arg(long, value_name = "NET")]
    ipv4: Option<Ipv4Net>,
    /// Write the state and don't start the agent.
    #[arg(long)]
    no_start: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Printed<'a> {
    mesh: String,
    domain: String,
    name: String,
    addresses: &'a [IpAddr],
    recovery_file: &'a PathBuf,
    passphrase: &'a str,
    wireguard_port: Option<u16>,
}

pub async fn init(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let name = own_name(arguments.name)?;
    files::may_use(&context.paths.state).map_err(Failure::failed)?;
    let config = files::configuration(&context.paths).map_err(Failure::failed)?;
    run::agent_config(&config)
        .check_domain(&arguments.domain)
        .map_err(Failure::failed)?;
    if !arguments.no_start {
        start::check(&context.paths, &config)?;
    }
    let host = system::host(context.paths.state.clone());
    let ports = Ports::look(&host, &config).await?;
    files::state_folder(&context.paths.state).map_err(Failure::failed)?;
    if !arguments.output.is_json() {
        note("making the mesh's keys…");
    }
    let options = InitOptions {
        domain: arguments.domain,
        name,
        ipv4: arguments.ipv4,
        interface: config.tunnel.interface.as_str().to_string(),
        rules: config.ca.rules.unwrap_or(RULES).min(RULES),
    };
    let span = context.span("init", &config.log)?;
    let report = enroll::init(&host, options).instrument(span).await;
    let report = match report {
        Err(InitError::Exists) => return Err(start::in_a_mesh(context).await),
        other => other.map_err(Failure::failed)?,
    };
    ports.keep(&host).await?;
    let printed = Printed {
        mesh: report.mesh.to_string(),
        domain: report.domain.to_string(),
        name: report.name.to_string(),
        addresses: &report.addresses,
        recovery_file: &report.recovery_file,
        passphrase: &report.passphrase,
        wireguard_port: ports.wireguard(),
    };
    let option = context.paths.option();
    arguments.output.print(&printed, || {
        let told = ports.told(&host, report.domain.as_str(), report.resolver);
        let outlook = dns_setup::outlook(&config, &context.paths);
        text(&report, &option, &format!("{told}{outlook}"))
    })?;
    if arguments.no_start {
        return Ok(());
    }
    start::start(context).await
}

fn text(report: &InitReport, option: &str, outlook: &str) -> String {
    let InitReport {
        mesh,
        domain,
        name,
        addresses,
        recovery_file,
        passphrase,
        ..
    } = report;
    let addresses = join(addresses);
    let file = recovery_file.display();
    format!(
        "Created the mesh {domain}; this node is {name}.{domain}.

  mesh       {mesh}
  addresses  {addresses}

The key of its root certificate is in

  {file}

and opens with this passphrase, which is shown this once and kept nowhere:

  {passphrase}

Write the passphrase down, and move the file off this node: a USB stick in a
drawer will do. They are needed to make another node a CA node, and when this
one is lost.

{outlook}

This node is the mesh's only admin and its only CA node: should it be lost, no
machine could be let in any more. Once others have joined,

  agent{option} role add NODE admin    makes one of them an admin as well
  agent{option} ca promote NODE        makes it a CA node; three are best

Next: `agent{option} invite` prints what another machine needs to join.
"
    )
}

/// Addresses for a person.
pub fn join(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    texts.join(", ")
}

/// A name that a node may have.
pub fn node_name(text: &str) -> Result<Label, NameError> {
    text.parse::<Label>()?.grantable()
}

/// The name that was given, or this host's.
pub fn own_name(given: Option<Label>) -> Result<Label, Failure> {
    if let Some(name) = given {
        return Ok(name);
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    of_host(&host)
}

fn of_host(host: &str) -> Result<Label, Failure> {
    let host = host.trim();
    let short = host.split('.').next().unwrap_or_default();
    node_name(short).map_err(|why| {
        Failure::usage(format!(
            "this machine's host name \"{host}\" can't be its name in the mesh ({why}); choose one with --name"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_called_after_the_first_part_of_its_host_name() {
        let name = |host| of_host(host).map(|name| name.to_string());
        assert_eq!(name("Alpha.example.org\n").as_deref(), Ok("alpha"));
        for bad in ["", "(none)", "my_host", "acme", "localhost"] {
            let failure = of_host(bad).unwrap_err();
            assert_eq!(failure.code, super::super::failure::USAGE, "{bad}");
            assert!(failure.to_string().contains("--name"), "{failure}");
        }
    }
}
