//! `agent ca recover`: the last way back, with the root's key.

use std::time::Duration;

use innermesh_proto::{
    codec,
    crypto::Purpose,
    ledger::{Recovery, SignedRecovery},
    limits,
};
use serde::Serialize;
use tokio::time::sleep;

use super::super::{
    failure::Failure,
    output::{Output, Progress},
    paths::Paths,
    root_key::RootKey,
    terminal::Terminal,
};
use crate::{
    ca::{Root, expiry},
    control::{
        Client,
        api::{CaRecovery, Der},
    },
    host::keys::SystemKeys,
};

/// Go on with this machine as the only CA node, where most CA nodes are lost
/// for good.
///
/// Run it on one surviving machine, the one whose ledger reaches furthest; a
/// CA node where one is left, else any. The root signs that this machine
/// decides alone from its newest batch on. All others follow as soon as they
/// hear of it; what the lost ones had decided beyond that place is given up,
/// but whom they evicted stays cut off by those who know. Then make two others
/// CA nodes with `agent ca promote`. While a leader answers this is refused.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    root_key: RootKey,
    /// Go on although another machine's ledger reaches further.
    #[arg(long)]
    leave_behind: bool,
    /// Don't ask whether to do it.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Output,
}

/// How often, and how often at most, to look whether others' batches came.
const PAUSE: Duration = Duration::from_millis(500);
const LOOKS: usize = 20;

pub async fn recover(arguments: Arguments, paths: &Paths, client: &Client) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Printed<'a> {
        roster: [&'a str; 1],
        given_up: Vec<&'a String>,
        index: u64,
    }
    let asked = caught_up(&arguments, client).await?;
    let gone: Vec<&String> = asked
        .roster
        .iter()
        .filter(|name| **name != asked.node)
        .collect();
    if !arguments.yes {
        confirm(&asked, &gone)?;
    }
    let root = arguments.root_key.open(paths, &asked.mesh)?;
    let signed = sign(&root, &asked)?;
    drop(root);
    client.ca_recover(Der(codec::encode(&signed))).await?;
    let printed = Printed {
        roster: [&asked.node],
        given_up: gone,
        index: asked.index,
    };
    arguments.output.print(&printed, || {
        format!(
            "{} decides alone from batch {} on; the others follow as soon as they hear of it.\n\
             Next: make two others CA nodes with `agent{} ca promote NODE`, and `agent evict` \
             machines that are lost.\n",
            asked.node,
            asked.index + 1,
            paths.option()
        )
    })
}

/// What is to be signed, once this machine has all that others hold.
async fn caught_up(arguments: &Arguments, client: &Client) -> Result<CaRecovery, Failure> {
    let mut progress = Progress::default();
    let mut looks = 0;
    loop {
        let asked = client.ca_recovery().await?;
        if asked.ahead.is_empty() || arguments.leave_behind {
            return Ok(asked);
        }
        let ahead = asked.ahead.join(", ");
        looks += 1;
        if looks > LOOKS {
            return Err(Failure::failed(format!(
                "the ledger of {ahead} reaches further than this machine's: run this there, or \
                 with --leave-behind give up what came behind batch {}",
                asked.index
            )));
        }
        if !arguments.output.is_json() {
            progress.show(&format!("fetching what {ahead} holds"));
        }
        sleep(PAUSE).await;
    }
}

fn confirm(asked: &CaRecovery, gone: &[&String]) -> Result<(), Failure> {
    let mut terminal = Terminal::open().ok_or_else(|| {
        Failure::usage("there is no terminal to confirm this on; give --yes if you are sure")
    })?;
    let gone: Vec<&str> = gone.iter().map(|name| name.as_str()).collect();
    let question = format!(
        "Only if they are lost for good: give {} up as CA nodes, with all that they decided behind \
         batch {}, and have {} decide alone?",
        match gone.is_empty() {
            true => "nobody".into(),
            false => gone.join(", "),
        },
        asked.index,
        asked.node
    );
    match terminal.confirm(&question)? {
        true => Ok(()),
        false => Err(Failure::failed("nothing was changed")),
    }
}

/// The recovery with the issuers that this machine lacks, signed.
fn sign(root: &Root, asked: &CaRecovery) -> Result<SignedRecovery, Failure> {
    let mut recovery: Recovery =
        codec::decode(&asked.recovery.0, limits::HEADER_BYTES).map_err(Failure::failed)?;
    let held: Vec<expiry::Life> = asked
        .held
        .iter()
        .map(|life| (life.begin_ms, life.end_ms))
        .collect();
    let root_end_ms = root.certificate().not_after_ms;
    let due = expiry::issuers_due(asked.now_ms, root_end_ms, &held, true);
    let node = recovery.roster.first().map(|key| key.node_id());
    for (begin_ms, key) in due.into_iter().zip(&asked.offered) {
        let issuer = root.issuer(&key.0, begin_ms, &SystemKeys);
        let issuer = issuer.map_err(Failure::failed)?;
        recovery.issuers.extend(node.map(|node| (node, issuer)));
    }
    let bytes = codec::encode(&recovery);
    let message = Purpose::Recovery.message(&root.mesh(), &bytes);
    let signature = root.sign(&message).map_err(Failure::failed)?;
    Ok(SignedRecovery { bytes, signature })
}
