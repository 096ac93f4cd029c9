//! Joining a mesh with a token. The token's key signs for this machine's key
//! within this very TLS session; the whole ledger is fetched and checked from
//! its genesis before anything is kept.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use innermesh_proto::{
    crypto::Sealed,
    ledger::{
        Author, Content, Outcome, Refusal, Request, RequestId, State,
        request::{Join, KeyedJoin},
    },
    limits,
    message::{JoinHello, JoinQuery, Joined},
    name::Label,
    rpc::method,
    tunnel::TunnelKey,
};

use super::{
    fetch::Place,
    join_error::{JoinError, JoinReport, report},
    seed::{self, STEP},
    token::Token,
};
use crate::{
    host::{Host, key_files as keys, keys::NodeKey},
    quic::{Channel, Transport},
    tls::MeshTls,
    tunnel,
};

/// How long the join itself may take: the seed may have to reach the leader.
const DECISION: Duration = Duration::from_secs(20);
/// How long the request is good for, in milliseconds of ledger time.
const LIFETIME_MS: u64 = limits::REQUEST_LIFETIME_MS / 2;

#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// A member's address: `host`, `host:port`, `[v6]:port`, or the URL of a lane.
    pub seed: String,
    pub token: String,
    /// The name that this machine wants.
    pub name: Label,
    /// The tunnel's interface: routes on it don't clash with the overlay.
    pub interface: String,
}

/// Joins. The ledger is written last: until then this machine is in no mesh,
/// and joining can be tried again with the same token.
///
/// # Errors
/// [`JoinError`].
#[tracing::instrument(name = "join", skip_all, fields(seed = %options.seed, node = %options.name))]
pub async fn join(host: &Host, options: JoinOptions) -> Result<JoinReport, JoinError> {
    seed::check_free(host).await?;
    let token = Token::parse(&options.token)?;
    let identity = keys::identity_or_new(host).await?;
    let stamp = Arc::new(AtomicU64::new(0));
    let tls = MeshTls::joining(token.mesh, stamp.clone(), host.keys.clone());
    let transport = seed::open(host, &identity, &tls)?;
    let joined = with_seed(host, &options, &token, &identity, &transport).await;
    transport.close().await;
    joined
}

async fn with_seed(
    host: &Host,
    options: &JoinOptions,
    token: &Token,
    identity: &Arc<dyn NodeKey>,
    transport: &Transport,
) -> Result<JoinReport, JoinError> {
    let channel = seed::connect(host, &options.seed, &token.addresses(), transport).await?;
    let hello: JoinHello = seed::ask(&channel, method::JOIN, &JoinQuery::Hello, STEP).await?;
    let genesis = State::genesis(&hello.genesis, &*host.keys)
        .map_err(|e| JoinError::Seeded(e.to_string()))?;
    if genesis.mesh != token.mesh {
        return Err(JoinError::OtherMesh(options.seed.clone()));
    }
    seed::check_clash(host, &genesis, &options.interface).await?;
    let asking = TokenHolder {
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

/// How often a new WireGuard key is made where somebody has the first one.
const KEYS_TRIED: u32 = 2;

/// A machine with a token, and the seed that it asks.
struct TokenHolder<'a> {
    host: &'a Host,
    options: &'a JoinOptions,
    token: &'a Token,
    identity: &'a Arc<dyn NodeKey>,
    channel: &'a Channel,
    now_ms: u64,
}

impl TokenHolder<'_> {
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
        seed::ask(self.channel, method::JOIN, &query, DECISION).await
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

/// Where to start from when no peer is known: who answered, then those that
/// the token names.
fn seeds(remote: SocketAddr, token: &Token) -> Vec<SocketAddr> {
    let mut seeds: Vec<SocketAddr> = std::iter::once(remote)
        .chain(token.addresses().into_iter().filter(|seed| *seed != remote))
        .collect();
    seeds.truncate(limits::ENDPOINTS);
    seeds
}
