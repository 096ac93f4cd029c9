//! `agent ca eab`: certificates by ACME for what runs on another machine.

use innermesh_proto::name::MeshDomain;

use super::super::{cert::full_name, failure::Failure, output::Output};
use crate::control::Client;

/// Let a program that isn't on this machine get certificates for a name of
/// this machine, by ACME with an external account.
///
/// Programs on this machine need no such key. The key is for the name and what
/// is below it, and is shown this once.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A full name, or one that the mesh's domain is put behind.
    #[arg(value_name = "NAME")]
    name: String,
    /// Take all keys for this name back: their accounts get nothing more.
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    output: Output,
}

pub async fn eab(arguments: Arguments, client: &Client) -> Result<(), Failure> {
    let status = client.status().await?;
    let domain: MeshDomain = status.domain.parse().map_err(Failure::failed)?;
    let name = full_name(&arguments.name, &domain)?;
    if arguments.rm {
        client.eab_rm(&name).await?;
        let told = serde_json::json!({ "name": name, "state": "removed" });
        return arguments
            .output
            .print(&told, || format!("the keys for {name} are taken back\n"));
    }
    let made = client.eab_add(&name).await?;
    arguments.output.print(&made, || {
        format!(
            "An ACME client may have certificates for {} with\n\n  directory  {}\n  key id     {}\n  \
             HMAC key   {}\n\nand must trust the root that `agent ca root` prints. Where the \
             directory's name is to be reached from outside this machine, set `listen` of [acme] \
             in the configuration.\n",
            made.name, made.directory, made.kid, made.hmac_key
        )
    })
}
