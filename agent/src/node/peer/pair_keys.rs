//! What other nodes ask for, to agree on a pre-shared key with this one or, by it, with
//! each other.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use innermesh_proto::{
    codec,
    crypto::{Hash, PublicKey, Purpose, Sealed},
    id::NodeId,
    limits,
    pair_key::{Agreed, Brought, Exchange, Offered, Reply, Request, SHARE_BYTES, Statement},
    rpc::{Failure, method},
    tunnel::TunnelKey,
};

use super::decode::read;
use crate::{
    host::{Host, pair_exchange},
    ledger::deliveries::Deliveries,
    node::shared::{
        handles::Handles,
        own_key::OwnKey,
        pair_secrets::{PairSecrets, Wanted},
    },
    quic::CallError,
};

/// How long another node may take for its step.
const STEP: Duration = Duration::from_secs(3);

/// Answers them.
pub(crate) struct PairKeyAnswers {
    node: Handles,
    own: Arc<OwnKey>,
    secrets: Arc<PairSecrets>,
    wanted: Arc<Wanted>,
    /// What each member asked for, and what it brought: whoever has something brought
    /// takes nothing from the one that brings it.
    asked: Mutex<Deliveries>,
    brought: Mutex<Deliveries>,
}

impl PairKeyAnswers {
    pub fn new(
        node: &Handles,
        own: Arc<OwnKey>,
        secrets: Arc<PairSecrets>,
        wanted: Arc<Wanted>,
    ) -> Self {
        let (most, per_hour) = (limits::PAIR_KEY_STEPS, limits::PAIR_KEY_STEPS_PER_HOUR);
        let shares = || Mutex::new(Deliveries::of(most, per_hour));
        Self {
            node: node.clone(),
            own,
            secrets,
            wanted,
            asked: shares(),
            brought: shares(),
        }
    }

    /// Answers [`method::PAIR_KEY`], whose author isn't always who brings it.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn step(&self, from: NodeId, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let request: Request = read(body)?;
        let is_own = author(&request) == Some(from);
        self.count(if is_own { &self.asked } else { &self.brought }, from)?;
        let reply = match request {
            Request::Said(said) => self.said(&said).await?,
            Request::Confirm { from, offer, proof } => {
                let reply = self.secrets.confirm(&from, &offer, &proof).await;
                reply.map_err(|error| Failure::Internal(error.to_string()))?
            }
        };
        Ok(codec::encode(&reply))
    }

    /// Answers [`method::PAIR_KEY_BY`].
    ///
    /// # Errors
    /// Why it isn't brought, or the other's.
    pub async fn bring(&self, from: NodeId, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let Brought { to, request } = read(body)?;
        self.count(&self.asked, from)?;
        let transport = &self.node.transport;
        if !transport.is_connected(to) {
            return Err(Failure::Unavailable(
                "there is no connection with that node here".into(),
            ));
        }
        let call = transport.call(to, method::PAIR_KEY, request, STEP);
        call.await.map_err(|error| match error {
            CallError::Failed(failure) => failure,
            error => Failure::Unavailable(error.to_string()),
        })
    }

    fn count(&self, shares: &Mutex<Deliveries>, from: NodeId) -> Result<(), Failure> {
        let mut shares = shares.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = shares.count(from, self.node.host.clock.now());
        counted.map_err(|_| Failure::Busy)
    }

    async fn said(&self, said: &Sealed) -> Result<Reply, Failure> {
        let statement: Statement = said
            .peek(limits::RPC_BYTES)
            .map_err(|_| Failure::Malformed)?;
        match statement {
            Statement::Offer {
                from,
                to,
                tunnel,
                number,
                share,
            } => {
                let key = self.author(&from, &to)?;
                // Of two that begin at once one would be in vain.
                if from >= to || share.len() > SHARE_BYTES {
                    return Err(Failure::Malformed);
                }
                self.check_by(said, &key)?;
                let offer = Hash::of(&said.bytes);
                self.offer(from, tunnel, number, offer, &share).await
            }
            Statement::Wanted { from, to } => {
                let key = self.author(&from, &to)?;
                if from <= to {
                    return Err(Failure::Malformed);
                }
                self.check_by(said, &key)?;
                self.wanted.insert(from);
                Ok(Reply::Noted)
            }
            Statement::Answer { .. } | Statement::Stale { .. } => Err(Failure::Malformed),
        }
    }

    /// The key of a member that says something to this node.
    fn author(&self, from: &NodeId, to: &NodeId) -> Result<PublicKey, Failure> {
        let view = self.node.view.borrow();
        let member = view.ledger.members.get(from);
        let member = member.filter(|_| *to == self.node.me && !view.held.contains_key(from));
        member.map(|member| member.key).ok_or(Failure::NotMember)
    }

    fn check_by(&self, said: &Sealed, key: &PublicKey) -> Result<(), Failure> {
        let mesh = self.node.ledger.state().mesh;
        let is_by = said.is_by(&*self.node.host.keys, key, Purpose::PairKey, &mesh);
        if is_by {
            Ok(())
        } else {
            Err(Failure::Malformed)
        }
    }

    async fn offer(
        &self,
        from: NodeId,
        tunnel: [TunnelKey; 2],
        number: u64,
        offer: Hash,
        share: &[u8],
    ) -> Result<Reply, Failure> {
        let host: &Host = &self.node.host;
        let [theirs, own] = tunnel;
        let state = self.node.ledger.state();
        // It may be about to change, or not known here yet.
        if own != self.own.get() || state.tunnel_key_holder(&theirs) != Some(from) {
            return Ok(Reply::Unknown);
        }
        let sealed = |statement: &Statement| {
            Sealed::new(&*self.node.key, Purpose::PairKey, &state.mesh, statement)
        };
        match self.secrets.offered(&from, number, &offer) {
            Offered::Answered(answer) => Ok(Reply::Said(answer)),
            Offered::Stale(number) => Ok(Reply::Said(sealed(&Statement::Stale { offer, number }))),
            Offered::New => {
                let (share, secret) =
                    pair_exchange::answer(&*host.keys, share).ok_or(Failure::Malformed)?;
                let answer = sealed(&Statement::Answer { offer, share });
                let exchange = Exchange {
                    number,
                    tunnel: [own, theirs],
                    offer,
                    answer: Hash::of(&answer.bytes),
                };
                let agreed = Agreed::of(&secret, exchange, host.clock.wall_ms());
                self.secrets.answered(from, agreed, answer.clone()).await;
                Ok(Reply::Said(answer))
            }
        }
    }
}

/// Who says that it is its own, which isn't known to be so yet.
fn author(request: &Request) -> Option<NodeId> {
    match request {
        Request::Confirm { from, .. } => Some(*from),
        Request::Said(said) => match said.peek(limits::RPC_BYTES).ok()? {
            Statement::Offer { from, .. } | Statement::Wanted { from, .. } => Some(from),
            Statement::Answer { .. } | Statement::Stale { .. } => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use innermesh_proto::crypto::Signature;

    use super::*;

    #[test]
    fn what_is_brought_is_told_from_what_is_a_members_own() {
        let (one, other) = (NodeId([1; 16]), NodeId([2; 16]));
        let said = |statement: &Statement| {
            Request::Said(Sealed {
                bytes: codec::encode(statement),
                signature: Signature::from_bytes(&[0; 64]),
            })
        };
        let (from, to, offer) = (one, other, Hash::of(b"offer"));
        let proof = [0; 32];
        for (request, expected) in [
            (said(&Statement::Wanted { from, to }), Some(one)),
            (Request::Confirm { from, offer, proof }, Some(one)),
            (said(&Statement::Stale { offer, number: 1 }), None),
        ] {
            assert_eq!(author(&request), expected, "{request:?}");
        }
    }
}
