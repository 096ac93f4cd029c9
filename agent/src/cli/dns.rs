//! `agent dns`.

use std::{net::IpAddr, path::PathBuf};

use innermesh_proto::zone::DomainName;

use super::{
    Context, dns_docker, dns_log, dns_public, dns_secondary, dns_setup,
    failure::{FAILED, Failure},
    output::Output,
    zone_file,
};
use crate::control::{
    Client,
    dns::{
        DnsQueryRequest, DnsView, DnsZoneRequest, LeftOutRow, QueryReport, QueryRoute, RouteKind,
        ZoneText,
    },
    node::StatusRequest,
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Query(QueryArguments),
    Zone(ZoneArguments),
    /// Let other name servers copy the mesh's zones.
    #[command(subcommand)]
    Secondary(dns_secondary::Command),
    Log(dns_log::LogArguments),
    Setup(dns_setup::SetupArguments),
    Restore(dns_setup::RestoreArguments),
    Docker(dns_docker::DockerArguments),
    /// Apply what the agent left to innermesh-resolver.service.
    #[command(hide = true)]
    ApplyLeft,
    /// Take back what the agent set, once it has ended.
    #[command(hide = true)]
    Release,
}

/// Query the agent's resolver, and explain the answer.
///
/// It says who is to know the name, whose each record is, and what isn't answered
/// and why, such as an instance of a service whose check fails.
///
/// Ends with exit code 1 where the answer is an error such as NXDOMAIN or
/// SERVFAIL; that there is nothing of this type is none.
#[derive(Debug, clap::Args)]
pub struct QueryArguments {
    /// Name, or address whose name is looked up.
    ///
    /// A name without a dot is one of the mesh.
    #[arg(value_name = "NAME")]
    name: String,
    /// Record type [default: A; PTR for an address].
    #[arg(value_name = "TYPE")]
    rtype: Option<String>,
    /// Ask as who has this address would, such as a TV in the LAN.
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    #[command(flatten)]
    output: Output,
}

/// Print the mesh's names as zone files.
///
/// There are several zones: the mesh's domain, and those in which its addresses
/// are looked up.
#[derive(Debug, clap::Args)]
pub struct ZoneArguments {
    /// Print this zone only, such as in.example.org.
    #[arg(long, value_name = "NAME", conflicts_with = "out")]
    zone: Option<String>,
    /// Write each zone to a file NAME.zone in this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print what to import at the registrar's DNS instead.
    ///
    /// There every name leads to the sinkhole, and users' public records are beside
    /// that.
    #[arg(long, conflicts_with_all = ["zone", "out"])]
    pub(super) public: bool,
    /// Print the name servers to set at the registrar instead.
    ///
    /// They are the sinkholes that answer strangers' DNS: those with `dns` of
    /// [sinkhole] in their configuration.
    #[arg(long, requires = "public", conflicts_with = "address")]
    pub(super) delegated: bool,
    /// Public address of the sinkhole [default: those that nodes with the role
    /// sinkhole announce].
    #[arg(long, value_name = "ADDRESS", requires = "public")]
    pub(super) address: Vec<IpAddr>,
    /// Ask name servers outside the mesh whether they say so.
    #[arg(long, requires = "public")]
    pub(super) verify: bool,
    /// Ask this one.
    #[arg(long, value_name = "SERVER", requires = "verify")]
    pub(super) at: Option<IpAddr>,
    #[command(flatten)]
    pub(super) output: Output,
}

pub async fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    let client = context.client();
    match command {
        Command::Setup(arguments) => dns_setup::setup(arguments, context).await,
        Command::Restore(arguments) => dns_setup::restore(arguments, context).await,
        Command::Docker(arguments) => dns_docker::run(arguments, &client).await,
        Command::ApplyLeft => dns_setup::apply_left().await,
        Command::Release => dns_setup::release(context).await,
        Command::Secondary(command) => dns_secondary::run(command, &client).await,
        Command::Log(arguments) => dns_log::run(arguments, &client).await,
        Command::Query(arguments) => query(arguments, &client).await,
        Command::Zone(arguments) => zone(arguments, &client).await,
    }
}

async fn query(arguments: &QueryArguments, client: &Client) -> Result<(), Failure> {
    let typed = arguments.name.as_str();
    let (name, usual) = match typed.parse() {
        Ok(address) => (DomainName::reverse(address).to_string(), "PTR"),
        Err(_) if typed.contains('.') => (typed.to_owned(), "A"),
        Err(_) => {
            let domain = client.ask(&StatusRequest {}).await?.domain;
            (format!("{typed}.{domain}"), "A")
        }
    };
    let rtype = arguments.rtype.as_deref().unwrap_or(usual).to_owned();
    let source = arguments.source;
    let request = DnsQueryRequest {
        name,
        rtype,
        source,
    };
    let report = client.ask(&request).await?;
    arguments.output.print(&report, || text(&report))?;
    if report.rcode == "NOERROR" {
        Ok(())
    } else {
        Err(Failure::silent(FAILED))
    }
}

async fn zone(arguments: &ZoneArguments, client: &Client) -> Result<(), Failure> {
    if arguments.public {
        return dns_public::run(arguments, client).await;
    }
    let all = client.ask(&DnsZoneRequest {}).await?;
    if let Some(name) = &arguments.zone {
        let zone = zone_file::of(&all.zone, name).map_err(Failure::failed)?;
        let zone = ZoneText { zone };
        return arguments.output.print(&zone, || zone.zone.clone());
    }
    let Some(folder) = &arguments.out else {
        return arguments.output.print(&all, || all.zone.clone());
    };
    let written = zone_file::write(&all.zone, folder).map_err(Failure::failed)?;
    arguments.output.print(&written, || {
        let lines = written.iter();
        lines
            .map(|file| format!("{} is in {}\n", file.zone, file.file.display()))
            .collect()
    })
}

fn text(report: &QueryReport) -> String {
    let QueryReport {
        rcode,
        origin,
        elapsed_ms,
        view,
        ..
    } = report;
    let origin = format!("{origin:?}").to_ascii_lowercase();
    let whom = match view {
        DnsView::Internal => "",
        DnsView::Lan => ", to a LAN",
        DnsView::Stranger => ", to a stranger",
    };
    let mut out = format!("; {rcode}{whom}, from {origin}, in {elapsed_ms} ms\n");
    if let Some(error) = &report.error {
        out.push_str(&format!("; {error}\n"));
    }
    out.push_str(&route(&report.route));
    for (title, records) in [
        ("", &report.answers),
        ("; authority\n", &report.authorities),
        ("; additional\n", &report.additionals),
    ] {
        if !records.is_empty() {
            out.push_str(title);
        }
        for record in records {
            out.push_str(record.trim_end());
            let source = report.sources.iter().find(|it| it.record == *record);
            if let Some(source) = source.filter(|_| title.is_empty()) {
                out.push_str(&format!(" ; {}", source.text));
            }
            out.push('\n');
        }
    }
    for left_out in &report.left_out {
        let LeftOutRow { what, text, .. } = left_out;
        out.push_str(&format!("; not answered: {what}: {text}\n"));
    }
    out
}

/// Who is to know the name, as a comment of a zone file.
fn route(route: &QueryRoute) -> String {
    let servers = match &route.servers[..] {
        [] => "nobody".to_owned(),
        servers => servers.join(", "),
    };
    let zone = route.zone.as_deref().unwrap_or(".");
    match route.kind {
        RouteKind::None => String::new(),
        RouteKind::Zone => format!("; in the mesh's zone {zone}\n"),
        RouteKind::Special => "; it has a meaning of its own, and nobody is asked\n".to_owned(),
        RouteKind::Forward => {
            format!("; names of {zone} are asked of {servers} by [dns.forward]\n")
        }
        RouteKind::FallThrough => {
            format!("; {zone} hasn't it, and fall_through has it asked of {servers}\n")
        }
        RouteKind::Upstream => format!("; asked of {servers}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::dns::{Origin, RecordSource};

    #[test]
    fn an_answer_is_shown_as_lines_of_a_zone_file() {
        let report = QueryReport {
            name: "a.in.example.org".into(),
            rtype: "A".into(),
            view: DnsView::Internal,
            rcode: "NOERROR".into(),
            origin: Origin::Zone,
            answers: vec!["a.in.example.org. 30 IN A 10.9.0.2".into()],
            authorities: vec![],
            additionals: vec![],
            error: None,
            elapsed_ms: 0,
            route: QueryRoute {
                kind: RouteKind::Zone,
                zone: Some("in.example.org.".into()),
                servers: vec![],
            },
            sources: vec![RecordSource {
                record: "a.in.example.org. 30 IN A 10.9.0.2".into(),
                kind: "service".into(),
                nodes: vec!["birch".into()],
                service: Some("a".into()),
                text: "service a on birch".into(),
            }],
            left_out: vec![LeftOutRow {
                what: "service a on cedar".into(),
                node: Some("cedar".into()),
                service: Some("a".into()),
                reason: "unhealthy".into(),
                text: "its check fails".into(),
            }],
        };
        assert_eq!(
            text(&report),
            "; NOERROR, from zone, in 0 ms\n\
             ; in the mesh's zone in.example.org.\n\
             a.in.example.org. 30 IN A 10.9.0.2 ; service a on birch\n\
             ; not answered: service a on cedar: its check fails\n"
        );
    }

    #[test]
    fn who_is_to_know_a_name_is_told_by_what_decides_it() {
        let of = |kind, zone: Option<&str>, servers: &[&str]| {
            route(&QueryRoute {
                kind,
                zone: zone.map(str::to_owned),
                servers: servers.iter().map(ToString::to_string).collect(),
            })
        };
        assert_eq!(of(RouteKind::None, None, &[]), "");
        assert_eq!(of(RouteKind::Upstream, None, &[]), "; asked of nobody\n");
        let forward = of(RouteKind::Forward, Some("corp.example."), &["10.0.0.1:53"]);
        assert_eq!(
            forward,
            "; names of corp.example. are asked of 10.0.0.1:53 by [dns.forward]\n"
        );
    }
}
