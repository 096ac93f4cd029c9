//! `agent dns`.

use super::{Context, dns_setup, failure::Failure, output::Output};
use crate::control::{
    dns::{DnsQueryRequest, DnsZoneRequest, QueryReport},
    node::StatusRequest,
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Query(QueryArguments),
    Zone(ZoneArguments),
    Setup(dns_setup::SetupArguments),
    Restore(dns_setup::RestoreArguments),
    /// Apply what the agent left to innermesh-resolver.service.
    #[command(hide = true)]
    ApplyLeft,
    /// Take back what the agent set, once it has ended.
    #[command(hide = true)]
    Release,
}

/// Query the agent's resolver.
#[derive(Debug, clap::Args)]
pub struct QueryArguments {
    /// A name; one without a dot is taken as one of the mesh.
    #[arg(value_name = "NAME")]
    name: String,
    /// The record type.
    #[arg(default_value = "A", value_name = "TYPE")]
    rtype: String,
    #[command(flatten)]
    output: Output,
}

/// Print all names of the mesh as a zone file.
#[derive(Debug, clap::Args)]
pub struct ZoneArguments {
    #[command(flatten)]
    output: Output,
}

pub async fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    let client = context.client();
    match command {
        Command::Setup(arguments) => dns_setup::setup(arguments, context).await,
        Command::Restore(arguments) => dns_setup::restore(arguments, context).await,
        Command::ApplyLeft => dns_setup::apply_left().await,
        Command::Release => dns_setup::release(context).await,
        Command::Query(arguments) => {
            let name = if arguments.name.contains('.') {
                arguments.name.clone()
            } else {
                format!(
                    "{}.{}",
                    arguments.name,
                    client.ask(&StatusRequest {}).await?.domain
                )
            };
            let rtype = arguments.rtype.clone();
            let request = DnsQueryRequest { name, rtype };
            let report = client.ask(&request).await?;
            arguments.output.print(&report, || text(&report))
        }
        Command::Zone(arguments) => {
            let zone = client.ask(&DnsZoneRequest {}).await?;
            arguments.output.print(&zone, || zone.zone.clone())
        }
    }
}

fn text(report: &QueryReport) -> String {
    let QueryReport {
        rcode,
        origin,
        elapsed_ms,
        ..
    } = report;
    let origin = format!("{origin:?}").to_ascii_lowercase();
    let mut out = format!("; {rcode}, from {origin}, in {elapsed_ms} ms\n");
    if let Some(error) = &report.error {
        out.push_str(&format!("; {error}\n"));
    }
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
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::dns::Origin;

    #[test]
    fn an_answer_is_shown_as_lines_of_a_zone_file() {
        let report = QueryReport {
            name: "a.in.example.org".into(),
            rtype: "A".into(),
            rcode: "NOERROR".into(),
            origin: Origin::Zone,
            answers: vec!["a.in.example.org. 30 IN A 10.9.0.2".into()],
            authorities: vec![],
            additionals: vec![],
            error: None,
            elapsed_ms: 0,
        };
        assert_eq!(
            text(&report),
            "; NOERROR, from zone, in 0 ms\na.in.example.org. 30 IN A 10.9.0.2\n"
        );
    }
}
