//! What was known of peers at the last stop: two snapshots, written in turn,
//! best effort. A restart then needs no seed (L4), and no peer's head can go
//! backwards over it (S2).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use innermesh_proto::{
    codec,
    crypto::{Hash, Sealed},
    head::{self, Body, Head, HeadTable},
    id::NodeId,
    ledger::{Position, State},
    limits,
};
use serde::{Deserialize, Serialize};

use crate::host::{Disk, Host};

/// How long changes are gathered before they are saved.
pub const SAVE_DELAY: Duration = Duration::from_secs(2);
const SLOTS: [&str; 2] = ["peers.a", "peers.b"];
/// Largest snapshot that is read, in bytes.
const SNAPSHOT_BYTES: usize = 8 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Snapshot {
    /// Rises with each snapshot.
    number: u64,
    peers: Vec<Peer>,
}

#[derive(Serialize, Deserialize)]
struct Peer {
    node: NodeId,
    head: Sealed,
    body: Option<Vec<u8>>,
    path: Option<SocketAddr>,
}

/// Writes the snapshots; the newest one's number and paths are read once.
#[derive(Default)]
pub struct Keeper {
    before: Option<(u64, BTreeMap<NodeId, SocketAddr>)>,
}

impl Keeper {
    /// Saves the table and the paths by which peers were reached.
    ///
    /// # Errors
    /// The disk's; the snapshot before stands.
    pub async fn save(
        &mut self,
        disk: &dyn Disk,
        table: &HeadTable,
        paths: &BTreeMap<NodeId, SocketAddr>,
    ) -> io::Result<()> {
        let (number, known) = match self.before.take() {
            Some(before) => before,
            None => match newest(disk).await {
                Some(snapshot) => (snapshot.number, reached(&snapshot)),
                None => (0, BTreeMap::new()),
            },
        };
        let peers: Vec<Peer> = table
            .iter()
            .map(|(node, entry)| Peer {
                node: *node,
                head: entry.sealed.clone(),
                body: entry.body.as_ref().map(|body| body.bytes.clone()),
                path: paths.get(node).or_else(|| known.get(node)).copied(),
            })
            .collect();
        let number = number.saturating_add(1);
        let slot = SLOTS[usize::from(number.is_multiple_of(2))];
        let snapshot = Snapshot { number, peers };
        let bytes = codec::encode(&snapshot);
        let sum = Hash::of(&bytes).0;
        // One that failed is looked for on the disk again.
        disk.replace(Path::new(slot), &[&sum[..], &bytes].concat())
            .await?;
        self.before = Some((number, reached(&snapshot)));
        Ok(())
    }
}

fn reached(snapshot: &Snapshot) -> BTreeMap<NodeId, SocketAddr> {
    let peers = snapshot.peers.iter();
    peers
        .filter_map(|peer| Some((peer.node, peer.path?)))
        .collect()
}

/// The table as it was saved: heads that are their nodes' still, none live.
pub async fn load(host: &Host, state: &State) -> HeadTable {
    let mut table = HeadTable::default();
    let Some(snapshot) = newest(&*host.disk).await else {
        return table;
    };
    for peer in snapshot.peers {
        let Some(member) = state.members.get(&peer.node) else {
            continue;
        };
        if let Ok(head) = head::open(&peer.head, &member.key, &state.mesh, &*host.keys) {
            table.offer(head, peer.head, None, false);
            if let Some(body) = peer.body {
                table.restore_body(&peer.node, body);
            }
        }
    }
    table
}

/// Where peers were reached before the last stop.
pub async fn paths(disk: &dyn Disk) -> BTreeMap<NodeId, SocketAddr> {
    let newest = newest(disk).await;
    newest.as_ref().map(reached).unwrap_or_default()
}

/// Where peers may be reached, whatever the ledger says of them: where they were
/// reached, and what they announced. Unchecked.
pub async fn addresses(disk: &dyn Disk) -> Vec<(NodeId, Vec<SocketAddr>)> {
    let peers = newest(disk)
        .await
        .map_or_else(Vec::new, |newest| newest.peers);
    let found = peers.into_iter().map(|peer| {
        let body = peer.body.and_then(Body::parse);
        let announced = body.map(|body| body.announcement.quic.clone());
        let path = peer.path.into_iter();
        let mut all: Vec<SocketAddr> = path.chain(announced.unwrap_or_default()).collect();
        let mut seen = BTreeSet::new();
        all.retain(|address| seen.insert(*address));
        (peer.node, all)
    });
    found.filter(|(_, all)| !all.is_empty()).collect()
}

/// How far peers' ledgers had come at the last stop, as they claimed.
pub async fn positions(disk: &dyn Disk) -> BTreeMap<NodeId, Position> {
    let peers = newest(disk)
        .await
        .map_or_else(Vec::new, |newest| newest.peers);
    let heads = peers.into_iter().filter_map(|peer| {
        let head: Head = peer.head.peek(limits::HEAD_BYTES).ok()?;
        (head.node == peer.node).then_some((peer.node, head.position))
    });
    heads.collect()
}

async fn newest(disk: &dyn Disk) -> Option<Snapshot> {
    let mut newest: Option<Snapshot> = None;
    for slot in SLOTS {
        let Ok(Some(bytes)) = disk.read(Path::new(slot)).await else {
            continue;
        };
        let Some(mut snapshot) = parse(&bytes) else {
            tracing::warn!(
                slot,
                "a snapshot of what is known of peers is damaged; using the other"
            );
            continue;
        };
        snapshot.peers.truncate(limits::MEMBERS);
        if newest
            .as_ref()
            .is_none_or(|held| held.number < snapshot.number)
        {
            newest = Some(snapshot);
        }
    }
    newest
}

fn parse(bytes: &[u8]) -> Option<Snapshot> {
    let (sum, rest) = bytes.split_first_chunk::<32>()?;
    if Hash::of(rest).0 != *sum {
        return None;
    }
    codec::decode(rest, SNAPSHOT_BYTES).ok()
}
