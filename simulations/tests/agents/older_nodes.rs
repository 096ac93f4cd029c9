//! Nodes of the build before requests were submitted are asked as they know it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use innermesh_agent::quic::{Caller, Handler};
use innermesh_proto::{
    codec,
    ledger::{Content, Outcome, Refusal, Request},
    limits,
    message::{Decided, Propose},
    rpc::{Failure, method},
};
use simulations::{
    World,
    mesh::{decided, meet, until},
    stand_in::Place,
    world::PORT,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A leader that knows PROPOSE only: what it refuses it has written down.
#[derive(Default)]
struct OldLeader {
    /// What it was asked, and for which kind of request.
    asked: Mutex<Vec<(u16, u16)>>,
}

#[async_trait]
impl Handler for OldLeader {
    async fn call(&self, _: &Caller, method: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        if !matches!(method, method::SUBMIT | method::PROPOSE) {
            return Err(Failure::UnknownMethod);
        }
        let propose: Propose = codec::decode(&body, limits::RPC_BYTES).unwrap();
        let request: Request = propose.request.peek(limits::REQUEST_BYTES).unwrap();
        self.asked.lock().unwrap().push((method, request.kind));
        if method == method::SUBMIT {
            return Err(Failure::UnknownMethod);
        }
        let refusal = Refusal::NotAdmin;
        Ok(codec::encode(&Decided::Outcome(Outcome::Refused(refusal))))
    }

    async fn notice(&self, _: &Caller, _: u16, _: Vec<u8>) {}
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_does_not_know_how_requests_are_submitted_is_asked_to_propose() {
    let mut world = World::new(1);
    let ([mut one, two], [first, second]) = meet(&mut world, ["one", "two"]).await;
    one.crash().await;
    let place = Place::of(&one, first.view()).await;
    let old = Arc::new(OldLeader::default());
    place.transport.serve(old.clone());
    let at = SocketAddr::new(two.address, PORT);
    until("a connection", PATIENCE, async || {
        place.transport.dial(at, None).await.is_ok()
    })
    .await;

    let claim = Content::Claim("photos".parse().unwrap());
    let (kind, _) = claim.encode();
    let outcome = decided(&second, &claim).await;
    assert_eq!(outcome, Ok(Outcome::Refused(Refusal::NotAdmin)));
    let asked = old.asked.lock().unwrap().clone();
    let asked: Vec<u16> = asked
        .into_iter()
        .filter_map(|(method, of)| (of == kind).then_some(method))
        .collect();
    assert_eq!(asked, [method::SUBMIT, method::PROPOSE]);
}
