//! `agent role add` and `rm`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use innermesh_proto::{ledger::Role, name::Label};
use serde::Serialize;

use super::{
    alone::warn_alone,
    ca,
    consent::Consent,
    context::Context,
    failure::{self, Failure},
    output::{Detail, Output},
    root_word::{by_root, with_key},
    show::{Cell, Column, Table},
};
use crate::control::{
    members::{RoleChanged, RoleRequest, RoleState},
    node::{NodeRow, StatusRequest},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Add(AddArguments),
    Rm(RmArguments),
    #[command(visible_alias = "ls")]
    List(ListArguments),
}

/// Give a node a role.
///
/// An admin lets nodes in and evicts them. Whoever is made one counts for a day
/// as whoever made it one, so that one stolen node can't make its own second.
/// Run it on an admin's node, or on any with the root's recovery file. For the
/// role ca this is `agent ca promote`, which needs that file.
#[derive(Debug, clap::Args)]
pub struct AddArguments {
    /// Name of the node.
    #[arg(value_name = "NODE")]
    node: Label,
    /// The role.
    #[arg(value_name = "ROLE")]
    role: RoleName,
    /// Use the root's recovery file in place of an admin.
    ///
    /// Its passphrase is asked for, or taken from INNERMESH_ROOT_PASSPHRASE.
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Take a role from a node.
///
/// A node gives its own role up by this. To take it from another, a second
/// admin must run the same command on another node within the hour, or the
/// root's recovery file is needed: until then it ends with 5. Somebody stays an
/// admin. Asks before it does anything.
#[derive(Debug, clap::Args)]
pub struct RmArguments {
    /// Name of the node.
    #[arg(value_name = "NODE")]
    node: Label,
    /// The role.
    #[arg(value_name = "ROLE")]
    role: RoleName,
    /// Use the root's recovery file in place of a second admin.
    ///
    /// Its passphrase is asked for, or taken from INNERMESH_ROOT_PASSPHRASE.
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

/// Show which nodes have which roles.
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    #[command(flatten)]
    detail: Detail,
    #[command(flatten)]
    output: Output,
}

/// Roles that a node can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Admits and evicts nodes.
    Admin,
    /// Votes and issues certificates, once it is promoted.
    Ca,
    /// Takes devices in, and forwards for them and for networks beside it.
    Gateway,
    /// Forwards to the internet for nodes and devices that use it.
    Exit,
    /// Brings packets to nodes that aren't reached straight.
    Relay,
    /// Answers strangers who follow the mesh's names.
    Sinkhole,
}

impl RoleName {
    /// The role that it names.
    pub fn role(self) -> Role {
        match self {
            Self::Admin => Role::Admin,
            Self::Ca => Role::Ca,
            Self::Gateway => Role::Gateway,
            Self::Exit => Role::Exit,
            Self::Relay => Role::Relay,
            Self::Sinkhole => Role::Sinkhole,
        }
    }
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Add(arguments) => add(arguments, context).await,
        Command::Rm(arguments) => rm(arguments, context).await,
        Command::List(arguments) => list(&arguments, context).await,
    }
}

async fn list(arguments: &ListArguments, context: &Context) -> Result<(), Failure> {
    let ListArguments { detail, output } = *arguments;
    let status = context.client().ask(&StatusRequest {}).await?;
    let rows = roles(status.nodes);
    output.show(detail, &rows, |screen| {
        let mut table = Table::new([Column::whole("ROLE"), Column::whole("NODE")]);
        for row in &rows {
            table.add([Cell::new(&row.role), Cell::new(&row.node)]);
        }
        screen.table(&table.sorted());
    })
}

/// One role of one node.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct RoleRow {
    role: String,
    node: String,
}

fn roles(nodes: Vec<NodeRow>) -> Vec<RoleRow> {
    let rows = nodes.into_iter().flat_map(|node| {
        let roles = node.roles.into_iter();
        let name = node.name;
        roles.map(move |role| RoleRow {
            role,
            node: name.clone(),
        })
    });
    rows.collect()
}

async fn add(arguments: AddArguments, context: &Context) -> Result<(), Failure> {
    let AddArguments {
        node,
        role,
        root_key,
        output,
    } = arguments;
    if role == RoleName::Ca {
        return ca::promote(node, root_key, output, context).await;
    }
    let client = &context.client();
    let root = match &root_key {
        Some(file) => Some(by_root(file, &node, role.role(), true, client).await?),
        None => None,
    };
    let request = RoleRequest {
        node,
        role: role.role().to_string(),
        give: true,
        root,
    };
    let changed = client.ask(&request).await?;
    output.print(&changed, || {
        format!("{} has the role {} now\n", changed.node, changed.role)
    })
}

async fn rm(arguments: RmArguments, context: &Context) -> Result<(), Failure> {
    let RmArguments {
        node,
        role,
        root_key,
        consent,
        output,
    } = arguments;
    if role == RoleName::Ca {
        return ca::demote(node, root_key, consent, output, context).await;
    }
    let role = role.role();
    let client = &context.client();
    let status = client.ask(&StatusRequest {}).await?;
    let is_own = status.node == node.as_str();
    let command = format!("agent{} role rm {node} {role}", context.paths.option());
    let what = happens(&node, role, takes_two(role, is_own, root_key.as_deref()));
    consent.ask(&what, &with_key(command, root_key.as_deref()))?;
    let root = match &root_key {
        Some(file) => Some(by_root(file, &node, role, false, client).await?),
        None => None,
    };
    let request = RoleRequest {
        node,
        role: role.to_string(),
        give: false,
        root,
    };
    let changed = client.ask(&request).await?;
    output.print(&changed, || taken(&changed))?;
    match changed.state {
        RoleState::Done => warn_alone(output, client).await,
        RoleState::Waiting => Err(Failure::silent(failure::WAITING)),
    }
}

fn takes_two(role: Role, is_own: bool, root_key: Option<&Path>) -> bool {
    role == Role::Admin && !is_own && root_key.is_none()
}

/// What will have happened, before anybody agrees to it.
fn happens(node: &Label, role: Role, takes_two: bool) -> String {
    let mut what = match role {
        Role::Admin => format!(
            "{node} is no admin any more: it lets no node in and evicts none, its open invites are \
             void, and records of its that lead outside the mesh aren't answered any more."
        ),
        other => format!("{node} hasn't the role {other} any more."),
    };
    if takes_two {
        what.push_str(" That happens only once a second admin asks for it.");
    }
    what
}

/// What became of taking a role.
fn taken(changed: &RoleChanged) -> String {
    let RoleChanged { node, role, .. } = changed;
    match changed.state {
        RoleState::Done => format!("{node} hasn't the role {role} any more\n"),
        RoleState::Waiting => format!(
            "{node} has the role {role} still: a second admin must run `agent role rm {node} {role}` \
             on another node within an hour (not one that this admin made one), or use --root-key \
             here\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_happen_is_said_and_whether_another_is_needed() {
        let node: Label = "beta".parse().unwrap();
        let what = happens(&node, Role::Admin, true);
        assert!(
            what.contains("no admin any more") && what.contains("second admin"),
            "{what}"
        );
        let file = Path::new("/x");
        for (is_own, root_key) in [(true, None), (false, Some(file))] {
            assert!(!takes_two(Role::Admin, is_own, root_key));
        }
        assert!(!happens(&node, Role::Gateway, false).contains("second"));
    }

    #[test]
    fn each_role_of_each_node_is_a_row() {
        let mut status = crate::control::testing::sample_status();
        status.nodes[0].roles.push("ca".into());
        status.nodes[1].roles.clear();
        let rows = roles(status.nodes);
        let rows: Vec<_> = rows.iter().map(|row| (&*row.role, &*row.node)).collect();
        assert_eq!(rows, [("admin", "alpha"), ("ca", "alpha")]);
    }

    #[test]
    fn what_waits_is_not_called_done() {
        let mut changed = RoleChanged {
            node: "beta".into(),
            role: "admin".into(),
            give: false,
            state: RoleState::Waiting,
        };
        assert!(taken(&changed).contains("still"));
        changed.state = RoleState::Done;
        assert!(taken(&changed).contains("any more"));
    }
}
