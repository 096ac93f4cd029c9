//! How nodes find out whose head the other lacks: chitchat, behind `publish`,
//! `receive` and `meet`. Nothing that it says is believed, and nothing reaches it
//! but through the gate; it can be replaced without touching anything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable,
    FailureDetectorConfig, Serializable,
    transport::{Socket, Transport as ChitchatTransport},
};
use innermesh_proto::{
    gate::{GossipId, KEY, compact::Packer, gossip_address, gossip_id},
    id::{MeshId, NodeId},
    rpc::method,
};
use tokio::sync::mpsc;

use crate::{
    host::{Clock, Host, Mono},
    quic::Transport,
};

/// Time between gossip rounds: at 10 % loss a head is then seldom older than
/// 3 s anywhere, within a lease of 4.5 s. At 500 ms fifty idle agents were
/// measured to send 17 kB/s each.
const INTERVAL: Duration = Duration::from_millis(750);
/// Rounds within the time between two renewals of a head, as many as
/// [`INTERVAL`] gives a mesh of 50: a digest names every node, so what a round
/// costs grows with the mesh, as the time between renewals does.
const ROUNDS_PER_RENEWAL: u32 = 2;
/// Time between chitchat's own looks at its nodes, each of which costs as much
/// as the mesh is large: the rounds that it would hold then aren't held, and
/// whom it takes for live matters to nobody.
const CHITCHAT_LOOKS: Duration = Duration::from_secs(30);
/// Near the time between renewals: the gate lets a node's heartbeat move only
/// as its signed head does.
const RENEWALS: Duration = Duration::from_secs(2);
/// Of each node's heartbeats chitchat keeps so many, 8 bytes each, for what it
/// makes of them matters to nobody.
const SAMPLES: usize = 8;
/// How long chitchat remembers a node that is gone.
const DEAD_NODE_GRACE: Duration = Duration::from_secs(600);
/// Messages that may wait for chitchat; what is beyond is lost, and repaired
/// by the next round.
const QUEUE: usize = 256;

/// The heads whose versions are exchanged. chitchat never has them itself: with
/// them one message could renew a hundred nodes, and without them a thousand.
pub trait HeadSource: Send + Sync {
    /// Version and sealed head of the newest that is held of this id, encoded.
    fn sealed(&self, id: &GossipId) -> Option<(u64, Vec<u8>)>;
}

/// Exchanges versions with other nodes, and the heads that one of them lacks.
#[derive(Clone)]
pub struct VersionExchange {
    inner: Arc<Inner>,
}

struct Inner {
    id: Mutex<GossipId>,
    mesh: MeshId,
    chitchat: Mutex<Arc<ChitchatHandle>>,
    inbox: mpsc::Sender<(SocketAddr, ChitchatMessage)>,
    link: Link,
}

impl VersionExchange {
    /// Starts gossip as `node` in this `generation`.
    ///
    /// # Errors
    /// Those of its start; none in practice.
    pub async fn start(
        host: &Host,
        mesh: &MeshId,
        node: NodeId,
        generation: u64,
        transport: Transport,
    ) -> io::Result<Self> {
        let id = gossip_id(&node, generation);
        let (inbox, outbox) = mpsc::channel(QUEUE);
        let link = Link {
            transport,
            inbox: Arc::new(tokio::sync::Mutex::new(outbox)),
            rounds: Arc::default(),
            heads: Arc::default(),
            packer: Packer::default(),
        };
        let chitchat = spawn(&id, mesh, &link).await?;
        let exchange = Self {
            inner: Arc::new(Inner {
                id: Mutex::new(id),
                mesh: *mesh,
                chitchat: Mutex::new(Arc::new(chitchat)),
                inbox,
                link,
            }),
        };
        host.tasks.spawn(exchange.clone().watch(host.clock.clone()));
        Ok(exchange)
    }

    /// Tells where the heads are whose versions are exchanged; nothing goes out
    /// before.
    pub fn set_heads(&self, heads: Box<dyn HeadSource>) {
        // Only the first call has an effect, and there is one.
        let _ = self.inner.link.heads.set(heads);
    }

    /// Publishes the head that `make` makes for the next sequence number. The
    /// number is taken in the same step, so the two can't part.
    pub async fn publish(&self, mut make: impl FnMut(u64)) {
        let chitchat = self.chitchat();
        chitchat
            .with_chitchat(|chitchat| {
                let state = chitchat.self_node_state();
                make(state.max_version() + 1);
                // The same value again would be no new version to chitchat.
                state.set(KEY, (state.max_version() + 1).to_string());
            })
            .await;
    }

    /// Hands over a message that passed the gate.
    pub fn receive(&self, from: NodeId, message: &[u8]) {
        let mut rest = message;
        let Ok(message) = ChitchatMessage::deserialize(&mut rest) else {
            tracing::error!("chitchat can't read what the gate wrote");
            return;
        };
        let from = self.inner.link.note(from);
        // Full: this round is lost, the next one repairs it.
        let _ = self.inner.inbox.try_send((from, message));
    }

    /// Has rounds fit the time between two renewals of a head.
    pub fn pace(&self, renewal: Duration) {
        self.inner.link.rounds().interval = INTERVAL.max(renewal / ROUNDS_PER_RENEWAL);
    }

    /// Whether the next round is due; it is then taken to begin, with those
    /// peers that are met.
    pub fn round_begins(&self, now: Mono) -> bool {
        self.inner.link.rounds().begin(now)
    }

    /// Holds a round with a peer.
    pub fn meet(&self, peer: NodeId) {
        let address = self.inner.link.note(peer);
        self.inner.link.rounds().begun.insert(address);
        let _ = self.chitchat().gossip(address);
    }

    /// Forgets all peers but these: no round is held with the others.
    pub fn retain(&self, is_peer: impl Fn(&NodeId) -> bool) {
        self.inner.link.rounds().retain(is_peer);
    }

    /// This node's id in gossip.
    pub fn id(&self) -> GossipId {
        *self.inner.id.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Goes on under another generation, with nothing published yet.
    ///
    /// # Errors
    /// As [`VersionExchange::start`]; the old one goes on then.
    pub async fn restart(&self, generation: u64) -> io::Result<()> {
        let id = GossipId {
            generation,
            ..self.id()
        };
        let chitchat = spawn(&id, &self.inner.mesh, &self.inner.link).await?;
        *self.inner.id.lock().unwrap_or_else(|e| e.into_inner()) = id;
        self.replace(chitchat).abort();
        Ok(())
    }

    /// Puts another chitchat in the place of the one that runs, and gives that.
    fn replace(&self, chitchat: ChitchatHandle) -> Arc<ChitchatHandle> {
        let mut held = self
            .inner
            .chitchat
            .lock()
            .unwrap_or_else(|e| e.into_inner());
        std::mem::replace(&mut held, Arc::new(chitchat))
    }

    /// The name of the cluster: the mesh.
    pub fn cluster(&self) -> String {
        self.inner.mesh.to_string()
    }

    fn chitchat(&self) -> Arc<ChitchatHandle> {
        self.inner
            .chitchat
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .clone()
    }

    /// Starts chitchat again should it ever end: it asserts on states that no
    /// message through the gate can make, but what it lacks is not known.
    async fn watch(self, clock: Arc<dyn Clock>) {
        loop {
            let watched = self.chitchat();
            let ended = watched.termination_watcher().await;
            if !Arc::ptr_eq(&watched, &self.chitchat()) {
                // It was ended to make room for another.
                continue;
            }
            tracing::error!(?ended, "gossip ended and is started again");
            match spawn(&self.id(), &self.inner.mesh, &self.inner.link).await {
                Ok(chitchat) => drop(self.replace(chitchat)),
                Err(error) => return tracing::error!(%error, "gossip can't be started again"),
            }
            clock.sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Drop for Inner {
    /// chitchat's own task would go on without anybody.
    fn drop(&mut self) {
        let chitchat = self.chitchat.get_mut();
        chitchat.unwrap_or_else(|e| e.into_inner()).abort();
    }
}

async fn spawn(id: &GossipId, mesh: &MeshId, link: &Link) -> io::Result<ChitchatHandle> {
    let config = ChitchatConfig {
        chitchat_id: ChitchatId {
            node_id: (&*id.node).into(),
            generation_id: id.generation,
            gossip_advertise_addr: id.address,
        },
        cluster_id: mesh.to_string(),
        gossip_interval: CHITCHAT_LOOKS,
        listen_addr: id.address,
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig {
            initial_interval: RENEWALS,
            max_interval: RENEWALS * 20,
            dead_node_grace_period: DEAD_NODE_GRACE,
            sampling_window_size: SAMPLES,
            ..FailureDetectorConfig::default()
        },
        marked_for_deletion_grace_period: DEAD_NODE_GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
    };
    chitchat::spawn_chitchat(config, Vec::new(), link)
        .await
        .map_err(io::Error::other)
}

/// chitchat's way to the transport: gossip addresses stand for nodes.
#[derive(Clone)]
struct Link {
    transport: Transport,
    inbox: Arc<tokio::sync::Mutex<mpsc::Receiver<(SocketAddr, ChitchatMessage)>>>,
    rounds: Arc<Mutex<Rounds>>,
    heads: Arc<OnceLock<Box<dyn HeadSource>>>,
    packer: Packer,
}

/// With whom rounds are held, and when. chitchat would choose among the nodes
/// that it takes for live, none of which are new ones, and at one pace.
#[derive(Default)]
struct Rounds {
    /// Which node an address stands for.
    peers: BTreeMap<SocketAddr, NodeId>,
    /// With whom a round was begun that chitchat hasn't sent anything for yet.
    begun: BTreeSet<SocketAddr>,
    /// Time between rounds.
    interval: Duration,
    /// When the newest round began.
    newest: Option<Mono>,
}

impl Rounds {
    /// Whether the next round is due; it is then taken to begin.
    fn begin(&mut self, now: Mono) -> bool {
        let newest = self
            .newest
            .map_or(Duration::ZERO, |newest| newest + self.interval);
        let due = now >= newest;
        if due {
            self.newest = Some(now);
        }
        due
    }

    fn retain(&mut self, is_peer: impl Fn(&NodeId) -> bool) {
        self.peers.retain(|_, node| is_peer(node));
        self.begun
            .retain(|address| self.peers.contains_key(address));
    }
}

impl Link {
    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Remembers which node an address stands for.
    fn note(&self, node: NodeId) -> SocketAddr {
        let address = gossip_address(&node);
        self.rounds().peers.insert(address, node);
        address
    }

    /// The node that a message is for, if it may be sent now.
    fn receiver(&self, to: &SocketAddr, message: &ChitchatMessage) -> Option<NodeId> {
        let mut rounds = self.rounds();
        let begins = matches!(message, ChitchatMessage::Syn { .. });
        if begins && !rounds.begun.remove(to) {
            return None;
        }
        rounds.peers.get(to).copied()
    }
}

#[async_trait]
impl ChitchatTransport for Link {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Socket for Link {
    /// Never waits: a slow peer must not hold up gossip with the others.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        if let Some(peer) = self.receiver(&to, &message)
            && let Some(heads) = self.heads.get()
            && let Some(bytes) = self
                .packer
                .pack(&message.serialize_to_vec(), |id| heads.sealed(id))
        {
            self.transport.notify(peer, method::GOSSIP, bytes);
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        let mut inbox = self.inbox.lock().await;
        match inbox.recv().await {
            Some(received) => Ok(received),
            None => Err(anyhow::anyhow!("the agent is stopping")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_as_far_apart_as_they_are_to_be() {
        let at = Duration::from_millis;
        let mut rounds = Rounds {
            interval: INTERVAL,
            ..Rounds::default()
        };
        let begun: Vec<u64> = (0..16)
            .map(|tick| tick * 250)
            .filter(|ms| rounds.begin(at(*ms)))
            .collect();
        assert_eq!(begun, [0, 750, 1500, 2250, 3000, 3750]);
    }

    #[test]
    fn peers_that_left_are_forgotten_with_the_rounds_begun_with_them() {
        let mut rounds = Rounds::default();
        let nodes = [1, 2].map(|n| NodeId([n; 16]));
        for node in nodes {
            let address = gossip_address(&node);
            rounds.peers.insert(address, node);
            rounds.begun.insert(address);
        }
        rounds.retain(|node| *node == nodes[0]);
        let stays = gossip_address(&nodes[0]);
        assert_eq!(rounds.peers, BTreeMap::from([(stays, nodes[0])]));
        assert_eq!(rounds.begun, BTreeSet::from([stays]));
    }
}
