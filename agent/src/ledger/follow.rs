//! Following the ledger: batches are pushed as they are decided, and what the
//! pushes missed is fetched from any peer whose head says that it has more.

use std::time::Duration;

use async_trait::async_trait;
use innermesh_proto::{
    codec,
    id::NodeId,
    ledger::Batch,
    limits,
    message::{Batches, LedgerQuery, RecoveryQuery},
    rpc::method,
};
use tokio::sync::mpsc;

use super::{Carrier, Ledger, TakeError, start};
use crate::{host::Host, quic::Transport};

impl Carrier for Transport {
    fn tell(&self, to: NodeId, method: u16, body: Vec<u8>) {
        // Not connected, or too much waits: it is as if it were lost.
        let _ = self.notify(to, method, body);
    }
}

/// How long a peer may take for one range.
const FETCH: Duration = Duration::from_secs(10);
/// Peers that are asked in turn for the same range.
const SOURCES: usize = 4;
/// Bytes of batches in one answer.
pub const RANGE_BYTES: usize = limits::RPC_BYTES / 2;
/// To how many peers a pushed batch that was new is passed on.
const FAN_OUT: usize = 3;
/// News that may wait; more say nothing new.
const QUEUE: usize = 64;

/// Tells the follower that a peer's ledger reaches further than this one's, or
/// is another.
#[derive(Clone)]
pub struct Nudge(mpsc::Sender<(NodeId, News)>);

#[derive(Clone, Copy)]
enum News {
    /// It has batches up to this index.
    Ahead(u64),
    /// It holds another history.
    Differs,
}

impl Nudge {
    /// `peer` has batches up to `index`.
    pub fn ahead(&self, peer: NodeId, index: u64) {
        // Full: the follower is at work, and the next head tells it again.
        let _ = self.0.try_send((peer, News::Ahead(index)));
    }

    /// `peer` holds another batch than this node for some index: the root may
    /// have replaced a lost roster.
    pub fn differs(&self, peer: NodeId) {
        let _ = self.0.try_send((peer, News::Differs));
    }
}

/// The other end of a [`Nudge`].
pub struct Nudges(mpsc::Receiver<(NodeId, News)>);

/// A nudge and its other end.
pub fn nudges() -> (Nudge, Nudges) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Nudge(sender), Nudges(receiver))
}

/// Starts pushing what is new and fetching what is missing.
pub fn start(host: &Host, me: NodeId, ledger: Ledger, transport: Transport, nudges: Nudges) {
    let tasks = host.tasks.clone();
    tasks.spawn(push(host.clone(), me, ledger.clone(), transport.clone()));
    tasks.spawn(fetch(ledger, transport, nudges));
}

/// Pushes each batch that becomes durable here: the leader to all that are
/// connected, the others to a few, so that it reaches also those whom the
/// leader isn't connected to.
async fn push(host: Host, me: NodeId, ledger: Ledger, transport: Transport) {
    let mut batches = ledger.batches();
    loop {
        let batch = match batches.recv().await {
            Ok(batch) => batch,
            // Positions in heads repair what was passed over.
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        };
        let decided_here = batch.proof.contains_key(&me) && ledger.council().borrow().leads;
        let mut peers: Vec<NodeId> = transport.peers();
        let bytes = codec::encode(&Batches {
            batches: vec![(*batch).clone()],
        });
        if !decided_here {
            peers.retain(|peer| !batch.proof.contains_key(peer));
            while peers.len() > FAN_OUT {
                let mut random = [0; 8];
                host.keys.random(&mut random);
                let at = u64::from_le_bytes(random) % peers.len() as u64;
                peers.swap_remove(at as usize);
            }
        }
        for peer in peers {
            transport.notify(peer, method::BATCHES, bytes.clone());
        }
    }
}

async fn fetch(ledger: Ledger, transport: Transport, mut nudges: Nudges) {
    while let Some((peer, news)) = nudges.0.recv().await {
        let index = match news {
            News::Ahead(index) => index,
            News::Differs => {
                follow_recovery(&ledger, &transport, peer).await;
                continue;
            }
        };
        let mut others = transport.peers();
        others.retain(|other| *other != peer);
        // CA nodes have every batch.
        let roster = &ledger.state().roster;
        others.sort_by_key(|other| !roster.contains(other));
        let mut sources = vec![peer];
        sources.extend(others.into_iter().take(SOURCES - 1));
        for source in sources {
            if ledger.state().position.index >= index {
                break;
            }
            fetch_from(&ledger, &transport, source, index).await;
        }
    }
}

/// Fetches ranges from one peer until `index`, or until it has no more.
async fn fetch_from(ledger: &Ledger, transport: &Transport, source: NodeId, index: u64) {
    // What a state must spare to be taken instead of batches.
    let mut spares = Some(limits::SNAPSHOT_SPARES);
    loop {
        let from = ledger.state().position.index + 1;
        if from > index {
            return;
        }
        if let Some(least) = spares.take_if(|least| index - from >= *least) {
            begin_anew(ledger, transport, source, from + least).await;
            continue;
        }
        let query = codec::encode(&LedgerQuery { from });
        let answer = match transport.call(source, method::LEDGER, query, FETCH).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(peer = ?source, %error, "a range of the ledger could not be fetched");
                return;
            }
        };
        let Ok(range) = codec::decode::<Batches>(&answer, limits::RPC_BYTES) else {
            tracing::warn!(peer = ?source, "a peer's range of the ledger can't be read");
            return;
        };
        if range.batches.is_empty() {
            // Its own file may begin with a state that is further.
            let began = begin_anew(ledger, transport, source, from).await;
            match began {
                true => continue,
                false => return,
            }
        }
        if !take(ledger, source, range.batches).await
            && !follow_recovery(ledger, transport, source).await
        {
            return;
        }
        if ledger.state().position.index < from {
            return;
        }
    }
}

struct Member<'t>(&'t Transport, NodeId);

#[async_trait]
impl start::Ask for Member<'_> {
    async fn ask(&self, method: u16, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let answer = self.0.call(self.1, method, body, FETCH).await;
        answer.map_err(|error| error.to_string())
    }
}

/// Takes a peer's state in place of batches, if it has one that is `least` or
/// later; whether it did.
async fn begin_anew(ledger: &Ledger, transport: &Transport, source: NodeId, least: u64) -> bool {
    if ledger.council().borrow().votes {
        return false;
    }
    let peer = Member(transport, source);
    match start::fetch(&peer, u64::MAX, least).await {
        Ok(None) => return false,
        Ok(Some(start)) => match ledger.install(start).await {
            Ok(_) => return true,
            Err(error) => {
                tracing::warn!(peer = ?source, %error, "a peer's state of the ledger was refused");
            }
        },
        Err(error) => {
            tracing::debug!(peer = ?source, %error, "a peer's state could not be fetched");
        }
    }
    false
}

/// Asks a peer with another history whether the root replaced a lost roster,
/// and follows that; whether it did. Only the root's signature counts.
async fn follow_recovery(ledger: &Ledger, transport: &Transport, source: NodeId) -> bool {
    let before = ledger.state();
    let query = codec::encode(&RecoveryQuery {
        number: before.recovery,
    });
    let answer = transport.call(source, method::RECOVERY, query, FETCH).await;
    let found = answer.map(|bytes| codec::decode::<Batches>(&bytes, limits::RPC_BYTES));
    let Ok(Ok(found)) = found else { return false };
    // With the batches between them still to be fetched, only the first of
    // several recoveries can be taken now.
    let _ = ledger.take(found.batches).await;
    ledger.state().position != before.position
}

/// Takes batches that a peer pushed or was asked for; false when one of them
/// was refused.
pub async fn take(ledger: &Ledger, from: NodeId, batches: Vec<Batch>) -> bool {
    match ledger.take(batches).await {
        Ok(_) => true,
        Err(TakeError::Batch(error)) => {
            tracing::warn!(peer = ?from, %error, "a peer's batch was refused");
            false
        }
        Err(TakeError::Stopped | TakeError::Full) => false,
    }
}
