//! An HTTPS server on loopback that shows exactly the certificates that it is
//! told to, whatever they say.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, Stream,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::verifiers::Chain;

/// What it answers.
pub const PAGE: &str = "the page";
/// How long a client may keep it waiting.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `ask` with the address of such a server, which ends with it. `key` is
/// the leaf's, PKCS #8 in DER.
pub fn serve<T>(chain: &Chain, key: &[u8], ask: impl FnOnce(SocketAddr) -> T) -> T {
    let config = Arc::new(config(chain, key));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                // A client that refuses hangs up in the middle.
                let _ = answer(stream.expect("a connection"), config.clone());
            }
        });
        let end = End {
            address,
            over: &over,
        };
        let out = ask(address);
        drop(end);
        out
    })
}

/// Ends the server, also when what uses it panics.
struct End<'a> {
    address: SocketAddr,
    over: &'a AtomicBool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // The server waits for a connection.
        drop(TcpStream::connect(self.address));
    }
}

fn config(chain: &Chain, key: &[u8]) -> ServerConfig {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
    let key = aws_lc_rs::sign::any_supported_type(&key).expect("a key");
    let shown = [&[chain.leaf][..], &chain.between].concat();
    let shown = shown
        .into_iter()
        .map(|der| CertificateDer::from(der.to_vec()));
    // Without the checks that rustls makes of certificates otherwise.
    let certified = Arc::new(CertifiedKey::new(shown.collect(), key));
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
}

fn answer(mut stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut tls = Stream::new(&mut connection, &mut stream);
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        match tls.read(&mut part)? {
            0 => break,
            read => request.extend_from_slice(&part[..read]),
        }
    }
    write!(
        tls,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PAGE}",
        PAGE.len()
    )?;
    tls.conn.send_close_notify();
    tls.flush()
}
