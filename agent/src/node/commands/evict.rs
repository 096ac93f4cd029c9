//! `agent evict`: a hold that works at once where one may, and the ledger's
//! decision. A CA node goes only after those whose certificates hang from it
//! have had others.

use std::time::Duration;

use innermesh_proto::{
    id::NodeId,
    ledger::{
        Content, Eviction, HoldId, Outcome, Role, State,
        request::{Evict, Unhold},
    },
    name::Label,
};

use crate::control::{
    ControlError, ErrorCode,
    members::{EvictRequest, Evicted, EvictionState},
};
use crate::node::Inner;
use crate::node::follow::holds;
use crate::node::follow::tunnel;
use crate::node::refusals::{by_refusal, decide, no_node, not_member, refused};

/// How long the ledger may take while a person waits.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long members may take to get certificates from another CA node.
const REISSUE: Duration = Duration::from_secs(12);

/// Evicts a member, as far as this node's word goes.
///
/// # Errors
/// Why nothing was done.
pub async fn evict(inner: &Inner, request: EvictRequest) -> Result<Evicted, ControlError> {
    let state = inner.ledger.state();
    if !state.members.contains_key(&inner.me) {
        return Err(not_member());
    }
    let node = find(&state, &request.node)?;
    let mut evict = Evict {
        node,
        hold: None,
        root: request.root.map(|root| root.0),
    };
    let keys = &*inner.host.keys;
    // What is refused for sure cuts nobody off.
    let expected = state
        .eviction(inner.me, &evict, keys)
        .map_err(|refusal| by_refusal(&refusal))?;
    let hold = holds::place(inner, node)
        .await
        .map_err(|error| ControlError::new(ErrorCode::Internal, error))?;
    evict.hold = hold;
    if expected == Eviction::AtOnce && has_issuer(&state, node) {
        reissue(inner, &evict).await;
    }
    let sealed = inner.client.request(&Content::Evict(evict), inner.now_ms());
    let outcome = inner.client.submit(&sealed, PATIENCE).await;
    let state = match (outcome, hold) {
        (Ok(Outcome::Done(_)), _) => EvictionState::Evicted,
        (Ok(Outcome::Waiting(_)), _) => EvictionState::Waiting,
        (Ok(Outcome::Refused(refusal)), hold) => {
            if let Some(hold) = hold {
                let _ = holds::lift(inner, hold).await;
            }
            return Err(by_refusal(&refusal));
        }
        // The hold stands, and the ledger is asked again by itself.
        (Err(_), Some(_)) => EvictionState::Pending,
        (Err(error), None) => return Err(ControlError::new(ErrorCode::Unavailable, error)),
    };
    let cut_off = hold.is_some() || state == EvictionState::Evicted;
    let seen = if cut_off {
        Some(tunnel::cut_off(inner, node).await)
    } else {
        None
    };
    Ok(Evicted {
        node: request.node.to_string(),
        cut_off,
        state,
        seen,
    })
}

/// Lets every hold on a member go.
///
/// # Errors
/// Why it stays cut off.
pub async fn undo(inner: &Inner, name: &Label) -> Result<(), ControlError> {
    let state = inner.ledger.state();
    let node = find(&state, name)?;
    let own = state.members.get(&inner.me);
    if !own.is_some_and(|own| own.roles.contains(&Role::Admin)) {
        return Err(refused(
            "only an admin may let a machine back in; run it on a machine that is one",
        ));
    }
    let held = inner.view.borrow().held.get(&node).cloned();
    let held = held.unwrap_or_default();
    if held.is_empty() {
        return Err(refused(format!("{name} isn't cut off by anybody")));
    }
    for (author, hold) in held {
        decide(inner, &Content::Unhold(Unhold { author, hold })).await?;
    }
    Ok(())
}

fn find(state: &State, name: &Label) -> Result<NodeId, ControlError> {
    let found = state.member_by_name(name);
    found.map(|(node, _)| node).ok_or_else(|| no_node(name))
}

fn has_issuer(state: &State, node: NodeId) -> bool {
    state
        .issuers_of(node)
        .any(|issuer| issuer.revoked.is_none())
}

/// Says in the ledger that the CA node is to go, on which members renew what
/// hangs from it, and waits for those that are there. Who isn't renews later:
/// a membership is judged by the ledger, and no issuer's end cuts anybody off.
async fn reissue(inner: &Inner, evict: &Evict) {
    let state = inner.ledger.state();
    let word = Evict {
        hold: None::<HoldId>,
        root: None,
        ..evict.clone()
    };
    let said = state.eviction(inner.me, &word, &*inner.host.keys);
    if said == Ok(Eviction::Waits) {
        let request = inner.client.request(&Content::Evict(word), inner.now_ms());
        if let Err(error) = inner.client.submit(&request, PATIENCE).await {
            tracing::warn!(%error, "the others can't be told to renew first");
            return;
        }
    }
    let end = inner.host.clock.now() + REISSUE;
    let mut states = inner.ledger.subscribe();
    loop {
        let state = states.borrow_and_update().clone();
        let view = inner.view.borrow().clone();
        let left = state.members.iter().filter(|(member, _)| {
            let live = view.nodes.get(member).is_some_and(|seen| seen.live);
            **member != evict.node && live && hangs_from(&state, **member, evict.node)
        });
        let left: Vec<String> = left.map(|(node, _)| state.name_of(*node)).collect();
        if left.is_empty() {
            return;
        }
        let clock = inner.host.clock.clone();
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = clock.sleep(end.saturating_sub(clock.now())) => {
                tracing::warn!(members = ?left, "some have yet to renew; they will by themselves");
                return;
            }
        }
    }
}

/// Whether a member's membership certificate was signed by an issuer of `ca`.
pub fn hangs_from(state: &State, member: NodeId, ca: NodeId) -> bool {
    let issued = state
        .members
        .get(&member)
        .and_then(|member| state.certificates.get(&member.certificate?));
    let issuer = issued.and_then(|issued| state.issuers.get(&issued.issuer));
    issuer.is_some_and(|issuer| issuer.node == ca)
}
