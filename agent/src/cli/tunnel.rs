//! `agent tunnel`.

use super::{failure::Failure, output::Output};
use crate::control::{
    Client,
    node::{RekeyRequest, Rekeyed},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Rekey(Rekey),
}

/// Give this node a new WireGuard key.
///
/// The ledger decides it, so a CA node has to be reached. The others use the
/// old key until this node says that it has the new one. A node asks for its
/// first key by itself.
#[derive(Debug, clap::Args)]
pub struct Rekey {
    #[command(flatten)]
    output: Output,
}

pub async fn run(command: Command, client: &Client) -> Result<(), Failure> {
    let Command::Rekey(arguments) = command;
    let rekeyed = client.ask(&RekeyRequest {}).await?;
    arguments.output.print(&rekeyed, || text(&rekeyed))
}

fn text(rekeyed: &Rekeyed) -> String {
    let Rekeyed { key, previous } = rekeyed;
    format!("This node's WireGuard key is {key}.\nBefore it was {previous}.\n")
}
