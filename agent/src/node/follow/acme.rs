//! ACME on this agent: where it listens.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    acme::{self, Acme, server::Shown},
    host::Host,
    listen::{ListenError, Tcp},
    node::{
        config::AgentConfig,
        follow::ledger_backend::LedgerBackend,
        shared::{addresses::Addresses, handles::Handles},
    },
};

/// When it is tried again after it couldn't listen.
const AGAIN: Duration = Duration::from_secs(5);

/// Serves ACME, with the agent's own certificate.
pub(crate) struct AcmeKeeper {
    config: Arc<AgentConfig>,
    host: Host,
    addresses: Addresses,
    shown: Arc<Shown>,
    /// Why it isn't served.
    trouble: watch::Sender<Option<String>>,
}

impl AcmeKeeper {
    pub fn new(
        node: &Handles,
        addresses: Addresses,
        shown: Arc<Shown>,
        trouble: watch::Sender<Option<String>>,
    ) -> Self {
        Self {
            config: node.config.clone(),
            host: node.host.clone(),
            addresses,
            shown,
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
        let tasks = keeper.host.tasks.clone();
        tasks.spawn(keeper.listen(acme.clone()));
        Ok(acme)
    }
}

impl AcmeKeeper {
    /// Listens where the mesh's resolver does, as `acme` and `ca` are names of
    /// those addresses on every machine, or where the configuration says.
    async fn listen(self: Arc<Self>, acme: Arc<Acme>) {
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
        acme::server::serve(acme, self.shown.clone(), listeners, clock).await;
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
}
