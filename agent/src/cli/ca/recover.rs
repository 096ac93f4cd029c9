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
    files,
    output::{Output, note},
    paths::Paths,
    root_key::RootKey,
    show::Progress,
    terminal::Terminal,
};
use crate::{
    ca::{Root, expiry},
    control::{
        Client, ClientError, Der,
        ca::{CaRecovery, RecoverRequest, RecoveryRequest},
    },
    host::{keys::SystemKeys, system},
    node::Offline,
};

/// Continue with this node as the only CA node.
///
/// For when most CA nodes are lost for good. Run it on one surviving node, the
/// one whose ledger is the longest; a CA node where one is left, else any. The
/// root signs that this node decides alone from its newest batch on. All others
/// follow as soon as they hear of it. What the lost ones had decided beyond
/// that place is given up, but nodes that they evicted stay cut off by those
/// who know. Then make two others CA nodes with `agent ca promote`. While a
/// leader answers this is refused.
///
/// Where the agent can't be started, `--offline` does the same in its state
/// folder, and the agent continues from there once it runs. Nobody can be asked
/// then: make sure yourself that no other CA node is alive, and that no other
/// node's ledger is longer than was last heard.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    root_key: RootKey,
    /// Continue although another node's ledger is longer.
    #[arg(long)]
    leave_behind: bool,
    /// Work without a running agent and without other nodes.
    #[arg(long)]
    offline: bool,
    /// Don't ask for confirmation.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Output,
}

/// How often, and how often at most, to look whether others' batches came.
const PAUSE: Duration = Duration::from_millis(500);
const LOOKS: usize = 20;

pub async fn recover(arguments: Arguments, paths: &Paths, client: &Client) -> Result<(), Failure> {
    if arguments.offline {
        return offline(&arguments, paths).await;
    }
    let asked = caught_up(&arguments, client).await?;
    let signed = signed(&arguments, paths, &asked)?;
    client
        .ask(&RecoverRequest {
            signed: Der(codec::encode(&signed)),
        })
        .await?;
    arguments.print(&asked, paths, "")
}

/// The same without an agent, under the lock of its state folder.
async fn offline(arguments: &Arguments, paths: &Paths) -> Result<(), Failure> {
    files::state_folder(&paths.state).map_err(Failure::failed)?;
    let host = system::host(paths.state.clone());
    let offline = Offline::open(&host).await.map_err(Failure::failed)?;
    let asked = offline.asked().clone();
    if !asked.ahead.is_empty() && !arguments.leave_behind {
        return Err(Failure::failed(format!(
            "this node's ledger ends with batch {}, and longer ones are known: {}; run this where the \
             ledger is the longest, or give up what came later with --leave-behind",
            asked.index,
            asked.ahead.join(", ")
        )));
    }
    note(
        "the agent isn't running, so no other node was asked: if a majority of the CA nodes is \
         alive, what they decide from now on is lost, and so is what other ledgers have beyond \
         this node's",
    );
    let signed = signed(arguments, paths, &asked)?;
    offline.recover(signed).await.map_err(Failure::failed)?;
    let start = "Start the agent first: `systemctl start innermesh`, or `agent run`. ";
    arguments.print(&asked, paths, start)
}

/// What the root signs, once a person has confirmed it.
fn signed(
    arguments: &Arguments,
    paths: &Paths,
    asked: &CaRecovery,
) -> Result<SignedRecovery, Failure> {
    if !arguments.yes {
        confirm(asked, &given_up(asked))?;
    }
    let root = arguments.root_key.open(paths, &asked.mesh)?;
    sign(&root, asked)
}

/// The CA nodes that are none any more then.
fn given_up(asked: &CaRecovery) -> Vec<&str> {
    let roster = asked.roster.iter().map(String::as_str);
    roster.filter(|name| *name != asked.node).collect()
}

impl Arguments {
    fn print(&self, asked: &CaRecovery, paths: &Paths, first: &str) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Printed<'a> {
            roster: [&'a str; 1],
            given_up: Vec<&'a str>,
            index: u64,
        }
        let printed = Printed {
            roster: [&asked.node],
            given_up: given_up(asked),
            index: asked.index,
        };
        self.output.print(&printed, || {
            format!(
                "{} is the only CA node from batch {} on; all others follow as soon as they see it.\n\
                 Next: {first}make two others CA nodes with `agent{} ca promote NODE`, and \
                 `agent evict` the nodes that are lost.\n",
                asked.node,
                asked.index + 1,
                paths.option()
            )
        })
    }
}

/// What is to be signed, once this machine has all that others hold.
async fn caught_up(arguments: &Arguments, client: &Client) -> Result<CaRecovery, Failure> {
    let mut progress = Progress::default();
    let mut looks = 0;
    loop {
        let asked = client.ask(&RecoveryRequest {}).await.map_err(unreached)?;
        if asked.ahead.is_empty() || arguments.leave_behind {
            return Ok(asked);
        }
        let ahead = asked.ahead.join(", ");
        looks += 1;
        if looks > LOOKS {
            return Err(Failure::failed(format!(
                "the ledger of {ahead} is longer than this node's: run this there, or give up what \
                 came after batch {} with --leave-behind",
                asked.index
            )));
        }
        if !arguments.output.is_json() {
            progress.show(&format!("fetching the ledger of {ahead}"));
        }
        sleep(PAUSE).await;
    }
}

/// Where the agent can't be started, there is another way.
fn unreached(error: ClientError) -> Failure {
    let is_off = matches!(error, ClientError::NotRunning(_));
    let failure = Failure::from(error);
    if is_off {
        failure.with("where it can't be started, see `agent ca recover --help` for --offline")
    } else {
        failure
    }
}

fn confirm(asked: &CaRecovery, gone: &[&str]) -> Result<(), Failure> {
    let mut terminal = Terminal::open().ok_or_else(|| {
        Failure::usage("there is no terminal to confirm this on; give --yes if you are sure")
    })?;
    let question = format!(
        "Only if they are lost for good: give up {} as CA nodes, with all that they decided after \
         batch {}, and continue with {} alone?",
        match gone.is_empty() {
            true => "nobody".into(),
            false => gone.join(", "),
        },
        asked.index,
        asked.node
    );
    if terminal.confirm(&question)? {
        Ok(())
    } else {
        Err(Failure::failed("nothing was changed"))
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
