//! Connections that are held and say next to nothing: over TCP through the
//! member's tunnel, and streams of QUIC. And what an honest node meets meanwhile.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use innermesh_agent::tls::{ClientTls, SERVER_NAME};
use innermesh_proto::limits;
use innermesh_tests::{Host, agent::DOMAIN};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

/// The page's port.
const PAGE: u16 = 7480;
/// Connections to each port of each node.
const EACH: usize = 200;
/// Between two bytes on one connection.
const SLOWLY: Duration = Duration::from_secs(3);
/// How long an honest connection may take.
const HONEST: Duration = Duration::from_secs(5);

/// What was held.
#[derive(Default)]
pub struct Counts {
    pub opened: AtomicU64,
    pub ended: AtomicU64,
}

/// Where this host's programs take TCP connections that come from other nodes.
pub fn listening(host: &Host) -> Result<BTreeSet<SocketAddr>, String> {
    let told = host.run(&["ss", "-Hltn"]).result()?;
    let places = told
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3));
    let places = places.filter_map(|place| place.parse().ok());
    let places = places.filter(|place: &SocketAddr| match place.ip() {
        // The resolver's address is for the host's own programs.
        IpAddr::V4(ip) => !ip.is_loopback() && ip.octets()[3] != 53,
        IpAddr::V6(_) => false,
    });
    Ok(places.collect())
}

/// Holds connections to these for so long, opening each again that ends.
pub async fn hold(places: &[SocketAddr], long: Duration, counts: &Arc<Counts>) {
    let mut holding = tokio::task::JoinSet::new();
    for to in places {
        for number in 0..EACH {
            let (to, counts) = (*to, counts.clone());
            holding.spawn(async move {
                loop {
                    if let Ok(Ok(stream)) = timeout(HONEST, TcpStream::connect(to)).await {
                        counts.opened.fetch_add(1, Ordering::Relaxed);
                        dribble(stream, to.port(), number).await;
                        counts.ended.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            });
        }
    }
    tokio::time::sleep(long).await;
}

/// Sends a byte now and then, of what could be a request, until it ends.
async fn dribble(mut stream: TcpStream, port: u16, number: usize) {
    let request: &[u8] = match port {
        // A message of 4,096 bytes, its length first.
        53 => &[0x10, 0x00, 1, 2, 1, 0],
        7443 => &[0x16, 0x03, 0x01, 0x10, 0x00, 0x01],
        _ => b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };
    // Half of them say nothing at all.
    let bytes: &[u8] = if number.is_multiple_of(2) {
        request
    } else {
        &[]
    };
    for byte in bytes.iter().chain(std::iter::repeat_n(&b'a', 1000)) {
        let mut gone = [0; 64];
        tokio::select! {
            readable = stream.readable() => {
                if readable.is_err() || matches!(stream.try_read(&mut gone), Ok(0)) {
                    return;
                }
            }
            () = tokio::time::sleep(SLOWLY) => {}
        }
        if !bytes.is_empty() && stream.write_all(&[*byte]).await.is_err() {
            return;
        }
    }
}

/// Opens as many connections of QUIC and streams on them as an agent lets one
/// member have, and sends a byte on each now and then.
pub async fn slow_streams(
    local: SocketAddr,
    client: Arc<ClientTls>,
    to: SocketAddr,
    counts: Arc<Counts>,
) {
    let Ok(endpoint) = quinn::Endpoint::client(local) else {
        return;
    };
    let config = quinn::ClientConfig::new(client.quic());
    let mut holding = tokio::task::JoinSet::new();
    for _ in 0..limits::LINKS_PER_MEMBER {
        let (endpoint, config, counts) = (endpoint.clone(), config.clone(), counts.clone());
        holding.spawn(async move {
            loop {
                if let Ok(connecting) = endpoint.connect_with(config.clone(), to, SERVER_NAME)
                    && let Ok(connection) = connecting.await
                {
                    counts.opened.fetch_add(1, Ordering::Relaxed);
                    drip(&connection).await;
                    counts.ended.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
    while holding.join_next().await.is_some() {}
}

async fn drip(connection: &quinn::Connection) {
    let mut streams = Vec::new();
    loop {
        for _ in 0..limits::STREAMS_PER_PEER {
            let opening = timeout(Duration::from_millis(50), connection.open_uni()).await;
            match opening {
                Ok(Ok(stream)) => streams.push(stream),
                Ok(Err(_)) => return,
                Err(_) => break,
            }
        }
        let mut kept = Vec::new();
        for mut stream in streams {
            if stream.write_all(&[1]).await.is_ok() {
                kept.push(stream);
            }
        }
        streams = kept;
        tokio::select! {
            _ = connection.closed() => return,
            () = tokio::time::sleep(SLOWLY) => {}
        }
    }
}

/// How long an honest node waits for the first line of another's page.
pub fn honest_page(host: &Host, node: &str) -> Result<Duration, String> {
    let request = format!("GET / HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: close\r\n\r\n");
    honest(host, node, PAGE, request.as_bytes())
}

fn honest(host: &Host, node: &str, port: u16, request: &[u8]) -> Result<Duration, String> {
    let to: IpAddr = node.parse().map_err(|e| format!("{node}: {e}"))?;
    let words = |what: &str, e: &dyn std::fmt::Display| format!("port {port}, {what}: {e}");
    let began = Instant::now();
    let mut stream = host
        .tcp_to(SocketAddr::new(to, port))
        .map_err(|e| words("connecting", &e))?;
    stream
        .set_read_timeout(Some(HONEST))
        .map_err(|e| words("waiting", &e))?;
    stream.write_all(request).map_err(|e| words("asking", &e))?;
    let mut first = [0; 2];
    stream
        .read_exact(&mut first)
        .map_err(|e| words("reading", &e))?;
    Ok(began.elapsed())
}
