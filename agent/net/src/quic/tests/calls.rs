//! Requests, one-way messages and datagrams between two members.

use std::time::Duration;

use innermesh_proto::{
    codec, limits,
    rpc::{Failure, RequestFrame, ResponseFrame, VERSION, method, stop},
};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use quinn::{ReadError, VarInt, WriteError};
use tracing::Instrument;
use tracing_subscriber::{Registry, layer::SubscriberExt};

use super::{
    super::{CallError, TransportBackend, over_quinn::QuinnEnrolConnection},
    world::{ECHO, LARGE, Node, REFUSE, TRACE, WAIT, World, all},
};
use crate::telemetry;

const SECOND: Duration = Duration::from_secs(1);

/// Two members, the first of which dialed the second.
async fn connected() -> (World, Node, Node) {
    let world = World::new();
    let (a, b) = world.two();
    let (a, b) = (world.start(&a), world.start(&b));
    assert_eq!(a.transport.dial(b.address, Some(b.id)).await, Ok(b.id));
    b.until(|b| b.transport.is_connected(a.id)).await;
    (world, a, b)
}

/// A bare connection of a member, on which a test may write what it likes.
async fn bare(from: &Node, to: &Node) -> QuinnEnrolConnection {
    from.transport
        .dial_unregistered(to.address, None)
        .await
        .unwrap()
}

async fn exchange_bytes(channel: &QuinnEnrolConnection, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let (mut send, mut receive) = channel.connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    send.finish().unwrap();
    let answer = receive.read_to_end(limits::RPC_BYTES).await.unwrap();
    let frame = ResponseFrame::decode(&answer, limits::RPC_BYTES).unwrap();
    assert_eq!(frame.version, VERSION);
    frame.into_result()
}

#[tokio::test(start_paused = true)]
async fn either_end_of_a_connection_may_ask_and_is_told_who_asked() {
    let (_world, a, b) = connected().await;
    assert_eq!(
        a.echo(&b, "to b: ").await,
        Ok(format!("to b: {}", a.id).into_bytes())
    );
    assert_eq!(
        b.echo(&a, "to a: ").await,
        Ok(format!("to a: {}", b.id).into_bytes())
    );
    let exporters = [&a, &b].map(|n| n.seen.callers.lock().unwrap()[0].exporter);
    assert_eq!(exporters[0], exporters[1]);
    let ping = a
        .transport
        .call(b.id, method::PING, b"x".to_vec(), SECOND)
        .await;
    assert_eq!(ping, Ok(b"x".to_vec()));

    let (at_a, at_b) = (a.transport.connected(), b.transport.connected());
    assert_eq!((at_a.len(), at_b.len()), (1, 1));
    assert_eq!((at_a[0].node, at_a[0].remote), (b.id, b.address));
    assert!(at_a[0].dialed_by_us && !at_b[0].dialed_by_us);
    assert!(
        at_a[0].rtt >= Duration::from_millis(2),
        "two milliseconds both ways"
    );
    assert_ne!(at_a[0].instance, at_b[0].instance);
}

#[tokio::test(start_paused = true)]
async fn a_failure_says_what_the_peer_said() {
    let (_world, a, b) = connected().await;
    let call = |method, body: &str| a.transport.call(b.id, method, body.into(), 60 * SECOND);
    assert_eq!(
        call(REFUSE, "").await,
        Err(Failure::Refused("not on a Sunday".into()).into())
    );
    assert_eq!(call(999, "").await, Err(Failure::UnknownMethod.into()));
    let stranger = World::new().stranger(9).id;
    assert_eq!(
        a.transport.call(stranger, ECHO, Vec::new(), SECOND).await,
        Err(CallError::NotConnected(stranger))
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_at_both_ends() {
    let (_world, a, b) = connected().await;
    let begin = tokio::time::Instant::now();
    let call = |ms: &str, timeout| a.transport.call(b.id, WAIT, ms.into(), timeout);
    assert_eq!(call("30000", SECOND).await, Err(CallError::Deadline));
    assert_eq!(begin.elapsed(), SECOND);
    b.until(|b| b.transport.counters().deadlines == 1).await;

    // However patient the caller, no handler runs longer than its budget.
    let begin = tokio::time::Instant::now();
    assert_eq!(
        call("30000", 60 * SECOND).await,
        Err(Failure::DeadlineExceeded.into())
    );
    assert_eq!(
        begin.elapsed().as_millis() as u64 / 1000,
        limits::HANDLER_MS / 1000
    );
    assert_eq!(call("10", SECOND).await, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_may_run_wait_their_turn_or_are_told_to_come_back() {
    let (_world, a, b) = connected().await;
    let calls =
        (0..limits::CALLS_PER_PEER + 8).map(|_| a.transport.call(b.id, WAIT, "600".into(), SECOND));
    let answers = all(calls).await;
    let done = answers.iter().filter(|a| a.is_ok()).count();
    assert_eq!(done, limits::CALLS_PER_PEER);
    b.until(|b| b.transport.counters().busy + b.transport.counters().deadlines == 8)
        .await;
    assert_eq!(a.echo(&b, "").await, Ok(a.id.to_string().into_bytes()));
}

#[tokio::test(start_paused = true)]
async fn the_largest_body_passes_and_a_larger_one_is_not_sent() {
    let (_world, a, b) = connected().await;
    let call = |method, body| a.transport.call(b.id, method, body, 60 * SECOND);
    let largest = vec![3; limits::RPC_BODY_BYTES - 26];
    assert_eq!(call(method::PING, largest.clone()).await, Ok(largest));
    let answer = call(LARGE, limits::RPC_BODY_BYTES.to_string().into()).await;
    assert_eq!(answer.unwrap().len(), limits::RPC_BODY_BYTES);

    let over = limits::RPC_BODY_BYTES + 1;
    assert_eq!(
        call(ECHO, vec![3; over]).await,
        Err(CallError::TooLong(over))
    );
    assert!(!a.transport.notify(b.id, ECHO, vec![3; over]));
    assert!(matches!(
        call(LARGE, over.to_string().into()).await,
        Err(CallError::Failed(Failure::Internal(_)))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_too_long_is_stopped_before_it_is_read() {
    let (_world, a, b) = connected().await;
    let channel = bare(&a, &b).await;
    let (mut send, mut receive) = channel.connection.open_bi().await.unwrap();
    let piece = vec![0; 64 * 1024];
    let mut written = 0;
    let stopped = loop {
        match send.write_all(&piece).await {
            Ok(()) => written += piece.len(),
            Err(WriteError::Stopped(code)) => break code,
            Err(other) => panic!("{other}"),
        }
        assert!(written < 2 * limits::RPC_BYTES, "it reads for ever");
    };
    assert_eq!(stopped, VarInt::from_u32(stop::TOO_LONG));
    assert_eq!(
        receive.read_chunk(1, true).await,
        Err(ReadError::Reset(VarInt::from_u32(stop::TOO_LONG)))
    );
    assert_eq!(b.transport.counters().frames_too_long, 1);
    assert_eq!(a.echo(&b, "").await, Ok(a.id.to_string().into_bytes()));
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_never_ends_is_given_up() {
    let (_world, a, b) = connected().await;
    let channel = bare(&a, &b).await;
    let (mut send, _receive) = channel.connection.open_bi().await.unwrap();
    send.write_all(b"half a ").await.unwrap();
    assert_eq!(
        send.stopped().await,
        Ok(Some(VarInt::from_u32(stop::TOO_SLOW)))
    );
    assert_eq!(b.transport.counters().frames_too_slow, 1);
}

#[tokio::test(start_paused = true)]
async fn garbage_is_answered_as_malformed_and_counted() {
    let (_world, a, b) = connected().await;
    let channel = bare(&a, &b).await;
    let good = RequestFrame::new(ECHO, 1000, None, Vec::new()).encode();
    let garbage: [&[u8]; 4] = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        &good[..good.len() - 1],
        &[&good[..], &[0]].concat(),
    ];
    for bytes in garbage {
        assert_eq!(
            exchange_bytes(&channel, bytes).await,
            Err(Failure::Malformed)
        );
    }
    let mut stream = channel.connection.open_uni().await.unwrap();
    stream.write_all(b"\xff").await.unwrap();
    stream.finish().unwrap();
    b.until(|b| b.transport.counters().frames_malformed == 5)
        .await;
    assert_eq!(
        exchange_bytes(&channel, &good).await,
        Ok(a.id.to_string().into_bytes())
    );
}

#[tokio::test(start_paused = true)]
async fn a_later_version_is_answered_and_its_extensions_ignored() {
    let (_world, a, b) = connected().await;
    let channel = bare(&a, &b).await;
    let mut frame = RequestFrame::new(ECHO, 1000, None, b"later: ".to_vec());
    frame.version = VERSION + 1;
    frame.extensions = vec![(77, vec![1, 2, 3])];
    let answer = exchange_bytes(&channel, &frame.encode()).await;
    assert_eq!(answer, Ok(format!("later: {}", a.id).into_bytes()));
}

#[tokio::test(start_paused = true)]
async fn a_request_taken_back_is_no_frame() {
    let (_world, a, b) = connected().await;
    let large = vec![1; limits::RPC_BODY_BYTES];
    let call = a
        .transport
        .call(b.id, ECHO, large, Duration::from_millis(3));
    assert_eq!(call.await, Err(CallError::Deadline));
    assert_eq!(
        a.echo(&b, "next ").await,
        Ok(format!("next {}", a.id).into_bytes())
    );
    assert_eq!(b.seen.callers.lock().unwrap().len(), 1);
    assert_eq!(b.transport.counters().frames_malformed, 0);
}

#[tokio::test(start_paused = true)]
async fn one_way_messages_and_datagrams_arrive_with_their_senders_name() {
    let (_world, a, b) = connected().await;
    assert!(a.transport.notify(b.id, method::GOSSIP, b"small".to_vec()));
    assert!(
        a.transport
            .notify(b.id, method::BATCHES, vec![5; limits::BATCH_BYTES])
    );
    b.until(|b| b.seen.notices.lock().unwrap().len() == 2).await;
    let notices = b.seen.notices.lock().unwrap().clone();
    assert!(notices.contains(&(Some(a.id), b"small".to_vec())));
    assert!(notices.contains(&(Some(a.id), vec![5; limits::BATCH_BYTES])));

    assert!(a.transport.datagram_room(b.id).unwrap() >= 1100);
    assert!(a.transport.send_datagram(b.id, "packet".into()));
    b.until(|b| !b.seen.datagrams.lock().unwrap().is_empty())
        .await;
    assert!(!a.transport.send_datagram(a.id, "nobody".into()));
}

#[tokio::test(start_paused = true)]
async fn a_trace_goes_on_at_the_peer() {
    let provider = SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _default = tracing::subscriber::set_default(Registry::default().with(layer));
    let (_world, a, b) = connected().await;
    let call = async {
        let mine = telemetry::traceparent().unwrap();
        let theirs = a.transport.call(b.id, TRACE, Vec::new(), SECOND).await;
        (mine, String::from_utf8(theirs.unwrap()).unwrap())
    };
    let (mine, theirs) = call.instrument(tracing::info_span!("asking")).await;
    assert_eq!(mine[..35], theirs[..35], "one trace");
    assert_ne!(mine, theirs, "another span");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_the_newest_message_and_never_blocks() {
    let (world, a, b) = connected().await;
    world.net.cut(b.address);
    let queued = (0..2000)
        .take_while(|_| a.transport.notify(b.id, method::GOSSIP, vec![0; 100]))
        .count();
    assert_eq!(queued, limits::NOTICE_QUEUE);
    assert_eq!(a.transport.counters().notices_dropped, 1);
    a.until(|a| !a.transport.is_connected(b.id)).await;
    // What was queued is lost with the connection, and counted.
    a.until(|a| a.transport.counters().notices_dropped > limits::NOTICE_QUEUE as u64 / 2)
        .await;
    assert!(!a.transport.notify(b.id, method::GOSSIP, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_bounded_in_bytes_too() {
    let (world, a, b) = connected().await;
    world.net.cut(b.address);
    let large = vec![0; limits::BATCH_BYTES];
    let queued = (0..100)
        .take_while(|_| a.transport.notify(b.id, method::BATCHES, large.clone()))
        .count();
    assert!(
        queued * limits::BATCH_BYTES <= limits::NOTICE_QUEUE_BYTES,
        "{queued}"
    );
    assert!(queued >= 3, "{queued}");
}

#[tokio::test(start_paused = true)]
async fn a_second_hello_changes_nothing() {
    let (_world, a, b) = connected().await;
    let before = b.transport.connected();
    let hello = codec::encode(&innermesh_proto::rpc::Hello {
        instance: 1,
        serial: u64::MAX,
    });
    assert!(a.transport.notify(b.id, method::HELLO, hello));
    assert!(a.transport.notify(b.id, method::GOSSIP, Vec::new()));
    b.until(|b| !b.seen.notices.lock().unwrap().is_empty())
        .await;
    assert_eq!(b.transport.connected()[0].instance, before[0].instance);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_costs_almost_nothing() {
    let (_world, a, b) = connected().await;
    tokio::time::sleep(60 * SECOND).await;
    let bytes = |node: &Node| node.transport.connected()[0].bytes_sent;
    let before = (bytes(&a), bytes(&b));
    tokio::time::sleep(600 * SECOND).await;
    let rate = |node: &Node, before| (bytes(node) - before) as f64 / 600.0;
    let (dialer, acceptor) = (rate(&a, before.0), rate(&b, before.1));
    println!("idle: dialer {dialer:.1} B/s, acceptor {acceptor:.1} B/s");
    // With 28 bytes of IP and UDP a packet, 49 such connections are under 1 kB/s.
    assert!(dialer < 15.0 && acceptor < 15.0, "{dialer} {acceptor}");
    assert!(a.transport.is_connected(b.id), "they kept each other alive");
}
