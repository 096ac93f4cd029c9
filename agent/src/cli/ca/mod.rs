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
    output::{self, Detail, Output, warn, well, yes_no},
    show::{Cell, Column, Screen, Table, until},
};
use crate::{
    ca::fingerprint,
    control::{
        Client,
        ca::{CaRootRequest, CaStatus, CaStatusRequest, IssuerState},
    },
    host::UnixTime,
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
    detail: Detail,
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
    let StatusArguments { detail, output } = *arguments;
    output.show(detail, &status, |screen| draw(screen, &status))?;
    if !output.is_json() {
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

fn draw(screen: &mut Screen, status: &CaStatus) {
    let leader = status.leader.as_deref().unwrap_or("none is known");
    screen.fields(&[
        ("leader", leader.to_owned()),
        ("term", status.term.to_string()),
        ("roster", status.roster.join(", ")),
        (
            "ledger",
            format!("{}, epoch {}", status.ledger.index, status.epoch),
        ),
    ]);
    let mut voters = Table::new([
        Column::whole("VOTER"),
        Column::whole("VOTES"),
        Column::whole("LAG"),
        Column::whole("LAST SEEN"),
    ]);
    for voter in &status.voters {
        voters.add([
            Cell::new(&voter.node),
            Cell::new(yes_no(voter.decides)),
            Cell::or_dash(voter.behind),
            voter.active.map_or_else(|| Cell::new("-"), well),
        ]);
    }
    screen.table(&voters.sorted());
    if !status.waiting.is_empty() {
        let mut waiting = Table::new([Column::whole("WAITING"), Column::new("BECAUSE")]);
        for row in &status.waiting {
            waiting.add([Cell::new(&row.node), Cell::new(&row.reason)]);
        }
        screen.table(&waiting.sorted());
    }
    screen.table(&intermediates(status, screen.now()));
}

fn intermediates(status: &CaStatus, now: UnixTime) -> Table<5> {
    let mut issuers = Table::new([
        Column::whole("INTERMEDIATE OF"),
        Column::whole("STATE"),
        Column::whole("BEGINS"),
        Column::whole("ENDS"),
        Column::extra("SERIAL"),
    ]);
    let mut rows: Vec<_> = status.issuers.iter().collect();
    rows.sort_by(|a, b| (&a.node, a.not_before).cmp(&(&b.node, b.not_before)));
    for issuer in rows {
        let ended = matches!(issuer.state, IssuerState::Ended | IssuerState::Revoked);
        issuers.add([
            Cell::new(&issuer.node),
            if ended {
                Cell::bad(issuer.state)
            } else {
                Cell::good(issuer.state)
            },
            Cell::new(until(now, issuer.not_before)).in_full(issuer.not_before),
            Cell::new(until(now, issuer.not_after)).in_full(issuer.not_after),
            Cell::new(&issuer.serial),
        ]);
    }
    issuers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::show::{fits, plain};

    #[test]
    fn the_text_names_everything_that_a_person_looks_for() {
        use crate::control::testing::sample_ca_status;
        assert_eq!(
            plain(|screen| draw(screen, &sample_ca_status())),
            "\
leader  alpha
term    1
roster  alpha
ledger  3, epoch 2

VOTER  VOTES  LAG  LAST SEEN
alpha  yes    0    -

WAITING  BECAUSE
beta     one more

INTERMEDIATE OF  STATE     BEGINS  ENDS
alpha            in force  in 0s   in 24h
"
        );
    }

    #[test]
    fn voters_and_intermediates_fit_the_terminal() {
        use crate::control::testing::sample_ca_status;
        let mut status = sample_ca_status();
        let long = "raspberry-pi-in-the-garage-02".to_owned();
        status.roster = vec![long.clone(); 5];
        status.voters[0].node = long.clone();
        status.waiting[0].reason = format!("one more CA node, as {long} and {long} are four");
        status.issuers[0].node = long.clone();
        let text = fits(|screen| draw(screen, &status));
        assert!(text.contains(&format!("{long}  in force")), "{text}");
    }

    #[test]
    fn a_fingerprint_looks_as_it_does_in_a_browser() {
        assert_eq!(fingerprint("00ffa1"), "00:FF:A1");
        assert_eq!(fingerprint(""), "");
    }
}
