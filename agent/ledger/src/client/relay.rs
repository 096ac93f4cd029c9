//! Bringing a request to a CA node that this node has no connection with, by way of
//! a member that has one. What comes back is signed by the CA node: whoever brings
//! it can keep a request or an answer back, and make up neither.

use std::time::Duration;

use innermesh_proto::{
    codec,
    crypto::{Hash, Purpose, Sealed},
    id::NodeId,
    ledger::State,
    limits,
    message::{Relay, Relayed, RelayedAnswer, Submitted},
    rpc::method,
};

use super::{ATTEMPT, Client, Told};
use crate::host::keys::Keys;

/// How long a member may take to say whether it reaches a CA node.
const REACHES: Duration = Duration::from_millis(700);
/// How long a CA node may take, with a node in between.
const BRINGS: Duration = ATTEMPT.saturating_add(Duration::from_millis(500));

/// What came of a request at one node.
pub(super) struct Brought {
    pub told: Told,
    /// Who brought it there, and so may have a copy.
    pub via: Option<NodeId>,
}

impl Brought {
    pub fn directly(told: Told) -> Self {
        Self { told, via: None }
    }
}

impl Client {
    /// Over one hop: whoever is asked brings it to `to`, and nowhere else.
    pub(super) async fn relay(&self, to: NodeId, request: &Sealed, body: &[u8]) -> Brought {
        let name = self.ledger.state().name_of(to);
        for via in self.relays(to) {
            let asked = codec::encode(&Relay::Reaches(to));
            let answer = self
                .transport
                .call(via, method::RELAY, asked, REACHES)
                .await;
            let reaches = answer.is_ok_and(|bytes| {
                codec::decode::<bool>(&bytes, limits::RPC_BYTES).is_ok_and(|reaches| reaches)
            });
            if !reaches {
                continue;
            }
            let bring = Relay::Bring {
                to,
                request: request.clone(),
            };
            let bring = codec::encode(&bring);
            let answer = self.transport.call(via, method::RELAY, bring, BRINGS).await;
            let told = match answer {
                Ok(bytes) => {
                    match answer_of(&self.ledger.state(), &*self.host.keys, to, body, &bytes) {
                        Some(Submitted::Outcome(outcome)) => Told::Outcome(outcome),
                        Some(Submitted::Elsewhere(leader)) => Told::Elsewhere(leader),
                        Some(Submitted::Spent { wait_ms }) => {
                            Told::Spent(Duration::from_millis(wait_ms))
                        }
                        None => Told::Lost(format!("the answer isn't signed by {name}")),
                    }
                }
                Err(error) => Told::Lost(error.to_string()),
            };
            return Brought {
                told,
                via: Some(via),
            };
        }
        Brought::directly(Told::Failed(format!(
            "no connection with {name}, and none of the nodes that were asked has one"
        )))
    }

    /// A few of those that have links with it, then of those that are connected; each
    /// time others first.
    fn relays(&self, to: NodeId) -> Vec<NodeId> {
        let mut relays = Vec::new();
        for mut nodes in [self.gossip.neighbours_of(&to), self.transport.peers()] {
            if !nodes.is_empty() {
                let mut drawn = [0; 2];
                self.host.keys.random(&mut drawn);
                let first = usize::from(u16::from_le_bytes(drawn)) % nodes.len();
                nodes.rotate_left(first);
            }
            nodes.retain(|node| ![to, self.me()].contains(node) && !relays.contains(node));
            relays.extend(nodes);
        }
        relays.truncate(limits::RELAYS_ASKED);
        relays
    }
}

/// What `to` says of the request in `body`; `None` where it didn't sign that.
fn answer_of(
    state: &State,
    keys: &dyn Keys,
    to: NodeId,
    body: &[u8],
    bytes: &[u8],
) -> Option<Submitted> {
    let relayed: Relayed = codec::decode(bytes, limits::RPC_BYTES).ok()?;
    let member = state.members.get(&to)?;
    let answer = relayed.answer.open::<RelayedAnswer>(
        keys,
        &member.key,
        Purpose::Answer,
        &state.mesh,
        limits::RPC_BYTES,
    );
    let answer = answer.ok()?;
    (answer.request == Hash::of(body)).then_some(answer.submitted)
}
