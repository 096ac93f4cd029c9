//! Lanes on real sockets of loopback.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use innermesh_proto::{limits, path::LaneUrl, rpc::method};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use super::{
    super::{LaneServer, Lanes, TransportBackend, over_quinn::Quinn},
    network::host,
    world::{Node, World},
};
use crate::{host::Host, listen::Class};

fn lanes(transport: &Quinn) -> Lanes {
    transport.lanes().unwrap().clone()
}

/// Takes in lanes of a node, without TLS.
fn serve(host: &Host, node: &Node) -> SocketAddr {
    let server = LaneServer::new(lanes(&node.transport), Arc::new(|_: IpAddr| Class::Other));
    let listener = server.bind(&*host.net, "127.0.0.1:0".parse().unwrap());
    let listener = listener.unwrap();
    let at = listener.address();
    tokio::spawn(server.serve(listener, None));
    at
}

fn url(at: SocketAddr) -> LaneUrl {
    format!("ws://{at}/innermesh").parse().unwrap()
}

/// A node that takes lanes in, and another.
fn two(world: &World, host: &Host) -> (Node, Node, SocketAddr) {
    let (a, b) = world.two();
    let [a, b] = [("[::]:0", a), ("127.0.0.1:0", b)]
        .map(|(at, node)| world.start_on(host, &node, at.parse().unwrap()).unwrap());
    let at = serve(host, &b);
    (a, b, at)
}

#[tokio::test]
async fn what_goes_over_quic_goes_over_a_lane_and_ends_with_it() {
    let (world, host) = (World::new(), host(None, None));
    let (a, b, at) = two(&world, &host);
    let open = lanes(&a.transport)
        .dial(&*host.net, &url(at), at)
        .await
        .unwrap();
    let lane = open.address();
    let carrying = tokio::spawn(open.carry());
    assert_eq!(a.transport.dial(lane, Some(b.id)).await.unwrap(), b.id);
    assert!(a.echo(&b, "over TCP").await.is_ok());
    b.until(|b| b.transport.is_connected(a.id)).await;
    assert!(b.echo(&a, "and back").await.is_ok());
    let large = "x".repeat(1 << 20);
    assert_eq!(
        a.echo(&b, &large).await.unwrap().len(),
        large.len() + a.id.to_string().len()
    );
    let (there, here) = (a.transport.connected(), b.transport.connected());
    assert!(there[0].by_tcp && here[0].by_tcp);
    assert_eq!(there[0].remote, at);
    assert!(here[0].remote.ip().is_loopback(), "{here:?}");
    assert_eq!(a.transport.paths()[&b.id], lane);
    // Room for a tunnel's datagram is found as on any way.
    b.until(|b| {
        b.transport
            .datagram_room(a.id)
            .is_some_and(|room| room > 1300)
    })
    .await;
    carrying.abort();
    a.until(|a| !a.transport.is_connected(b.id)).await;
    b.until(|b| !b.transport.is_connected(a.id)).await;
    b.until(|b| lanes(&b.transport).count() == 0).await;
}

#[tokio::test]
async fn a_way_by_udp_takes_the_place_of_a_lane() {
    let (world, host) = (World::new(), host(None, None));
    let (a, b, at) = two(&world, &host);
    let open = lanes(&a.transport)
        .dial(&*host.net, &url(at), at)
        .await
        .unwrap();
    let lane = open.address();
    let _carrying = tokio::spawn(open.carry());
    a.transport.dial(lane, Some(b.id)).await.unwrap();
    a.transport.dial(b.address, Some(b.id)).await.unwrap();
    a.until(|a| !a.transport.connected()[0].by_tcp).await;
    assert!(a.echo(&b, "").await.is_ok());
}

#[tokio::test]
async fn a_stranger_joins_over_a_lane() {
    let (world, host) = (World::new(), host(None, None));
    let (a, b, at) = two(&world, &host);
    let joiner = world.stranger(9);
    let joiner = world
        .start_on(&host, &joiner, "127.0.0.1:0".parse().unwrap())
        .unwrap();
    let open = lanes(&joiner.transport)
        .dial(&*host.net, &url(at), at)
        .await
        .unwrap();
    let lane = open.address();
    let _carrying = tokio::spawn(open.carry());
    let channel = TransportBackend::dial_unregistered(&joiner.transport, lane, None)
        .await
        .unwrap();
    let answer = channel.call(method::JOIN, b"me".to_vec(), Duration::from_secs(5));
    assert_eq!(answer.await.unwrap(), b"me");
    let callers = b.seen.callers.lock().unwrap();
    // Its share is that of where it comes from, as by UDP.
    assert!(callers[0].remote.ip().is_loopback(), "{callers:?}");
    drop(a);
}

#[tokio::test]
async fn garbage_ends_a_lane_and_is_counted() {
    let (world, host) = (World::new(), host(None, None));
    let (_a, b, at) = two(&world, &host);
    let mut plain = TcpStream::connect(at).await.unwrap();
    plain.write_all(b"\x16\x03\x01\r\n\r\n").await.unwrap();
    let _ = plain.read_to_end(&mut Vec::new()).await;
    b.until(|b| b.transport.counters().lanes_failed == 1).await;
    let long = vec![0; limits::LANE_MESSAGE_BYTES + 1];
    for bad in [
        Message::text("hello"),
        Message::binary(vec![0, 9, 1]),
        Message::binary(Vec::new()),
        Message::binary(long),
    ] {
        let before = b.transport.counters().lanes_garbage;
        let stream = TcpStream::connect(at).await.unwrap();
        let (mut socket, _) = client_async(url(at).to_string(), stream).await.unwrap();
        let _ = socket.send(bad).await;
        while let Some(Ok(_)) = socket.next().await {}
        b.until(|b| b.transport.counters().lanes_garbage == before + 1)
            .await;
    }
    // A lane that is one and brings QUIC nothing that it reads goes on as UDP would.
    let stream = TcpStream::connect(at).await.unwrap();
    let (mut socket, _) = client_async(url(at).to_string(), stream).await.unwrap();
    for _ in 0..100 {
        let noise = Message::binary(vec![0, 4, 0xff, 1, 2, 3]);
        socket.send(noise).await.unwrap();
    }
    b.until(|b| lanes(&b.transport).count() == 1).await;
    // And ends, as nobody stands on it.
    b.until(|b| lanes(&b.transport).count() == 0).await;
    assert_eq!(b.transport.counters().lanes_garbage, 4);
}
