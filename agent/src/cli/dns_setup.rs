//! `agent dns setup` and `restore`: the host's own resolver.

use std::net::IpAddr;

use serde::Serialize;

use super::{
    Context,
    failure::Failure,
    files,
    output::{Output, note},
    paths::Paths,
};
use crate::{
    config::{Config, ManageResolver},
    control::{
        Client, ClientError,
        dns::{DnsReleaseRequest, DnsResolverRequest, DnsSetupRequest, ResolverStatus},
        node::{Status, StatusRequest},
    },
    host::resolver::{Applied, HostResolver, LookUp, Method, SystemResolver},
};

/// Have every program of this host find the mesh's names.
///
/// systemd-resolved, resolvconf, NetworkManager's dnsmasq or /etc/resolv.conf is
/// told where the agent answers, whichever this host uses. A running agent does
/// that by itself and keeps it so, unless `manage` is "off" below `[dns]` in the
/// configuration. Ends with 1 when libc doesn't find this node's name afterwards.
#[derive(Debug, clap::Args)]
pub struct SetupArguments {
    #[command(flatten)]
    output: Output,
}

/// Take back what was set for this host's programs.
///
/// The agent sets it again when it is started, unless `manage` is "off" below
/// `[dns]` in the configuration.
#[derive(Debug, clap::Args)]
pub struct RestoreArguments {}

/// What was set, and what was seen then.
#[derive(Debug, Serialize)]
struct Report {
    method: Method,
    why: String,
    /// Whether the agent keeps it so.
    kept: bool,
    /// Whether libc finds this node's name.
    works: bool,
}

pub async fn setup(arguments: &SetupArguments, context: &Context) -> Result<(), Failure> {
    let client = context.client();
    let status = client.ask(&StatusRequest {}).await?;
    let asked = client.ask(&DnsSetupRequest {}).await?;
    let kept = asked.managed;
    let host = SystemResolver::default();
    let (method, why) = if kept {
        set_by_agent(asked)?
    } else {
        let plan = client.ask(&DnsResolverRequest {}).await?;
        let applied = host.apply(&plan).await.map_err(Failure::failed)?;
        let Applied { method, why, .. } = applied;
        (method, why)
    };
    let name = format!("{}.{}", status.node, status.domain);
    let found = host.look_up(&name).await;
    let works = match &found {
        LookUp::Found(ips) => ips.iter().any(|ip| own(&status).contains(ip)),
        _ => false,
    };
    let report = Report {
        method,
        why,
        kept,
        works,
    };
    arguments.output.print(&report, || {
        let keeps = if kept {
            ""
        } else {
            " Run it again after each start of the agent, which leaves this to you."
        };
        format!(
            "{method} asks the agent for names of {} ({}).{keeps}\n",
            status.domain, report.why
        )
    })?;
    if works {
        return Ok(());
    }
    let seen = match found {
        LookUp::Found(ips) => format!("it finds {}", super::init::join(&ips)),
        LookUp::TookTooLong => "it gets no answer in time".to_owned(),
        _ => "it finds nothing".to_owned(),
    };
    Err(Failure::failed(format!(
        "libc doesn't find {name}: {seen}; `agent dns query {name}` shows what the agent answers"
    )))
}

fn set_by_agent(asked: ResolverStatus) -> Result<(Method, String), Failure> {
    if let Some(error) = asked.error {
        return Err(Failure::failed(error));
    }
    match asked.method {
        Some(method) => Ok((method, asked.why)),
        None => Err(Failure::failed(
            "names are not answered on port 53 here, the one that this host's resolver can ask; \
             `agent status` says why",
        )),
    }
}

fn own(status: &Status) -> Vec<IpAddr> {
    let own = status.nodes.iter().filter(|node| node.name == status.node);
    own.flat_map(|node| &node.addresses).copied().collect()
}

pub async fn restore(_: &RestoreArguments, context: &Context) -> Result<(), Failure> {
    let config = files::configuration(&context.paths).map_err(Failure::failed)?;
    let running = let_go(&context.client()).await?;
    undo(&config).await?;
    if running && is_kept(&config, &context.paths) {
        note(
            "the agent sets it again when it is started; `manage = \"off\"` below `[dns]` in the \
             configuration has it leave that to you",
        );
    }
    Ok(())
}

/// Has a running agent leave the resolver alone; whether one runs.
async fn let_go(client: &Client) -> Result<bool, Failure> {
    match client.ask(&DnsReleaseRequest {}).await {
        Ok(_) => Ok(true),
        Err(ClientError::NotRunning(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn undo(config: &Config) -> Result<(), Failure> {
    SystemResolver::default()
        .restore(config.tunnel.interface.as_str())
        .await
        .map_err(Failure::failed)
}

/// For innermesh-resolver.service: writes what the agent's own unit may not.
pub async fn apply_left() -> Result<(), Failure> {
    let applied = SystemResolver::default().apply_left().await;
    if let Some(Applied { method, why, .. }) = applied.map_err(Failure::failed)? {
        note(&format!("{method} asks the agent: {why}"));
    }
    Ok(())
}

/// For innermesh.service, once the agent has ended in whatever way: undoes what
/// was the agent's to set.
pub async fn release(context: &Context) -> Result<(), Failure> {
    // A configuration that can't be read is one that no agent runs with.
    let config = files::configuration(&context.paths).unwrap_or_default();
    if is_kept(&config, &context.paths) {
        undo(&config).await?;
    }
    Ok(())
}

fn is_kept(config: &Config, paths: &Paths) -> bool {
    config.dns.manage == ManageResolver::Auto && paths.dir.is_none()
}

/// How programs of this machine come to find the mesh's names, for those who made
/// or joined one just now.
pub fn outlook(config: &Config, paths: &Paths) -> String {
    if is_kept(config, paths) {
        "All programs of this machine find the mesh's names while the agent runs.".to_owned()
    } else {
        let option = paths.option();
        format!(
            "`agent{option} dns setup`, as root, has all programs of this machine find the mesh's\n\
             names."
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_the_host_s_own_agent_sets_the_host_s_resolver_and_only_where_it_may() {
        let auto = Config::default();
        let off = Config::parse("[dns]\nmanage = \"off\"", Path::new("x")).unwrap();
        let own = Paths::new(None).unwrap();
        let beside = Paths::new(Some("/x".into())).unwrap();
        assert!(is_kept(&auto, &own));
        assert!(!is_kept(&off, &own) && !is_kept(&auto, &beside));
        assert!(outlook(&auto, &own).contains("while the agent runs"));
        assert!(outlook(&off, &own).starts_with("`agent dns setup`"));
        assert!(outlook(&auto, &beside).starts_with("`agent --dir /x dns setup`"));
    }

    #[test]
    fn what_the_agent_could_not_set_is_said_and_not_taken_for_done() {
        let asked = |method, error: Option<&str>| ResolverStatus {
            managed: true,
            method,
            why: "because".into(),
            error: error.map(str::to_owned),
            works: None,
        };
        let set = set_by_agent(asked(Some(Method::Resolved), None));
        assert_eq!(set, Ok((Method::Resolved, "because".to_owned())));
        let failed = set_by_agent(asked(Some(Method::Resolved), Some("the bus is away")));
        assert_eq!(failed.unwrap_err().to_string(), "the bus is away");
        assert!(set_by_agent(asked(None, None)).is_err());
    }
}
