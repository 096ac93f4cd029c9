//! `agent leave`.

use std::time::Duration;

use super::{
    failure::Failure,
    output::{Output, Progress},
};
use crate::control::{
    Client, ClientError,
    node::{LeaveRequest, LeaveState, Left, StatusRequest},
};

/// Remove this node from the mesh.
///
/// Its seat as a voter and the names that it shares are handed over first, its
/// other names become free, and its agent ends. The last CA node and the last
/// admin can't leave.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    output: Output,
}

/// How often the agent is asked to go on handing over.
const STEPS: u32 = 12;
/// How long the agent may take to end.
const END: Duration = Duration::from_secs(20);
/// Between two looks whether it has.
const PAUSE: Duration = Duration::from_millis(200);

pub async fn leave(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
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
    arguments.output.print(&left, || text(&left))
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

fn text(left: &Left) -> String {
    let mut out = format!("{} has left {}\n", left.node, left.domain);
    for name in &left.names {
        out.push_str(&match &name.to {
            Some(heir) => format!("  {} belongs to {heir} now\n", name.name),
            None => format!("  {} is free\n", name.name),
        });
    }
    out.push_str("\nTo join a mesh again, move the state folder away first.\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::node::NameLeft;

    #[test]
    fn a_person_is_told_who_has_the_names_now() {
        let name = |name: &str, to: Option<&str>| NameLeft {
            name: name.into(),
            to: to.map(Into::into),
        };
        let told = text(&Left {
            state: LeaveState::Left,
            node: "beta".into(),
            domain: "in.example.org".into(),
            names: vec![name("wiki", Some("alpha")), name("photos", None)],
        });
        assert!(told.starts_with("beta has left in.example.org\n"));
        assert!(told.contains("wiki belongs to alpha now") && told.contains("photos is free"));
    }
}
