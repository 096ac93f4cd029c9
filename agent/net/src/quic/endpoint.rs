//! The one quinn endpoint of an agent, client and server on one UDP socket and the lanes
//! beside it, and every setting of it. All randomness comes from the host's, so that a
//! simulated agent sends the same packets each time.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{hkdf, hmac};
use innermesh_proto::limits;
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    TransportConfig, ValidationTokenConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use super::{
    error::TransportError,
    lane::{LaneSocket, Lanes},
};
use crate::host::{Clock, Host, holder::Kind};

/// A connection on which nothing was heard for so long is lost, in milliseconds.
const IDLE_TIMEOUT_MS: u32 = 15_000;
/// The dialer asks for a sign of life after so long without one, so that two
/// in a row may be lost. One end's asking keeps both ends' timers and a NAT's
/// mapping alive; by both it would cost twice the packets for nothing.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// First guess of the round trip: a lost first packet costs three times this
/// (RFC 9002 §6.2.2), and quinn's 333 ms are a second.
const INITIAL_RTT: Duration = Duration::from_millis(50);
/// What one stream may send unread: 2.5 MB/s at 50 ms.
const STREAM_WINDOW: u32 = 128 * 1024;
/// What a stranger's streams may send unread, together.
const STRANGER_WINDOW: u32 = 128 * 1024;
/// What a member's streams may send unread, together.
pub(super) const MEMBER_WINDOW: u32 = 512 * 1024;
/// What is kept until the peer has acknowledged it.
const SEND_WINDOW: u64 = 512 * 1024;
/// Datagrams waiting to be read or sent; relayed tunnel packets are better
/// late and lost than queued.
const DATAGRAM_BUFFER: usize = 128 * 1024;
/// As [`DATAGRAM_BUFFER`], of those to be sent: beats of links wait behind relayed ones.
const DATAGRAMS_TO_SEND: usize = 48 * 1024;
/// What quinn may keep of a handshake that wasn't looked at yet.
const INCOMING_BUFFER: u64 = 16 * 1024;
/// Length of the connection ids that peers put in front of their packets: enough for
/// some thousands of connections, of which no two may have one id, and no more.
const CID_LENGTH: usize = 4;
/// Length of the id that a client makes up for its first packet: at least 8
/// and unpredictable (RFC 9000 §7.2).
const FIRST_CID_LENGTH: usize = 16;

/// Makes quinn's configurations from TLS ones, for as long as the endpoint lives.
pub(super) struct Configs {
    accepting: Arc<TransportConfig>,
    dialing: Arc<TransportConfig>,
    tokens: Arc<hkdf::Prk>,
    first_ids: ConnectionIds,
    time: Arc<WallTime>,
}

/// Opens the endpoint; it answers nobody until connections are accepted.
pub(super) fn open(
    host: &Host,
    listen: SocketAddr,
    server: Option<Arc<QuicServerConfig>>,
    lanes: Lanes,
) -> Result<(quinn::Endpoint, Configs), TransportError> {
    let fresh = || {
        let mut bytes = [0; 32];
        host.keys.random(&mut bytes);
        bytes
    };
    let configs = Configs {
        accepting: Arc::new(transport_config(None)),
        dialing: Arc::new(transport_config(Some(KEEP_ALIVE))),
        tokens: Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&fresh())),
        first_ids: ConnectionIds::new(&fresh(), FIRST_CID_LENGTH),
        time: Arc::new(WallTime(host.clock.clone())),
    };
    let server = server.map(|tls| configs.server(tls));
    let ids = ConnectionIds::new(&fresh(), CID_LENGTH);
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &fresh())));
    config
        .rng_seed(Some(fresh()))
        .cid_generator(move || Box::new(ids.clone()));
    let socket = host
        .net
        .quic_socket(listen)
        .and_then(|socket| LaneSocket::new(socket, lanes))
        .map_err(|error| cannot_listen(host, listen, error))?;
    let endpoint =
        quinn::Endpoint::new_with_abstract_socket(config, server, socket, host.net.quic_runtime())
            .map_err(|error| cannot_listen(host, listen, error))?;
    Ok((endpoint, configs))
}

impl Configs {
    pub(super) fn server(&self, tls: Arc<QuicServerConfig>) -> quinn::ServerConfig {
        let mut validation = ValidationTokenConfig::default();
        // Tokens for a next connection would need a store on both sides, and
        // save a round trip under load only.
        validation.sent(0).log(Arc::new(quinn::NoneTokenLog));
        let mut config = quinn::ServerConfig::new(tls, self.tokens.clone());
        config
            .transport_config(self.accepting.clone())
            .validation_token_config(validation)
            .time_source(self.time.clone())
            .max_incoming(limits::HANDSHAKES)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER * limits::HANDSHAKES as u64);
        config
    }

    pub(super) fn client(&self, tls: Arc<QuicClientConfig>) -> quinn::ClientConfig {
        let ids = self.first_ids.clone();
        let mut config = quinn::ClientConfig::new(tls);
        config
            .transport_config(self.dialing.clone())
            .token_store(Arc::new(quinn::NoneTokenStore))
            .initial_dst_cid_provider(Arc::new(move || ids.next()));
        config
    }
}

/// Every connection starts with what a stranger may have; a member is given
/// more as soon as it is known as one.
fn transport_config(keep_alive: Option<Duration>) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(keep_alive)
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(limits::STREAMS_PER_STRANGER.into())
        .max_concurrent_uni_streams(limits::STREAMS_PER_STRANGER.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(STRANGER_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAMS_TO_SEND)
        .mtu_discovery_config(Some(MtuDiscoveryConfig::default()));
    config
}

fn cannot_listen(host: &Host, address: SocketAddr, error: io::Error) -> TransportError {
    if error.kind() != io::ErrorKind::AddrInUse {
        return TransportError::Listen { address, error };
    }
    let port = address.port();
    let holder = host.net.holder(Kind::Udp, address);
    TransportError::AddressInUse { port, holder }
}

/// Connection ids that nobody can tell from random ones: HMAC-SHA-256 of a
/// counter under a key of this run. quinn's own generators ask the operating
/// system, which a simulation can't repeat.
#[derive(Clone)]
struct ConnectionIds {
    key: hmac::Key,
    next: Arc<AtomicU64>,
    length: usize,
}

impl ConnectionIds {
    fn new(key: &[u8], length: usize) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            next: Arc::new(AtomicU64::new(0)),
            length,
        }
    }

    fn next(&self) -> ConnectionId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let tag = hmac::sign(&self.key, &count.to_le_bytes());
        ConnectionId::new(&tag.as_ref()[..self.length])
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.next()
    }

    fn cid_len(&self) -> usize {
        self.length
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The host's wall time, by which the age of a Retry token is judged.
struct WallTime(Arc<dyn Clock>);

impl quinn::TimeSource for WallTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.wall_ms())
    }
}
