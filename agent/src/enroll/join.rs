//! Joining a mesh with a token. The token's key signs for this machine's key
//! within this very TLS session; the whole ledger is fetched and checked from
//! its genesis before anything is kept.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_proto::{
    admission::Ending,
    codec,
    crypto::{Hash, PublicKey, Sealed},
    id::{MeshId, NodeId, resolver_v4},
    ledger::{
        Author, Content, Outcome, Position, Refusal, Request, RequestId, SignedGenesis, State,
        request::{Join, KeyedJoin},
    },
    limits,
    message::{Batches, JoinHello, JoinQuery, Joined, LedgerQuery},
    name::{Label, MeshDomain},
    rpc::{Failure, method},
    tunnel::TunnelKey,
    view::MeshView,
};
use ipnet::IpNet;

use super::token::{Token, TokenError};
use crate::{
    host::{
        Host,
        key_files::{self as keys, KeyFileError},
        keys::NodeKey,
        state_folder,
    },
    ledger::{
        file::{self, FileError, LEDGER},
        note_gone,
        start::{self, AskError, Start, Wanted},
    },
    quic::{CallError, Channel, Membership, MembershipCheck, Settings, Transport, TransportError},
    tls::{Chain, MeshTls, TlsError},
    tunnel,
};

/// The port of agents, unless another is given.
pub const DEFAULT_PORT: u16 = 51819;
/// How long one step with a seed may take.
pub(super) const STEP: Duration = Duration::from_secs(10);
/// How long the join itself may take: the seed may have to reach the leader.
const DECISION: Duration = Duration::from_secs(20);
/// How long the request is good for, in milliseconds of ledger time.
const LIFETIME_MS: u64 = limits::REQUEST_LIFETIME_MS / 2;

/// How to join.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// A member's address: `host`, `host:port`, `[v6]:port`.
    pub seed: String,
    /// The token.
    pub token: String,
    /// The name that this machine wants.
    pub name: Label,
    /// The tunnel's interface: routes on it don't clash with the overlay.
    pub interface: String,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct JoinReport {
    /// The mesh.
    pub mesh: MeshId,
    /// The domain of its names.
    pub domain: MeshDomain,
    /// This machine's name.
    pub name: Label,
    /// Its overlay addresses.
    pub addresses: Vec<IpAddr>,
    /// Where the mesh's names are answered.
    pub resolver: SocketAddr,
}

/// Why this machine did not join. Unless said otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is in a mesh.
    #[error("this machine is in a mesh already; use another --dir, or move {0} away")]
    Exists(String),
    /// It was in one, and left it.
    #[error("{said}; move {folder} away first, or use another --dir")]
    Left {
        /// What its folder says.
        said: String,
        /// The folder.
        folder: String,
    },
    /// Not a token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Not a host and port.
    #[error("\"{0}\" is not an address: give a host name or address, with :PORT if it isn't 51819")]
    Seed(String),
    /// The name of the seed has no address.
    #[error("{0} can't be resolved: {1}")]
    Resolve(String, std::io::Error),
    /// None of the addresses answered as an agent of the token's mesh.
    #[error(
        "no agent of this mesh answers at {seed}: {why}; is the agent running there, and UDP port {port} open?"
    )]
    Unreachable {
        /// What was asked for.
        seed: String,
        /// Its port.
        port: u16,
        /// What was heard.
        why: String,
    },
    /// Another mesh answered.
    #[error(
        "{0} belongs to another mesh than the token; ask an admin of the right mesh for the address"
    )]
    OtherMesh(String),
    /// The overlay is in use here.
    #[error(
        "the mesh's overlay {0} clashes with {1}, which this machine has already: renumber that \
         network, or move this machine out of it"
    )]
    Clash(IpNet, String),
    /// A machine without a token wasn't let in.
    #[error("{0}")]
    NotLetIn(#[from] Ending),
    /// It was let in by somebody who wasn't told the code.
    #[error(
        "whoever let this machine in was not told its code: somebody is in between. Nothing was \
         kept; ask through another member or over another network"
    )]
    InBetween,
    /// The mesh said no.
    #[error("the mesh refused: {0}")]
    Refused(String),
    /// Somebody has each new WireGuard key of this machine before it.
    #[error(
        "another node had this machine's new WireGuard key written down as its own, twice: somebody \
         at or before the seed is in the way. Nothing was spent; join through another seed"
    )]
    KeyTaken,
    /// An older seed can't read what it is asked.
    #[error(
        "this seed can't read what this machine asks; update the agent there, or join through \
         another member"
    )]
    NotRead,
    /// What the seed says isn't right.
    #[error("the seed's answer is not right: {0}; nothing of it was kept")]
    Seeded(String),
    /// The seed's ledger lacks what the inviter knew.
    #[error(
        "this seed's ledger is not the one that the inviter knew; nothing of it was kept. Try another seed"
    )]
    Stale,
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The local socket.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The disk.
    #[error("the state folder can't be written: {0}")]
    Io(#[from] std::io::Error),
    /// The ledger.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Joins. The ledger is written last: until then this machine is in no mesh,
/// and joining can be tried again with the same token.
///
/// # Errors
/// [`JoinError`].
#[tracing::instrument(name = "join", skip_all, fields(seed = %options.seed, node = %options.name))]
pub async fn join(host: &Host, options: JoinOptions) -> Result<JoinReport, JoinError> {
    check_free(host).await?;
    let token = Token::parse(&options.token)?;
    let identity = keys::identity_or_new(host).await?;
    let stamp = Arc::new(AtomicU64::new(0));
    let tls = MeshTls::joining(token.mesh, stamp.clone(), host.keys.clone());
    let transport = open(host, &identity, &tls)?;
    let joined = with_seed(host, &options, &token, &identity, &transport).await;
    transport.close().await;
    joined
}

/// Whether this machine is in no mesh yet.
pub(super) async fn check_free(host: &Host) -> Result<(), JoinError> {
    if host.disk.read(LEDGER.as_ref()).await?.is_some() {
        let folder = host.disk.root().display().to_string();
        return Err(match state_folder::left(&*host.disk).await? {
            Some(said) => JoinError::Left { said, folder },
            None => JoinError::Exists(folder),
        });
    }
    Ok(())
}

/// What a machine that is no member yet dials from.
pub(super) fn open(
    host: &Host,
    identity: &Arc<dyn NodeKey>,
    tls: &MeshTls,
) -> Result<Transport, JoinError> {
    Ok(Transport::open(
        host,
        Settings {
            me: identity.public().node_id(),
            listen: SocketAddr::from(([0u16; 8], 0)),
            server: None,
            client: tls.client()?,
            membership: Arc::new(Nobody),
            open_to_strangers: Default::default(),
        },
    )?)
}

async fn with_seed(
    host: &Host,
    options: &JoinOptions,
    token: &Token,
    identity: &Arc<dyn NodeKey>,
    transport: &Transport,
) -> Result<JoinReport, JoinError> {
    let channel = connect(host, &options.seed, transport).await?;
    let hello: JoinHello = ask(&channel, method::JOIN, &JoinQuery::Hello, STEP).await?;
    let genesis = State::genesis(&hello.genesis, &*host.keys)
        .map_err(|e| JoinError::Seeded(e.to_string()))?;
    if genesis.mesh != token.mesh {
        return Err(JoinError::OtherMesh(options.seed.clone()));
    }
    check_clash(host, &genesis, &options.interface).await?;
    let asking = Asking {
        host,
        options,
        token,
        identity,
        channel: &channel,
        now_ms: hello.now_ms,
    };
    let joined = asking.join().await?;
    if let Outcome::Refused(refusal) = joined.outcome {
        return Err(JoinError::Refused(refusal.to_string()));
    }
    let remote = channel.remote();
    drop(channel);

    let at = Place {
        transport,
        seed: &options.seed,
        remote,
    };
    let known = token.stated_grant()?.position;
    let ledger = at
        .fetch(host, identity, &hello.genesis, joined, &known)
        .await?;
    ledger.check(&known, &identity.public())?;
    ledger
        .store(host, &hello.genesis, &seeds(remote, token))
        .await?;
    report(&ledger.state, &identity.public())
}

/// Ranges that this machine has already end it before anything is spent.
pub(super) async fn check_clash(
    host: &Host,
    genesis: &State,
    interface: &str,
) -> Result<(), JoinError> {
    for net in [IpNet::V4(genesis.ipv4), IpNet::V6(genesis.mesh.ula())] {
        if let Some(clash) = host.net.clash(net, interface).await {
            return Err(JoinError::Clash(net, clash));
        }
    }
    Ok(())
}

/// Connects to the first of the seed's addresses that answers.
pub(super) async fn connect(
    host: &Host,
    seed: &str,
    transport: &Transport,
) -> Result<Channel, JoinError> {
    let (name, port) = parse_seed(seed)?;
    let addresses = host
        .net
        .resolve(&name, port)
        .await
        .map_err(|e| JoinError::Resolve(name.clone(), e))?;
    let mut why = "it has no address".to_string();
    for address in addresses {
        match transport.dial_unregistered(address, None).await {
            Ok(channel) => return Ok(channel),
            Err(error) => why = error.to_string(),
        }
    }
    Err(unreachable(seed, &why))
}

pub(super) fn unreachable(seed: &str, why: &str) -> JoinError {
    let port = parse_seed(seed).map_or(DEFAULT_PORT, |(_, port)| port);
    JoinError::Unreachable {
        seed: seed.to_string(),
        port,
        why: why.to_string(),
    }
}

/// Host and port of `host`, `host:port`, `v6`, `[v6]` or `[v6]:port`.
fn parse_seed(seed: &str) -> Result<(String, u16), JoinError> {
    let bad = || JoinError::Seed(seed.chars().take(200).collect());
    if let Ok(ip) = seed.parse::<IpAddr>() {
        return Ok((ip.to_string(), DEFAULT_PORT));
    }
    if let Ok(address) = seed.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), address.port()));
    }
    let (host, port) = match seed.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
        None => (seed, DEFAULT_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let good = !host.is_empty()
        && host.len() <= 253
        && !host.contains(|c: char| c.is_whitespace() || c == '/');
    if good && port != 0 {
        Ok((host.to_string(), port))
    } else {
        Err(bad())
    }
}

/// How often a new WireGuard key is made where somebody has the first one.
const KEYS_TRIED: u32 = 2;

/// A machine with a token, and the seed that it asks.
struct Asking<'a> {
    host: &'a Host,
    options: &'a JoinOptions,
    token: &'a Token,
    identity: &'a Arc<dyn NodeKey>,
    channel: &'a Channel,
    now_ms: u64,
}

impl Asking<'_> {
    /// Joins with its WireGuard key. A mesh that doesn't know such requests yet
    /// is asked without, and for the key later.
    async fn join(&self) -> Result<Joined, JoinError> {
        for _ in 0..KEYS_TRIED {
            let private = keys::wireguard(self.host).await?;
            let tunnel = tunnel::public_key(&private);
            match self.ask(Some(tunnel)).await {
                Ok(Joined {
                    outcome: Outcome::Refused(Refusal::TunnelKey),
                    ..
                }) => {
                    keys::new_wireguard(self.host).await?;
                }
                Ok(Joined {
                    outcome: Outcome::Refused(Refusal::NotUnderstood),
                    ..
                })
                | Err(JoinError::NotRead | JoinError::Seeded(_)) => return self.ask(None).await,
                other => return other,
            }
        }
        Err(JoinError::KeyTaken)
    }

    async fn ask(&self, tunnel: Option<TunnelKey>) -> Result<Joined, JoinError> {
        let query = JoinQuery::Join(self.request(tunnel));
        ask(self.channel, method::JOIN, &query, DECISION).await
    }

    fn request(&self, tunnel: Option<TunnelKey>) -> Sealed {
        let (mesh, keys) = (self.token.mesh, &*self.host.keys);
        let signer = self.token.signer(keys);
        let exporter = self.channel.exporter();
        let message = match &tunnel {
            Some(key) => KeyedJoin::possession_message(&mesh, &signer.public(), &exporter, key),
            None => Join::possession_message(&mesh, &signer.public(), &exporter),
        };
        let join = Join {
            node: self.identity.public(),
            name: self.options.name.clone(),
            exporter,
            grant: self.token.grant.clone(),
            possession: self.identity.sign(&message),
        };
        let content = match tunnel {
            Some(tunnel) => Content::KeyedJoin(Box::new(KeyedJoin { join, tunnel })),
            None => Content::Join(Box::new(join)),
        };
        let mut id = [0; 16];
        keys.random(&mut id);
        Request::seal(
            &*signer,
            mesh,
            RequestId(id),
            Author::Token(signer.public()),
            self.now_ms.saturating_add(LIFETIME_MS),
            &content,
        )
    }
}

pub(super) async fn ask<Q: serde::Serialize, A: serde::de::DeserializeOwned>(
    channel: &Channel,
    method: u16,
    query: &Q,
    patience: Duration,
) -> Result<A, JoinError> {
    let answer = channel
        .call(method, codec::encode(query), patience)
        .await
        .map_err(|error| match error {
            CallError::Failed(Failure::Refused(why) | Failure::Unavailable(why)) => {
                JoinError::Refused(why)
            }
            CallError::Failed(Failure::Malformed) => JoinError::NotRead,
            error => JoinError::Seeded(error.to_string()),
        })?;
    codec::decode(&answer, limits::RPC_BYTES).map_err(|e| JoinError::Seeded(e.to_string()))
}

/// Where to start from when no peer is known: who answered, then those that
/// the token names.
fn seeds(remote: SocketAddr, token: &Token) -> Vec<SocketAddr> {
    let named = token.seeds.iter().filter_map(|seed| seed.parse().ok());
    let mut seeds: Vec<SocketAddr> = std::iter::once(remote).chain(named).collect();
    seeds.truncate(limits::ENDPOINTS);
    seeds
}

/// Where a member is.
pub(super) struct Place<'p> {
    pub transport: &'p Transport,
    pub seed: &'p str,
    pub remote: SocketAddr,
}

impl Place<'_> {
    /// Connects as the member that this machine is by now, and fetches the
    /// ledger, in which the inviter's place is to be `known`.
    pub async fn fetch(
        &self,
        host: &Host,
        identity: &Arc<dyn NodeKey>,
        signed: &SignedGenesis,
        joined: Joined,
        known: &Position,
    ) -> Result<Fetched, JoinError> {
        let genesis =
            State::genesis(signed, &*host.keys).map_err(|e| JoinError::Seeded(e.to_string()))?;
        let chain = Chain {
            leaf: joined.leaf,
            issuer: joined.issuer,
            root: genesis.root.der().to_vec(),
        };
        let stamp = Arc::new(AtomicU64::new(genesis.stamp_ms));
        let member = MeshTls::member(&chain, identity.clone(), stamp, host.keys.clone())?;
        let channel = self
            .transport
            .dial_unregistered(self.remote, Some(member.client()?))
            .await
            .map_err(|e| unreachable(self.seed, &e.to_string()))?;
        fetch(host, &channel, signed, genesis, known).await
    }
}

/// A ledger on its way to the disk.
pub(super) struct Fetched {
    pub state: State,
    /// The state that it begins with, if that isn't the genesis'.
    start: Option<Start>,
    batches: Vec<innermesh_proto::ledger::Batch>,
    /// After which batch it begins, and the hashes from that one on.
    base: u64,
    hashes: Vec<Hash>,
}

/// Fetches and checks the ledger: a state that the rosters since the genesis
/// vouch for, where that spares enough batches, and every batch from there on.
/// One that isn't later than what the inviter knew is preferred.
pub(super) async fn fetch(
    host: &Host,
    channel: &Channel,
    genesis: &SignedGenesis,
    state: State,
    known: &Position,
) -> Result<Fetched, JoinError> {
    let mut fetched = Fetched {
        base: 0,
        hashes: vec![genesis.position().hash],
        state,
        start: None,
        batches: Vec::new(),
    };
    let spares = limits::SNAPSHOT_SPARES;
    fetched
        .begin(host, channel, genesis, known.index, spares)
        .await?;
    'ranges: loop {
        let from = fetched.state.position.index + 1;
        let range: Batches = ask(channel, method::LEDGER, &LedgerQuery { from }, STEP).await?;
        if range.batches.is_empty() {
            // The seed's own ledger may begin with a state.
            if from == 1 {
                for most in [known.index, u64::MAX] {
                    if fetched.begin(host, channel, genesis, most, 1).await? {
                        continue 'ranges;
                    }
                }
            }
            return Ok(fetched);
        }
        for batch in range.batches {
            let (next, _) = fetched
                .state
                .next(&batch, &*host.keys)
                .map_err(|e| JoinError::Seeded(e.to_string()))?;
            fetched.hashes.push(next.position.hash);
            fetched.state = next;
            fetched.batches.push(batch);
        }
    }
}

struct Seed<'c>(&'c Channel);

#[async_trait]
impl start::Ask for Seed<'_> {
    async fn ask(&self, method: u16, body: Vec<u8>) -> Result<Vec<u8>, AskError> {
        let answer = self.0.call(method, body, STEP).await;
        answer.map_err(|error| AskError::Failed(error.to_string()))
    }
}

impl Fetched {
    /// Begins with the seed's state, if it has one that spares so many batches.
    async fn begin(
        &mut self,
        host: &Host,
        channel: &Channel,
        genesis: &SignedGenesis,
        most: u64,
        spared: u64,
    ) -> Result<bool, JoinError> {
        let seed = Seed(channel);
        let wanted = Wanted {
            genesis,
            least: spared,
            most,
        };
        // A seed of another version has none.
        let offer = start::ask(&seed, &wanted, &*host.keys).await;
        let Some(offer) = offer.ok().flatten() else {
            return Ok(false);
        };
        let Ok(start) = start::fetch(&seed, &*host.clock, offer).await else {
            return Ok(false);
        };
        self.state = start
            .open(genesis, &*host.keys)
            .map_err(|e| JoinError::Seeded(e.to_string()))?;
        self.base = self.state.position.index;
        self.hashes = vec![self.state.position.hash];
        self.start = Some(start);
        Ok(true)
    }

    /// It must know this machine, and what the inviter knew: a state that is
    /// later than that is the rosters' own word for it.
    pub fn check(&self, known: &Position, key: &PublicKey) -> Result<(), JoinError> {
        if let Some(at) = known.index.checked_sub(self.base) {
            let at = usize::try_from(at).ok();
            let held = at.and_then(|at| self.hashes.get(at));
            if held != Some(&known.hash) {
                return Err(JoinError::Stale);
            }
        }
        self.lists(key)
    }

    /// It must know this machine.
    pub fn lists(&self, key: &PublicKey) -> Result<(), JoinError> {
        match self.state.member_by_key(key) {
            Some(_) => Ok(()),
            None => Err(JoinError::Seeded(
                "its ledger doesn't list this machine".into(),
            )),
        }
    }

    /// Keeps it, last of all: until then this machine is in no mesh.
    pub async fn store(
        &self,
        host: &Host,
        genesis: &SignedGenesis,
        seeds: &[SocketAddr],
    ) -> Result<(), JoinError> {
        keys::wireguard(host).await?;
        state_folder::store_seeds(&*host.disk, seeds).await?;
        self.store_ledger(host, genesis).await
    }

    /// Puts it in the place of a damaged ledger, of which a copy is kept.
    pub async fn replace(
        &self,
        host: &Host,
        genesis: &SignedGenesis,
        me: NodeId,
    ) -> Result<(), JoinError> {
        file::put_aside(&*host.disk).await;
        note_gone(&*host.disk, &self.state, me).await?;
        self.store_ledger(host, genesis).await
    }

    async fn store_ledger(&self, host: &Host, genesis: &SignedGenesis) -> Result<(), JoinError> {
        if let Some(start) = &self.start {
            start::store(&*host.disk, start).await?;
        }
        let bytes = file::encode(genesis, &self.batches);
        Ok(host.disk.replace(Path::new(LEDGER), &bytes).await?)
    }
}

pub(super) fn report(state: &State, key: &PublicKey) -> Result<JoinReport, JoinError> {
    let (_, member) = state
        .member_by_key(key)
        .ok_or_else(|| JoinError::Seeded("its ledger doesn't list this machine".into()))?;
    Ok(JoinReport {
        mesh: state.mesh,
        domain: state.domain.clone(),
        name: member.name.clone(),
        addresses: MeshView::addresses(member),
        resolver: SocketAddr::new(resolver_v4(state.ipv4).into(), 53),
    })
}

/// While joining, nobody is a member: there is no ledger to say so.
pub(super) struct Nobody;

impl MembershipCheck for Nobody {
    fn check(&self, _: &PublicKey) -> Membership {
        Membership::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_host_with_a_port_or_without() {
        let parsed = |seed: &str| {
            parse_seed(seed)
                .map(|(host, port)| format!("{host} {port}"))
                .ok()
        };
        assert_eq!(parsed("a.example").as_deref(), Some("a.example 51819"));
        assert_eq!(parsed("a.example:7").as_deref(), Some("a.example 7"));
        assert_eq!(parsed("192.0.2.1").as_deref(), Some("192.0.2.1 51819"));
        assert_eq!(parsed("2001:db8::1").as_deref(), Some("2001:db8::1 51819"));
        assert_eq!(parsed("[2001:db8::1]:9").as_deref(), Some("2001:db8::1 9"));
        for bad in ["", ":1", "a:b", "a b", "http://x/", "a:0", "a:70000"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
