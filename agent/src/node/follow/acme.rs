//! ACME on this agent: what it asks of ledger and zone, where it listens, and
//! the certificate that it shows.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_proto::{
    certificate::{Certificate, Serial},
    ledger::{Content, Outcome, State, request::Certify},
    zone::{Answer, Caa, DomainName, Rdata, RecordType},
};

use crate::node::Inner;
use crate::node::commands::certificates;
use crate::{
    acme::{
        self, Acme,
        mesh::{Known, Mesh, NotDone, Wanted},
        order::{Certified, Identifier},
        server::Shown,
    },
    ca::pem,
    host::{holder, keys::CaKey},
    ledger::client::SubmitError,
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

/// What ACME asks of this agent.
pub struct Asked(pub Weak<Inner>);

impl Asked {
    fn state(&self) -> Option<Arc<State>> {
        Some(self.0.upgrade()?.ledger.state())
    }

    /// The data of a name's records of one type, aliases followed inside the
    /// mesh.
    fn data(&self, name: &str, rtype: RecordType) -> Vec<Rdata> {
        let (Some(inner), Ok(name)) = (self.0.upgrade(), name.parse::<DomainName>()) else {
            return Vec::new();
        };
        let zone = inner.dns.zone();
        match zone.lookup(&name, rtype) {
            Answer::Records { data, .. } => data.to_vec(),
            Answer::Alias { records, .. } => {
                records.into_iter().map(|record| record.data).collect()
            }
            _ => Vec::new(),
        }
    }
}

#[async_trait]
impl Mesh for Asked {
    fn domain(&self) -> String {
        self.state()
            .map_or_else(String::new, |state| state.domain.to_string())
    }

    fn may_have(&self, identifier: &Identifier) -> bool {
        let Some(inner) = self.0.upgrade() else {
            return false;
        };
        let state = inner.ledger.state();
        let name = identifier.name();
        // That one is the agent's own.
        name != format!("acme.{}", state.domain) && state.may_certify(inner.me, &name)
    }

    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let Some(inner) = self.0.upgrade() else {
            return Vec::new();
        };
        let data = [RecordType::AAAA, RecordType::A].map(|rtype| self.data(name, rtype));
        let members = inner.view.borrow().member_addresses();
        let addresses = data.into_iter().flatten().filter_map(|data| match data {
            Rdata::A(ip) => Some(IpAddr::V4(ip)),
            Rdata::Aaaa(ip) => Some(IpAddr::V6(ip)),
            _ => None,
        });
        let mut addresses: Vec<IpAddr> = addresses.filter(|ip| members.contains(ip)).collect();
        let own = inner.own_addresses();
        addresses.sort_by_key(|ip| (!own.contains(ip), *ip));
        addresses
    }

    fn is_member(&self, address: IpAddr) -> bool {
        let inner = self.0.upgrade();
        inner.is_some_and(|inner| inner.view.borrow().member_addresses().contains(&address))
    }

    fn texts(&self, name: &str) -> Vec<Vec<u8>> {
        let data = self.data(name, RecordType::TXT).into_iter();
        data.filter_map(|data| match data {
            Rdata::Txt(strings) => Some(strings.concat()),
            _ => None,
        })
        .collect()
    }

    fn caa(&self, name: &str) -> Vec<Caa> {
        let data = self.data(name, RecordType::CAA).into_iter();
        data.filter_map(|data| match data {
            Rdata::Caa(caa) => Some(caa),
            _ => None,
        })
        .collect()
    }

    async fn certify(&self, wanted: Wanted, patience: Duration) -> Result<Certified, NotDone> {
        let stopped = || NotDone::Unavailable("the agent stops".into());
        let inner = self.0.upgrade().ok_or_else(stopped)?;
        certify(&inner, wanted, patience).await
    }

    fn certificate(&self, serial: &Serial) -> Option<Known> {
        let inner = self.0.upgrade()?;
        let state = inner.ledger.state();
        let issued = state.certificates.get(serial)?;
        let issuer = state.issuers.get(&issued.issuer);
        // Whoever signed it signs no more: its issuer may be revoked soon.
        let is_superseded = issuer.is_some_and(|issuer| !state.is_voter(issuer.node));
        Some(Known {
            names: state.names_in(issued).to_vec(),
            not_before_ms: issued.not_before_ms,
            not_after_ms: issued.not_after_ms,
            is_revoked: state.is_revoked(serial, issued),
            is_superseded,
            is_own: issued.owner == inner.me,
        })
    }

    async fn revoke(&self, serial: Serial) -> Result<(), NotDone> {
        let stopped = || NotDone::Unavailable("the agent stops".into());
        let inner = self.0.upgrade().ok_or_else(stopped)?;
        decide(&inner, &Content::Revoke(serial), PATIENCE).await
    }
}

async fn decide(inner: &Inner, content: &Content, patience: Duration) -> Result<(), NotDone> {
    let request = inner.client.request(content, inner.now_ms());
    match inner.client.submit(&request, patience).await {
        Ok(Outcome::Refused(refusal)) => Err(NotDone::Refused(refusal.to_string())),
        Ok(_) => Ok(()),
        Err(error @ SubmitError::Spent(wait)) => Err(NotDone::Spent(error.to_string(), wait)),
        Err(error) => Err(NotDone::Unavailable(error.to_string())),
    }
}

async fn certify(inner: &Inner, wanted: Wanted, patience: Duration) -> Result<Certified, NotDone> {
    let content = Content::Certify(Certify {
        spki: wanted.spki.clone(),
        names: wanted.names.clone(),
        days: wanted.days,
    });
    let before = inner.ledger.state();
    decide(inner, &content, patience).await?;
    let state = inner.ledger.state();
    let found = certificates::added(&state, &before, inner.me, &wanted.spki, &wanted.names);
    let found = found.and_then(|(serial, listed)| certificates::issued(&state, serial, listed));
    let issued = found.ok_or_else(|| {
        NotDone::Unavailable("issued, but not in the ledger here yet; ask again".into())
    })?;
    Ok(Certified {
        chain: issued.certificate + &issued.issuer,
        serial: issued.serial,
        not_after_ms: issued.not_after.ms(),
    })
}

/// Opens ACME and serves it in the background.
///
/// # Errors
/// The disk's.
pub async fn start(inner: &Arc<Inner>) -> std::io::Result<()> {
    let port = inner.config.acme_port;
    let asked = Arc::new(Asked(Arc::downgrade(inner)));
    let acme = Acme::open(&inner.host, asked, port).await?;
    if inner.acme.set(acme.clone()).is_err() || !inner.host.net.has_sockets() {
        return Ok(());
    }
    let shown = Arc::new(Shown::default());
    inner
        .host
        .tasks
        .spawn(keep_certificate(inner.clone(), shown.clone()));
    inner.host.tasks.spawn(listen(inner.clone(), acme, shown));
    Ok(())
}

/// Listens where the mesh's resolver does, as `acme` and `ca` are names of
/// those addresses on every machine, or where the configuration says.
async fn listen(inner: Arc<Inner>, acme: Arc<Acme>, shown: Arc<Shown>) {
    let clock = inner.host.clock.clone();
    let mut told = None;
    let listeners = loop {
        match bind(&addresses(&inner)) {
            Ok(listeners) => break listeners,
            Err(why) => {
                if told.as_ref() != Some(&why) {
                    tracing::warn!(%why, "ACME isn't served");
                    inner.acme_trouble.send_replace(Some(why.clone()));
                    told = Some(why);
                }
                clock.sleep(AGAIN).await;
            }
        }
    };
    inner.acme_trouble.send_replace(None);
    tracing::info!(directory = %acme.directory_url(), "ACME is served");
    let sources = inner.listen_sources();
    acme::server::serve(acme, shown, listeners, sources, clock).await;
}

fn addresses(inner: &Inner) -> Vec<SocketAddr> {
    if !inner.config.acme_listen.is_empty() {
        return inner.config.acme_listen.clone();
    }
    let resolvers = inner.resolvers();
    resolvers
        .into_iter()
        .map(|ip| SocketAddr::new(ip, inner.config.acme_port))
        .collect()
}

/// Sockets on these; IPv6 may be missing where there is IPv4.
fn bind(addresses: &[SocketAddr]) -> Result<Vec<tokio::net::TcpListener>, String> {
    let mut listeners = Vec::new();
    let mut failed = Vec::new();
    for address in addresses {
        match crate::host::system::listen_tcp(*address) {
            Ok(listener) => listeners.push(listener),
            Err(error) => failed.push((address, error)),
        }
    }
    let missing = failed
        .iter()
        .find(|(address, _)| address.is_ipv4() || listeners.is_empty());
    match missing {
        Some((address, error)) => {
            let holder = holder::of_address(holder::Kind::Tcp, **address);
            let by = holder.map_or_else(String::new, |holder| format!("; it is {holder}"));
            Err(format!(
                "port {} on {} can't be had ({error}{by}): stop the program that has it, or set \
                 `acme.port` in the configuration, on all machines alike",
                address.port(),
                address.ip()
            ))
        }
        None => Ok(listeners),
    }
}

/// Gets the agent's certificate for `acme.<domain>`, and renews it in time.
async fn keep_certificate(inner: Arc<Inner>, shown: Arc<Shown>) {
    let name = format!("acme.{}", inner.ledger.state().domain);
    let (mut key, mut chain) = load(&inner).await;
    let mut is_told = false;
    loop {
        if let (Some(key), Some(chain)) = (&key, &chain)
            && !shown.is_set()
            && let Err(error) = shown.set(chain, &**key)
        {
            tracing::warn!(%error, "the ACME server's certificate can't be used");
        }
        let mut pause = LOOK;
        if is_due(&inner, &name, chain.as_deref()) {
            // A key that was revoked is never certified again.
            let revoked = chain
                .as_deref()
                .is_some_and(|chain| is_revoked(&inner, chain));
            let next = match key.take().filter(|_| !revoked) {
                Some(key) => key,
                None => inner.host.keys.generate_p256(),
            };
            match renew(&inner, &name, &next).await {
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
        inner.host.clock.sleep(pause).await;
    }
}

async fn load(inner: &Inner) -> (Option<Arc<dyn CaKey>>, Option<String>) {
    let disk = &*inner.host.disk;
    let key = disk.read(Path::new(KEY)).await.ok().flatten();
    let key = key.and_then(|pkcs8| inner.host.keys.load_p256(&pkcs8).ok());
    let chain = disk.read(Path::new(CHAIN)).await.ok().flatten();
    let chain = chain.and_then(|chain| String::from_utf8(chain).ok());
    let leaf = chain.as_deref().and_then(leaf);
    match (key, leaf) {
        (Some(key), Some(leaf)) if leaf.spki == key.spki() => (Some(key), chain),
        _ => (None, None),
    }
}

fn leaf(chain: &str) -> Option<Certificate> {
    let blocks = pem::decode(chain).ok()?;
    Certificate::parse(&blocks.first()?.content).ok()
}

fn is_revoked(inner: &Inner, chain: &str) -> bool {
    let state = inner.ledger.state();
    leaf(chain).is_some_and(|leaf| {
        let issued = state.certificates.get(&leaf.serial);
        issued.is_some_and(|issued| state.is_revoked(&leaf.serial, issued))
    })
}

/// Whether there is none, or it has lived two thirds of its life.
fn is_due(inner: &Inner, name: &str, chain: Option<&str>) -> bool {
    let Some(leaf) = chain.and_then(leaf) else {
        return true;
    };
    let life_ms = leaf.not_after_ms.saturating_sub(leaf.not_before_ms);
    let due_ms = leaf.not_before_ms + life_ms / 3 * 2;
    !leaf.dns.contains(name)
        || inner.host.clock.wall_ms() >= due_ms
        || chain.is_some_and(|chain| is_revoked(inner, chain))
}

async fn renew(inner: &Inner, name: &str, key: &Arc<dyn CaKey>) -> Result<String, String> {
    let wanted = Wanted {
        spki: key.spki(),
        names: BTreeSet::from([name.to_owned()]),
        days: DAYS,
    };
    let certified = certify(inner, wanted, PATIENCE).await;
    let chain = certified.map_err(|error| error.to_string())?.chain;
    let disk = &*inner.host.disk;
    let words = |error: std::io::Error| error.to_string();
    disk.replace(Path::new(KEY), key.pkcs8().as_bytes())
        .await
        .map_err(words)?;
    disk.replace(Path::new(CHAIN), chain.as_bytes())
        .await
        .map_err(words)?;
    Ok(chain)
}
