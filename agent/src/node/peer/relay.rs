//! Requests of members that have no connection with the node that leads: this node
//! brings them there, over one hop, where it has one. It is trusted with nothing:
//! the request is signed by its author, and the answer by who gives it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use innermesh_proto::{
    codec,
    id::NodeId,
    limits,
    message::{Propose, Relay},
    rpc::{Failure, method},
};
use tokio::sync::Semaphore;

use super::decode::read;
use crate::{
    host::Host,
    ledger::{Ledger, deliveries::Deliveries},
    node::shared::handles::Handles,
    quic::{CallError, Transport},
};

/// How long the CA node may take to decide.
const PATIENCE: Duration = Duration::from_secs(2);

/// Brings requests of others to CA nodes.
pub(crate) struct Relays {
    host: Host,
    ledger: Ledger,
    transport: Transport,
    /// What each member has brought.
    shares: Mutex<Deliveries>,
    room: Semaphore,
}

impl Relays {
    pub fn new(node: &Handles) -> Self {
        let shares = Deliveries::of(limits::RELAYS, limits::RELAYS_PER_HOUR);
        Self {
            host: node.host.clone(),
            ledger: node.ledger.clone(),
            transport: node.transport.clone(),
            shares: Mutex::new(shares),
            room: Semaphore::new(limits::RELAYED_AT_ONCE),
        }
    }

    /// Answers [`method::RELAY`].
    ///
    /// # Errors
    /// Why it isn't brought, or wasn't answered.
    pub async fn answer(&self, from: NodeId, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let (to, request) = match read::<Relay>(body)? {
            Relay::Reaches(to) => return Ok(codec::encode(&self.reaches(to))),
            Relay::Bring { to, request } => (to, request),
        };
        if !self.reaches(to) {
            return Err(Failure::Unavailable(
                "there is no connection with that CA node here".into(),
            ));
        }
        let counted = {
            let shares = self.shares.lock();
            let mut shares = shares.unwrap_or_else(PoisonError::into_inner);
            shares.count(from, self.host.clock.now())
        };
        let room = self.room.try_acquire();
        let (Ok(()), Ok(_room)) = (counted, room) else {
            return Err(Failure::Busy);
        };
        let propose = codec::encode(&Propose { request });
        let call = self.transport.call(to, method::RELAYED, propose, PATIENCE);
        call.await.map_err(|error| match error {
            CallError::Failed(failure) => failure,
            error => Failure::Unavailable(error.to_string()),
        })
    }

    fn reaches(&self, to: NodeId) -> bool {
        self.ledger.state().roster.contains(&to) && self.transport.is_connected(to)
    }
}
