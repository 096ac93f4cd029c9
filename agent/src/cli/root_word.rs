//! The root's word for a change of a role, signed in this process.

use std::path::Path;

use innermesh_proto::{
    id::NodeId,
    ledger::{Role, request::RoleChange},
    limits,
    name::Label,
};

use super::{failure::Failure, root_key};
use crate::control::{
    Client, Der,
    members::{RoleWordRequest, RootSigned},
};

/// A command as it was typed, with where the root's key is.
pub fn with_key(command: String, root_key: Option<&Path>) -> String {
    match root_key {
        Some(file) => format!("{command} --root-key {}", file.display()),
        None => command,
    }
}

/// The root's word for a change of a role that this node's agent asks for.
pub async fn by_root(
    file: &Path,
    name: &Label,
    role: Role,
    give: bool,
    client: &Client,
) -> Result<RootSigned, Failure> {
    let word = client.ask(&RoleWordRequest { node: name.clone() }).await?;
    let text = root_key::read(file)?;
    let root = root_key::decrypt(&text, file)?;
    root_key::check_mesh(&root, &word.mesh, file)?;
    let node: NodeId = word.node.parse().map_err(Failure::failed)?;
    let author: NodeId = word.author.parse().map_err(Failure::failed)?;
    let until_ms = word.now_ms + limits::REQUEST_LIFETIME_MS;
    let change = RoleChange {
        node,
        role,
        root: None,
    };
    let message = change.root_message(&root.mesh(), &author, give, word.number, until_ms);
    let signature = root.sign(&message).map_err(Failure::failed)?;
    Ok(RootSigned {
        until_ms,
        signature: Der(signature),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_repeated_as_it_was_typed() {
        let typed = |file| with_key("agent role rm beta admin".into(), file);
        assert_eq!(typed(None), "agent role rm beta admin");
        let file = Path::new("/x");
        assert_eq!(typed(Some(file)), "agent role rm beta admin --root-key /x");
    }
}
