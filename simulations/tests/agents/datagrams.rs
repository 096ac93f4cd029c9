//! DNS over UDP as agents serve it, without threads: whole batches, handed over by
//! the simulated host.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use innermesh_agent::node::Agent;
use innermesh_proto::zone::RecordType;
use simulations::{
    Machine, World,
    mesh::{addresses, found, join, question, resolve, until},
};

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn service(agent: &Agent) -> SocketAddr {
    let listening = agent.dns().listening();
    *listening
        .iter()
        .find(|at| at.is_ipv4())
        .expect("it listens")
}

/// Whether a reply is one to that question, with its code.
fn code(reply: Option<&Vec<u8>>, id: u8) -> Option<u8> {
    let reply = reply?;
    assert_eq!(reply[1], id);
    assert_ne!(reply[2] & 0x80, 0);
    Some(reply[3] & 0xf)
}

async fn ready(machine: &Machine, agent: &Agent) {
    until("it answers over UDP", Duration::from_secs(5), async || {
        let listening = agent.dns().listening();
        listening
            .iter()
            .any(|at| machine.ask(LOCAL, *at, &[]).is_ok())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_answered_in_its_order_and_what_waits_comes_later() {
    let mut world = World::new(7);
    let (one, two) = (world.machine("one"), world.machine("two"));
    let first = found(&one).await;
    let second = join(&two, "one", &first).await;
    until("the name is there", Duration::from_secs(5), async || {
        resolve(&first, "two").await == addresses(&second)
    })
    .await;
    ready(&one, &first).await;
    let name = |name: &str| name.parse().expect("a name");
    let domain = first
        .dns()
        .zone()
        .origins()
        .next()
        .cloned()
        .expect("a domain");
    let there = domain.child(b"two").expect("a name");
    let nobody = domain.child(b"nobody").expect("a name");
    let mut batch = Vec::new();
    for (id, (name, rtype)) in [
        (there.clone(), RecordType::AAAA),
        (nobody, RecordType::AAAA),
        (there.clone(), RecordType::ANY),
        (name("www.example.org"), RecordType::A),
        (there, RecordType::AAAA),
    ]
    .into_iter()
    .enumerate()
    {
        let mut message = question(&name, rtype);
        message[1] = id as u8;
        batch.push(message);
    }
    // A response, and what is too short to be anything.
    let mut response = batch[0].clone();
    response[2] |= 0x80;
    batch.extend([response, vec![1, 2, 3]]);
    let mut asked = one.ask(LOCAL, service(&first), &batch).expect("it answers");
    let codes: Vec<_> = (0..batch.len())
        .map(|n| code(asked.replies[n].as_ref(), n as u8))
        .collect();
    assert_eq!(
        codes,
        [Some(0), Some(3), Some(0), None, Some(0), None, None]
    );
    // Nobody is there to ask: it fails, later.
    let late = asked.late.recv().await;
    assert_eq!(code(late.as_ref(), 3), Some(2));
    // A stranger is refused, whatever it asks.
    let stranger = "192.0.2.66".parse().expect("an address");
    let asked = one
        .ask(stranger, service(&first), &batch)
        .expect("it answers");
    for n in 0..5 {
        assert_eq!(code(asked.replies[n].as_ref(), n as u8), Some(5));
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_is_answered_again_after_a_crash() {
    let mut world = World::new(8);
    let mut one = world.machine("one");
    let first = found(&one).await;
    ready(&one, &first).await;
    let at = service(&first);
    one.crash().await;
    assert!(one.ask(LOCAL, at, &[]).is_err());
    drop(first);
    let again = simulations::mesh::start(&one).await;
    ready(&one, &again).await;
    assert!(one.ask(LOCAL, at, &[]).is_ok());
}
