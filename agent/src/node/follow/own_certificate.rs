//! The agent's own certificate, which its servers of ACME and of encrypted DNS show.

use std::{collections::BTreeSet, net::IpAddr, path::Path, sync::Arc, time::Duration};

use innermesh_proto::{
    certificate::Certificate,
    id::{NodeId, resolver_v4},
};

use crate::{
    acme::{
        mesh::{IssueError, Wanted},
        server::Shown,
    },
    ca::pem,
    host::{Host, keys::CaKey},
    ledger::Ledger,
    node::{
        follow::ledger_backend::certify,
        shared::{certify::Certifier, handles::Handles},
    },
};

/// The certificate and its key, below the state folder.
const CHAIN: &str = "acme/tls.crt";
const KEY: &str = "acme/tls.key";
/// How long it is good, in days.
const DAYS: u32 = 90;
/// How often it is looked whether it is due; a laptop's long sleep counts, as
/// that is told by wall time.
const LOOK: Duration = Duration::from_secs(60);
/// When it is asked for again after there was no answer.
const AGAIN: Duration = Duration::from_secs(5);
/// How long one request for it may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Keeps it.
pub(crate) struct OwnCertificate {
    me: NodeId,
    host: Host,
    ledger: Ledger,
    certifier: Certifier,
    shown: Arc<Shown>,
}

/// Why there is none yet.
#[derive(Debug, thiserror::Error)]
enum OwnCertificateError {
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Disk(#[from] std::io::Error),
}

impl OwnCertificate {
    pub fn new(node: &Handles) -> Self {
        Self {
            me: node.me,
            host: node.host.clone(),
            ledger: node.ledger.clone(),
            certifier: Certifier::new(node),
            shown: Arc::default(),
        }
    }

    /// What servers show; none until the ledger has issued one.
    pub fn shown(&self) -> Arc<Shown> {
        self.shown.clone()
    }

    /// Those of its names that this node may have by the rules in force: where every
    /// agent answers ACME and DNS, and the node's own. A client of DNS knows its
    /// resolver by a name or by an address.
    fn names(&self) -> BTreeSet<String> {
        let state = self.ledger.state();
        let Some(member) = state.members.get(&self.me) else {
            return BTreeSet::new();
        };
        let domain = &state.domain;
        let labels = ["acme", "ns", member.name.as_str()];
        let addresses = [
            IpAddr::V4(resolver_v4(state.ipv4)),
            IpAddr::V6(state.mesh.resolver_v6()),
            IpAddr::V4(member.ipv4),
            IpAddr::V6(member.ipv6),
        ];
        let names = labels.into_iter().map(|label| format!("{label}.{domain}"));
        names
            .chain(addresses.iter().map(IpAddr::to_string))
            .filter(|name| state.may_certify(self.me, name))
            .collect()
    }

    /// Gets it, and renews it in time.
    pub async fn keep(self) {
        let (mut key, mut chain) = self.load().await;
        let mut is_told = false;
        loop {
            if let (Some(key), Some(chain)) = (&key, &chain)
                && !self.shown.is_set()
                && let Err(error) = self.shown.set(chain, &**key)
            {
                tracing::warn!(%error, "the agent's own certificate can't be used");
            }
            let mut pause = LOOK;
            let names = self.names();
            if names.is_empty() {
                pause = AGAIN;
            } else if self.is_due(&names, chain.as_deref()) {
                // A key that was revoked is never certified again.
                let revoked = chain.as_deref().is_some_and(|chain| self.is_revoked(chain));
                let next = match key.take().filter(|_| !revoked) {
                    Some(key) => key,
                    None => self.host.keys.generate_p256(),
                };
                match self.renew(names, &next).await {
                    Ok(new) => {
                        if let Err(error) = self.shown.set(&new, &*next) {
                            tracing::error!(%error, "the agent's own certificate can't be used");
                        }
                        (chain, is_told) = (Some(new), false);
                    }
                    Err(error) => {
                        if !is_told {
                            tracing::warn!(%error, "no certificate for ACME and encrypted DNS yet");
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

    /// Whether there is none, it lacks a name, or it has lived two thirds of its life.
    fn is_due(&self, names: &BTreeSet<String>, chain: Option<&str>) -> bool {
        let Some(leaf) = chain.and_then(leaf) else {
            return true;
        };
        let life_ms = leaf.not_after_ms.saturating_sub(leaf.not_before_ms);
        let due_ms = leaf.not_before_ms + life_ms / 3 * 2;
        let has = |name: &String| {
            let ip = name.parse::<IpAddr>();
            ip.map_or_else(|_| leaf.dns.contains(name), |ip| leaf.ips.contains(&ip))
        };
        !names.iter().all(has)
            || self.host.clock.wall_ms() >= due_ms
            || chain.is_some_and(|chain| self.is_revoked(chain))
    }

    async fn renew(
        &self,
        names: BTreeSet<String>,
        key: &Arc<dyn CaKey>,
    ) -> Result<String, OwnCertificateError> {
        let wanted = Wanted {
            spki: key.spki(),
            names,
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
