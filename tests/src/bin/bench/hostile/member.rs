//! The hostile member's program, in a process of its own on its host.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use innermesh_agent::quic::CallError;
use innermesh_proto::{
    codec,
    id::NodeId,
    ledger::{Content, Outcome},
    limits,
    message::{Decided, Propose},
    rpc::{Failure, method},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    connections::{Counts, hold, slow_streams},
    floods::{Kind, Said},
    identity::Identity,
};

/// How long each kind has all for itself.
const SLICE: Duration = Duration::from_secs(3);
/// How long all are said at once, after each round.
const TOGETHER: Duration = Duration::from_secs(15);
/// Requests of one kind to one node that are under way at the same time.
const AT_ONCE: usize = limits::CALLS_PER_PEER;
/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// In place of a kind: all of them.
pub const ALL: &str = "all";
/// How long it rests where it was told at once that there is no room.
const REST: Duration = Duration::from_millis(5);

/// Does one part: holds connections to nodes, or asks without end.
pub fn run(what: &str, seconds: u64, places: &[String]) -> Result<(), String> {
    let long = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    let told = runtime.block_on(async {
        match (what, places) {
            ("connect", places) => connect(places, long).await,
            ("ask", [dir, only, nodes @ ..]) => ask(Path::new(dir), only, nodes, long).await,
            _ => Err("connect or ask".into()),
        }
    })?;
    println!("{told}");
    // What is under way needn't end.
    runtime.shutdown_background();
    Ok(())
}

async fn connect(places: &[String], long: Duration) -> Result<Value, String> {
    let places: Result<Vec<SocketAddr>, _> = places.iter().map(|place| place.parse()).collect();
    let places = places.map_err(|e| e.to_string())?;
    let counts = Arc::new(Counts::default());
    hold(&places, long, &counts).await;
    Ok(json!({ "connections": {
        "places": places,
        "opened": counts.opened.load(Ordering::Relaxed),
        "ended": counts.ended.load(Ordering::Relaxed),
    }}))
}

/// What became of one kind.
#[derive(Default)]
struct Tally {
    said: AtomicU64,
    done: AtomicU64,
    refused: AtomicU64,
    busy: AtomicU64,
    failed: AtomicU64,
}

struct Hostile {
    identity: Identity,
    others: Vec<NodeId>,
    addresses: Vec<SocketAddr>,
    tallies: BTreeMap<Kind, Tally>,
    number: AtomicU64,
}

async fn ask(dir: &Path, only: &str, nodes: &[String], long: Duration) -> Result<Value, String> {
    let end = Instant::now() + long;
    let kinds = match only {
        ALL => Kind::ALL.to_vec(),
        one => vec![Kind::named(one).ok_or_else(|| format!("there is no {one:?}"))?],
    };
    let identity = Identity::take(dir).await?;
    let addresses: Result<Vec<SocketAddr>, _> = nodes.iter().map(|node| node.parse()).collect();
    let addresses = addresses.map_err(|e| e.to_string())?;
    let mut others = Vec::new();
    for address in &addresses {
        let node = identity.transport.dial(*address, None).await;
        others.push(node.map_err(|e| format!("{address}: {e}"))?);
    }
    let hostile = Arc::new(Hostile {
        identity,
        others,
        addresses,
        tallies: Kind::ALL.map(|kind| (kind, Tally::default())).into(),
        number: AtomicU64::new(0),
    });
    let streams = Arc::new(Counts::default());
    let mut beside = JoinSet::new();
    beside.spawn(hostile.clone().keep_connected());
    for (number, address) in (0..).zip(&hostile.addresses) {
        let local = SocketAddr::from(([0u16; 8], 40_000 + number));
        let client = hostile.identity.client.clone();
        beside.spawn(slow_streams(local, client, *address, streams.clone()));
        // As one that isn't a member, too.
        let local = SocketAddr::from(([0u16; 8], 41_000 + number));
        let stranger = hostile.identity.stranger.clone();
        beside.spawn(slow_streams(local, stranger, *address, streams.clone()));
    }
    hostile.prepare().await;
    'all: loop {
        for kind in kinds.iter().copied() {
            hostile
                .flood(&[kind], SLICE.min(end - Instant::now()))
                .await;
            if Instant::now() >= end {
                break 'all;
            }
        }
        hostile
            .flood(&kinds, TOGETHER.min(end - Instant::now()))
            .await;
        if Instant::now() >= end {
            break;
        }
    }
    let mut told = serde_json::Map::new();
    told.insert("rules".into(), hostile.identity.state.rules.into());
    for (kind, tally) in &hostile.tallies {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        told.insert(
            kind.name().into(),
            json!({
                "said": count(&tally.said),
                "done": count(&tally.done),
                "refused": count(&tally.refused),
                "busy": count(&tally.busy),
                "failed": count(&tally.failed),
            }),
        );
    }
    told.insert(
        "slow streams".into(),
        json!({
            "opened": streams.opened.load(Ordering::Relaxed),
            "ended": streams.ended.load(Ordering::Relaxed),
        }),
    );
    Ok(told.into())
}

impl Hostile {
    /// Connects again wherever a connection is lost.
    async fn keep_connected(self: Arc<Self>) {
        loop {
            for (node, address) in self.others.iter().zip(&self.addresses) {
                if !self.identity.transport.is_connected(*node) {
                    let _ = self.identity.transport.dial(*address, None).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The name that is shared and no longer shared.
    async fn prepare(&self) {
        for node in &self.others {
            let name = "mine".parse().expect("a label");
            let request = self.identity.request(&Content::Claim(name));
            let propose = codec::encode(&Propose { request });
            let _ = self
                .identity
                .transport
                .call(*node, method::PROPOSE, propose, PATIENCE)
                .await;
        }
    }

    /// Says these kinds to all others for so long, as fast as it can.
    async fn flood(self: &Arc<Self>, kinds: &[Kind], long: Duration) {
        let mut saying = JoinSet::new();
        let at_once = AT_ONCE.div_ceil(kinds.len());
        for kind in kinds {
            for node in &self.others {
                for _ in 0..at_once {
                    let (hostile, kind, node) = (self.clone(), *kind, *node);
                    saying.spawn(async move {
                        loop {
                            hostile.one(kind, node).await;
                        }
                    });
                }
            }
        }
        tokio::time::sleep(long).await;
        saying.shutdown().await;
    }

    async fn one(&self, kind: Kind, to: NodeId) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let tally = &self.tallies[&kind];
        let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        add(&tally.said);
        match self.identity.say(kind, number, &self.others) {
            Said::Notice(method, body) => {
                if self.identity.transport.notify(to, method, body) {
                    add(&tally.done);
                } else {
                    add(&tally.busy);
                    tokio::time::sleep(REST).await;
                }
                tokio::task::yield_now().await;
            }
            Said::Call(method, body) => {
                let answer = self
                    .identity
                    .transport
                    .call(to, method, body, PATIENCE)
                    .await;
                match answer {
                    Ok(answer) if method == method::PROPOSE => {
                        let decided: Option<Decided> =
                            codec::decode(&answer, limits::RPC_BYTES).ok();
                        add(match decided {
                            Some(Decided::Outcome(Outcome::Done(_))) => &tally.done,
                            Some(Decided::Elsewhere(_)) => &tally.failed,
                            _ => &tally.refused,
                        });
                    }
                    Ok(_) => {
                        add(&tally.done);
                    }
                    Err(CallError::Failed(Failure::Refused(_))) => {
                        add(&tally.refused);
                    }
                    Err(CallError::Failed(Failure::Busy | Failure::Unavailable(_))) => {
                        add(&tally.busy);
                        tokio::time::sleep(REST).await;
                    }
                    Err(_) => {
                        add(&tally.failed);
                        tokio::time::sleep(REST).await;
                    }
                }
            }
        }
    }
}
