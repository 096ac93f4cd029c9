//! `agent ca log`: reads the ledger's file itself, so that it needs no agent,
//! and believes none.

use std::{fs, path::PathBuf, str::FromStr, time::SystemTime};

use innermesh_proto::ledger::audit::{AuditEvent, KINDS};
use serde::Serialize;

use super::super::{
    failure::{FAILED, Failure},
    output::{Output, note},
    paths::Paths,
};
use crate::{
    host::keys::SystemKeys,
    host::{UnixTime, duration::Span},
    ledger::{
        file::{self, LEDGER},
        history::{self, Checked},
        past,
        start::{self, Start},
    },
};

/// Show who changed what, when and by whose authority.
///
/// Reads this node's copy of the ledger, whether or not the agent runs, and
/// verifies all of it from its first entry on: each batch must follow from the
/// one before and be signed by a majority of the voters of its time. Says on
/// stderr how much is right, and ends with 1 where not all is.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Another copy of a ledger [default: this node's].
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only what happened since a time, or so long ago.
    ///
    /// Such as 2026-11-22T18:00:00Z or 2d.
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Only what happened until then.
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// Only this kind of entry (repeatable).
    #[arg(long = "kind", value_name = "KIND", value_parser = KINDS)]
    kinds: Vec<String>,
    /// Only what this node did, or what was done to it.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Only what was refused.
    #[arg(long)]
    refused: bool,
    /// Only the last N of these.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    output: Output,
}

/// A moment, or how long ago it was.
#[derive(Debug, Clone, Copy)]
enum When {
    At(UnixTime),
    Ago(Span),
}

/// Neither of both.
#[derive(Debug, Clone, thiserror::Error)]
#[error("give a time such as 2026-11-22T18:00:00Z, or how long ago, such as 30m or 2d")]
struct WhenError;

impl FromStr for When {
    type Err = WhenError;

    fn from_str(text: &str) -> Result<Self, WhenError> {
        let at = text.parse().map(Self::At);
        at.or_else(|_| text.parse().map(Self::Ago))
            .map_err(|_| WhenError)
    }
}

impl When {
    /// In milliseconds since 1970.
    fn ms(self) -> u64 {
        match self {
            Self::At(at) => at.ms(),
            Self::Ago(span) => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let now_ms = since.map_or(0, |since| since.as_millis() as u64);
                now_ms.saturating_sub(span.0.saturating_mul(1000))
            }
        }
    }
}

#[derive(Serialize)]
struct Printed {
    /// Batches that were checked and are right.
    verified: u64,
    /// The batch behind which this machine's copy begins; 0 for the genesis.
    base: u64,
    index: u64,
    hash: String,
    /// What is wrong after them; null when nothing is.
    problem: Option<String>,
    entries: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    index: u64,
    time: UnixTime,
    kind: &'static str,
    who: Option<String>,
    nodes: Vec<String>,
    refused: bool,
    text: String,
}

pub fn log(arguments: &Arguments, paths: &Paths) -> Result<(), Failure> {
    let own = || paths.state.join(LEDGER);
    let file = arguments.file.clone().unwrap_or_else(own);
    let bytes = fs::read(&file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound if arguments.file.is_none() => {
            Failure::failed(file::FileError::Absent)
        }
        _ => Failure::failed(format!(
            "{} can't be read: {error}; run this as root, or as the agent's user",
            file.display()
        )),
    })?;
    let (past, start) = match &arguments.file {
        None => (past(paths), fs::read(paths.state.join(start::FILE)).ok()),
        Some(_) => (Vec::new(), None),
    };
    let start = start.and_then(|bytes| Start::decode(&bytes));
    let own = file::parse(bytes).map_err(Failure::failed)?;
    let files = past::whole(past, own, start);
    let wanted = Wanted::new(arguments);
    let mut told = Vec::new();
    let checked = history::check(&files, &SystemKeys, |event| {
        if wanted.has(&event) {
            told.push(event);
        }
    });
    if let Some(limit) = arguments.limit {
        told.drain(..told.len().saturating_sub(limit));
    }
    print(arguments.output, checked, told)
}

/// What this machine keeps of the time before its file begins, as far as it can
/// be read.
fn past(paths: &Paths) -> Vec<file::Loaded> {
    let folder = fs::read_dir(paths.state.join(past::FOLDER));
    let mut files: Vec<PathBuf> = folder
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| past::last_of(path).is_some())
        .collect();
    files.sort();
    let read = |path: &PathBuf| file::parse(fs::read(path).ok()?).ok();
    files.iter().filter_map(read).collect()
}

fn print(output: Output, checked: Checked, told: Vec<AuditEvent>) -> Result<(), Failure> {
    let text = || {
        let lines = told.iter().map(|event| format!("{event}\n"));
        lines.collect()
    };
    let printed = Printed {
        verified: checked.batches,
        base: checked.base,
        index: checked.position.index,
        hash: checked.position.hash.to_string(),
        problem: checked.problem.clone(),
        entries: told.iter().map(row).collect(),
    };
    output.print(&printed, text)?;
    if !output.is_json() {
        note(&match checked.base {
            0 if checked.batches == 1 => "verified one batch".into(),
            0 => format!("verified {} batches", checked.batches),
            base => format!(
                "verified {} batches, and the state after batch {base} that this machine began \
                 with; what came before is told on machines that are longer in the mesh",
                checked.batches
            ),
        });
    }
    let Some(problem) = checked.problem else {
        return Ok(());
    };
    if output.is_json() {
        return Err(Failure::silent(FAILED));
    }
    Err(Failure::failed(format!(
        "{problem}; what follows isn't told. A running agent takes it from its peers again at its \
         next start"
    )))
}

fn row(event: &AuditEvent) -> Row {
    Row {
        index: event.index,
        time: UnixTime::from_ms(event.stamp_ms),
        kind: event.kind,
        who: event.who.clone(),
        nodes: event.nodes.iter().cloned().collect(),
        refused: event.refused,
        text: event.text.clone(),
    }
}

/// Which sentences are asked for.
struct Wanted<'a> {
    since_ms: u64,
    until_ms: u64,
    arguments: &'a Arguments,
}

impl<'a> Wanted<'a> {
    fn new(arguments: &'a Arguments) -> Self {
        Self {
            since_ms: arguments.since.map_or(0, When::ms),
            until_ms: arguments.until.map_or(u64::MAX, When::ms),
            arguments,
        }
    }

    fn has(&self, event: &AuditEvent) -> bool {
        let Arguments {
            kinds,
            node,
            refused,
            ..
        } = self.arguments;
        (self.since_ms..=self.until_ms).contains(&event.stamp_ms)
            && (kinds.is_empty() || kinds.iter().any(|kind| kind == event.kind))
            && node.as_ref().is_none_or(|node| event.nodes.contains(node))
            && (!refused || event.refused)
    }
}
