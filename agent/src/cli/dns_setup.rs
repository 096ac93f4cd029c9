//! `agent dns setup` and `restore`: the host's own resolver.

use std::{net::IpAddr, time::Duration};

use serde::Serialize;

use super::{Context, failure::Failure, files, output::Output};
use crate::{
    control::{dns::DnsResolverRequest, node::StatusRequest},
    host::resolver::{HostResolver, Method, SystemResolver},
};

/// How long a look-up by libc may take.
const LOOK_UP: Duration = Duration::from_secs(10);

/// Have every program of this host find the mesh's names.
///
/// systemd-resolved, resolvconf, NetworkManager's dnsmasq or /etc/resolv.conf is
/// told where the agent answers, whichever this host uses. Ends with 1 when libc
/// doesn't find this node's name afterwards.
#[derive(Debug, clap::Args)]
pub struct SetupArguments {
    #[command(flatten)]
    output: Output,
}

/// Take back what `agent dns setup` set.
#[derive(Debug, clap::Args)]
pub struct RestoreArguments {}

/// What was set, and what was seen then.
#[derive(Debug, Serialize)]
struct Report {
    method: Method,
    why: String,
    /// Whether libc finds this node's name.
    works: bool,
}

pub async fn setup(arguments: &SetupArguments, context: &Context) -> Result<(), Failure> {
    let client = context.client();
    let status = client.ask(&StatusRequest {}).await?;
    let plan = client.ask(&DnsResolverRequest {}).await?;
    let name = format!("{}.{}", status.node, status.domain);
    let own: Vec<IpAddr> = status
        .nodes
        .iter()
        .filter(|node| node.name == status.node)
        .flat_map(|node| &node.addresses)
        .copied()
        .collect();
    let host = SystemResolver::default();
    let chosen = host.choose().await;
    let method = host.apply(&plan).await.map_err(Failure::failed)?.method();
    let why = if chosen.method == Some(method) {
        chosen.why
    } else {
        "resolvconf leaves /etc/resolv.conf as it is".to_string()
    };
    let found = look_up(&name).await;
    let works = found.iter().any(|ip| own.contains(ip));
    let report = Report { method, why, works };
    arguments.output.print(&report, || {
        format!(
            "{method} asks the agent for names of {} ({}).",
            plan.domain, report.why
        )
    })?;
    if works {
        return Ok(());
    }
    let seen = match found.first() {
        Some(other) => format!("it finds {other}"),
        None => "it finds nothing".to_string(),
    };
    Err(Failure::failed(format!(
        "libc doesn't find {name}: {seen}; `agent dns query {name}` shows what the agent answers"
    )))
}

pub async fn restore(_: &RestoreArguments, context: &Context) -> Result<(), Failure> {
    let config = files::configuration(&context.paths).map_err(Failure::failed)?;
    SystemResolver::default()
        .restore(config.tunnel.interface.as_str())
        .await
        .map_err(Failure::failed)
}

/// The addresses of a name, as every program here finds them.
async fn look_up(name: &str) -> Vec<IpAddr> {
    let looked = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host((name, 0))).await;
    match looked {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        _ => Vec::new(),
    }
}
