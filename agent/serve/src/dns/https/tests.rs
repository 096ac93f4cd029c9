use std::pin::pin;

use data_encoding::BASE64URL_NOPAD;
use h2::client;
use innermesh_host::{
    Mono,
    listen::{Room, Shares, Source},
    tasks::Tasks,
};
use innermesh_proto::zone::Zone;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::dns::prompt::tests::{MEMBER, corpus, served};

/// The runtime's time, which goes on by itself where nothing is left to be done.
struct PausedClock(Instant);

#[async_trait::async_trait]
impl Clock for PausedClock {
    fn now(&self) -> Mono {
        self.0.elapsed()
    }
    fn wall_ms(&self) -> u64 {
        1_000_000_000_000
    }
    async fn sleep(&self, duration: Duration) {
        sleep(duration).await;
    }
}

/// What answers on a connection of a member.
async fn requests() -> Requests {
    let clock: Arc<dyn Clock> = Arc::new(PausedClock(Instant::now()));
    let input = corpus::input();
    let zone = Zone::build(&input);
    let tasks = Tasks::default();
    let dns = Dns::new(clock.clone(), tasks, || zone, input.ipv4, input.ula);
    dns.publish(move || served(&input));
    let room = Room::new(Shares::new(4, 4, 4), clock.clone());
    let place = room.enter(Source::other(MEMBER)).await;
    Requests::new(
        Arc::new(dns),
        clock,
        SocketAddr::new(MEMBER, 7),
        Arc::new(place.unwrap()),
    )
}

/// One that is answered at once.
fn question() -> Request<()> {
    let message = [
        &[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
        b"\x01a\x03lab\x08internal\0\0\x01\0\x01",
    ];
    let message = BASE64URL_NOPAD.encode(&message.concat());
    let uri = format!("https://ns.lab.internal/dns-query?dns={message}");
    Request::builder().uri(uri).body(()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_client_takes_in_no_answer_ends_as_an_idle_one() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(converse(requests().await, ours));
    let (mut sender, connection) = client::Builder::new()
        .initial_window_size(0)
        .handshake::<_, Bytes>(theirs)
        .await
        .unwrap();
    tokio::spawn(connection);
    let (response, _) = sender.send_request(question(), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    // What the answer says waits for room at the client, who gives none.
    let ended = timeout(4 * IDLE, serving).await;
    ended.expect("an end").unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_accepted_while_as_many_answers_as_streams_are_under_way() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (connection, client) = tokio::join!(builder().handshake(ours), client::handshake(theirs));
    let mut conversation = Conversation::new(connection.unwrap(), requests().await);
    let mut open: Vec<oneshot::Sender<()>> = (0..limits::DNS_HTTP_STREAMS)
        .map(|_| {
            let (end, ended) = oneshot::channel();
            let ended = async { drop(ended.await) };
            conversation.under_way.push(Box::pin(ended));
            end
        })
        .collect();
    let (mut sender, connection) = client.unwrap();
    tokio::spawn(connection);
    let (mut response, _) = sender.send_request(question(), true).unwrap();
    let mut run = pin!(conversation.run());
    tokio::select! {
        () = &mut run => panic!("the connection has ended"),
        _ = &mut response => panic!("one more is answered"),
        // When nothing is left to be done.
        () = sleep(IDLE / 10) => {}
    }
    drop(open.pop());
    tokio::select! {
        () = &mut run => panic!("the connection has ended"),
        response = &mut response => assert_eq!(response.unwrap().status(), 200),
        () = sleep(IDLE / 10) => panic!("it isn't answered where there is room"),
    }
}
