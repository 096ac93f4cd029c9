//! This node's own membership certificate: which chain TLS shows, and its
//! renewal, from half of its life on, by wall time (S19).

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use innermesh_proto::{
    codec,
    id::NodeId,
    ledger::{Content, Outcome, State},
    limits,
    message::{Joined, Renew},
    rpc::{Failure, method},
};
use tokio::sync::Notify;

use crate::node::BuildError;
use crate::node::Inner;
use crate::node::commands::evict;
use crate::{
    enroll::kept::Kept,
    host::{Host, Mono, keys::NodeKey},
    quic::CallError,
    tls::{Chain, MeshTls},
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

/// How often at most it is written down how far the ledger has come here.
const KEPT: Duration = Duration::from_secs(600);

/// How long a CA node that is to go may take to hand the lead over.
const HANDED_OVER: Duration = Duration::from_secs(2);

/// What others may ask of the renewal, and see of it.
#[derive(Default)]
pub struct Membership {
    /// Renew now: a peer found the certificate expired.
    pub wanted: Notify,
    /// Members that have this node's membership as revoked.
    pub turned_away: std::sync::Mutex<BTreeSet<NodeId>>,
    /// Why the last renewal failed, if it did.
    pub failure: std::sync::Mutex<Option<String>>,
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
pub fn tls(
    state: &State,
    key: &Arc<dyn NodeKey>,
    stamp_ms: &Arc<AtomicU64>,
    host: &Host,
) -> Result<MeshTls, BuildError> {
    let chain = chain(state, key)
        .ok_or_else(|| BuildError::NotMember(host.disk.root().display().to_string()))?;
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

/// Renews in time, and shows each new certificate, for as long as the agent runs.
pub async fn run(inner: Arc<Inner>) {
    let mut keeper = Keeper::default();
    let mut states = inner.ledger.subscribe();
    let mut shown = chain(&states.borrow_and_update(), &inner.key);
    let mut not_before = inner.host.clock.now();
    let mut pause = RETRY_MIN;
    let mut loose = HANDED_OVER;
    loop {
        let clock = inner.host.clock.clone();
        keeper.keep(&inner).await;
        let expired = tokio::select! {
            changed = states.changed() => {
                if changed.is_err() {
                    return;
                }
                let newest = chain(&states.borrow_and_update(), &inner.key);
                if newest != shown {
                    shown = newest;
                    if let Some(chain) = &shown {
                        show(&inner, chain);
                    }
                }
                if !hangs_loose(&inner) {
                    continue;
                }
                false
            }
            () = inner.membership.wanted.notified() => true,
            () = clock.sleep(LOOK.min(pause)) => false,
        };
        let now = inner.host.clock.now();
        if now < not_before || !(expired || is_due(&inner) || hangs_loose(&inner)) {
            continue;
        }
        let result = renew(&inner, expired).await;
        let failure = result.err();
        if let Some(error) = &failure {
            tracing::warn!(%error, "the membership certificate could not be renewed; trying again");
            not_before = inner.host.clock.now() + pause;
            pause = RETRY_MAX.min(pause * 2);
        } else {
            pause = RETRY_MIN;
            // The issuer that is to go signed again: its CA node is yet to hand
            // the lead over.
            if hangs_loose(&inner) {
                not_before = inner.host.clock.now() + loose;
                loose = LOOK.min(loose * 2);
            } else {
                loose = HANDED_OVER;
            }
        }
        *inner
            .membership
            .failure
            .lock()
            .unwrap_or_else(|e| e.into_inner()) = failure;
    }
}

/// Writes down what the ledger can be fetched with again, where its files are
/// damaged: at once when that changes, and now and then how far it has come.
#[derive(Default)]
struct Keeper {
    kept: Option<Kept>,
    next: Mono,
}

impl Keeper {
    async fn keep(&mut self, inner: &Inner) {
        let ledger = &inner.ledger;
        // What was kept before the damage says more.
        if ledger.was_damaged() && ledger.behind().is_some() {
            return;
        }
        let Some(mut now) = Kept::of(ledger.genesis(), &ledger.state(), &inner.key.public()) else {
            return;
        };
        // What isn't on this disk yet is nothing that it had.
        now.position = *ledger.durable().borrow();
        let time = inner.host.clock.now();
        let is_due = match &self.kept {
            None => true,
            Some(kept) => kept.differs(&now) || (*kept != now && time >= self.next),
        };
        if !is_due {
            return;
        }
        match now.store(&*inner.host.disk).await {
            Ok(()) => (self.kept, self.next) = (Some(now), time + KEPT),
            Err(error) => tracing::warn!(%error, "this node's own standing can't be written down"),
        }
    }
}

/// Whether half of the certificate's life is over, by this machine's clock.
fn is_due(inner: &Inner) -> bool {
    let state = inner.ledger.state();
    let member = state.members.get(&inner.me);
    let issued = member.and_then(|member| state.certificates.get(&member.certificate?));
    issued.is_some_and(|issued| {
        let half = issued.not_before_ms / 2 + issued.not_after_ms / 2;
        inner.host.clock.wall_ms() >= half
    })
}

/// Whether the issuer of the certificate was revoked, or is about to be with
/// its CA node while another could sign.
fn hangs_loose(inner: &Inner) -> bool {
    let state = inner.ledger.state();
    let me = inner.me;
    let others = |ca| {
        let mut roster = state.roster.iter();
        roster.any(|node| *node != ca && state.can_issue(*node))
    };
    let own = state.members.get(&me);
    let issued = own.and_then(|own| {
        let serial = own.certificate?;
        Some((serial, state.certificates.get(&serial)?))
    });
    issued.is_some_and(|(serial, issued)| state.is_revoked(&serial, issued))
        || state
            .proposed_evictions()
            .any(|(ca, _)| ca != me && evict::hangs_from(&state, me, ca) && others(ca))
}

async fn renew(inner: &Inner, expired: bool) -> Result<(), String> {
    let request = inner.client.request(&Content::Renew, inner.now_ms());
    if expired {
        return renew_as_stranger(inner, &request)
            .await
            .map_err(|error| error.to_string());
    }
    match inner.client.submit(&request, PATIENCE).await {
        Ok(Outcome::Done(_) | Outcome::Waiting(_)) => Ok(()),
        Ok(Outcome::Refused(refusal)) => Err(refusal.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Why a certificate couldn't be renewed as a stranger.
#[derive(Debug, thiserror::Error)]
enum StrangerError {
    /// A peer doesn't know this node as a member.
    #[error("a peer doesn't know this machine as a member any more")]
    Forgotten,
    /// Any other reason.
    #[error("{0}")]
    Other(String),
}

impl From<String> for StrangerError {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

/// Whether some peer doesn't know this node as a member any more. Whoever is
/// none can't ask otherwise.
pub async fn is_forgotten(inner: &Inner) -> bool {
    let request = inner.client.request(&Content::Renew, inner.now_ms());
    let renewed = renew_as_stranger(inner, &request).await;
    matches!(renewed, Err(StrangerError::Forgotten))
}

/// Peers whose ledger is further on find the certificate expired: it is
/// renewed over a connection that shows none.
async fn renew_as_stranger(
    inner: &Inner,
    request: &innermesh_proto::crypto::Sealed,
) -> Result<(), StrangerError> {
    let state = inner.ledger.state();
    let tls = tls(&state, &inner.key, &inner.stamp_ms, &inner.host).map_err(|e| e.to_string())?;
    let client = tls
        .client_without_certificate()
        .map_err(|e| e.to_string())?;
    let body = codec::encode(&Renew {
        request: request.clone(),
    });
    let mut why = "no address of a member is known".to_string();
    let mut addresses: Vec<SocketAddr> = inner.transport.paths().into_values().collect();
    addresses.extend(inner.gossip.read(|table| {
        let bodies = table.iter().filter_map(|(_, known)| known.body.as_ref());
        let announced = bodies.flat_map(|body| body.announcement.quic.iter().copied());
        announced.collect::<Vec<_>>()
    }));
    for address in &addresses {
        let channel = match inner
            .transport
            .dial_unregistered(*address, Some(client.clone()))
            .await
        {
            Ok(channel) => channel,
            Err(error) => {
                why = error.to_string();
                continue;
            }
        };
        let answer = channel.call(method::RENEW, body.clone(), PATIENCE).await;
        if matches!(answer, Err(CallError::Failed(Failure::NotMember))) {
            return Err(StrangerError::Forgotten);
        }
        let joined = answer.map_err(|e| e.to_string()).and_then(|bytes| {
            codec::decode::<Joined>(&bytes, limits::RPC_BYTES).map_err(|e| e.to_string())
        });
        match joined {
            Err(error) => why = error,
            Ok(Joined {
                outcome: Outcome::Refused(refusal),
                ..
            }) => return Err(refusal.to_string().into()),
            Ok(joined) => {
                show(
                    inner,
                    &Chain {
                        leaf: joined.leaf,
                        issuer: joined.issuer,
                        root: state.root.der().to_vec(),
                    },
                );
                return Ok(());
            }
        }
    }
    Err(why.into())
}

fn show(inner: &Inner, chain: &Chain) {
    let tls = MeshTls::member(
        chain,
        inner.key.clone(),
        inner.stamp_ms.clone(),
        inner.host.keys.clone(),
    );
    let configs = tls.and_then(|tls| Ok((tls.server()?, tls.client()?)));
    match configs {
        Ok((server, client)) => inner.transport.set_tls(server, client),
        Err(error) => tracing::error!(%error, "the renewed membership certificate can't be used"),
    }
}
