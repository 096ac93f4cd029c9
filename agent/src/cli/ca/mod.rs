//! `agent ca`.

mod eab;
mod log;
mod recover;
mod root_key;
mod roster;
mod trust;

use std::path::PathBuf;

use innermesh_proto::name::Label;

use super::{
    consent::Consent,
    context::Context,
    failure::Failure,
    output::{self, Output, or_dash, table, warn, yes_no},
};
use crate::{
    ca::fingerprint,
    control::{
        Client,
        ca::{CaRootRequest, CaStatus, CaStatusRequest},
    },
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Status(StatusArguments),
    Root(RootArguments),
    Promote(roster::PromoteArguments),
    Demote(roster::DemoteArguments),
    Log(log::Arguments),
    Eab(eab::Arguments),
    Recover(recover::Arguments),
    /// Move the root's key off this node.
    #[command(subcommand)]
    RootKey(root_key::Command),
    /// Manage the root in this machine's trust stores.
    #[command(subcommand)]
    Trust(trust::Command),
}

/// Show the voters and the CA's certificates.
///
/// Warnings are written to stderr: about intermediate certificates and a root
/// that expire, and about the number of CA nodes.
#[derive(Debug, clap::Args)]
pub struct StatusArguments {
    #[command(flatten)]
    output: Output,
}

/// Print the root certificate, for browsers and other clients.
#[derive(Debug, clap::Args)]
pub struct RootArguments {
    #[command(flatten)]
    output: Output,
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    let client = context.client();
    match command {
        Command::Status(arguments) => status(&arguments, &client).await,
        Command::Root(arguments) => root(&arguments, &client).await,
        Command::Promote(arguments) => roster::promote(arguments, &context.paths, &client).await,
        Command::Demote(arguments) => roster::demote(arguments, context).await,
        Command::Eab(arguments) => eab::eab(arguments, &client).await,
        Command::Log(arguments) => log::log(&arguments, &context.paths),
        Command::Recover(arguments) => recover::recover(arguments, &context.paths, &client).await,
        Command::RootKey(command) => root_key::run(&command, &context.paths),
        Command::Trust(command) => trust::run(command, &context.paths, &client).await,
    }
}

/// As `ca promote`, for a role that is added.
pub async fn promote(
    node: Label,
    root_key: Option<PathBuf>,
    output: Output,
    context: &Context,
) -> Result<(), Failure> {
    let arguments = roster::PromoteArguments::of(node, root_key, output);
    roster::promote(arguments, &context.paths, &context.client()).await
}

/// As `ca demote`, for a role that is taken.
pub async fn demote(
    node: Label,
    root_key: Option<PathBuf>,
    consent: Consent,
    output: Output,
    context: &Context,
) -> Result<(), Failure> {
    let arguments = roster::DemoteArguments::of(node, root_key, consent, output);
    roster::demote(arguments, context).await
}

async fn status(arguments: &StatusArguments, client: &Client) -> Result<(), Failure> {
    let status = client.ask(&CaStatusRequest {}).await?;
    arguments.output.print(&status, || text(&status))?;
    if !arguments.output.is_json() {
        warn(&status.warnings);
    }
    Ok(())
}

async fn root(arguments: &RootArguments, client: &Client) -> Result<(), Failure> {
    let root = client.ask(&CaRootRequest {}).await?;
    if !arguments.output.is_json() {
        // Beside the output, which may go to a file.
        output::note(&format!(
            "SHA-256 {}",
            fingerprint(&root.fingerprint_sha256)
        ));
    }
    arguments.output.print(&root, || root.pem.clone())
}

fn text(status: &CaStatus) -> String {
    let leader = status.leader.as_deref().unwrap_or("none is known");
    let mut out = format!(
        "leader  {leader}\nterm    {}\nroster  {}\nledger  {}, epoch {}\n\n",
        status.term,
        status.roster.join(", "),
        status.ledger.index,
        status.epoch,
    );
    let rows: Vec<_> = status
        .voters
        .iter()
        .map(|voter| {
            [
                voter.node.clone(),
                yes_no(voter.decides),
                or_dash(voter.behind),
                voter.active.map_or_else(|| "-".into(), yes_no),
            ]
        })
        .collect();
    out.push_str(&table(["VOTER", "VOTES", "LAG", "LAST SEEN"], &rows));
    if !status.waiting.is_empty() {
        let rows: Vec<_> = status
            .waiting
            .iter()
            .map(|row| [row.node.clone(), row.reason.clone()])
            .collect();
        out.push('\n');
        out.push_str(&table(["WAITING", "BECAUSE"], &rows));
    }
    let rows: Vec<_> = status
        .issuers
        .iter()
        .map(|issuer| {
            [
                issuer.node.clone(),
                issuer.state.to_string(),
                issuer.not_before.to_string(),
                issuer.not_after.to_string(),
                issuer.days_left.to_string(),
            ]
        })
        .collect();
    out.push('\n');
    let header = ["INTERMEDIATE OF", "STATE", "BEGINS", "ENDS", "DAYS LEFT"];
    out.push_str(&table(header, &rows));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_everything_that_a_person_looks_for() {
        use crate::control::testing::sample_ca_status;
        assert_eq!(
            text(&sample_ca_status()),
            "\
leader  alpha
term    1
roster  alpha
ledger  3, epoch 2

VOTER  VOTES  LAG  LAST SEEN
alpha  yes    0    -

WAITING  BECAUSE
beta     one more

INTERMEDIATE OF  STATE     BEGINS                ENDS                  DAYS LEFT
alpha            in force  1970-01-01T00:00:00Z  1970-01-02T00:00:00Z  1
"
        );
    }

    #[test]
    fn a_fingerprint_looks_as_it_does_in_a_browser() {
        assert_eq!(fingerprint("00ffa1"), "00:FF:A1");
        assert_eq!(fingerprint(""), "");
    }
}
