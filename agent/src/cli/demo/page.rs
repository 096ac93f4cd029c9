//! The demo's web server: one page by HTTPS, with a certificate from files.

use std::{fs, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::error::{DemoError, Tried};
use crate::ca::pem;

/// Clients at the same time.
const CLIENTS: usize = 64;
/// Longest request that is read, in bytes.
const REQUEST_BYTES: usize = 8 * 1024;
/// Longest time for one client.
const CLIENT: Duration = Duration::from_secs(10);

/// `agent demo page`: serves until it is ended.
///
/// # Errors
/// [`DemoError::System`]: a file or the port.
pub async fn run(
    listen: SocketAddr,
    cert: &Path,
    chain: &Path,
    key: &Path,
) -> Result<(), DemoError> {
    let tls = tls(cert, chain, key)?;
    let listener = TcpListener::bind(listen).await.tried(listen.to_string())?;
    // As the kernel tells it in this process's namespace: `cedar`.
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    serve(listener, tls, host.trim())
        .await
        .tried("accepting clients")
}

fn tls(cert: &Path, chain: &Path, key: &Path) -> Result<ServerConfig, DemoError> {
    let mut certificates = self::certificates(cert)?;
    // Whether the chain begins with the certificate itself is a matter of taste.
    for more in self::certificates(chain)? {
        if !certificates.contains(&more) {
            certificates.push(more);
        }
    }
    let key = key_in(key)?;
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(invalid)
        .tried("TLS")?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(invalid)
        .tried(cert.display().to_string())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, DemoError> {
    let blocks = blocks(file)?.into_iter();
    Ok(blocks
        .filter(|block| block.label == pem::CERTIFICATE)
        .map(|block| block.content.into())
        .collect())
}

fn key_in(file: &Path) -> Result<PrivateKeyDer<'static>, DemoError> {
    let key = blocks(file)?
        .into_iter()
        .find(|block| block.label == pem::PRIVATE_KEY);
    let key = key.ok_or_else(|| io::Error::other("there is no private key in it"));
    Ok(PrivatePkcs8KeyDer::from(key.tried(file.display().to_string())?.content).into())
}

fn blocks(file: &Path) -> Result<Vec<pem::Block>, DemoError> {
    let text = fs::read_to_string(file).tried(file.display().to_string())?;
    pem::decode(&text)
        .map_err(io::Error::other)
        .tried(file.display().to_string())
}

async fn serve(listener: TcpListener, tls: ServerConfig, host: &str) -> io::Result<()> {
    let tls = TlsAcceptor::from(Arc::new(tls));
    let room = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            return Ok(());
        };
        // A client that is gone again is its own matter.
        let Ok((client, from)) = listener.accept().await else {
            continue;
        };
        let (tls, page) = (tls.clone(), page(host, from));
        tokio::spawn(async move {
            // A failed handshake, such as the check's bare connection, is too.
            let _ = timeout(CLIENT, answer(client, tls, page)).await;
            drop(place);
        });
    }
}

/// The client's own address is on it: in the mesh a service sees who asks.
fn page(host: &str, from: SocketAddr) -> String {
    let from = from.ip().to_canonical();
    format!(
        "<!doctype html>\n<title>photos</title>\n<h1>photos on {host}</h1>\n<p>You came from {from}, and no proxy stood between.</p>\n"
    )
}

async fn answer(client: TcpStream, tls: TlsAcceptor, page: String) -> io::Result<()> {
    let mut stream = tls.accept(client).await?;
    let mut request = Vec::new();
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        if request.len() > REQUEST_BYTES || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_rustls::TlsConnector;

    const NAME: &str = "photos.demo.internal";

    struct Site {
        folder: tempfile::TempDir,
        root: CertificateDer<'static>,
    }

    /// Files as `agent cert issue` leaves them, and their root.
    fn site() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let mut ca = rcgen::CertificateParams::new([]).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let root = ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("cert.pem", &leaf.pem());
        write("chain.pem", &(leaf.pem() + &root.pem()));
        write("key.pem", &key.serialize_pem());
        Site {
            root: root.der().clone(),
            folder,
        }
    }

    #[tokio::test]
    async fn a_client_with_the_root_gets_the_page_and_reads_its_own_address() {
        let site = site();
        let file = |name: &str| site.folder.path().join(name);
        let config = tls(&file("cert.pem"), &file("chain.pem"), &file("key.pem")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { serve(listener, config, "cedar").await });

        let mut roots = RootCertStore::empty();
        roots.add(site.root.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // The health check connects and goes away.
        drop(TcpStream::connect(address).await.unwrap());
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let mut stream = connector
            .connect(NAME.try_into().unwrap(), stream)
            .await
            .unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("photos on cedar"), "{answer}");
        assert!(answer.contains("You came from 127.0.0.1,"), "{answer}");
        server.abort();
    }

    #[test]
    fn files_that_are_no_certificate_or_key_are_told_by_name() {
        let site = site();
        let file = |name: &str| site.folder.path().join(name);
        let error = tls(&file("cert.pem"), &file("none.pem"), &file("key.pem")).unwrap_err();
        assert!(error.to_string().contains("none.pem"), "{error}");
        let error = tls(&file("cert.pem"), &file("chain.pem"), &file("cert.pem")).unwrap_err();
        assert!(error.to_string().contains("no private key"), "{error}");
    }
}
