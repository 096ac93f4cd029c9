//! The same on real sockets.

use std::{net::UdpSocket, time::Duration};

use super::{
    super::{TransportBackend, TransportError},
    network::host,
    world::{World, all},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_port_is_survived() {
    let world = World::new();
    let (a, b) = world.two();
    let host = host(None, None);
    let [a, b] = [a, b].map(|i| {
        world
            .start_on(&host, &i, "127.0.0.1:0".parse().unwrap())
            .unwrap()
    });
    a.transport.dial(b.address, None).await.unwrap();
    let vandal = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut noise = 1u64;
    for length in 0..1400 {
        let datagram: Vec<u8> = (0..length)
            .map(|_| {
                noise = noise
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                (noise >> 56) as u8
            })
            .collect();
        vandal.send_to(&datagram, b.address).unwrap();
        if length % 100 == 0 {
            assert!(a.echo(&b, "").await.is_ok(), "after {length} datagrams");
        }
    }
    assert!(
        all((0..100).map(|_| a.echo(&b, "")))
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(b.links(), 1);
    b.transport.close().await;
    a.until(|a| !a.transport.is_connected(b.id)).await;
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_holder_and_the_setting_to_change() {
    let world = World::new();
    let taken = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let holder = UdpSocket::bind(taken).unwrap();
    let error = world
        .start_on(&host(None, None), &world.member(1), taken)
        .err()
        .expect("the port is taken");
    let text = error.to_string();
    assert!(
        matches!(error, TransportError::AddressInUse { .. }),
        "{text}"
    );
    for part in [
        taken.port().to_string(),
        format!("pid {}", std::process::id()),
        "`listen`".into(),
    ] {
        assert!(text.contains(&part), "{text}");
    }
    drop(holder);
}

#[tokio::test]
async fn an_ipv4_peer_on_a_socket_for_both_families_has_its_plain_address() {
    let world = World::new();
    let (a, b) = world.two();
    let host = host(None, None);
    let a = world
        .start_on(&host, &a, "[::]:0".parse().unwrap())
        .unwrap();
    let b = world
        .start_on(&host, &b, "127.0.0.1:0".parse().unwrap())
        .unwrap();
    a.transport.dial(b.address, None).await.unwrap();
    assert_eq!(a.transport.connected()[0].remote, b.address);
    let ping = a
        .transport
        .call(b.id, 1, Vec::new(), Duration::from_secs(5))
        .await;
    assert!(ping.is_ok());
}
