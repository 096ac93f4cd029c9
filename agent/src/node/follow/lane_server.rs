//! Takes in lanes, where the configuration says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use innermesh_proto::view::MeshView;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::{
    ca::unproved,
    control::finding::{Finding, code},
    host::Host,
    listen::Sources,
    node::{config::AgentConfig, shared::handles::Handles},
    quic::{LaneServer, Transport},
};

/// How often addresses that couldn't be had are tried again.
const LOOK: Duration = Duration::from_secs(10);

/// Why lanes aren't taken in where they should be, by address.
#[derive(Default)]
pub(crate) struct LaneTrouble(Mutex<BTreeMap<SocketAddr, String>>);

impl LaneTrouble {
    /// What a person should know.
    pub fn findings(&self, node: &Handles, view: &MeshView) -> Vec<Finding> {
        let trouble = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<Finding> = trouble
            .values()
            .map(|why| {
                let text = format!("lanes are not taken in: {why}");
                let remedy = "It is tried again by itself once that is mended";
                Finding::warning(code::LANE_NOT_SERVED, text, remedy)
            })
            .collect();
        if node.config.lane.is_set() && !view.is_relay(&view.me) {
            let name = view.ledger.name_of(view.me);
            found.push(Finding::warning(
                code::LANE_NOT_SERVED,
                "[lane] is configured, and this node is no relay: others don't use its lanes",
                format!("An admin can make it one: agent role add {name} relay"),
            ));
        }
        found
    }
}

/// Keeps the listeners.
pub(crate) struct LaneKeeper {
    host: Host,
    config: Arc<AgentConfig>,
    transport: Transport,
    sources: Arc<dyn Sources>,
    trouble: Arc<LaneTrouble>,
}

impl LaneKeeper {
    pub fn new(node: &Handles, sources: Arc<dyn Sources>, trouble: Arc<LaneTrouble>) -> Self {
        Self {
            host: node.host.clone(),
            config: node.config.clone(),
            transport: node.transport.clone(),
            sources,
            trouble,
        }
    }

    /// Starts it. An address that can't be had now may be later: that is no reason
    /// for the agent not to run.
    pub fn start(self) {
        let lanes = self.transport.lanes().filter(|_| self.config.lane.is_set());
        if let Some(lanes) = lanes.cloned() {
            let server = LaneServer::new(lanes, self.sources.clone());
            let tasks = self.host.tasks.clone();
            tasks.spawn(self.run(server));
        }
    }

    async fn run(self, server: LaneServer) {
        let tls = self.tls();
        let plain = self.config.lane.listen.iter().map(|at| (*at, None));
        let tls = tls.iter().flat_map(|tls| {
            let listen = self.config.lane.listen_tls.iter();
            listen.map(|at| (*at, Some(tls.clone())))
        });
        let wanted: Vec<_> = plain.chain(tls).collect();
        let mut bound = BTreeSet::new();
        while bound.len() < wanted.len() {
            for (at, tls) in &wanted {
                if !bound.contains(at) && self.bind(&server, *at, tls.clone()) {
                    bound.insert(*at);
                }
            }
            self.host.clock.sleep(LOOK).await;
        }
    }

    fn bind(&self, server: &LaneServer, at: SocketAddr, tls: Option<Arc<ServerConfig>>) -> bool {
        let mut trouble = self.trouble.0.lock();
        let trouble = trouble.as_mut();
        let Ok(trouble) = trouble else { return false };
        match server.bind(&*self.host.net, at) {
            Ok(listener) => {
                trouble.remove(&at);
                self.host.tasks.spawn(server.clone().serve(listener, tls));
                true
            }
            Err(error) => {
                let why = error.to_string();
                if trouble.get(&at) != Some(&why) {
                    tracing::warn!(%error, "lanes are not taken in");
                    trouble.insert(at, why);
                }
                false
            }
        }
    }

    /// TLS around lanes. Its certificate proves nothing, and needn't: QUIC's inside does. It
    /// says nothing of the mesh either, to whoever asks at the port.
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        if self.config.lane.listen_tls.is_empty() {
            return None;
        }
        let keys = &*self.host.keys;
        let key = keys.generate_p256();
        let certificate = unproved(&key, self.host.clock.wall_ms(), keys);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let made = certificate.map_err(|error| error.to_string());
        let made = made.and_then(|der| {
            let key = PrivatePkcs8KeyDer::from(key.pkcs8().as_bytes().to_vec());
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .and_then(|config| {
                    let chain = vec![CertificateDer::from(der)];
                    let config = config.with_no_client_auth();
                    config.with_single_cert(chain, PrivateKeyDer::from(key))
                });
            config.map_err(|error| error.to_string())
        });
        match made {
            Ok(mut config) => {
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Some(Arc::new(config))
            }
            Err(error) => {
                tracing::error!(%error, "lanes can't be taken in by TLS");
                None
            }
        }
    }
}
