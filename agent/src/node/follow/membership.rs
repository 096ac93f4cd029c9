//! This node's own membership certificate: which chain TLS shows, and its
//! renewal, from half of its life on, by wall time (S19).

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use innermesh_proto::{
    codec,
    crypto::Sealed,
    id::NodeId,
    ledger::{Content, Outcome, Refusal, State},
    limits,
    message::{Joined, Renew},
    rpc::{Failure, method},
};
use tokio::sync::Notify;

use crate::{
    gossip::Gossip,
    host::{Host, keys::NodeKey, state_folder},
    ledger::{
        Ledger,
        client::{Client, RequestError},
    },
    node::{
        build_error::BuildError,
        follow::kept::KeptWriter,
        shared::{handles::Handles, issuers},
    },
    quic::{CallError, DialError, Transport},
    tls::{Chain, MeshTls, TlsError},
};

/// How often it is looked whether to renew: many short looks and not one long
/// timer, so that a machine that slept recovers by itself.
const LOOK: Duration = Duration::from_secs(60);
/// How long a renewal may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait after one that failed: it doubles from one to the other,
/// as most causes, such as a clock that was just set, are gone soon.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// How long a CA node that is to go may take to hand the lead over.
const HANDED_OVER: Duration = Duration::from_secs(2);

/// What others may ask of the renewal, and see of it.
#[derive(Default)]
pub(crate) struct Membership {
    /// Renew now: a peer found the certificate expired.
    pub wanted: Notify,
    /// Members that have this node's membership as revoked.
    pub turned_away: Mutex<BTreeSet<NodeId>>,
    /// Why the last renewal failed, if it did.
    pub failure: Mutex<Option<String>>,
}

impl Membership {
    /// Notes whether `member` let this node in.
    pub fn note(&self, member: NodeId, turned_away: bool) {
        let mut all = self.turned_away.lock().unwrap_or_else(|e| e.into_inner());
        if turned_away {
            all.insert(member)
        } else {
            all.remove(&member)
        };
    }
}

/// TLS with the newest certificate that the ledger has for this node.
pub(crate) async fn tls(
    state: &State,
    key: &Arc<dyn NodeKey>,
    stamp_ms: &Arc<AtomicU64>,
    host: &Host,
) -> Result<MeshTls, BuildError> {
    let Some(chain) = chain(state, key) else {
        let room = state_folder::make_room(&*host.disk).await;
        return Err(BuildError::NotMember(room));
    };
    Ok(MeshTls::member(
        &chain,
        key.clone(),
        stamp_ms.clone(),
        host.keys.clone(),
    )?)
}

fn chain(state: &State, key: &Arc<dyn NodeKey>) -> Option<Chain> {
    let (_, member) = state.member_by_key(&key.public())?;
    let issued = state.certificates.get(&member.certificate?)?;
    Some(Chain {
        leaf: issued.der.to_vec(),
        issuer: state.issuer_of(issued)?.der().to_vec(),
        root: state.root.der().to_vec(),
    })
}

/// Keeps this node's membership certificate good.
pub(crate) struct MembershipKeeper {
    host: Host,
    me: NodeId,
    key: Arc<dyn NodeKey>,
    ledger: Ledger,
    client: Client,
    transport: Transport,
    gossip: Gossip,
    /// The newest ledger stamp, for TLS.
    stamp_ms: Arc<AtomicU64>,
    membership: Arc<Membership>,
}

impl MembershipKeeper {
    pub fn new(node: &Handles, stamp_ms: Arc<AtomicU64>, membership: Arc<Membership>) -> Self {
        Self {
            host: node.host.clone(),
            me: node.me,
            key: node.key.clone(),
            ledger: node.ledger.clone(),
            client: node.client.clone(),
            transport: node.transport.clone(),
            gossip: node.gossip.clone(),
            stamp_ms,
            membership,
        }
    }

    /// Renews in time, and shows each new certificate, for as long as the agent runs.
    pub async fn run(self: Arc<Self>) {
        let mut kept = KeptWriter::new(&self.host, &self.ledger, self.key.public());
        let mut states = self.ledger.subscribe();
        let mut shown = chain(&states.borrow_and_update(), &self.key);
        let mut not_before = self.host.clock.now();
        let mut pause = RETRY_MIN;
        let mut loose = HANDED_OVER;
        loop {
            let clock = self.host.clock.clone();
            kept.keep().await;
            let expired = tokio::select! {
                changed = states.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let newest = chain(&states.borrow_and_update(), &self.key);
                    if newest != shown {
                        shown = newest;
                        if let Some(chain) = &shown {
                            self.show(chain);
                        }
                    }
                    if !self.issuer_is_leaving() {
                        continue;
                    }
                    false
                }
                () = self.membership.wanted.notified() => true,
                () = clock.sleep(LOOK.min(pause)) => false,
            };
            let now = self.host.clock.now();
            if now < not_before || !(expired || self.is_due() || self.issuer_is_leaving()) {
                continue;
            }
            let failure = self
                .renew(expired)
                .await
                .err()
                .map(|error| error.to_string());
            if let Some(error) = &failure {
                tracing::warn!(%error, "the membership certificate could not be renewed; trying again");
                not_before = self.host.clock.now() + pause;
                pause = RETRY_MAX.min(pause * 2);
            } else {
                pause = RETRY_MIN;
                // The issuer that is to go signed again: its CA node is yet to hand
                // the lead over.
                if self.issuer_is_leaving() {
                    not_before = self.host.clock.now() + loose;
                    loose = LOOK.min(loose * 2);
                } else {
                    loose = HANDED_OVER;
                }
            }
            *self
                .membership
                .failure
                .lock()
                .unwrap_or_else(|e| e.into_inner()) = failure;
        }
    }

    /// Whether half of the certificate's life is over, by this machine's clock.
    fn is_due(&self) -> bool {
        let state = self.ledger.state();
        let member = state.members.get(&self.me);
        let issued = member.and_then(|member| state.certificates.get(&member.certificate?));
        issued.is_some_and(|issued| {
            let half = issued.not_before_ms / 2 + issued.not_after_ms / 2;
            self.host.clock.wall_ms() >= half
        })
    }

    /// Whether the issuer of the certificate was revoked, or is about to be with
    /// its CA node while another could sign.
    fn issuer_is_leaving(&self) -> bool {
        let state = self.ledger.state();
        let own = state.members.get(&self.me);
        let issued = own.and_then(|own| {
            let serial = own.certificate?;
            Some((serial, state.certificates.get(&serial)?))
        });
        issued.is_some_and(|(serial, issued)| {
            let issuer = state.issuers.get(&issued.issuer);
            state.is_revoked(&serial, issued)
                || issuer.is_some_and(|issuer| issuers::is_leaving(&state, self.me, issuer))
        })
    }

    async fn renew(&self, expired: bool) -> Result<(), RenewError> {
        if expired {
            let request = self.client.request(&Content::Renew);
            return self.renew_as_stranger(&request).await;
        }
        self.client.ask(&Content::Renew, PATIENCE).await?;
        Ok(())
    }

    /// Whether some peer doesn't know this node as a member any more. Whoever is
    /// none can't ask otherwise.
    pub async fn is_forgotten(&self) -> bool {
        let request = self.client.request(&Content::Renew);
        let renewed = self.renew_as_stranger(&request).await;
        matches!(renewed, Err(RenewError::Forgotten))
    }

    /// Peers whose ledger is further on find the certificate expired: it is
    /// renewed over a connection that shows none.
    async fn renew_as_stranger(&self, request: &Sealed) -> Result<(), RenewError> {
        let state = self.ledger.state();
        let tls = tls(&state, &self.key, &self.stamp_ms, &self.host).await?;
        let client = tls.client_without_certificate()?;
        let body = codec::encode(&Renew {
            request: request.clone(),
        });
        let mut why = RenewError::NoAddress;
        let mut addresses: Vec<SocketAddr> = self.transport.paths().into_values().collect();
        addresses.extend(self.gossip.read(|table| {
            let bodies = table.iter().filter_map(|(_, known)| known.body.as_ref());
            let announced = bodies.flat_map(|body| body.announcement.quic.iter().copied());
            announced.collect::<Vec<_>>()
        }));
        for address in &addresses {
            let channel = match self
                .transport
                .dial_unregistered(*address, Some(client.clone()))
                .await
            {
                Ok(channel) => channel,
                Err(error) => {
                    why = error.into();
                    continue;
                }
            };
            let answer = channel.call(method::RENEW, body.clone(), PATIENCE).await;
            if matches!(answer, Err(CallError::Failed(Failure::NotMember))) {
                return Err(RenewError::Forgotten);
            }
            let joined = answer.map_err(RenewError::from).and_then(|bytes| {
                codec::decode::<Joined>(&bytes, limits::RPC_BYTES).map_err(RenewError::from)
            });
            match joined {
                Err(error) => why = error,
                Ok(Joined {
                    outcome: Outcome::Refused(refusal),
                    ..
                }) => return Err(refusal.into()),
                Ok(joined) => {
                    self.show(&Chain {
                        leaf: joined.leaf,
                        issuer: joined.issuer,
                        root: state.root.der().to_vec(),
                    });
                    return Ok(());
                }
            }
        }
        Err(why)
    }

    fn show(&self, chain: &Chain) {
        let tls = MeshTls::member(
            chain,
            self.key.clone(),
            self.stamp_ms.clone(),
            self.host.keys.clone(),
        );
        let configs = tls.and_then(|tls| Ok((tls.server()?, tls.client()?)));
        match configs {
            Ok((server, client)) => self.transport.set_tls(server, client),
            Err(error) => {
                tracing::error!(%error, "the renewed membership certificate can't be used")
            }
        }
    }
}

/// Why the certificate isn't renewed. It stands as it was.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    /// A peer doesn't know this node as a member.
    #[error("a peer doesn't know this machine as a member any more")]
    Forgotten,
    /// The ledger said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The ledger didn't take it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// There is nobody to ask.
    #[error("no address of a member is known")]
    NoAddress,
    /// What is shown can't be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// This node has no certificate to begin with.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A peer can't be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A peer didn't do it.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A peer's answer can't be read.
    #[error(transparent)]
    Answer(#[from] codec::CodecError),
}
