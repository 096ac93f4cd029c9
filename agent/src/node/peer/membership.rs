//! Who is a member, by the ledger held here and admins' holds.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use innermesh_proto::{
    crypto::{PublicKey, Purpose, Sealed, Verify},
    id::NodeId,
    ledger::{Author, Content, Request, Role, State, request::Grant},
    limits,
    message::{JoinQuery, Renew},
    rpc::method,
};

use super::decode::read;
use crate::{
    host::keys::Keys,
    ledger::Ledger,
    quic::{Caller, Membership, MembershipCheck},
};

pub(crate) struct LedgerMembership {
    pub ledger: Ledger,
    /// Whom an admin holds.
    pub held: Arc<Mutex<BTreeSet<NodeId>>>,
    /// Checks what strangers sign.
    pub keys: Arc<dyn Keys>,
}

impl LedgerMembership {
    fn is_held(&self, node: &NodeId) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.contains(node)
    }
}

impl MembershipCheck for LedgerMembership {
    fn check(&self, key: &PublicKey) -> Membership {
        let state = self.ledger.state();
        match state.member_by_key(key) {
            Some((node, _)) if self.is_held(&node) => Membership::Revoked,
            Some(_) => Membership::Member,
            None if state.evicted.contains_key(&key.node_id()) => Membership::Revoked,
            None => Membership::Unknown,
        }
    }

    /// A renewal is signed with a member's key; a join is for this session and
    /// comes with a grant of an admin.
    fn proves(&self, caller: &Caller, method: u16, body: &[u8]) -> bool {
        let state = self.ledger.state();
        let verify = &*self.keys;
        match method {
            method::RENEW => read::<Renew>(body)
                .ok()
                .is_some_and(|renew| renewing(&state, &renew.request, verify).is_some()),
            method::JOIN => match read(body) {
                Ok(JoinQuery::Join(sealed)) => is_invited(&state, &sealed, caller, verify),
                _ => false,
            },
            _ => false,
        }
    }
}

/// The member that signed a request for its renewal.
pub(super) fn renewing(state: &State, sealed: &Sealed, verify: &dyn Verify) -> Option<NodeId> {
    let request: Request = sealed.peek(limits::REQUEST_BYTES).ok()?;
    let Author::Node(node) = request.author else {
        return None;
    };
    let member = state.members.get(&node)?;
    let signed = sealed.is_by(verify, &member.key, Purpose::Request, &state.mesh);
    signed.then_some(node)
}

/// Whether a request to join is signed with the token of an admin's grant that
/// holds still.
fn is_invited(state: &State, sealed: &Sealed, caller: &Caller, verify: &dyn Verify) -> bool {
    let Ok(request) = sealed.peek::<Request>(limits::REQUEST_BYTES) else {
        return false;
    };
    let content = Content::decode(request.kind, &request.content);
    let join = content.as_ref().and_then(Content::join);
    let (Some(join), Author::Token(token)) = (join, request.author) else {
        return false;
    };
    let grant = Grant::peek(&join.grant).ok();
    let inviter = grant.and_then(|stated| state.members.get(&stated.inviter));
    let Some(inviter) = inviter.filter(|inviter| inviter.roles.contains(&Role::Admin)) else {
        return false;
    };
    join.exporter == caller.exporter
        && sealed.is_by(verify, &token, Purpose::Request, &state.mesh)
        && Grant::open(&join.grant, &inviter.key, &state.mesh, verify)
            .is_some_and(|grant| grant.token == token && grant.expires_ms >= state.stamp_ms)
}
