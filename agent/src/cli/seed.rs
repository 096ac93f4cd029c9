//! `agent seed`.

use clap::Subcommand;

use super::{failure::Failure, output::Output};
use crate::control::{Client, node::SeedAddRequest};

#[derive(Debug, Subcommand)]
pub enum Command {
    Add(AddArguments),
}

/// Ask a member at an address, and keep the address.
///
/// For a node that finds no other any more, such as after all hosts were given
/// new addresses while they were off. Once it has found one it learns of the
/// others by itself.
#[derive(Debug, clap::Args)]
pub struct AddArguments {
    /// Where the member answers, by host name or address.
    ///
    /// With :PORT if that isn't 51819. Where UDP is blocked, wss://HOST/PATH of a relay
    /// that takes in lanes.
    #[arg(value_name = "ADDRESS[:PORT]")]
    address: String,
    #[command(flatten)]
    output: Output,
}

pub async fn run(command: Command, client: &Client) -> Result<(), Failure> {
    let Command::Add(AddArguments { address, output }) = command;
    let added = client.ask(&SeedAddRequest { address }).await?;
    output.print(&added, || {
        format!("{} answers at {}\n", added.node, added.address)
    })
}
