//! Opening the ledger at the start. Where its files are damaged so far that this
//! node can't tell itself or those who decide from strangers, it is fetched again
//! first. Meanwhile names of the mesh are SERVFAIL, all others are looked up as
//! ever, and the control socket answers with the progress.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use innermesh_proto::{
    id::resolver_v4,
    ledger::State,
    zone::{Zone, ZoneInput},
};
use tokio::sync::watch;

use crate::{
    dns::{
        Dns, DnsServer, MemberSources, NameServer, PORT, Served, SourceTable, Surroundings,
        UpstreamTrust,
    },
    enroll::{
        kept::Kept,
        refetch::{Lacking, RefetchProgress, Unfetched, refetch},
    },
    host::{Host, Presence, keys::NodeKey, within},
    ledger::{Ledger, LedgerError, Stored, file::FileError},
    listen::{Class, Sources},
    node::{build_error::BuildError, config::AgentConfig, shared::zone_serial::ZoneSerial},
    tunnel::BackendChoice,
};

/// How long a node that is a member by what it has left tries to fetch the rest
/// before it starts: as one that runs it goes on with that.
const PATIENCE: Duration = Duration::from_secs(15);

/// An agent that fetches its ledger before it can start.
#[derive(Clone)]
pub struct Loading {
    pub progress: watch::Receiver<RefetchProgress>,
    /// What it answers meanwhile.
    pub dns: Arc<Dns>,
}

/// Opens the ledger, fetched again where that is needed, and tells `loading`
/// while it is.
///
/// # Errors
/// [`BuildError`].
pub(crate) async fn open(
    host: &Host,
    config: &AgentConfig,
    key: &Arc<dyn NodeKey>,
    loading: &watch::Sender<Option<Loading>>,
) -> Result<Ledger, BuildError> {
    let kept = Kept::load(&*host.disk).await;
    let stored = match Stored::read(host).await {
        Ok(stored) => Some(stored),
        Err(LedgerError::File(FileError::Unreadable)) if kept.is_some() => None,
        Err(error) => return Err(error.into()),
    };
    let known = OwnKnowledge::of(stored.as_ref(), kept.as_ref(), key);
    let lacking =
        Lacking::of(stored.as_ref(), kept.clone()).filter(|_| known != OwnKnowledge::Enough);
    let Some(lacking) = lacking else {
        return opened(host, key, stored, kept, false).await;
    };
    let genesis = State::genesis(&lacking.genesis, &*host.keys).map_err(LedgerError::from)?;
    let (told, progress) = watch::channel(RefetchProgress {
        had: lacking.had.index,
        left: lacking.left,
        ..RefetchProgress::default()
    });
    tracing::error!("{}", *progress.borrow());
    let meanwhile = Meanwhile::serve(host, config, &genesis).await;
    loading.send_replace(Some(Loading {
        progress,
        dns: meanwhile.dns.clone(),
    }));
    let work = refetch(host, key, &lacking, &told);
    let fetched = match known {
        OwnKnowledge::Some => within(&*host.clock, PATIENCE, work).await,
        _ => Some(work.await),
    };
    meanwhile.end().await;
    match fetched {
        // It goes on with what is left.
        Some(Err(Unfetched::Alone { .. })) if known == OwnKnowledge::Some => {
            opened(host, key, stored, kept, false).await
        }
        Some(done) => {
            done?;
            tracing::warn!("the ledger was fetched again");
            let stored = Stored::read(host).await?;
            opened(host, key, Some(stored), kept, true).await
        }
        None => opened(host, key, stored, kept, false).await,
    }
}

async fn opened(
    host: &Host,
    key: &Arc<dyn NodeKey>,
    stored: Option<Stored>,
    kept: Option<Kept>,
    is_refetched: bool,
) -> Result<Ledger, BuildError> {
    let Some(mut stored) = stored else {
        return Err(LedgerError::File(FileError::Unreadable).into());
    };
    if is_refetched {
        stored.note_refetched();
    }
    let was_damaged = stored.is_damaged() || is_refetched;
    let reached = stored.reached();
    let recovery = stored.state().recovery;
    let ledger = stored.open(host, key.clone()).await?;
    if was_damaged {
        ledger.note_had(recovery, reached.index);
        if let Some(kept) = kept {
            ledger.note_had(kept.recovery, kept.position.index);
        }
    }
    Ok(ledger)
}

/// What a node knows by what it has left of its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnKnowledge {
    /// Itself, and those who decide: as one that runs it gets the rest.
    Enough,
    /// Itself, and not all who decided.
    Some,
    Nobody,
}

impl OwnKnowledge {
    fn of(stored: Option<&Stored>, kept: Option<&Kept>, key: &Arc<dyn NodeKey>) -> Self {
        let Some(stored) = stored else {
            return Self::Nobody;
        };
        let state = stored.state();
        let had_more = |kept: &Kept| {
            kept.recovery >= state.recovery && kept.position.index > state.position.index
        };
        let lacks = stored.is_damaged() || kept.is_some_and(had_more);
        if state.member_by_key(&key.public()).is_none() {
            // One that was a member and is none by all that it had is none.
            let was = state.evicted.contains_key(&key.public().node_id());
            return if lacks && !was {
                Self::Nobody
            } else {
                Self::Enough
            };
        }
        let knows_roster = |kept: &Kept| {
            kept.roster
                .iter()
                .all(|node| state.members.contains_key(node))
        };
        if stored.is_damaged() && !kept.is_none_or(knows_roster) {
            return Self::Some;
        }
        Self::Enough
    }
}

/// DNS while there is no view: where it can listen already.
struct Meanwhile {
    dns: Arc<Dns>,
    servers: Vec<DnsServer>,
}

impl Meanwhile {
    async fn serve(host: &Host, config: &AgentConfig, genesis: &State) -> Self {
        let serial = ZoneSerial::load(host).await.next();
        let zone = Arc::new(Zone::build(&ZoneInput {
            domain: genesis.domain.clone(),
            ipv4: genesis.ipv4,
            ula: genesis.mesh.ula(),
            serial,
            loading: true,
            nodes: BTreeMap::new(),
            services: BTreeMap::new(),
            records: BTreeMap::new(),
            ttls: BTreeMap::new(),
            member_aliases: BTreeSet::new(),
            devices: BTreeMap::new(),
            front: None,
            withheld: BTreeSet::new(),
        }));
        let first = zone.clone();
        let dns = Arc::new(Dns::new(
            host.clock.clone(),
            host.tasks.clone(),
            move || (*first).clone(),
            genesis.ipv4,
            genesis.mesh.ula(),
        ));
        dns.answers(config.dns_answer);
        let (outside, clock) = (host.outside.clone(), host.clock.clone());
        dns.trusts(UpstreamTrust {
            roots: Arc::new(move || outside.roots()),
            wall_ms: Arc::new(move || clock.wall_ms()),
        });
        dns.set_forwards(config.dns_forward.clone());
        let resolvers = [
            IpAddr::V4(resolver_v4(genesis.ipv4)),
            IpAddr::V6(genesis.mesh.resolver_v6()),
        ];
        let local = host.net.local_addresses().await;
        let mut own: BTreeSet<IpAddr> = local.into_iter().map(|(_, ip)| ip).collect();
        own.extend(resolvers);
        let upstream = if config.dns_upstream.is_empty() {
            let own = host.net.upstream_resolvers().await;
            own.into_iter().map(NameServer::from).collect()
        } else {
            config.dns_upstream.clone()
        };
        dns.set_upstreams(&upstream, &own.iter().copied().collect::<Vec<_>>());
        let sources: Arc<dyn Sources> = {
            let own = own.clone();
            Arc::new(move |address: IpAddr| {
                if address.is_loopback() || own.contains(&address) {
                    Class::Local
                } else {
                    Class::Other
                }
            })
        };
        let local = config.local_sources.clone();
        dns.publish(move || Served {
            zone,
            lan: None,
            sources: Arc::new(SourceTable::from(&MemberSources {
                own,
                local,
                ..MemberSources::default()
            })),
        });
        let has_interface = config.backend != BackendChoice::None;
        let listen = if config.dns_listen.is_empty() && has_interface {
            resolvers.map(|ip| SocketAddr::new(ip, PORT)).to_vec()
        } else {
            config.dns_listen.clone()
        };
        let around = Surroundings::of(host, sources);
        let mut servers = Vec::new();
        for address in listen {
            // The resolver's addresses exist only if the kernel's tunnel
            // outlived the last run.
            match DnsServer::start(dns.clone(), &around, &[address], Presence::Present) {
                Ok(server) => servers.push(server),
                Err(error) => tracing::warn!(%error, "no names are answered there yet"),
            }
        }
        Self { dns, servers }
    }

    /// Gives its sockets back.
    async fn end(self) {
        for server in self.servers {
            server.end().await;
        }
    }
}
