//! Requests of nodes that have no connection with the leader: a peer that has one
//! brings them there, and can make up neither a request nor an answer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use innermesh_agent::{
    control::records::RecordAddRequest,
    ledger::client::SubmitError,
    node::Agent,
    quic::{Caller, Handler},
};
use innermesh_proto::{
    codec,
    crypto::{Hash, Purpose, Sealed},
    ledger::{Content, Outcome, Refusal},
    limits,
    message::{Propose, Relay, Relayed, RelayedAnswer, Submitted},
    rpc::{Failure, method},
};
use simulations::{
    World,
    mesh::{DOMAIN, found, join, until},
    schedule::Profile,
    stand_in::Place,
    world::PORT,
};

const PATIENCE: Duration = Duration::from_secs(120);

fn connected(agent: &Agent) -> usize {
    let view = agent.view();
    let view = view.borrow();
    view.nodes.values().filter(|node| node.live).count()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_reach_the_leader_asks_by_way_of_one_that_does() {
    let mut world = World::of(1, Profile::Message);
    let [one, two, three] = ["one", "two", "three"].map(|name| world.machine(name));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    let third = join(&three, "one", &first).await;
    until("all to have met", PATIENCE, async || {
        [&first, &second, &third]
            .iter()
            .all(|agent| connected(agent) == 3)
    })
    .await;
    world.wire.cut(one.place, three.place);
    world.wire.cut(three.place, one.place);
    tokio::time::sleep(Duration::from_secs(120)).await;

    let add = |value: &str| RecordAddRequest {
        name: format!("x.three.{DOMAIN}"),
        rtype: "TXT".into(),
        value: value.into(),
        public: false,
        ttl_s: None,
    };
    let added = third.control().ask(add("hello")).await;
    assert!(added.is_ok(), "{added:?}");
    until("the leader to have it", PATIENCE, async || {
        first.view().borrow().ledger.records.len() == 1
    })
    .await;

    // What is refused is told, with what can't be known.
    let claim = Content::Claim("one".parse().unwrap());
    let refused = third.ask(&claim, Duration::from_secs(8)).await;
    assert!(
        matches!(
            refused,
            Err(SubmitError::Relayed(Refusal::NameTaken { .. }))
        ),
        "{refused:?}"
    );
}

/// Says that it reaches the leader, and what became of a request, in its name.
struct Liar {
    key: Arc<dyn innermesh_proto::crypto::Sign>,
    mesh: innermesh_proto::id::MeshId,
}

#[async_trait]
impl Handler for Liar {
    async fn call(&self, _: &Caller, method: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        if method != method::RELAY {
            return Err(Failure::UnknownMethod);
        }
        match codec::decode::<Relay>(&body, limits::RPC_BYTES).unwrap() {
            Relay::Reaches(_) => Ok(codec::encode(&true)),
            Relay::Bring { request, .. } => {
                let answer = RelayedAnswer {
                    request: Hash::of(&codec::encode(&Propose { request })),
                    submitted: Submitted::Outcome(Outcome::Done(1)),
                };
                let answer = Sealed::new(&*self.key, Purpose::Answer, &self.mesh, &answer);
                Ok(codec::encode(&Relayed { answer }))
            }
        }
    }

    async fn notice(&self, _: &Caller, _: u16, _: Vec<u8>) {}
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_answers_in_the_leader_s_name_is_not_believed() {
    let mut world = World::of(2, Profile::Message);
    let [one, mut two, three] = ["one", "two", "three"].map(|name| world.machine(name));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    let third = join(&three, "one", &first).await;
    until("all to have met", PATIENCE, async || {
        [&first, &second, &third]
            .iter()
            .all(|agent| connected(agent) == 3)
    })
    .await;
    two.crash().await;
    world.wire.cut(one.place, three.place);
    world.wire.cut(three.place, one.place);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let place = Place::of(&two, first.view()).await;
    let liar = Liar {
        key: place.key.clone(),
        mesh: first.view().borrow().ledger.mesh,
    };
    place.transport.serve(Arc::new(liar));
    let at = SocketAddr::new(three.address, PORT);
    until("a connection", PATIENCE, async || {
        place.transport.dial(at, None).await.is_ok()
    })
    .await;
    let claim = Content::Claim("photos".parse().unwrap());
    let asked = third.ask(&claim, Duration::from_secs(8)).await;
    assert!(asked.is_err(), "{asked:?}");
}
