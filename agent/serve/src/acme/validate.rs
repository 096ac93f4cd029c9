//! Whether control of a name is shown: `http-01` and `dns-01` (RFC 8555 §8.3,
//! §8.4), `tls-alpn-01` (RFC 8737), of names and of addresses (RFC 8738).
//!
//! Connections go to overlay addresses of members only, which the zone gives
//! the very name, and to ports 80 and 443: nobody can have the agent ask
//! loopback or a LAN something. A name is looked up once for each connection.

#![allow(missing_docs, reason = "the names say it")]

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::http::{Request, StatusCode, header};
use data_encoding::BASE64URL_NOPAD;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use innermesh_proto::crypto::Hash;
use tokio_rustls::TlsConnector;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use super::{
    Acme,
    client_tls::{any_server, server_name},
    order::{Identifier, Method},
    problem::{Kind, Problem},
    target::{Target, bracketed},
};
use innermesh_host::{Stream, within};

/// How long one try may take.
const TRY: Duration = Duration::from_secs(5);
/// Tries, and the time between them: a server may be about to start, a record
/// about to arrive.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// The longest response, in bytes.
const RESPONSE_BYTES: usize = 4096;
/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;
/// What a TLS server speaks to show control (RFC 8737 §4).
const ALPN: &[u8] = b"acme-tls/1";
/// id-pe-acmeIdentifier (RFC 8737 §6.1).
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";

impl Acme {
    pub(super) async fn validate(
        &self,
        method: Method,
        identifier: &Identifier,
        token: &str,
        key_authorization: &str,
    ) -> Result<(), Problem> {
        let clock = &*self.host.clock;
        let mut result = Ok(());
        for attempt in 0..TRIES {
            if attempt > 0 {
                clock.sleep(PAUSE).await;
            }
            let look = async {
                match method {
                    Method::Http => self.http(identifier, token, key_authorization).await,
                    Method::TlsAlpn => self.tls_alpn(identifier, key_authorization).await,
                    Method::Dns => self.dns(identifier, key_authorization),
                }
            };
            result = within(clock, TRY, look).await.unwrap_or_else(|| {
                let why = format!("{} gave no answer in time", identifier.name());
                Err(Problem::new(Kind::Connection, why))
            });
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn dns(&self, identifier: &Identifier, key_authorization: &str) -> Result<(), Problem> {
        let name = format!("_acme-challenge.{}", identifier.name());
        let expected = BASE64URL_NOPAD.encode(&Hash::of(key_authorization.as_bytes()).0);
        let texts = self.mesh.texts(&name);
        if texts.iter().any(|text| text == expected.as_bytes()) {
            return Ok(());
        }
        Err(if texts.is_empty() {
            Problem::new(
                Kind::Dns,
                format!("there is no TXT record at {name}; `agent record add` makes one"),
            )
        } else {
            Problem::new(
                Kind::IncorrectResponse,
                format!("the TXT record at {name} is another one"),
            )
        })
    }

    async fn http(
        &self,
        identifier: &Identifier,
        token: &str,
        key_authorization: &str,
    ) -> Result<(), Problem> {
        let mut target = Target {
            tls: false,
            host: identifier.name(),
            path: format!("/.well-known/acme-challenge/{token}"),
        };
        for _ in 0..=REDIRECTS {
            let (status, location, body) = self.get(&target).await?;
            match (status, location) {
                (StatusCode::OK, _) => {
                    let got = body.trim_ascii_end();
                    return if got == key_authorization.as_bytes() {
                        Ok(())
                    } else {
                        Err(Problem::new(
                            Kind::IncorrectResponse,
                            format!("{target} holds something else than the challenge's answer"),
                        ))
                    };
                }
                (status, Some(location)) if status.is_redirection() => {
                    target = target.redirected(&location)?;
                }
                (status, _) => {
                    return Err(Problem::unauthorized(format!("{target} answers {status}")));
                }
            }
        }
        Err(Problem::new(
            Kind::Connection,
            format!("more than {REDIRECTS} redirects"),
        ))
    }

    async fn get(&self, target: &Target) -> Result<(StatusCode, Option<String>, Vec<u8>), Problem> {
        let failed = |why: &dyn std::fmt::Display| {
            Problem::new(Kind::Connection, format!("{target}: {why}"))
        };
        let port = if target.tls { 443 } else { 80 };
        let mut stream = self.connect(&target.host, port).await?;
        if target.tls {
            let server = server_name(&target.host)?;
            let tls = TlsConnector::from(Arc::new(any_server(&[b"http/1.1"])))
                .connect(server, stream)
                .await
                .map_err(|error| Problem::new(Kind::Tls, format!("{target}: {error}")))?;
            stream = Box::new(tls);
        }
        let request = Request::get(&target.path)
            .header(header::HOST, bracketed(&target.host))
            .header(
                header::USER_AGENT,
                concat!("innermesh/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::ACCEPT, "*/*")
            .header(header::CONNECTION, "close")
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|error| failed(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
            let (parts, body) = response.into_parts();
            let location = parts.headers.get(header::LOCATION);
            let location = location
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            let body = match parts.status {
                StatusCode::OK => Limited::new(body, RESPONSE_BYTES)
                    .collect()
                    .await
                    .map_err(|error| failed(&error))?
                    .to_bytes()
                    .to_vec(),
                _ => Vec::new(),
            };
            Ok((parts.status, location, body))
        };
        tokio::pin!(exchange);
        tokio::pin!(connection);
        tokio::select! {
            done = &mut exchange => done,
            // The answer may have come with the connection's end.
            _ = &mut connection => exchange.await,
        }
    }

    /// A connection to one of a host's addresses in the mesh.
    async fn connect(&self, host: &str, port: u16) -> Result<Box<dyn Stream>, Problem> {
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) if self.mesh.is_member(address) => vec![address],
            Ok(_) => Vec::new(),
            Err(_) => self.mesh.addresses(host),
        };
        if addresses.is_empty() {
            return Err(Problem::new(
                Kind::Dns,
                format!(
                    "{host} has no address in the mesh, and this CA connects to none outside it; \
                     `agent service add` gives a service one"
                ),
            ));
        }
        let mut why = String::new();
        for address in addresses.into_iter().take(ADDRESSES) {
            let address = SocketAddr::new(address, port);
            match self.host.net.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => why = format!("{host} at {address}: {error}"),
            }
        }
        Err(Problem::new(Kind::Connection, why))
    }

    async fn tls_alpn(
        &self,
        identifier: &Identifier,
        key_authorization: &str,
    ) -> Result<(), Problem> {
        let host = identifier.name();
        let tls = |why: &dyn std::fmt::Display| {
            Problem::new(Kind::Tls, format!("{host}, port 443: {why}"))
        };
        // RFC 8738 §6: an address is asked for by its name below .arpa.
        let server = match identifier {
            Identifier::Dns(name) => server_name(name)?,
            Identifier::Ip(ip) => server_name(&reverse_name(*ip))?,
        };
        let stream = self.connect(&host, 443).await?;
        let stream = TlsConnector::from(Arc::new(any_server(&[ALPN])))
            .connect(server, stream)
            .await
            .map_err(|error| tls(&error))?;
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(ALPN) {
            return Err(tls(&"the server doesn't speak acme-tls/1"));
        }
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let leaf = leaf.ok_or_else(|| tls(&"the server shows no certificate"))?;
        let digest = Hash::of(key_authorization.as_bytes()).0;
        check_certificate(leaf, identifier, &digest)
            .map_err(|why| Problem::new(Kind::IncorrectResponse, format!("{host}: {why}")))
    }
}

/// Whether a certificate answers a `tls-alpn-01` challenge for `identifier`
/// (RFC 8737 §3): that name alone, and the digest in its critical extension.
///
/// # Errors
/// What it isn't.
pub fn check_certificate(
    der: &[u8],
    identifier: &Identifier,
    digest: &[u8; 32],
) -> Result<(), &'static str> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| "the certificate can't be read")?;
    let mut names = None;
    let mut shown = None;
    for extension in certificate.extensions() {
        if extension.oid.to_id_string() == ACME_IDENTIFIER {
            if !extension.critical {
                return Err("the extension acmeIdentifier is not critical");
            }
            shown = Some(extension.value);
        }
        if let ParsedExtension::SubjectAlternativeName(alternative) = extension.parsed_extension() {
            names = Some(&alternative.general_names[..]);
        }
    }
    let is_named = match (names, identifier) {
        (Some([GeneralName::DNSName(name)]), Identifier::Dns(wanted)) => {
            name.eq_ignore_ascii_case(wanted)
        }
        (Some([GeneralName::IPAddress(bytes)]), Identifier::Ip(wanted)) => match wanted {
            IpAddr::V4(ip) => *bytes == &ip.octets()[..],
            IpAddr::V6(ip) => *bytes == &ip.octets()[..],
        },
        _ => false,
    };
    if !is_named {
        return Err("the certificate isn't for this name alone");
    }
    let expected = [&[0x04, 32], &digest[..]].concat();
    match shown {
        None => Err("the certificate has no extension acmeIdentifier"),
        Some(shown) if shown == expected => Ok(()),
        Some(_) => Err("the certificate holds another challenge's answer"),
    }
}

/// The name of an address below `in-addr.arpa` or `ip6.arpa`.
fn reverse_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let octets = ip.octets().into_iter().rev();
            let nibbles = octets.map(|octet| format!("{:x}.{:x}.", octet & 15, octet >> 4));
            nibbles.collect::<String>() + "ip6.arpa"
        }
    }
}
