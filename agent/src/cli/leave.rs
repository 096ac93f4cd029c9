//! `agent leave`.

use std::time::Duration;

use super::{
    consent::Consent, context::Context, failure::Failure, output::Output, root_key, show::Progress,
};
use crate::{
    control::{
        Client, ClientError,
        node::{LeaveRequest, LeaveState, Left, NodeRow, Status, StatusRequest},
    },
    host::state_folder,
};

/// Remove this node from the mesh.
///
/// Its seat as a voter and the names that it shares are handed over first, its
/// other names become free, and its agent ends. The last CA node and the last
/// admin can't leave. Asks before it does anything.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

/// How often the agent is asked to go on handing over.
const STEPS: u32 = 12;
/// How long the agent may take to end.
const END: Duration = Duration::from_secs(20);
/// Between two looks whether it has.
const PAUSE: Duration = Duration::from_millis(200);

pub async fn leave(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let client = &context.client();
    let status = client.ask(&StatusRequest {}).await?;
    let command = format!("agent{} leave", context.paths.option());
    arguments.consent.ask(&happens(&status), &command)?;
    let mut progress = Progress::default();
    let mut left = client.ask(&LeaveRequest {}).await?;
    for _ in 0..STEPS {
        if left.state == LeaveState::Left {
            break;
        }
        progress.show("handing over this node's seat as a voter");
        left = client.ask(&LeaveRequest {}).await?;
    }
    drop(progress);
    if left.state != LeaveState::Left {
        return Err(Failure::timed_out(
            "the other CA nodes haven't taken over yet; `agent ca status` shows who is missing. \
             Run it again when they are there",
        ));
    }
    wait_for_end(client).await;
    let folder = context.paths.state.display().to_string();
    let has_root = root_key::place(&context.paths).exists();
    arguments
        .output
        .print(&left, || text(&left, &folder, has_root))
}

/// What will have happened, before anybody agrees to it.
fn happens(status: &Status) -> String {
    let mut what = format!(
        "{} leaves {}: its names go to the nodes that share them, the others become free, its \
         certificates are revoked and its agent ends; to come back it needs an invite.",
        status.node, status.domain
    );
    for (role, words) in [("admin", "admin"), ("ca", "CA node")] {
        let has = |row: &&NodeRow| row.roles.iter().any(|own| own == role);
        let (own, others): (Vec<&NodeRow>, Vec<&NodeRow>) = status
            .nodes
            .iter()
            .filter(has)
            .partition(|row| row.name == status.node);
        if !own.is_empty()
            && let [other] = &others[..]
        {
            what.push_str(&format!(" {} is the only {words} then.", other.name));
        }
    }
    what
}

/// The agent ends by itself, and takes its routes with it.
async fn wait_for_end(client: &Client) {
    let ended = async {
        while !matches!(
            client.ask(&StatusRequest {}).await,
            Err(ClientError::NotRunning(_))
        ) {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let _ = tokio::time::timeout(END, ended).await;
}

fn text(left: &Left, folder: &str, has_root: bool) -> String {
    let mut out = format!("{} has left {}\n", left.node, left.domain);
    for name in &left.names {
        out.push_str(&match &name.to {
            Some(heir) => format!("  {} belongs to {heir} now\n", name.name),
            None => format!("  {} is free\n", name.name),
        });
    }
    let room = state_folder::room_in(folder, has_root);
    out.push_str(&format!(
        "\nTo have this machine in a mesh again, make room for `agent join` with an invite:\n{room}.\n"
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{node::NameLeft, testing::sample_status};

    #[test]
    fn a_person_is_told_who_has_the_names_now() {
        let name = |name: &str, to: Option<&str>| NameLeft {
            name: name.into(),
            to: to.map(Into::into),
        };
        let left = Left {
            state: LeaveState::Left,
            node: "beta".into(),
            domain: "in.example.org".into(),
            names: vec![name("wiki", Some("alpha")), name("photos", None)],
        };
        let told = text(&left, "/x/state", false);
        assert!(told.starts_with("beta has left in.example.org\n"));
        assert!(told.contains("wiki belongs to alpha now") && told.contains("photos is free"));
        assert!(
            told.contains("move /x/state away") && !told.contains("root"),
            "{told}"
        );
        let told = text(&left, "/x/state", true);
        assert!(told.contains("agent ca root-key export"), "{told}");
        assert!(
            !told.contains("move"),
            "the root's key may be nowhere else: {told}"
        );
    }

    #[test]
    fn who_is_left_alone_is_named_before_anybody_agrees() {
        let mut status = sample_status();
        for row in &mut status.nodes {
            row.roles = vec!["admin".into()];
        }
        let what = happens(&status);
        assert!(what.contains("alpha leaves in.example.org"), "{what}");
        assert!(what.contains("beta is the only admin then"), "{what}");
        status.nodes[0].roles = Vec::new();
        assert!(!happens(&status).contains("only"));
    }
}
