//! `agent join`.

use std::{
    io::{self, IsTerminal, Read},
    net::{IpAddr, SocketAddr},
};

use innermesh_proto::name::Label;
use serde::Serialize;
use tracing::Instrument;

use super::{
    context::Context,
    dns_setup,
    failure::Failure,
    files, init,
    output::{Output, note},
    ports::Ports,
    start,
    terminal::Terminal,
};
use crate::{
    enroll::{self, AskOptions, AskStep, JoinError, JoinOptions, JoinReport, token},
    host::system,
};

/// Join a mesh, with a token or by a code.
///
/// `agent invite` prints a token on a node of the mesh.
///
/// Without a token this machine shows a code, once an admin has run `agent
/// requests`; the admin types it into `agent approve`.
///
/// Starts the agent when it is done: through systemd where its unit is
/// installed and no --dir is given, otherwise in the foreground.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A node of the mesh, by host name or address.
    ///
    /// With :PORT if that isn't 51819. Where UDP is blocked, wss://HOST/PATH of a relay
    /// that takes in lanes.
    #[arg(value_name = "SEED[:PORT]")]
    seed: String,
    /// The token, or - to ask for it or read standard input.
    ///
    /// Other users of this machine see what stands on a command line, and the
    /// shell keeps it in its history.
    #[arg(
        long,
        value_name = "TOKEN",
        allow_hyphen_values = true,
        env = "INNERMESH_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// Name of this node [default: its host name].
    #[arg(long, value_name = "NAME", value_parser = init::node_name)]
    name: Option<Label>,
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
    resolver: SocketAddr,
    resolver_setup: String,
    wireguard_port: Option<u16>,
}

pub async fn join(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let name = init::own_name(arguments.name)?;
    files::may_use(&context.paths.state).map_err(Failure::failed)?;
    let config = files::configuration(&context.paths).map_err(Failure::failed)?;
    if !arguments.no_start {
        start::check(&context.paths, &config)?;
    }
    let host = system::host(context.paths.state.clone());
    let ports = Ports::look(&host, &config).await?;
    files::state_folder(&context.paths.state).map_err(Failure::failed)?;
    let interface = config.tunnel.interface.as_str().to_string();
    if !arguments.output.is_json() {
        note(&format!("asking {}…", arguments.seed));
    }
    let span = context.span("join", &config.log)?;
    let token = match arguments.token {
        Some(token) if token == "-" => Some(read_token()?),
        other => other,
    };
    let report = match token {
        Some(token) => {
            let options = JoinOptions {
                seed: arguments.seed,
                token,
                name,
                interface: interface.clone(),
            };
            enroll::join(&host, options).instrument(span).await
        }
        None => {
            let options = AskOptions {
                seed: arguments.seed,
                name,
                interface: interface.clone(),
            };
            enroll::ask(&host, options, &|step| note(&told(&step)))
                .instrument(span)
                .await
        }
    };
    let report = match report {
        Err(JoinError::Exists) => return Err(start::in_a_mesh(context).await),
        other => other.map_err(Failure::failed)?,
    };
    ports.keep(&host).await?;
    let setup = format!("agent{} dns setup", context.paths.option());
    let printed = Printed {
        mesh: report.mesh.to_string(),
        domain: report.domain.to_string(),
        name: report.name.to_string(),
        addresses: &report.addresses,
        resolver: report.resolver,
        resolver_setup: setup.clone(),
        wireguard_port: ports.wireguard(),
    };
    arguments.output.print(&printed, || {
        let told = ports.told(&host, report.domain.as_str(), report.resolver);
        let outlook = dns_setup::outlook(&config, &context.paths);
        text(&report, &format!("{told}{outlook}"))
    })?;
    if arguments.no_start {
        return Ok(());
    }
    start::start(context).await
}

/// The token from standard input; asked for where that is a terminal.
fn read_token() -> Result<String, Failure> {
    const MOST: usize = token::TEXT + 64;
    let stdin = io::stdin();
    let text = match Terminal::open() {
        Some(mut terminal) if stdin.is_terminal() => terminal.long_secret("token: ", MOST)?,
        _ => {
            let mut text = String::new();
            let read = stdin.lock().take(MOST as u64).read_to_string(&mut text);
            read.map_err(|error| Failure::failed(format!("standard input: {error}")))?;
            text
        }
    };
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::usage(
            "there is no token on standard input; paste the one that `agent invite` printed",
        ));
    }
    Ok(token.to_owned())
}

/// What the person at this machine is to know and do.
fn told(step: &AskStep) -> String {
    match step {
        AskStep::Asked(domain) => {
            format!("asked to join {domain}; now run `agent requests` on an admin's node")
        }
        AskStep::Code(code) => format!(
            "an admin is looking at the request. This machine's code is\n\n  {code}\n\nType it there: `agent approve {code}`. Waiting…"
        ),
    }
}

fn text(report: &JoinReport, outlook: &str) -> String {
    let JoinReport {
        mesh,
        domain,
        name,
        addresses,
        ..
    } = report;
    let addresses = init::join(addresses);
    format!(
        "This node is {name}.{domain}.

  mesh       {mesh}
  addresses  {addresses}

{outlook}

"
    )
}

#[cfg(test)]
mod tests {
    use innermesh_proto::id::MeshId;

    use super::*;

    #[test]
    fn who_has_joined_is_told_how_its_programs_find_the_mesh_s_names() {
        let report = JoinReport {
            mesh: MeshId([1; 32]),
            domain: "in.example.org".parse().unwrap(),
            name: "beta".parse().unwrap(),
            addresses: vec!["10.9.0.3".parse().unwrap()],
            resolver: "10.9.0.53:53".parse().unwrap(),
        };
        let text = text(&report, "`agent dns setup` does that.");
        assert!(text.contains("beta.in.example.org"), "{text}");
        assert!(text.contains("`agent dns setup`"), "{text}");
    }
}
