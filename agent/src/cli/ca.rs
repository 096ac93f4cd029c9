//! `agent ca`.

use super::{
    failure::Failure,
    output::{self, Output, table},
};
use crate::control::{Client, api::CaStatus};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Status(StatusArguments),
    Root(RootArguments),
}

/// Show who issues certificates, and for how long still.
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

pub async fn run(command: &Command, client: &Client) -> Result<(), Failure> {
    match command {
        Command::Status(arguments) => {
            let status = client.ca_status().await?;
            arguments.output.print(&status, || text(&status))
        }
        Command::Root(arguments) => {
            let root = client.ca_root().await?;
            if !arguments.output.is_json() {
                // Beside the output, which may go to a file.
                output::note(&format!(
                    "SHA-256 {}",
                    fingerprint(&root.fingerprint_sha256)
                ));
            }
            arguments.output.print(&root, || root.pem.clone())
        }
    }
}

fn text(status: &CaStatus) -> String {
    let leader = status.leader.as_deref().unwrap_or("none is known");
    let mut out = format!(
        "leader  {leader}\nterm    {}\nroster  {}\n\n",
        status.term,
        status.roster.join(", ")
    );
    let rows: Vec<_> = status
        .issuers
        .iter()
        .map(|issuer| {
            [
                issuer.node.clone(),
                issuer.not_after.to_string(),
                issuer.days_left.to_string(),
            ]
        })
        .collect();
    out.push_str(&table(["ISSUER", "ENDS", "DAYS LEFT"], &rows));
    for warning in &status.warnings {
        out.push_str(&format!("\nwarning: {warning}\n"));
    }
    out
}

/// As browsers show it: pairs of capitals with colons between.
fn fingerprint(hex: &str) -> String {
    let capitals = hex.to_ascii_uppercase();
    let pairs: Vec<String> = capitals
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair).into_owned())
        .collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_looks_as_it_does_in_a_browser() {
        assert_eq!(fingerprint("00ffa1"), "00:FF:A1");
        assert_eq!(fingerprint(""), "");
    }
}
