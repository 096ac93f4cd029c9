//! `agent ca promote` and `agent ca demote`.

use std::{path::PathBuf, time::Duration};

use innermesh_proto::{ledger::Role, name::Label};
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::super::{
    alone::warn_alone,
    consent::Consent,
    context::Context,
    failure::{self, Failure},
    output::Output,
    paths::Paths,
    root_key::RootKey,
    root_word::{by_root, with_key},
    show::Progress,
};
use crate::{
    ca::{CaError, Root, expiry},
    control::{
        Client, Der,
        ca::{CaKeys, CaKeysRequest, CaStatus, CaStatusRequest, DemoteRequest, PromoteRequest},
        members::RoleState,
    },
    host::duration::Span,
    host::keys::SystemKeys,
};

/// How often to look.
const PAUSE: Duration = Duration::from_millis(250);

/// Make a node a CA node, or renew its intermediates.
///
/// A CA node issues certificates and votes on the ledger. Three CA nodes vote
/// together, or five: with one, promote two more. The root signs an
/// intermediate certificate for the node's own key, and its successor; both
/// stand in the ledger. The root's key stays in this process.
#[derive(Debug, clap::Args)]
pub struct PromoteArguments {
    /// Name of the node.
    #[arg(value_name = "NODE")]
    node: Label,
    #[command(flatten)]
    root_key: RootKey,
    /// Give up waiting after this time.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: Span,
    #[command(flatten)]
    output: Output,
}

/// Make a CA node an ordinary node.
///
/// If it leads, another does so first. The last CA node can't be demoted. To
/// demote another node than this one, a second admin must run the same command
/// on another node within the hour, or the root's recovery file is needed:
/// until then it ends with 5. Asks before it does anything.
#[derive(Debug, clap::Args)]
pub struct DemoteArguments {
    /// Name of the CA node.
    #[arg(value_name = "NODE")]
    node: Label,
    /// Use the root's recovery file in place of a second admin.
    ///
    /// Its passphrase is asked for, or taken from INNERMESH_ROOT_PASSPHRASE.
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
    /// Give up waiting after this time.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: Span,
    #[command(flatten)]
    output: Output,
}

/// How long a change of the roster is waited for, unless said otherwise.
const WAIT: Span = Span(60);

impl PromoteArguments {
    pub fn of(node: Label, root_key: Option<PathBuf>, output: Output) -> Self {
        Self {
            node,
            root_key: RootKey::at(root_key),
            timeout: WAIT,
            output,
        }
    }
}

impl DemoteArguments {
    pub fn of(node: Label, root_key: Option<PathBuf>, consent: Consent, output: Output) -> Self {
        Self {
            node,
            root_key,
            consent,
            timeout: WAIT,
            output,
        }
    }
}

/// What came of it.
#[derive(Serialize)]
struct Changed<'a> {
    node: &'a str,
    /// Issuers that the root signed.
    issuers: usize,
    roster: &'a [String],
    /// What the node waits for; null when it waits for nothing.
    waits_for: Option<&'a str>,
}

pub async fn promote(
    arguments: PromoteArguments,
    paths: &Paths,
    client: &Client,
) -> Result<(), Failure> {
    let node = &arguments.node;
    let keys = client.ask(&CaKeysRequest { node: node.clone() }).await?;
    let root = arguments.root_key.open(paths, &keys.mesh)?;
    let issuers = sign(&root, &keys).map_err(Failure::failed)?;
    drop(root);
    let signed = issuers.len();
    if signed > 0 {
        let request = PromoteRequest {
            node: node.clone(),
            issuers,
        };
        client.ask(&request).await?;
    }
    let patience = arguments.timeout;
    let json = arguments.output.is_json();
    let status = until(client, patience, json, |status| {
        if !decides(status, node) && waits_for(status, node).is_none() {
            return Some(format!("{node} isn't a CA node by this node's ledger yet"));
        }
        let done = decides(status, node) || waits_for_others(status);
        (!done).then(|| format!("{node} is being taken into the roster"))
    })
    .await?;
    let waits_for = waits_for(&status, node).filter(|_| !decides(&status, node));
    let changed = Changed {
        node: node.as_str(),
        issuers: signed,
        roster: &status.roster,
        waits_for,
    };
    arguments
        .output
        .print(&changed, || promoted(&changed, status.roster.len()))
}

/// Issuers for the member's keys, as many as it lacks.
fn sign(root: &Root, keys: &CaKeys) -> Result<Vec<Der>, CaError> {
    let held: Vec<expiry::Life> = keys
        .held
        .iter()
        .map(|life| (life.begin_ms, life.end_ms))
        .collect();
    let root_end_ms = root.certificate().not_after_ms;
    let due = expiry::issuers_due(keys.now_ms, root_end_ms, &held, keys.is_ca);
    let due = due.into_iter().zip(&keys.offered);
    due.map(|(begin_ms, key)| root.issuer(&key.0, begin_ms, &SystemKeys).map(Der))
        .collect()
}

fn promoted(changed: &Changed<'_>, size: usize) -> String {
    let Changed { node, roster, .. } = changed;
    let issuers = match changed.issuers {
        0 => format!("{node} has an intermediate certificate and its successor: nothing to renew."),
        1 => format!("Created an intermediate certificate for {node}."),
        count => format!("Created {count} intermediate certificates for {node}."),
    };
    let place = match changed.waits_for {
        None if size == 1 => "It is the only voter.".to_string(),
        None => format!("It is one of {size} voters: {}.", roster.join(", ")),
        Some(_) if size % 2 == 1 => {
            "It can't vote until there is one CA node more: promote one more.".to_string()
        }
        Some(why) => format!("It can't vote yet: {why}."),
    };
    format!("{issuers}\n{place}\n")
}

pub async fn demote(arguments: DemoteArguments, context: &Context) -> Result<(), Failure> {
    let client = &context.client();
    let node = &arguments.node;
    let status = client.ask(&CaStatusRequest {}).await?;
    let file = arguments.root_key.as_deref();
    let command = format!("agent{} ca demote {node}", context.paths.option());
    let what = demotes(&status, node);
    arguments.consent.ask(&what, &with_key(command, file))?;
    let root = match file {
        Some(file) => Some(by_root(file, node, Role::Ca, false, client).await?),
        None => None,
    };
    let request = DemoteRequest {
        node: node.clone(),
        root,
    };
    let changed = client.ask(&request).await?;
    if changed.state == RoleState::Waiting {
        arguments.output.print(&changed, || {
            format!(
                "{node} is a CA node still: a second admin must run `agent ca demote {node}` on \
                 another node within an hour (not one that this admin made one), or use \
                 --root-key here\n"
            )
        })?;
        return Err(Failure::silent(failure::WAITING));
    }
    let json = arguments.output.is_json();
    let status = until(client, arguments.timeout, json, |status| {
        if !decides(status, node) && waits_for(status, node).is_none() {
            None
        } else if status.leader.as_deref() == Some(node.as_str()) {
            Some(format!("{node} hands over"))
        } else {
            Some(format!("{node} is being taken out of the roster"))
        }
    })
    .await?;
    let changed = Changed {
        node: node.as_str(),
        issuers: 0,
        roster: &status.roster,
        waits_for: None,
    };
    arguments.output.print(&changed, || {
        let advice = match status.roster.len() {
            2 | 4 => {
                "\nThat is an even number: add one with `agent ca promote NODE`, or demote another."
            }
            _ => "",
        };
        format!(
            "{node} is an ordinary node now. The voters are: {}.{advice}\n",
            status.roster.join(", ")
        )
    })?;
    warn_alone(arguments.output, client).await
}

/// What will have happened, before anybody agrees to it.
fn demotes(status: &CaStatus, node: &Label) -> String {
    let left: Vec<&str> = status
        .roster
        .iter()
        .map(String::as_str)
        .filter(|name| *name != node.as_str())
        .collect();
    let left = match left[..] {
        [] => "nobody decides then".to_string(),
        [one] => format!("{one} alone decides then, and nothing new is granted while it is off"),
        _ => format!("the voters are {} then", left.join(", ")),
    };
    format!("{node} decides and issues no more, and needs the root's key to do so again; {left}.")
}

fn decides(status: &CaStatus, node: &Label) -> bool {
    status.roster.iter().any(|name| name == node.as_str())
}

fn waits_for<'a>(status: &'a CaStatus, node: &Label) -> Option<&'a str> {
    let mut waiting = status.waiting.iter();
    let row = waiting.find(|row| row.node == node.as_str())?;
    Some(&row.reason)
}

/// Whether those that have issuers can't be taken in yet.
fn waits_for_others(status: &CaStatus) -> bool {
    let queued = status.voters.iter().filter(|voter| !voter.decides);
    let newcomers = 1 + status.roster.len() % 2;
    queued.count() < newcomers || status.roster.len() >= innermesh_proto::limits::ROSTER
}

/// Looks at the status until nothing is `missing` any more.
async fn until(
    client: &Client,
    patience: Span,
    quiet: bool,
    missing: impl Fn(&CaStatus) -> Option<String>,
) -> Result<CaStatus, Failure> {
    let mut progress = Progress::default();
    let mut last = "an answer of the agent".to_string();
    let looking = async {
        loop {
            let status = client.ask(&CaStatusRequest {}).await?;
            let Some(what) = missing(&status) else {
                return Ok::<CaStatus, Failure>(status);
            };
            if !quiet {
                progress.show(&what);
            }
            last = what;
            sleep(PAUSE).await;
        }
    };
    match timeout(patience.duration(), looking).await {
        Ok(found) => found,
        Err(_) => Err(Failure::timed_out(format!(
            "the change is accepted, but not complete after {patience}: {last}; see `agent ca status`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{FakeAgent, served};

    fn changed<'a>(roster: &'a [String], waits_for: Option<&'a str>, issuers: usize) -> String {
        let changed = Changed {
            node: "beta",
            issuers,
            roster,
            waits_for,
        };
        promoted(&changed, roster.len())
    }

    #[test]
    fn who_promotes_is_told_whether_another_is_needed() {
        let one = ["alpha".to_string()];
        let told = changed(&one, Some("one more"), 2);
        assert_eq!(
            told,
            "Created 2 intermediate certificates for beta.\nIt can't vote until there is one CA node more: promote one more.\n"
        );
        let three = ["alpha", "beta", "gamma"].map(String::from);
        let told = changed(&three, None, 0);
        assert!(told.contains("nothing to renew"), "{told}");
        assert!(told.contains("alpha, beta, gamma"), "{told}");
    }

    #[tokio::test]
    async fn a_change_that_does_not_come_about_in_time_ends_with_4() {
        let served = served(FakeAgent::new()).await;
        let late = until(&served.client, Span(0), true, |_| Some("x".into())).await;
        assert_eq!(
            late.unwrap_err().code,
            super::super::super::failure::TIMED_OUT
        );
    }
}
