//! Nodes of one mesh for tests: a ledger that they share, identities with real
//! certificates, and a handler that does what its methods say.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use innermesh_proto::{
    crypto::PublicKey,
    id::NodeId,
    rpc::{Failure, method},
};
use tokio::sync::{broadcast, watch};

use super::{
    super::{
        CallError, Caller, Handler, Membership, MembershipCheck, PeerEvent, Settings,
        TransportBackend, TransportError, over_quinn::Quinn,
    },
    network::{self, Net},
};
use crate::{
    ca::testing::{self as ca, NOW},
    host::keys::{Keys, NodeKey, SystemKeys},
    telemetry,
    tls::{Chain, MeshTls},
};

/// Answers body and caller's id.
pub const ECHO: u16 = 100;
/// Waits as many milliseconds as the body says in text.
pub const WAIT: u16 = 101;
/// Is refused.
pub const REFUSE: u16 = 102;
/// Answers with as many bytes as the body says in text.
pub const LARGE: u16 = 103;
/// Answers the trace context in which it runs.
pub const TRACE: u16 = 104;

/// A stranger's request that proves something.
pub const PROOF: &[u8] = b"signed by a member";

pub struct World {
    ca: ca::World,
    pub net: Arc<Net>,
    ledger: Arc<Ledger>,
    seed: Option<u64>,
}

#[derive(Default)]
pub struct Ledger(Mutex<BTreeMap<PublicKey, Membership>>);

/// A node's lasting part: it may run more than once.
#[derive(Clone)]
pub struct Identity {
    pub id: NodeId,
    pub key: Arc<dyn NodeKey>,
    pub address: SocketAddr,
    pub chain: Chain,
    /// Mesh time as the node has it.
    pub stamp: Arc<AtomicU64>,
}

/// A running node.
pub struct Node {
    pub id: NodeId,
    pub address: SocketAddr,
    pub transport: Quinn,
    pub seen: Arc<Seen>,
    pub events: Mutex<broadcast::Receiver<PeerEvent>>,
}

/// What a node's handler saw.
pub struct Seen {
    pub callers: Mutex<Vec<Caller>>,
    pub notices: Mutex<Vec<(Option<NodeId>, Vec<u8>)>>,
    pub datagrams: Mutex<Vec<Bytes>>,
    changed: watch::Sender<()>,
}

impl World {
    pub fn new() -> Self {
        Self {
            ca: ca::World::new(),
            net: Net::new(),
            ledger: Arc::default(),
            seed: None,
        }
    }

    /// The same mesh on a fresh network, with randomness from `seed`.
    pub fn again(self, seed: u64) -> Self {
        Self {
            net: Net::new(),
            seed: Some(seed),
            ..self
        }
    }

    /// A member with the address 10.0.0.`host`.
    pub fn member(&self, host: u8) -> Identity {
        let identity = self.stranger(host);
        self.set(&identity, Membership::Member);
        identity
    }

    /// Two members, the one with the smaller id first.
    pub fn two(&self) -> (Identity, Identity) {
        let (a, b) = (self.member(1), self.member(2));
        if a.id < b.id { (a, b) } else { (b, a) }
    }

    /// A node with a certificate that the ledger doesn't list.
    pub fn stranger(&self, host: u8) -> Identity {
        let key = SystemKeys.generate_ed25519();
        let plan = ca::membership(&*key);
        Identity {
            id: key.public().node_id(),
            address: SocketAddr::from(([10, 0, 0, host], 51819)),
            chain: Chain {
                leaf: self.ca.forge(&plan, |_| {}),
                issuer: self.ca.issuer.der().to_vec(),
                root: self.ca.root.der().to_vec(),
            },
            key,
            stamp: Arc::new(AtomicU64::new(NOW)),
        }
    }

    pub fn set(&self, identity: &Identity, membership: Membership) {
        self.ledger
            .0
            .lock()
            .unwrap()
            .insert(identity.key.public(), membership);
    }

    pub fn start(&self, identity: &Identity) -> Node {
        let host = network::host(Some(self.net.clone()), self.seed);
        self.start_on(&host, identity, identity.address).unwrap()
    }

    pub fn start_on(
        &self,
        host: &crate::host::Host,
        identity: &Identity,
        listen: SocketAddr,
    ) -> Result<Node, TransportError> {
        let tls = identity.tls();
        let transport = Quinn::open(
            host,
            Settings {
                me: identity.id,
                listen,
                server: Some(tls.server().unwrap()),
                client: tls.client().unwrap(),
                membership: self.ledger.clone(),
                open_to_strangers: BTreeSet::from([method::JOIN]),
            },
        )?;
        let seen = Arc::new(Seen {
            callers: Mutex::default(),
            notices: Mutex::default(),
            datagrams: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        let node = Node {
            id: identity.id,
            address: transport.local_addr().unwrap(),
            events: Mutex::new(transport.events()),
            transport,
            seen,
        };
        node.transport.serve(node.seen.clone());
        Ok(node)
    }

    /// A transport that shows nothing and can't be dialed, as a joiner's.
    pub fn joiner(&self, host: u8) -> Quinn {
        self.joiner_as(SystemKeys.generate_ed25519().public().node_id(), host)
    }

    pub fn joiner_as(&self, me: NodeId, host: u8) -> Quinn {
        let outside = network::host(Some(self.net.clone()), self.seed);
        let stamp = Arc::new(AtomicU64::new(0));
        let tls = MeshTls::joining(self.ca.root.mesh(), stamp, Arc::new(SystemKeys));
        Quinn::open(
            &outside,
            Settings {
                me,
                listen: SocketAddr::from(([10, 0, 0, host], 51819)),
                server: None,
                client: tls.client().unwrap(),
                membership: self.ledger.clone(),
                open_to_strangers: BTreeSet::new(),
            },
        )
        .unwrap()
    }
}

impl Identity {
    pub fn tls(&self) -> MeshTls {
        MeshTls::member(
            &self.chain,
            self.key.clone(),
            self.stamp.clone(),
            Arc::new(SystemKeys),
        )
        .unwrap()
    }
}

impl Node {
    pub async fn echo(&self, to: &Node, text: &str) -> Result<Vec<u8>, CallError> {
        let body = text.as_bytes().to_vec();
        self.transport
            .call(to.id, ECHO, body, Duration::from_secs(5))
            .await
    }

    /// Waits until `condition` holds, looked at again after every event and
    /// message; the test runner's own patience is the deadline of the clock.
    pub async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let mut changed = self.seen.changed.subscribe();
        let mut events = self.transport.events();
        let patience = Duration::from_secs(60);
        let waiting = async {
            while !condition(self) {
                tokio::select! {
                    _ = changed.changed() => {}
                    _ = events.recv() => {}
                    // Counters have no event of their own.
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
        };
        tokio::time::timeout(patience, waiting)
            .await
            .expect("it never came to be");
    }

    /// The events so far.
    pub fn events(&self) -> Vec<PeerEvent> {
        let mut events = self.events.lock().unwrap();
        std::iter::from_fn(|| events.try_recv().ok()).collect()
    }

    /// The connections served, registered or not.
    pub fn links(&self) -> usize {
        self.transport.link_count()
    }
}

/// Runs futures at the same time.
pub async fn all<T>(work: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    futures_util::future::join_all(work).await
}

impl MembershipCheck for Ledger {
    fn proves(&self, _: &Caller, _: u16, body: &[u8]) -> bool {
        body == PROOF
    }

    fn check(&self, key: &PublicKey) -> Membership {
        let ledger = self.0.lock().unwrap();
        ledger.get(key).copied().unwrap_or(Membership::Unknown)
    }
}

#[async_trait]
impl Handler for Seen {
    async fn call(&self, caller: &Caller, method: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        self.callers.lock().unwrap().push(caller.clone());
        let number = || String::from_utf8_lossy(&body).parse::<u64>().unwrap_or(0);
        match method {
            ECHO | method::JOIN => Ok([
                &body[..],
                caller
                    .node
                    .map_or(String::new(), |n| n.to_string())
                    .as_bytes(),
            ]
            .concat()),
            WAIT => {
                tokio::time::sleep(Duration::from_millis(number())).await;
                Ok(Vec::new())
            }
            REFUSE => Err(Failure::Refused("not on a Sunday".into())),
            TRACE => Ok(telemetry::traceparent().unwrap_or_default().into_bytes()),
            LARGE => Ok(vec![7; number() as usize]),
            _ => Err(Failure::UnknownMethod),
        }
    }

    async fn notice(&self, caller: &Caller, _: u16, body: Vec<u8>) {
        self.notices.lock().unwrap().push((caller.node, body));
        self.changed.send_replace(());
    }

    fn datagram(&self, _: &Caller, datagram: Bytes) {
        self.datagrams.lock().unwrap().push(datagram);
        self.changed.send_replace(());
    }
}
