//! `agent ca eab`: certificates by ACME for what runs on another machine.

use innermesh_proto::name::MeshDomain;

use super::super::{failure::Failure, names::full_name, output::Output};
use crate::control::{
    Client,
    acme::{EabAddRequest, EabRmRequest},
    node::StatusRequest,
};

/// Create an ACME key for a program on another machine.
///
/// With it that program gets certificates for a name of this node and what is
/// below, by ACME with an external account. Programs on this node need no such
/// key. It is shown only this once.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Full name, or a name in the mesh's domain.
    #[arg(value_name = "NAME")]
    name: String,
    /// Revoke all keys for this name.
    ///
    /// Their accounts get no more certificates.
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    output: Output,
}

pub async fn eab(arguments: Arguments, client: &Client) -> Result<(), Failure> {
    let status = client.ask(&StatusRequest {}).await?;
    let domain: MeshDomain = status.domain.parse().map_err(Failure::failed)?;
    let name = full_name(&arguments.name, &domain)?;
    if arguments.rm {
        let request = EabRmRequest { name: name.clone() };
        client.ask(&request).await?;
        let told = serde_json::json!({ "name": name, "state": "removed" });
        return arguments
            .output
            .print(&told, || format!("the keys for {name} are revoked\n"));
    }
    let made = client.ask(&EabAddRequest { name }).await?;
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
