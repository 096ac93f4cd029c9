//! The member's own key and certificate, as its state folder has them, and what
//! it answers to others: nothing that is of use to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_agent::{
    host::key_files as keys,
    host::{Host, keys::NodeKey},
    quic::{Caller, Handler, Membership, MembershipCheck, Settings, Transport},
    tls::{Chain, ClientTls, MeshTls},
};
use innermesh_proto::{
    certificate::Serial,
    codec,
    crypto::{Hash, PublicKey, Sealed},
    id::NodeId,
    ledger::{Author, Batch, Content, Header, Request, RequestId, State},
    limits,
    message::{BodyQuery, SnapshotHead},
    rpc::{Failure, method},
};
use innermesh_tests::agent::PORT;

use crate::folder;

/// How long it takes for each byte of its forged state.
const PER_BYTE: Duration = Duration::from_secs(8);
/// Bodies that it still answers with.
const BODIES: usize = 64;

/// A member of the mesh.
pub struct Identity {
    pub host: Host,
    pub key: Arc<dyn NodeKey>,
    /// As its folder had it.
    pub state: State,
    pub transport: Transport,
    pub client: Arc<ClientTls>,
    /// For connections that show no certificate.
    pub stranger: Arc<ClientTls>,
    pub answers: Arc<Answers>,
    /// Who signed its certificate.
    pub issuer: Serial,
    /// Of its newest head.
    pub generation: AtomicU64,
}

/// It believes everybody.
struct Believes;

impl MembershipCheck for Believes {
    fn check(&self, _: &PublicKey) -> Membership {
        Membership::Member
    }
}

impl Identity {
    /// Takes what is in the folder of an agent that has ended.
    pub async fn take(dir: &Path) -> Result<Self, String> {
        let words = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
        let host = folder::host(dir);
        let key = keys::require_identity(&host)
            .await
            .map_err(|e| words("its key", &e))?;
        let state = folder::ledger(&host).await?;
        let (_, member) = state
            .member_by_key(&key.public())
            .ok_or("it is no member")?;
        let issued = member
            .certificate
            .and_then(|serial| state.certificates.get(&serial))
            .ok_or("it has no certificate")?;
        let signer = state.issuer_of(issued).ok_or("no issuer")?;
        let issuer = signer.serial;
        let chain = Chain {
            leaf: issued.der.to_vec(),
            issuer: signer.der().to_vec(),
            root: state.root.der().to_vec(),
        };
        let stamp = Arc::new(AtomicU64::new(state.stamp_ms));
        let tls = MeshTls::member(&chain, key.clone(), stamp, host.keys.clone())
            .map_err(|e| words("TLS", &e))?;
        let client = tls.client().map_err(|e| words("TLS", &e))?;
        let stranger = tls
            .client_without_certificate()
            .map_err(|e| words("TLS", &e))?;
        let settings = Settings {
            me: key.public().node_id(),
            listen: SocketAddr::from(([0u16; 8], PORT)),
            server: Some(tls.server().map_err(|e| words("TLS", &e))?),
            client: client.clone(),
            membership: Arc::new(Believes),
            open_to_strangers: BTreeSet::new(),
        };
        let transport = Transport::open(&host, settings).map_err(|e| words("its port", &e))?;
        let answers = Arc::new(Answers::default());
        transport.serve(answers.clone());
        Ok(Self {
            host,
            key,
            state,
            transport,
            client,
            stranger,
            answers,
            issuer,
            generation: AtomicU64::new(0),
        })
    }

    pub fn id(&self) -> NodeId {
        self.key.public().node_id()
    }

    /// A request of its own.
    pub fn request(&self, content: &Content) -> Sealed {
        let mut id = [0; 16];
        self.host.keys.random(&mut id);
        let expires_ms = self.host.clock.wall_ms() + limits::REQUEST_LIFETIME_MS / 2;
        let (id, mesh) = (RequestId(id), self.state.mesh);
        let author = Author::Node(self.id());
        Request::seal(&*self.key, mesh, id, author, expires_ms, content)
    }

    /// The header of a state that there isn't, so far ahead.
    pub fn forged(&self, ahead: u64) -> SnapshotHead {
        let header = Header {
            mesh: self.state.mesh,
            index: self.state.position.index + ahead,
            epoch: self.state.epoch,
            previous: Hash::of(b"nobody's"),
            stamp_ms: self.host.clock.wall_ms(),
            entries: Hash::of(b"nobody's"),
            state: Some(Hash::of(b"nobody's")),
            next: None,
            recovery: None,
            rules: self.state.rules,
        };
        let mut at = Batch::unproved(&header, Vec::new());
        let (node, signature) = at.endorse(&self.state.mesh, &*self.key);
        at.proof.insert(node, signature);
        SnapshotHead {
            ends: Vec::new(),
            at: Some(at),
            length: limits::SNAPSHOT_BYTES as u64,
        }
    }
}

/// What it answers: bodies that it announced, and a state that never ends.
#[derive(Default)]
pub struct Answers {
    bodies: Mutex<BTreeMap<Hash, Vec<u8>>>,
    forged: Mutex<Vec<u8>>,
}

impl Answers {
    /// Announces this body too.
    pub fn keep(&self, body: Vec<u8>) {
        let mut bodies = self.bodies.lock().unwrap_or_else(|e| e.into_inner());
        while bodies.len() >= BODIES {
            bodies.pop_first();
        }
        bodies.insert(Hash::of(&body), body);
    }

    /// Answers who asks for a state with this header.
    pub fn forge(&self, head: &SnapshotHead) {
        *self.forged.lock().unwrap_or_else(|e| e.into_inner()) = codec::encode(head);
    }

    fn body(&self, body: &[u8]) -> Option<Vec<u8>> {
        let query: BodyQuery = codec::decode(body, limits::RPC_BYTES).ok()?;
        let bodies = self.bodies.lock().unwrap_or_else(|e| e.into_inner());
        bodies.get(&query.hash).cloned()
    }
}

#[async_trait]
impl Handler for Answers {
    async fn call(&self, _: &Caller, method: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        match method {
            method::BODY => self.body(&body).ok_or(Failure::Busy),
            method::SNAPSHOT => Ok(self
                .forged
                .lock()
                .unwrap_or_else(|e| e.into_inner())
                .clone()),
            method::SNAPSHOT_PART => {
                tokio::time::sleep(PER_BYTE).await;
                Ok(vec![0])
            }
            _ => {
                tokio::time::sleep(PER_BYTE).await;
                Err(Failure::Busy)
            }
        }
    }

    async fn notice(&self, _: &Caller, _: u16, _: Vec<u8>) {}
}
