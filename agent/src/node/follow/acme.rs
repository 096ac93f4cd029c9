//! ACME on this agent: where it listens, and the certificate that it shows.

use std::{collections::BTreeSet, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use innermesh_proto::certificate::Certificate;
use tokio::sync::watch;

use crate::{
    acme::{
        self, Acme,
        mesh::{IssueError, Wanted},
        server::Shown,
    },
    ca::pem,
    host::{Host, keys::CaKey},
    ledger::Ledger,
    listen::{ListenError, Tcp},
    node::{
        config::AgentConfig,
        follow::ledger_backend::{LedgerBackend, certify},
        shared::{addresses::Addresses, certify::Certifier, handles::Handles},
    },
};

/// The agent's own certificate for ACME, and its key, below the state folder.
const CHAIN: &str = "acme/tls.crt";
const KEY: &str = "acme/tls.key";
/// How long its certificate is good, in days.
const DAYS: u32 = 90;
/// How often it is looked whether it is due; a laptop's long sleep counts, as
/// that is told by wall time.
const LOOK: Duration = Duration::from_secs(60);
/// When it is asked for again after there was no answer.
const AGAIN: Duration = Duration::from_secs(5);
/// How long one request for it may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Serves ACME, with a certificate of its own.
pub(crate) struct AcmeKeeper {
    config: Arc<AgentConfig>,
    host: Host,
    ledger: Ledger,
    addresses: Addresses,
    certifier: Certifier,
    /// Why it isn't served.
    trouble: watch::Sender<Option<String>>,
}

impl AcmeKeeper {
    pub fn new(
        node: &Handles,
        addresses: Addresses,
        trouble: watch::Sender<Option<String>>,
    ) -> Self {
        Self {
            config: node.config.clone(),
            host: node.host.clone(),
            ledger: node.ledger.clone(),
            addresses,
            certifier: Certifier::new(node),
            trouble,
        }
    }

    /// Opens ACME and serves it in the background.
    ///
    /// # Errors
    /// The disk's.
    pub async fn start(self, backend: Arc<LedgerBackend>) -> std::io::Result<Arc<Acme>> {
        let acme = Acme::open(&self.host, backend, self.config.acme_port).await?;
        let keeper = Arc::new(self);
        let shown = Arc::new(Shown::default());
        let tasks = keeper.host.tasks.clone();
        tasks.spawn(keeper.clone().keep_certificate(shown.clone()));
        tasks.spawn(keeper.listen(acme.clone(), shown));
        Ok(acme)
    }
}

/// Why the server has no certificate yet.
#[derive(Debug, thiserror::Error)]
enum OwnCertificateError {
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Disk(#[from] std::io::Error),
}

impl AcmeKeeper {
    /// Listens where the mesh's resolver does, as `acme` and `ca` are names of
    /// those addresses on every machine, or where the configuration says.
    async fn listen(self: Arc<Self>, acme: Arc<Acme>, shown: Arc<Shown>) {
        let clock = self.host.clock.clone();
        let mut told = None;
        let listeners = loop {
            match self.bind() {
                Ok(listeners) => break listeners,
                Err(error) => {
                    let why = error.to_string();
                    if told.as_ref() != Some(&why) {
                        tracing::warn!(%why, "ACME isn't served");
                        self.trouble.send_replace(Some(why.clone()));
                        told = Some(why);
                    }
                    clock.sleep(AGAIN).await;
                }
            }
        };
        self.trouble.send_replace(None);
        tracing::info!(directory = %acme.directory_url(), "ACME is served");
        acme::server::serve(acme, shown, listeners, clock).await;
    }

    /// Sockets where it is to be served; IPv6 may be missing where there is IPv4.
    fn bind(&self) -> Result<Vec<Tcp>, ListenError> {
        let sources = self.addresses.sources();
        let mut listeners = Vec::new();
        let mut failed = Vec::new();
        for address in self.wanted() {
            match acme::server::bind(&*self.host.net, address, sources.clone()) {
                Ok(listener) => listeners.push(listener),
                Err(error) => failed.push((address, error)),
            }
        }
        let is_missed = |address: &SocketAddr| address.is_ipv4() || listeners.is_empty();
        let missed = failed.into_iter().find(|(address, _)| is_missed(address));
        missed.map_or(Ok(listeners), |(_, error)| Err(error))
    }

    fn wanted(&self) -> Vec<SocketAddr> {
        if !self.config.acme_listen.is_empty() {
            return self.config.acme_listen.clone();
        }
        let resolvers = self.addresses.resolvers();
        resolvers
            .into_iter()
            .map(|ip| SocketAddr::new(ip, self.config.acme_port))
            .collect()
    }

    /// Gets the agent's certificate for `acme.<domain>`, and renews it in time.
    async fn keep_certificate(self: Arc<Self>, shown: Arc<Shown>) {
        let name = format!("acme.{}", self.ledger.state().domain);
        let (mut key, mut chain) = self.load().await;
        let mut is_told = false;
        loop {
            if let (Some(key), Some(chain)) = (&key, &chain)
                && !shown.is_set()
                && let Err(error) = shown.set(chain, &**key)
            {
                tracing::warn!(%error, "the ACME server's certificate can't be used");
            }
            let mut pause = LOOK;
            if self.is_due(&name, chain.as_deref()) {
                // A key that was revoked is never certified again.
                let revoked = chain.as_deref().is_some_and(|chain| self.is_revoked(chain));
                let next = match key.take().filter(|_| !revoked) {
                    Some(key) => key,
                    None => self.host.keys.generate_p256(),
                };
                match self.renew(&name, &next).await {
                    Ok(new) => {
                        if let Err(error) = shown.set(&new, &*next) {
                            tracing::error!(%error, "the ACME server's certificate can't be used");
                        }
                        (chain, is_told) = (Some(new), false);
                    }
                    Err(error) => {
                        if !is_told {
                            tracing::warn!(%error, "no certificate for the ACME server yet");
                            is_told = true;
                        }
                        pause = AGAIN;
                    }
                }
                key = Some(next);
            }
            self.host.clock.sleep(pause).await;
        }
    }

    async fn load(&self) -> (Option<Arc<dyn CaKey>>, Option<String>) {
        let disk = &*self.host.disk;
        let key = disk.read(Path::new(KEY)).await.ok().flatten();
        let key = key.and_then(|pkcs8| self.host.keys.load_p256(&pkcs8).ok());
        let chain = disk.read(Path::new(CHAIN)).await.ok().flatten();
        let chain = chain.and_then(|chain| String::from_utf8(chain).ok());
        let leaf = chain.as_deref().and_then(leaf);
        match (key, leaf) {
            (Some(key), Some(leaf)) if leaf.spki == key.spki() => (Some(key), chain),
            _ => (None, None),
        }
    }

    fn is_revoked(&self, chain: &str) -> bool {
        let state = self.ledger.state();
        leaf(chain).is_some_and(|leaf| {
            let issued = state.certificates.get(&leaf.serial);
            issued.is_some_and(|issued| state.is_revoked(&leaf.serial, issued))
        })
    }

    /// Whether there is none, or it has lived two thirds of its life.
    fn is_due(&self, name: &str, chain: Option<&str>) -> bool {
        let Some(leaf) = chain.and_then(leaf) else {
            return true;
        };
        let life_ms = leaf.not_after_ms.saturating_sub(leaf.not_before_ms);
        let due_ms = leaf.not_before_ms + life_ms / 3 * 2;
        !leaf.dns.contains(name)
            || self.host.clock.wall_ms() >= due_ms
            || chain.is_some_and(|chain| self.is_revoked(chain))
    }

    async fn renew(&self, name: &str, key: &Arc<dyn CaKey>) -> Result<String, OwnCertificateError> {
        let wanted = Wanted {
            spki: key.spki(),
            names: BTreeSet::from([name.to_owned()]),
            days: DAYS,
        };
        let chain = certify(&self.certifier, wanted, PATIENCE).await?.chain;
        let disk = &*self.host.disk;
        disk.replace(Path::new(KEY), key.pkcs8().as_bytes()).await?;
        disk.replace(Path::new(CHAIN), chain.as_bytes()).await?;
        Ok(chain)
    }
}

fn leaf(chain: &str) -> Option<Certificate> {
    let blocks = pem::decode(chain).ok()?;
    Certificate::parse(&blocks.first()?.content).ok()
}
