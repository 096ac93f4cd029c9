//! What members ask of a ledger's files at once, and don't take: the one that is
//! asked holds little for them, and answers others.

use std::{net::SocketAddr, time::Duration};

use async_trait::async_trait;
use innermesh_agent::quic::{Caller, Handler};
use innermesh_proto::{
    codec, limits,
    message::{Batches, LedgerQuery},
    rpc::{Failure, method},
};
use simulations::{
    World,
    mesh::{ask, found, join, until},
    stand_in::Place,
    world::PORT,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// How many answers of one peer may be on their way.
const SHARE: usize = limits::LEDGER_ANSWERS_BYTES_PER_PEER / limits::LEDGER_ANSWER_BYTES;

/// It answers nothing.
struct Silent;

#[async_trait]
impl Handler for Silent {
    async fn call(&self, _: &Caller, _: u16, _: Vec<u8>) -> Result<Vec<u8>, Failure> {
        Err(Failure::UnknownMethod)
    }

    async fn notice(&self, _: &Caller, _: u16, _: Vec<u8>) {}
}

#[tokio::test(start_paused = true)]
async fn members_that_ask_for_much_and_take_nothing_have_little_held_for_them() {
    let mut world = World::new(1);
    let one = world.machine("one");
    let first = found(&one).await;
    let names = ["a", "b", "c", "honest"];
    let mut places = Vec::new();
    for name in names {
        let mut machine = world.machine(name);
        let agent = join(&machine, "one", &first).await;
        until("they have met", PATIENCE, async || agent.heads().len() == 1).await;
        machine.crash().await;
        let place = Place::of(&machine, first.view()).await;
        place.transport.serve(std::sync::Arc::new(Silent));
        places.push((place, machine));
    }
    for number in 0..40 {
        let name = format!("n{number}").parse().unwrap();
        let claim = innermesh_proto::ledger::Content::Claim(name);
        ask(&first, &claim).await.unwrap();
    }
    let to = SocketAddr::new(one.address, PORT);
    for (place, _) in &places {
        place.transport.dial(to, None).await.unwrap();
    }
    let founder = first.view().borrow().me;
    let query = codec::encode(&LedgerQuery { from: 1 });
    let query = |place: &Place, patience| {
        let (transport, query) = (place.transport.clone(), query.clone());
        async move {
            transport
                .call(founder, method::LEDGER, query, patience)
                .await
        }
    };
    let (honest, _) = places.pop().unwrap();
    one.disk.take_read();
    let answer = query(&honest, Duration::from_secs(2)).await.unwrap();
    let whole = one.disk.take_read();
    assert!(whole as usize >= answer.len() / 2, "{whole}");

    // Their questions arrive, and nothing comes to them.
    let mut asked = tokio::task::JoinSet::new();
    for (liar, machine) in &places {
        for _ in 0..limits::CALLS_PER_PEER {
            asked.spawn(query(liar, Duration::from_secs(9)));
        }
        // Once they are on their way.
        tokio::time::sleep(Duration::from_millis(1)).await;
        world.wire.cut(one.place, machine.place);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let read = one.disk.take_read();
    let most = (places.len() * SHARE) as u64;
    assert!(read >= whole, "nobody was answered");
    assert!(read <= most * whole, "{} answers were made", read / whole);

    let answer = query(&honest, Duration::from_secs(1)).await.unwrap();
    let answer: Batches = codec::decode(&answer, limits::RPC_BYTES).unwrap();
    let index = first.view().borrow().ledger.position.index;
    assert_eq!(answer.batches.len() as u64, index);

    // What isn't taken is dropped after a while, and they are answered again.
    world.wire.heal();
    while asked.join_next().await.is_some() {}
    for (liar, _) in &places {
        until("an answer", PATIENCE, async || {
            let _ = liar.transport.dial(to, None).await;
            query(liar, Duration::from_secs(2)).await.is_ok()
        })
        .await;
    }
}
