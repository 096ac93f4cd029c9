//! DNS over TLS and HTTPS, at the addresses at which names are answered anyway: they
//! come and go with those.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    acme::server::Shown,
    control::finding::{Finding, code},
    dns::{EncryptedDns, EncryptedServer, Encryption, Surroundings, TLS_PORT, TlsChoice},
    host::{Host, Presence, holder::Kind},
    listen::ListenError,
    node::{config::AgentConfig, follow::dns::Listening},
};

/// How often addresses are looked at, and the certificate until there is one.
const LOOK: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(1);

/// Why encrypted DNS isn't served somewhere.
#[derive(Default)]
pub(crate) struct EncryptedTrouble(Mutex<BTreeMap<SocketAddr, ListenError>>);

impl EncryptedTrouble {
    /// What a person asked for and doesn't get.
    pub fn findings(&self, config: &AgentConfig) -> Vec<Finding> {
        let trouble = self.lock();
        let is_asked = |at: &SocketAddr| {
            config.dns_tls == TlsChoice::On && at.port() == TLS_PORT
                || Some(at.port()) == config.dns_https
        };
        // One server that has the port at all addresses is one finding.
        let first = trouble.iter().find(|(at, _)| is_asked(at));
        let finding = first.map(|(_, error)| {
            Finding::warning(
                code::DNS_NOT_ENCRYPTED,
                format!("encrypted DNS isn't served everywhere: {error}"),
                "It is tried again every few seconds",
            )
        });
        finding.into_iter().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, ListenError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves it.
pub(crate) struct EncryptedKeeper {
    host: Host,
    config: Arc<AgentConfig>,
    dns: EncryptedDns,
    around: Surroundings,
    listening: Arc<Listening>,
    shown: Arc<Shown>,
    trouble: Arc<EncryptedTrouble>,
    servers: BTreeMap<SocketAddr, EncryptedServer>,
    /// Whose port somebody had, and that was free when it was looked at last.
    free: BTreeSet<SocketAddr>,
}

impl EncryptedKeeper {
    pub fn new(
        host: &Host,
        config: &Arc<AgentConfig>,
        dns: EncryptedDns,
        around: Surroundings,
        listening: Arc<Listening>,
        (shown, trouble): (Arc<Shown>, Arc<EncryptedTrouble>),
    ) -> Self {
        Self {
            host: host.clone(),
            config: config.clone(),
            dns,
            around,
            listening,
            shown,
            trouble,
            servers: BTreeMap::new(),
            free: BTreeSet::new(),
        }
    }

    /// Ends at once where none is wanted.
    pub async fn run(mut self) {
        if self.config.dns_tls == TlsChoice::Off && self.config.dns_https.is_none() {
            return;
        }
        while !self.shown.is_set() {
            self.host.clock.sleep(SOON).await;
        }
        loop {
            let wanted = self.wanted();
            self.servers.retain(|at, _| wanted.contains_key(at));
            self.free.retain(|at| wanted.contains_key(at));
            self.trouble.lock().retain(|at, _| wanted.contains_key(at));
            for (at, encryption) in wanted {
                if !self.servers.contains_key(&at) {
                    self.try_at(at, encryption);
                }
            }
            self.host.clock.sleep(LOOK).await;
        }
    }

    fn wanted(&self) -> BTreeMap<SocketAddr, Encryption> {
        let addresses = self.listening.addresses();
        let each = addresses.iter().map(SocketAddr::ip);
        let mut wanted = BTreeMap::new();
        for ip in each {
            if self.config.dns_tls != TlsChoice::Off {
                wanted.insert(SocketAddr::new(ip, TLS_PORT), Encryption::Tls);
            }
            if let Some(port) = self.config.dns_https {
                wanted.insert(SocketAddr::new(ip, port), Encryption::Https);
            }
        }
        wanted
    }

    /// A port that somebody had is taken when it is free at two looks: a server that is
    /// restarted finds it free still.
    fn try_at(&mut self, at: SocketAddr, encryption: Encryption) {
        let is_taken = matches!(
            self.trouble.lock().get(&at),
            Some(ListenError::InUse { .. })
        );
        if is_taken && self.host.net.holder(Kind::Tcp, at).is_some() {
            self.free.remove(&at);
            return;
        }
        if is_taken && self.free.insert(at) {
            return;
        }
        match self
            .dns
            .start(&self.around, at, encryption, Presence::Awaited)
        {
            Ok(server) => {
                tracing::info!(%at, ?encryption, "encrypted DNS is served");
                self.trouble.lock().remove(&at);
                self.free.remove(&at);
                self.servers.insert(at, server);
            }
            Err(error) => {
                if !self.trouble.lock().contains_key(&at) {
                    tracing::info!(%at, %error, "encrypted DNS isn't served");
                }
                self.trouble.lock().insert(at, error);
            }
        }
    }
}
