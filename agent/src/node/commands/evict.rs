//! `agent evict`: a hold that works at once where one may, and the ledger's
//! decision. A CA node goes only after those whose certificates hang from it
//! have had others.

use std::{sync::Arc, time::Duration};

use innermesh_proto::{
    id::NodeId,
    ledger::{
        Content, Eviction, HoldId, Role, State,
        request::{Evict, Unhold, Withdraw},
    },
    name::Label,
};

use crate::{
    control::{
        ControlError, ErrorCode,
        members::{EvictRequest, Evicted, EvictionState},
    },
    ledger::client::RequestError,
    node::{
        commands::tunnel,
        follow::holds::HoldKeeper,
        shared::{
            cut_off::CutOffWatch,
            handles::Handles,
            issuers,
            refusals::{by_refusal, decide, internal, no_node, not_member, refused, unavailable},
        },
    },
};

/// How long the ledger may take while a person waits.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long members may take to get certificates from another CA node.
const REISSUE: Duration = Duration::from_secs(12);

/// Evicts members, and lets them back in while that isn't decided.
pub(crate) struct Evictions {
    pub node: Handles,
    pub holds: Arc<HoldKeeper>,
    pub cut_off: CutOffWatch,
}

impl Evictions {
    /// Evicts a member, as far as this node's word goes.
    ///
    /// # Errors
    /// Why nothing was done.
    pub async fn evict(&self, request: EvictRequest) -> Result<Evicted, ControlError> {
        let state = self.node.ledger.state();
        if !state.members.contains_key(&self.node.me) {
            return Err(not_member());
        }
        let node = find(&state, &request.node)?;
        let mut evict = Evict {
            node,
            hold: None,
            root: request.root.map(|root| root.0),
        };
        let keys = &*self.node.host.keys;
        // What is refused for sure cuts nobody off.
        let expected = state
            .eviction(self.node.me, &evict, keys)
            .map_err(|refusal| by_refusal(&refusal))?;
        let hold = self.holds.place(node).await.map_err(internal)?;
        evict.hold = hold;
        if expected == Eviction::AtOnce && has_issuer(&state, node) {
            self.reissue(&evict).await;
        }
        let asked = self.node.client.ask(&Content::Evict(evict), PATIENCE).await;
        let state = match (asked, hold) {
            (Ok(accepted), _) if accepted.is_waiting => EvictionState::Waiting,
            (Ok(_), _) => EvictionState::Evicted,
            (Err(RequestError::Refused(refusal)), hold) => {
                if let Some(hold) = hold {
                    let _ = self.holds.lift(hold).await;
                }
                return Err(by_refusal(&refusal));
            }
            // The hold stands, and the ledger is asked again by itself.
            (Err(RequestError::Unavailable(_)), Some(_)) => EvictionState::Pending,
            (Err(RequestError::Unavailable(error)), None) => return Err(unavailable(error)),
        };
        let cut_off = hold.is_some() || state == EvictionState::Evicted;
        let seen = if cut_off {
            Some(tunnel::cut_off(&self.node, &self.cut_off, node).await)
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

    /// Lets every hold on a member go, and takes this node's word for its
    /// eviction back.
    ///
    /// # Errors
    /// Why it stays cut off, or its eviction goes on waiting.
    pub async fn withdraw(&self, name: &Label) -> Result<(), ControlError> {
        let state = self.node.ledger.state();
        let node = find(&state, name)?;
        let me = self.node.me;
        let own = state.members.get(&me);
        if !own.is_some_and(|own| own.roles.contains(&Role::Admin)) {
            return Err(refused(
                "only an admin may let a machine back in; run it on a machine that is one",
            ));
        }
        let held = self.node.view.borrow().held.get(&node).cloned();
        let held = held.unwrap_or_default();
        let asked = state.proposed_evictions().any(|word| word == (node, me));
        if held.is_empty() && !asked {
            return Err(refused(format!(
                "{name} isn't cut off by anybody, and no eviction of it that this node asked for \
                 waits"
            )));
        }
        // First the holds: whoever has one asks for the eviction again.
        for (author, hold) in held {
            let unhold = Content::Unhold(Unhold { author, hold });
            match decide(&self.node.client, &unhold).await {
                Err(error) if author != me || error.code != ErrorCode::Unavailable => {
                    return Err(error);
                }
                // The others need no ledger to see that it is gone.
                Err(_) => self.holds.lift(hold).await.map_err(internal)?,
                Ok(_) => {}
            }
        }
        if !asked {
            return Ok(());
        }
        if state.rules < 2 {
            return Err(refused(
                "not all CA nodes know how that is taken back; it is void an hour after it was \
                 asked for",
            ));
        }
        let withdraw = Withdraw { node, role: None };
        decide(&self.node.client, &Content::Withdraw(withdraw)).await?;
        Ok(())
    }

    /// Says in the ledger that the CA node is to go, on which members renew what
    /// hangs from it, and waits for those that are there. Who isn't renews later:
    /// a membership is judged by the ledger, and no issuer's end cuts anybody off.
    async fn reissue(&self, evict: &Evict) {
        let state = self.node.ledger.state();
        let word = Evict {
            hold: None::<HoldId>,
            root: None,
            ..evict.clone()
        };
        let said = state.eviction(self.node.me, &word, &*self.node.host.keys);
        if said == Ok(Eviction::Waits) {
            // Refused or not, those that renew are waited for.
            let asked = self.node.client.ask(&Content::Evict(word), PATIENCE).await;
            if let Err(RequestError::Unavailable(error)) = asked {
                tracing::warn!(%error, "the others can't be told to renew first");
                return;
            }
        }
        let end = self.node.host.clock.now() + REISSUE;
        let mut states = self.node.ledger.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            let view = self.node.view.borrow().clone();
            let left = state.members.iter().filter(|(member, _)| {
                let live = view.nodes.get(member).is_some_and(|seen| seen.live);
                **member != evict.node
                    && live
                    && issuers::is_signed_by(&state, **member, evict.node)
            });
            let left: Vec<String> = left.map(|(node, _)| state.name_of(*node)).collect();
            if left.is_empty() {
                return;
            }
            let clock = self.node.host.clock.clone();
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = clock.sleep(end.saturating_sub(clock.now())) => {
                    tracing::warn!(members = ?left, "some have yet to renew; they will by themselves");
                    return;
                }
            }
        }
    }
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
