//! Clients that hold connections over TCP, TLS and HTTPS, each in a way of its own, and
//! come again when they are shown out.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::http2::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, begin, frame,
};
use crate::{Host, dns, inside, quic};

/// Between two octets of who is slow.
const SLOWLY: Duration = Duration::from_millis(200);
/// Before a client comes again.
const AGAIN: Duration = Duration::from_secs(1);
/// Between what one says who reads nothing.
const PACE: Duration = Duration::from_millis(20);
/// For how long a connection or a handshake is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the name server is asked.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub tcp: SocketAddr,
    pub tls: SocketAddr,
    pub https: SocketAddr,
}

/// A way to do harm.
#[derive(Clone, Copy, Debug)]
pub struct Harm {
    pub name: &'static str,
    by: Transport,
    does: Does,
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Tcp,
    /// TCP where TLS is spoken.
    BelowTls,
    Tls,
    Https,
}

#[derive(Clone, Copy, Debug)]
enum Does {
    Nothing,
    HalfMessage,
    OctetByOctet,
    ReadsNothing,
    LongMessages,
    CircularNames,
    Responses,
    GoesAway,
    HalfHello,
    SlowHeaders,
    EndlessHeaders,
    SlowBody,
    NoWindow,
    ManyStreams,
    RapidReset,
    ResetInBody,
    EndlessSettings,
    TooLongBody,
    OverfullWindow,
}

const fn harm(name: &'static str, by: Transport, does: Does) -> Harm {
    Harm { name, by, does }
}

/// All of them.
pub const HARMS: [Harm; 25] = [
    harm("TCP, silent", Transport::Tcp, Does::Nothing),
    harm("TCP, half a message", Transport::Tcp, Does::HalfMessage),
    harm("TCP, octet by octet", Transport::Tcp, Does::OctetByOctet),
    harm("TCP, reads nothing", Transport::Tcp, Does::ReadsNothing),
    harm("TCP, 65,535 octets", Transport::Tcp, Does::LongMessages),
    harm("TCP, circular names", Transport::Tcp, Does::CircularNames),
    harm("TCP, responses", Transport::Tcp, Does::Responses),
    harm("TCP, goes away", Transport::Tcp, Does::GoesAway),
    harm("TLS, no hello", Transport::BelowTls, Does::Nothing),
    harm("TLS, half a hello", Transport::BelowTls, Does::HalfHello),
    harm("TLS, silent", Transport::Tls, Does::Nothing),
    harm("TLS, half a message", Transport::Tls, Does::HalfMessage),
    harm("TLS, reads nothing", Transport::Tls, Does::ReadsNothing),
    harm("TLS, 65,535 octets", Transport::Tls, Does::LongMessages),
    harm("HTTPS, silent", Transport::Https, Does::Nothing),
    harm("HTTPS, slow headers", Transport::Https, Does::SlowHeaders),
    harm(
        "HTTPS, endless headers",
        Transport::Https,
        Does::EndlessHeaders,
    ),
    harm("HTTPS, slow body", Transport::Https, Does::SlowBody),
    harm("HTTPS, window 0", Transport::Https, Does::NoWindow),
    harm("HTTPS, many streams", Transport::Https, Does::ManyStreams),
    harm("HTTPS, rapid reset", Transport::Https, Does::RapidReset),
    harm(
        "HTTPS, reset in a body",
        Transport::Https,
        Does::ResetInBody,
    ),
    harm(
        "HTTPS, settings and pings",
        Transport::Https,
        Does::EndlessSettings,
    ),
    harm(
        "HTTPS, a body too long",
        Transport::Https,
        Does::TooLongBody,
    ),
    harm(
        "HTTPS, window too large",
        Transport::Https,
        Does::OverfullWindow,
    ),
];

/// What came of it so far, and when it is to end.
#[derive(Debug, Default)]
pub struct Abuse {
    ended: AtomicBool,
    done: Mutex<BTreeMap<&'static str, u64>>,
}

impl Abuse {
    /// Has all that see this end.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether it is to end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// How often each harm was begun on a connection: by TLS after a handshake.
    #[must_use]
    pub fn done(&self) -> BTreeMap<&'static str, u64> {
        self.lock().clone()
    }

    fn count(&self, harm: &Harm) {
        *self.lock().entry(harm.name).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn until_over(&self) {
        while !self.is_over() {
            sleep(SLOWLY).await;
        }
    }
}

/// Keeps so many clients at it from these addresses of a host, until it is over.
///
/// # Panics
/// When the host's network can't be entered.
pub fn hold(host: &Host, sources: &[Ipv4Addr], target: Target, clients: usize, abuse: &Arc<Abuse>) {
    let (sources, abuse) = (sources.to_vec(), abuse.clone());
    let network = host.network().expect("the host's network");
    let held = inside(network, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(hold_all(&sources, target, clients, &abuse));
        Ok(())
    });
    held.expect("a runtime");
}

async fn hold_all(sources: &[Ipv4Addr], target: Target, clients: usize, abuse: &Arc<Abuse>) {
    let protocols: [&[&[u8]]; 2] = [&[b"dot"], &[b"h2"]];
    let tls = protocols.map(|names| TlsConnector::from(Arc::new(quic::believing_anybody(names))));
    let mut all = JoinSet::new();
    for number in 0..clients {
        let client = Client {
            source: sources[number % sources.len()],
            target,
            harm: HARMS[number % HARMS.len()],
            tls: tls.clone(),
            abuse: abuse.clone(),
        };
        all.spawn(client.come_again_and_again());
    }
    while all.join_next().await.is_some() {}
}

struct Client {
    source: Ipv4Addr,
    target: Target,
    harm: Harm,
    tls: [TlsConnector; 2],
    abuse: Arc<Abuse>,
}

impl Client {
    async fn come_again_and_again(self) {
        while !self.abuse.is_over() {
            tokio::select! {
                _ = self.come() => {}
                () = self.abuse.until_over() => {}
            }
            sleep(AGAIN).await;
        }
    }

    /// One connection; `None` where no harm could be done on it.
    async fn come(&self) -> Option<()> {
        let (to, tls) = match self.harm.by {
            Transport::Tcp => (self.target.tcp, None),
            Transport::BelowTls => (self.target.tls, None),
            Transport::Tls => (self.target.tls, Some(&self.tls[0])),
            Transport::Https => (self.target.https, Some(&self.tls[1])),
        };
        let stream = self.connect(to).await?;
        let does = self.harm.does;
        // However the server ends it.
        let _ = match tls {
            None => {
                self.abuse.count(&self.harm);
                does.harm(stream).await
            }
            Some(tls) => {
                let name = ServerName::try_from("ns.lab.internal").ok()?;
                let stream = timeout(PATIENCE, tls.connect(name, stream)).await.ok()?;
                let stream = stream.ok()?;
                self.abuse.count(&self.harm);
                does.harm(stream).await
            }
        };
        Some(())
    }

    async fn connect(&self, to: SocketAddr) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind((self.source, 0).into()).ok()?;
        timeout(PATIENCE, socket.connect(to)).await.ok()?.ok()
    }
}

impl Does {
    async fn harm(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let question = dns::query(7, "alpha.lab.internal");
        let framed = framed(&question);
        match self {
            Self::Nothing => ended(&mut stream).await,
            Self::HalfMessage => {
                stream.write_all(&framed[..9]).await?;
                stream.flush().await?;
                ended(&mut stream).await
            }
            Self::OctetByOctet => slowly(&mut stream, &framed.repeat(40), 1).await,
            Self::ReadsNothing => endlessly(&mut stream, |_| framed.repeat(20)).await,
            Self::LongMessages => {
                let long = [&question[..], &vec![0xc0; 65_535 - question.len()]].concat();
                endlessly(&mut stream, |_| self::framed(&long)).await
            }
            Self::CircularNames => {
                let circle = [&question[..12], b"\xc0\x0e\xc0\x0c\0\x01\0\x01"].concat();
                endlessly(&mut stream, |_| self::framed(&circle).repeat(20)).await
            }
            Self::Responses => {
                let mut response = question.clone();
                response[2] |= 0x80;
                endlessly(&mut stream, |_| self::framed(&response)).await
            }
            Self::GoesAway => {
                stream.write_all(&framed.repeat(10)).await?;
                stream.flush().await
            }
            Self::HalfHello => {
                // A part of a record of a handshake.
                stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1]).await?;
                ended(&mut stream).await
            }
            over_http => over_http.harm_http(stream, &question).await,
        }
    }

    async fn harm_http(
        self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        question: &[u8],
    ) -> io::Result<()> {
        let window = if matches!(self, Self::NoWindow) {
            0
        } else {
            65_535
        };
        stream.write_all(&begin(window)).await?;
        stream.flush().await?;
        let head = http2::post(question.len());
        match self {
            Self::SlowHeaders => {
                let begun = frame(HEADERS, 0, 1, &head[..1]);
                let more = head[1..]
                    .chunks(1)
                    .flat_map(|octet| frame(CONTINUATION, 0, 1, octet));
                let whole: Vec<u8> = begun.into_iter().chain(more).collect();
                slowly(&mut stream, &whole, 10).await
            }
            Self::EndlessHeaders => {
                stream.write_all(&frame(HEADERS, 0, 1, &head)).await?;
                // A field of the head, again and again.
                let more = [&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat();
                endlessly(&mut stream, |_| frame(CONTINUATION, 0, 1, &more.repeat(50))).await
            }
            Self::SlowBody => {
                stream
                    .write_all(&frame(HEADERS, END_HEADERS, 1, &head))
                    .await?;
                let octets = question
                    .chunks(1)
                    .flat_map(|octet| frame(DATA, 0, 1, octet));
                slowly(&mut stream, &octets.collect::<Vec<u8>>(), 10).await
            }
            Self::NoWindow => {
                for n in 0..100 {
                    stream
                        .write_all(&http2::request(2 * n + 1, question))
                        .await?;
                }
                stream.flush().await?;
                ended(&mut stream).await
            }
            Self::ManyStreams => {
                let open = |n| frame(HEADERS, END_HEADERS, 2 * n + 1, &head);
                endlessly(&mut stream, |n| {
                    (20 * n..20 * n + 20).flat_map(open).collect()
                })
                .await
            }
            Self::RapidReset => {
                let open_and_reset = |n| {
                    let stream = 2 * n + 1;
                    let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
                    [open, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
                };
                let some = |n| (50 * n..50 * n + 50).flat_map(open_and_reset).collect();
                endlessly(&mut stream, some).await
            }
            Self::ResetInBody => {
                for n in 0..40 {
                    let stream_id = 2 * n + 1;
                    let part = [
                        frame(HEADERS, END_HEADERS, stream_id, &head),
                        frame(DATA, 0, stream_id, &question[..5]),
                    ];
                    stream.write_all(&part.concat()).await?;
                    stream.flush().await?;
                    sleep(SLOWLY / 20).await;
                    let reset = frame(RST_STREAM, 0, stream_id, &[0, 0, 0, 8]);
                    stream.write_all(&reset).await?;
                }
                stream.flush().await
            }
            Self::EndlessSettings => {
                let both = [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[7; 8])].concat();
                endlessly(&mut stream, |_| both.repeat(50)).await
            }
            Self::TooLongBody => {
                let begun = frame(HEADERS, END_HEADERS, 1, &http2::post(70_000));
                stream.write_all(&begun).await?;
                endlessly(&mut stream, |_| frame(DATA, 0, 1, &[0; 16_000])).await
            }
            Self::OverfullWindow => {
                let most = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]);
                endlessly(&mut stream, |_| most.clone()).await
            }
            _ => ended(&mut stream).await,
        }
    }
}

/// Until the server has ended it.
async fn ended(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn slowly(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    bytes: &[u8],
    step: usize,
) -> io::Result<()> {
    for some in bytes.chunks(step) {
        stream.write_all(some).await?;
        stream.flush().await?;
        sleep(SLOWLY).await;
    }
    ended(stream).await
}

/// Says one after the other and reads nothing.
async fn endlessly(
    stream: &mut (impl AsyncWrite + Unpin),
    mut next: impl FnMut(u32) -> Vec<u8>,
) -> io::Result<()> {
    for n in 0..u32::MAX / 400 {
        stream.write_all(&next(n)).await?;
        stream.flush().await?;
        sleep(PACE).await;
    }
    Ok(())
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], message].concat()
}
