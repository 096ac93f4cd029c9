//! Says who the admins are, to whom runs an admin's command on another node.

use super::failure::{FAILED, Failure};
use crate::control::{
    Client,
    node::{Status, StatusRequest},
};

/// Commands that need an admin's node.
const COMMANDS: [&str; 7] = [
    "invite",
    "requests",
    "approve",
    "deny",
    "evict",
    "role",
    "ca promote",
];

/// The failure, with the names of the admins where this node is none.
pub async fn told(failure: Failure, command: &str, client: &Client) -> Failure {
    let is = |of: &str| command == of || command.starts_with(&format!("{of} "));
    if failure.code != FAILED || !COMMANDS.into_iter().any(is) {
        return failure;
    }
    match client.ask(&StatusRequest {}).await {
        Ok(status) => match admins(&status) {
            Some(admins) => failure.with(&admins),
            None => failure,
        },
        Err(_) => failure,
    }
}

/// Who the admins are; `None` where this node is one.
fn admins(status: &Status) -> Option<String> {
    let admins = status.nodes.iter();
    let admins = admins.filter(|node| node.roles.iter().any(|role| role == "admin"));
    let names: Vec<&str> = admins.map(|node| node.name.as_str()).collect();
    if names.contains(&status.node.as_str()) {
        return None;
    }
    match names[..] {
        [] => None,
        [one] => Some(format!("{one} is the admin's node")),
        _ => Some(format!("the admins' nodes are {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{FakeAgent, sample_status, served};

    #[test]
    fn the_admins_are_named_where_this_node_is_none() {
        let mut status = sample_status();
        assert_eq!(admins(&status), None);
        status.node = "gamma".into();
        assert_eq!(
            admins(&status).as_deref(),
            Some("the admins' nodes are alpha, beta")
        );
        status.nodes[0].roles.clear();
        assert_eq!(admins(&status).as_deref(), Some("beta is the admin's node"));
    }

    #[tokio::test]
    async fn only_commands_of_admins_and_refusals_name_them() {
        use crate::control::{AnyRequest, Reply, node::NodeRequest};
        let agent = FakeAgent::answering(|request, _| {
            assert!(matches!(request, AnyRequest::Node(NodeRequest::Status(_))));
            let mut status = sample_status();
            status.node = "gamma".into();
            Reply::to::<StatusRequest>(&status)
        });
        let served = served(agent).await;
        for (failure, command, named) in [
            (Failure::failed("no"), "invite", true),
            (Failure::failed("no"), "role add", true),
            (Failure::failed("no"), "service add", false),
            (Failure::failed("no"), "invitex", false),
            (Failure::usage("no"), "invite", false),
        ] {
            let told = told(failure, command, &served.client).await.to_string();
            assert_eq!(told.contains("alpha, beta"), named, "{command}: {told}");
        }
    }
}
