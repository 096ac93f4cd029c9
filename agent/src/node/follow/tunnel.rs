//! Makes the tunnel match each view, and tells what was seen of that: whether
//! the newest plan is in force, whether a peer answers, and whether a node is
//! cut off.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use innermesh_proto::{
    codec,
    id::NodeId,
    limits,
    message::{CutOff, CutOffQuery},
    rpc::method,
    tunnel::{TunnelKey, TunnelPlan},
    view::MeshView,
};
use ipnet::IpNet;

use crate::node::Inner;
use crate::node::follow::overlay;
use crate::{
    control::{
        finding::{Finding, Severity, code},
        members::{CutOffAt, CutOffSeen},
        node::TunnelPing,
    },
    host::Mono,
    tunnel::{Applied, PeerState},
};

/// How often the tunnel is held against its plan although nothing changed: an
/// interface that somebody deleted comes back.
const RECHECK: Duration = Duration::from_secs(10);
/// How soon a plan is tried again that couldn't be applied: until then somebody
/// who was evicted may have a route.
const RETRY: Duration = Duration::from_secs(1);
/// How long after news of the host's network more is gathered: what starts a
/// container comes in many pieces.
const NEWS: Duration = Duration::from_millis(100);
/// A plan that takes longer than this is told.
const SLOW: Duration = Duration::from_secs(3);
/// What helps where the device refuses the plan.
const RESTART: &str = "`systemctl restart innermesh` makes the interface anew";
/// How long a peer may take to answer through the tunnel.
const PROBE: Duration = Duration::from_secs(3);
/// Between two looks at what changes without a word.
const LOOK: Duration = Duration::from_millis(50);
/// A WireGuard session this old takes no packets any more (whitepaper §6.1).
const SESSION: Duration = Duration::from_secs(180);
/// How long a node may take to cut another off before it says that it hasn't.
const CUT_OFF: Duration = Duration::from_millis(1500);
/// How long its answer may take.
const ANSWER: Duration = Duration::from_millis(2500);

/// How far the interface is as planned.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The plan that the interface was last made equal to.
    plan: Arc<TunnelPlan>,
    /// The newest view whose plan that is.
    view: u64,
    /// Since when another plan has been waiting.
    waiting: Option<Mono>,
    /// Why it couldn't be applied.
    error: Option<String>,
}

/// Makes the tunnel match each plan, and before it what keeps all others out
/// of the overlay.
pub async fn follow(inner: Arc<Inner>) {
    let clock = inner.host.clock.clone();
    let mut views = inner.view.subscribe();
    let mut view = views.borrow_and_update().clone();
    let mut plan = Arc::new(view.tunnel_plan());
    let (mut due, mut check) = (true, true);
    let mut pause = RECHECK;
    loop {
        overlay::enforce(&inner, check).await;
        check = false;
        if due {
            let applied = apply(&inner, &view, &plan).await;
            pause = match &applied {
                Some(_) => RECHECK,
                None => RETRY,
            };
            if applied.is_some_and(|applied| applied.changed()) {
                // Routes lead through an interface that is there.
                overlay::enforce(&inner, true).await;
            }
            due = false;
        }
        tokio::select! {
            changed = views.changed() => {
                if changed.is_err() {
                    return;
                }
                view = views.borrow_and_update().clone();
                let next = view.tunnel_plan();
                due = next != *plan || inner.progress.borrow().waiting.is_some();
                if due {
                    plan = Arc::new(next);
                } else {
                    inner.progress.send_modify(|progress| progress.view = view.version);
                }
                continue;
            }
            () = inner.host.overlay.changed() => clock.sleep(NEWS).await,
            () = clock.sleep(pause) => due = true,
        }
        overlay::look(&inner).await;
        check = true;
    }
}

/// What it changed; `None` where it couldn't be applied.
async fn apply(inner: &Inner, view: &MeshView, plan: &Arc<TunnelPlan>) -> Option<Applied> {
    let now = inner.host.clock.now();
    inner.progress.send_if_modified(|progress| {
        let new = progress.waiting.is_none() && progress.plan != *plan;
        if new {
            progress.waiting = Some(now);
        }
        new
    });
    let (applied, error) = match inner.tunnel.apply(plan).await {
        Ok(applied) => (Some(applied), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let before = inner.progress.borrow().error.clone();
    if let Some(error) = &error
        && before.as_ref() != Some(error)
    {
        tracing::error!(%error, "the tunnel isn't as it should be; trying again");
    } else if error.is_none() && before.is_some() {
        tracing::info!("the tunnel is as it should be again");
    }
    inner.progress.send_modify(|progress| {
        if applied.is_some() {
            progress.plan = plan.clone();
            progress.view = view.version;
            progress.waiting = None;
        } else {
            progress.waiting.get_or_insert(now);
        }
        progress.error = error;
    });
    applied
}

/// That the interface isn't as planned.
pub fn finding(inner: &Inner) -> Option<Finding> {
    let progress = inner.progress.borrow();
    let since = inner.host.clock.now().saturating_sub(progress.waiting?);
    let since_s = since.as_secs();
    match &progress.error {
        Some(error) => Some(Finding::new(
            code::TUNNEL_NOT_APPLIED,
            Severity::Error,
            format!(
                "the tunnel has not been as it should be for {since_s} s: {error}. It is tried \
                 again every second; until then new nodes may lack a route here, and evicted ones \
                 may keep theirs"
            ),
            RESTART,
        )),
        None if since > SLOW => Some(Finding::new(
            code::TUNNEL_SLOW,
            Severity::Error,
            format!(
                "the tunnel has been changed for {since_s} s and isn't done: new nodes may lack a \
                 route here, and evicted ones may keep theirs"
            ),
            RESTART,
        )),
        None => None,
    }
}

/// Sends something to a member's overlay address, and tells whether anything
/// came back through the tunnel from it; `None` where there is none to it.
pub async fn ping(inner: &Inner, view: &MeshView, node: NodeId) -> Option<TunnelPing> {
    let member = view.ledger.members.get(&node)?;
    let plan = inner.progress.borrow().plan.clone();
    let address = IpAddr::V4(member.ipv4);
    let key = key_of(&plan, address)?;
    let before = peer(inner, &key).await?.rx_bytes;
    // Whether anything listens there doesn't matter: a refusal comes back too.
    let target = SocketAddr::new(address, inner.config.page_port);
    let mut probe = pin!(inner.host.net.probe_tcp(target));
    let mut sent = false;
    let clock = &inner.host.clock;
    let end = clock.now() + PROBE;
    loop {
        let seen = peer(inner, &key).await?;
        let works = seen.rx_bytes > before;
        if works || clock.now() >= end {
            return Some(TunnelPing {
                works,
                handshake: seen.last_handshake.is_some_and(|age| age < SESSION),
                age_s: seen.last_handshake.map(|age| age.as_secs()),
            });
        }
        tokio::select! {
            _ = &mut probe, if !sent => sent = true,
            () = clock.sleep(LOOK) => {}
        }
    }
}

/// Whose packets reach the address: what is announced doesn't matter.
fn key_of(plan: &TunnelPlan, address: IpAddr) -> Option<TunnelKey> {
    let net = IpNet::from(address);
    let mut peers = plan.peers.iter();
    let (key, _) = peers.find(|(_, peer)| peer.allowed_ips.contains(&net))?;
    Some(*key)
}

async fn peer(inner: &Inner, key: &TunnelKey) -> Option<PeerState> {
    let mut state = inner.tunnel.observe().await.ok()?;
    state.peers.remove(key)
}

/// What this node has seen of a node's being cut off, itself first, then what
/// each connected peer says of itself.
pub async fn cut_off(inner: &Inner, node: NodeId) -> CutOffSeen {
    let state = inner.ledger.state();
    let connected = inner.transport.connected();
    let peers: Vec<NodeId> = connected
        .into_iter()
        .map(|peer| peer.node)
        .filter(|peer| *peer != node && state.members.contains_key(peer))
        .take(limits::CUT_OFF_ASKED)
        .collect();
    let names = &state;
    let asked = stream::iter(peers.clone()).map(|peer| async move {
        CutOffAt {
            node: names.name_of(peer),
            cut_off: ask(inner, peer, node).await,
        }
    });
    let answers = asked.buffered(limits::CUT_OFF_ASKED).collect::<Vec<_>>();
    let (here, peers_say) = tokio::join!(is_cut_off(inner, node), answers);
    let others = state.members.iter().map(|(other, _)| *other);
    let unreached =
        others.filter(|other| *other != inner.me && *other != node && !peers.contains(other));
    CutOffSeen {
        here,
        peers: peers_say,
        unreached: unreached.map(|other| state.name_of(other)).collect(),
    }
}

/// `None` where no answer came, as from an older agent.
async fn ask(inner: &Inner, peer: NodeId, node: NodeId) -> Option<bool> {
    let query = codec::encode(&CutOffQuery { node });
    let call = inner.transport.call(peer, method::CUT_OFF, query, ANSWER);
    let answer = call.await.ok()?;
    let said: CutOff = codec::decode(&answer, limits::RPC_BYTES).ok()?;
    Some(said.cut_off)
}

/// Whether this node has cut another off: no connection, and a plan without it
/// in force on the device. Waits a moment for it.
pub async fn is_cut_off(inner: &Inner, node: NodeId) -> bool {
    let clock = &inner.host.clock;
    let end = clock.now() + CUT_OFF;
    let mut progress = inner.progress.subscribe();
    loop {
        if cut_off_now(inner, node).await {
            return true;
        }
        if clock.now() >= end {
            return false;
        }
        tokio::select! {
            _ = progress.changed() => {}
            () = clock.sleep(LOOK) => {}
        }
    }
}

async fn cut_off_now(inner: &Inner, node: NodeId) -> bool {
    let view = inner.view.borrow().clone();
    let out = !view.ledger.members.contains_key(&node) || view.held.contains_key(&node);
    let progress = inner.progress.borrow().clone();
    let connected = inner.transport.connected();
    if !out || progress.view < view.version || connected.iter().any(|peer| peer.node == node) {
        return false;
    }
    let state = inner.tunnel.observe().await;
    state.is_ok_and(|state| {
        let mut keys = state.peers.keys();
        keys.all(|key| progress.plan.peers.contains_key(key))
    })
}

#[cfg(test)]
mod tests {
    use innermesh_proto::tunnel::TunnelPeer;

    use super::*;

    #[test]
    fn a_peers_key_is_that_of_the_plan() {
        let peer = TunnelPeer {
            allowed_ips: ["10.7.0.2/32".parse().unwrap()].into(),
            ..TunnelPeer::default()
        };
        let plan = TunnelPlan {
            peers: [(TunnelKey([2; 32]), peer)].into(),
            ..TunnelPlan::default()
        };
        let key = |address: &str| key_of(&plan, address.parse().unwrap());
        assert_eq!(key("10.7.0.2"), Some(TunnelKey([2; 32])));
        assert_eq!(key("10.7.0.3"), None);
    }
}
