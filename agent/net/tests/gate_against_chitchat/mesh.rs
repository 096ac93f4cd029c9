//! A few chitchat instances in one process, on a transport that hands each
//! message to an observer on its way in.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, FailureDetectorConfig,
    Serializable, spawn_chitchat,
    transport::{ChannelTransport, Socket, Transport},
};
use innermesh_proto::{
    crypto::Hash,
    gate::{GossipId, KEY, gossip_id},
    id::NodeId,
};

pub const CLUSTER: &str = "a mesh";

/// Chitchat forgets a silent node after this.
pub const GRACE: Duration = Duration::from_secs(60);

/// What becomes of a message on its way into a node.
pub type Inlet = Arc<dyn Fn(ChitchatMessage) -> Option<ChitchatMessage> + Send + Sync>;

/// Nodes by number.
pub struct Mesh {
    pub channel: ChannelTransport,
    pub nodes: BTreeMap<u8, ChitchatHandle>,
    log: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// The gossip id of node `n`, as long as ids are in a real mesh.
pub fn id(n: u8, generation: u64) -> GossipId {
    let node = NodeId(Hash::of(&[n]).0[..16].try_into().expect("16 of 32"));
    gossip_id(&node, generation)
}

/// Text as long as a sealed head of `len` bytes and as hard to compress.
pub fn noise(seed: &str, len: usize) -> String {
    let mut bytes = Vec::new();
    for part in 0.. {
        if bytes.len() >= len {
            break;
        }
        bytes.extend(Hash::of(format!("{seed} {part}").as_bytes()).0);
    }
    bytes.truncate(len);
    data_encoding::BASE64.encode(&bytes)
}

impl Mesh {
    /// A mesh that keeps what each node receives.
    pub fn recording() -> Self {
        Self {
            channel: ChannelTransport::default(),
            nodes: BTreeMap::new(),
            log: Arc::default(),
        }
    }

    /// What was received so far.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.log.lock().expect("no panic").clone()
    }

    /// Starts node `n`, its messages recorded.
    pub async fn start(&mut self, n: u8, generation: u64) {
        let log = self.log.clone();
        let inlet: Inlet = Arc::new(move |message| {
            log.lock()
                .expect("no panic")
                .push(message.serialize_to_vec());
            Some(message)
        });
        self.start_behind(n, generation, inlet).await;
    }

    /// Starts node `n`, its messages passed through `inlet`.
    pub async fn start_behind(&mut self, n: u8, generation: u64, inlet: Inlet) {
        let id = id(n, generation);
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(&*id.node, id.generation, id.address),
            cluster_id: CLUSTER.to_owned(),
            gossip_interval: Duration::from_millis(200),
            listen_addr: id.address,
            seed_nodes: vec![self::id(0, 1).address.to_string()],
            failure_detector_config: FailureDetectorConfig {
                max_interval: Duration::from_secs(60),
                initial_interval: Duration::from_secs(2),
                dead_node_grace_period: GRACE,
                ..FailureDetectorConfig::default()
            },
            marked_for_deletion_grace_period: GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let transport = Through {
            channel: self.channel.clone(),
            inlet,
        };
        let handle = spawn_chitchat(config, Vec::new(), &transport).await;
        self.nodes.insert(n, handle.expect("a free address"));
    }

    /// Stops node `n` and waits until its address is free.
    pub async fn stop(&mut self, n: u8) {
        let handle = self.nodes.remove(&n).expect("a running node");
        handle.shutdown().await.expect("a clean end");
    }

    /// Gives node `n` a new head of `len` bytes.
    pub async fn renew(&mut self, n: u8, len: usize) {
        let handle = &self.nodes[&n];
        handle
            .with_chitchat(|chitchat| {
                let state = chitchat.self_node_state();
                let text = noise(&format!("{n} {}", state.max_version() + 1), len);
                state.set(KEY, text);
            })
            .await;
    }
}

struct Through {
    channel: ChannelTransport,
    inlet: Inlet,
}

#[async_trait]
impl Transport for Through {
    async fn open(&self, address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(ThroughSocket {
            socket: self.channel.open(address).await?,
            inlet: self.inlet.clone(),
        }))
    }
}

struct ThroughSocket {
    socket: Box<dyn Socket>,
    inlet: Inlet,
}

#[async_trait]
impl Socket for ThroughSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.socket.send(to, message).await
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (from, message) = self.socket.recv().await?;
            if let Some(message) = (self.inlet)(message) {
                return Ok((from, message));
            }
        }
    }
}
