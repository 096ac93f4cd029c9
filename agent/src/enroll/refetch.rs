//! A member whose ledger's files lost what made it one fetches the ledger again.
//! It shows the certificate that it kept, or has another issued as a stranger
//! does whose own has ended. Whoever answers is believed in nothing: all is
//! proved from the genesis on, must list this node, and must reach as far as
//! this node had come. Those who decided are asked first, several at the same
//! time, each for a bounded time.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use innermesh_proto::{
    codec,
    endpoint::{self, is_plausible},
    id::NodeId,
    ledger::{
        Author, Content, Outcome, Position, Refusal, Request, RequestId, SignedGenesis, State,
    },
    limits,
    message::{JoinHello, JoinQuery, Joined, Renew},
    rpc::{Failure, method},
};
use tokio::sync::watch;

use super::{
    fetch::{Fetched, fetch},
    join_error::JoinError,
    kept::Kept,
    seed::{self, STEP},
};
use crate::{
    gossip::known,
    host::{Host, keys::NodeKey, state_folder, within},
    ledger::Stored,
    quic::{CallError, Channel, DialError, Transport},
    tls::{Chain, ClientTls, MeshTls, TlsError},
};

/// Peers that are asked at the same time.
const SOURCES: usize = 3;
/// How long nothing may come of those before one more is asked.
const HEDGE: Duration = Duration::from_secs(1);
/// Between two rounds in which nobody could help; it doubles.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a renewal may take: the peer may have to reach the leader.
const DECISION: Duration = Duration::from_secs(20);

/// What is to be fetched, and what of it is known.
#[derive(Clone, Debug)]
pub struct Lacking {
    pub genesis: SignedGenesis,
    /// What this node kept of itself.
    pub kept: Option<Kept>,
    /// How far the ledger had come here, as far as that is known.
    pub had: Position,
    /// How far what is left of it leads.
    pub left: u64,
}

impl Lacking {
    /// What there is to go by; none where nothing says what mesh it is.
    pub fn of(stored: Option<&Stored>, kept: Option<Kept>) -> Option<Self> {
        let genesis = match (stored, &kept) {
            (Some(stored), _) => stored.genesis().clone(),
            (None, Some(kept)) => kept.genesis.clone(),
            (None, None) => return None,
        };
        let mut had = stored.map_or(genesis.position(), Stored::reached);
        if let Some(kept) = kept.as_ref().filter(|kept| kept.position.index > had.index) {
            had = kept.position;
        }
        Some(Self {
            genesis,
            kept,
            had,
            left: stored.map_or(0, |stored| stored.state().position.index),
        })
    }
}

/// How it goes, for the person at this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefetchProgress {
    /// The last batch that this node had.
    pub had: u64,
    /// The last one that is left.
    pub left: u64,
    /// Peers that were asked in vain.
    pub failures: u32,
    /// What became of the last one.
    pub last: Option<String>,
}

impl fmt::Display for RefetchProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the ledger's files on this machine are damaged: of {} batches {} are left; fetching \
             it again from the other nodes",
            self.had, self.left
        )?;
        match &self.last {
            Some(last) => write!(f, " ({} attempts failed, the last: {last})", self.failures),
            None => Ok(()),
        }
    }
}

/// Why a peer couldn't help. Nothing was changed.
#[derive(Debug, thiserror::Error)]
enum RefetchError {
    #[error("no certificate of this machine is left")]
    NoCertificate,
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Fetch(#[from] JoinError),
    #[error(
        "it doesn't know this machine as a member: if it was evicted, `agent join` with a new \
             invite and another state folder"
    )]
    NotMember,
    #[error("the certificate couldn't be renewed: {0}")]
    Renew(#[from] CallError),
    #[error("the mesh refused to renew the certificate: {0}")]
    Refused(Refusal),
    #[error("its answer can't be read")]
    Malformed,
    #[error("its ledger is of another mesh")]
    OtherMesh,
    #[error("it took too long")]
    Slow,
}

/// Why the ledger isn't fetched again. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Unfetched {
    /// There is nobody to ask: this node was alone, or has lost the addresses too.
    #[error(
        "the ledger's files on this machine are damaged, and no address of another node is \
         known here: restore the state folder from a backup; without one, {room}, and \
         `agent join` with a new invite or make the mesh anew"
    )]
    Alone {
        /// How room is made for another state.
        room: String,
    },
    /// The transport can't be opened, or the disk can't be written.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// Fetches the ledger and writes it in place of what is there. Goes on until
/// somebody could help.
///
/// # Errors
/// [`Unfetched`].
pub async fn refetch(
    host: &Host,
    key: &Arc<dyn NodeKey>,
    lacking: &Lacking,
    told: &watch::Sender<RefetchProgress>,
) -> Result<(), Unfetched> {
    let genesis = State::genesis(&lacking.genesis, &*host.keys)
        .map_err(|error| JoinError::Seeded(error.to_string()))?;
    let stamp = Arc::new(AtomicU64::new(genesis.stamp_ms));
    let stranger = MeshTls::joining(genesis.mesh, stamp.clone(), host.keys.clone());
    let transport = seed::open(host, key, &stranger)?;
    let kept = lacking.kept.as_ref();
    let work = Refetch {
        host,
        key,
        lacking,
        transport: &transport,
        stranger: stranger.client().map_err(JoinError::from)?,
        stamp,
        chain: Mutex::new(kept.map(|kept| Chain {
            leaf: kept.leaf.clone(),
            issuer: kept.issuer.clone(),
            root: genesis.root.der().to_vec(),
        })),
        genesis,
    };
    let fetched = work.run(told).await;
    transport.close().await;
    let me = key.public().node_id();
    Ok(fetched?.replace(host, &lacking.genesis, me).await?)
}

struct Refetch<'a> {
    host: &'a Host,
    key: &'a Arc<dyn NodeKey>,
    lacking: &'a Lacking,
    transport: &'a Transport,
    stranger: Arc<ClientTls>,
    stamp: Arc<AtomicU64>,
    /// What is shown: what was kept, or what was issued instead.
    chain: Mutex<Option<Chain>>,
    genesis: State,
}

impl Refetch<'_> {
    async fn run(&self, told: &watch::Sender<RefetchProgress>) -> Result<Fetched, Unfetched> {
        let mut pause = PAUSE_MIN;
        let mut turn = 0;
        loop {
            let sources = self.sources(turn).await;
            if sources.is_empty() {
                let room = state_folder::make_room(&*self.host.disk).await;
                return Err(Unfetched::Alone { room });
            }
            if let Some(fetched) = self.round(sources, told).await {
                return Ok(fetched);
            }
            self.host.clock.sleep(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
            turn += 1;
        }
    }

    /// Whom to ask in this round: those who decided, some of the others, and
    /// where nobody else is known the addresses by which this machine joined.
    async fn sources(&self, turn: usize) -> VecDeque<Vec<SocketAddr>> {
        let disk = &*self.host.disk;
        let roster = self.lacking.kept.as_ref().map(|kept| &kept.roster);
        let empty = BTreeSet::new();
        let roster = roster.unwrap_or(&empty);
        let own = self.key.public().node_id();
        let known = known::addresses(disk).await;
        let is_other = |(node, _): &(NodeId, Vec<SocketAddr>)| *node != own;
        let (voters, others): (Vec<_>, Vec<_>) = known
            .into_iter()
            .filter(is_other)
            .partition(|(node, _)| roster.contains(node));
        let some = limits::REFETCH_SOURCES;
        let skipped = turn * some % others.len().max(1);
        let others = others.into_iter().skip(skipped).take(some);
        let seeds = state_folder::load_seeds(disk)
            .await
            .into_iter()
            .map(|seed| vec![seed]);
        let overlay = endpoint::overlay(&self.genesis);
        let plausible = |mut addresses: Vec<SocketAddr>| {
            addresses.retain(|address| is_plausible(address, &overlay, true));
            addresses.truncate(limits::DIALED_ADDRESSES);
            addresses
        };
        let nodes = voters.into_iter().chain(others);
        let nodes = nodes.map(|(_, addresses)| addresses);
        let all = nodes.chain(seeds).map(plausible);
        all.filter(|addresses| !addresses.is_empty()).collect()
    }

    async fn round(
        &self,
        mut sources: VecDeque<Vec<SocketAddr>>,
        told: &watch::Sender<RefetchProgress>,
    ) -> Option<Fetched> {
        let clock = &*self.host.clock;
        let mut running = FuturesUnordered::new();
        loop {
            if running.len() < SOURCES
                && let Some(addresses) = sources.pop_front()
            {
                let most = Duration::from_millis(limits::REFETCH_MS);
                running.push(async move {
                    let asked = within(clock, most, self.ask(&addresses)).await;
                    asked.unwrap_or(Err(RefetchError::Slow))
                });
            }
            if running.is_empty() {
                return None;
            }
            let may_hedge = running.len() < SOURCES && !sources.is_empty();
            tokio::select! {
                Some(asked) = running.next() => match asked {
                    Ok(fetched) => return Some(fetched),
                    Err(error) => failed(told, &error),
                },
                () = clock.sleep(HEDGE), if may_hedge => {}
            }
        }
    }

    /// What one peer has of the ledger, if that is enough.
    async fn ask(&self, addresses: &[SocketAddr]) -> Result<Fetched, RefetchError> {
        let channel = self.connect(addresses).await?;
        let (genesis, had) = (&self.lacking.genesis, &self.lacking.had);
        let fetched = fetch(self.host, &channel, genesis, self.genesis.clone(), had).await?;
        let newest = self.lacking.kept.as_ref().map_or(0, |kept| kept.recovery);
        match fetched.check(had, &self.key.public()) {
            // The root led the ledger on from an earlier place meanwhile.
            Err(JoinError::Stale) if fetched.state.recovery > newest => {
                fetched.lists(&self.key.public())?;
            }
            checked => checked?,
        }
        Ok(fetched)
    }

    /// Connects as a member.
    async fn connect(&self, addresses: &[SocketAddr]) -> Result<Channel, RefetchError> {
        let mut failed = RefetchError::NoCertificate;
        for address in addresses {
            let connected = match self.dial(*address).await {
                Err(RefetchError::Dial(DialError::Expired)) => self.renew_and_dial(*address).await,
                Err(RefetchError::NoCertificate) => self.renew_and_dial(*address).await,
                other => other,
            };
            match connected {
                Ok(channel) => return Ok(channel),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn dial(&self, address: SocketAddr) -> Result<Channel, RefetchError> {
        let chain = self.chain();
        let Some(chain) = chain else {
            return Err(RefetchError::NoCertificate);
        };
        let keys = self.host.keys.clone();
        let tls = MeshTls::member(&chain, self.key.clone(), self.stamp.clone(), keys)?;
        let shown = Some(tls.client()?);
        Ok(self.transport.dial_unregistered(address, shown).await?)
    }

    fn chain(&self) -> Option<Chain> {
        let chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        chain.clone()
    }

    async fn renew_and_dial(&self, address: SocketAddr) -> Result<Channel, RefetchError> {
        let before = self.chain();
        let chain = self.renew(address).await?;
        let keys = self.host.keys.clone();
        // One that doesn't fit is not taken over.
        MeshTls::member(&chain, self.key.clone(), self.stamp.clone(), keys)?;
        self.take_over(before.as_ref(), chain);
        self.dial(address).await
    }

    /// Takes a new certificate, unless another source gave one meanwhile.
    fn take_over(&self, before: Option<&Chain>, chain: Chain) {
        let mut held = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref() == before {
            *held = Some(chain);
        }
    }

    /// Has a certificate issued as one does whose own has ended.
    async fn renew(&self, address: SocketAddr) -> Result<Chain, RefetchError> {
        let shown = Some(self.stranger.clone());
        let channel = self.transport.dial_unregistered(address, shown).await?;
        let hello = codec::encode(&JoinQuery::Hello);
        let hello = channel.call(method::JOIN, hello, STEP).await?;
        let hello: JoinHello =
            codec::decode(&hello, limits::RPC_BYTES).map_err(|_| RefetchError::Malformed)?;
        if hello.genesis != self.lacking.genesis {
            return Err(RefetchError::OtherMesh);
        }
        let mut id = [0; 16];
        self.host.keys.random(&mut id);
        let request = Request::seal(
            &**self.key,
            self.genesis.mesh,
            RequestId(id),
            Author::Node(self.key.public().node_id()),
            hello.now_ms.saturating_add(limits::REQUEST_LIFETIME_MS / 2),
            &Content::Renew,
        );
        let body = codec::encode(&Renew { request });
        let answer = match channel.call(method::RENEW, body, DECISION).await {
            Err(CallError::Failed(Failure::NotMember)) => return Err(RefetchError::NotMember),
            answer => answer?,
        };
        let joined: Joined =
            codec::decode(&answer, limits::RPC_BYTES).map_err(|_| RefetchError::Malformed)?;
        match joined.outcome {
            Outcome::Refused(refusal) => Err(RefetchError::Refused(refusal)),
            _ => Ok(Chain {
                leaf: joined.leaf,
                issuer: joined.issuer,
                root: self.genesis.root.der().to_vec(),
            }),
        }
    }
}

fn failed(told: &watch::Sender<RefetchProgress>, error: &RefetchError) {
    tracing::warn!(%error, "the ledger couldn't be fetched again from a peer");
    told.send_modify(|progress| {
        progress.failures = progress.failures.saturating_add(1);
        progress.last = Some(error.to_string());
    });
}
