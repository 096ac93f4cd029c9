//! A client and a mesh to ask with, and what is asked.

mod by_the_book;
mod http;
mod keeping;
mod protocol;
mod revocation;
mod validation;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use data_encoding::BASE64URL_NOPAD;
use innermesh_proto::{certificate::Serial, zone::Caa};

use super::{
    mesh::{IssueError, Known, Wanted},
    order::{Certified, Identifier},
    *,
};
use innermesh_ca::csr;
use innermesh_host::keys::{Keys as _, SystemKeys};

const DOMAIN: &str = "lab.internal";
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 42, 0, 1));

/// A mesh in which this node holds `photos`, its addresses are its own, and
/// TXT records are what a test says.
#[derive(Default)]
struct FakeMesh {
    texts: Mutex<Vec<Vec<u8>>>,
    caa: Mutex<Vec<Caa>>,
    down: AtomicBool,
    /// Whether the ledger takes no more for a while.
    spent: AtomicBool,
    issued: Mutex<Vec<Wanted>>,
}

#[async_trait]
impl Mesh for FakeMesh {
    fn domain(&self) -> String {
        DOMAIN.into()
    }
    fn may_have(&self, identifier: &Identifier) -> bool {
        match identifier {
            Identifier::Dns(name) => {
                let base = name.strip_prefix("*.").unwrap_or(name);
                base == "photos.lab.internal" || base == "films.lab.internal"
            }
            Identifier::Ip(ip) => ip.to_string() == "10.42.0.1",
        }
    }
    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let own = ["photos.lab.internal", "films.lab.internal"];
        own.contains(&name).then_some(OWN).into_iter().collect()
    }
    fn is_member(&self, address: IpAddr) -> bool {
        address == OWN
    }
    fn texts(&self, _: &str) -> Vec<Vec<u8>> {
        self.texts.lock().unwrap().clone()
    }
    fn caa(&self, name: &str) -> Vec<Caa> {
        if name == DOMAIN {
            self.caa.lock().unwrap().clone()
        } else {
            Vec::new()
        }
    }
    async fn certify(&self, wanted: Wanted, _: Duration) -> Result<Certified, IssueError> {
        if self.down.load(Ordering::Relaxed) {
            return Err(IssueError::Unavailable("no CA node can be reached".into()));
        }
        if self.spent.load(Ordering::Relaxed) {
            let wait = Duration::from_secs(89);
            return Err(IssueError::Spent("try again later".into(), wait));
        }
        self.issued.lock().unwrap().push(wanted);
        Ok(Certified {
            chain: "-----BEGIN CERTIFICATE-----\n".into(),
            serial: Serial([7; 16]).to_string(),
            not_after_ms: 90,
        })
    }
    fn certificate(&self, serial: &Serial) -> Option<Known> {
        (*serial == Serial([7; 16])).then(|| Known {
            names: vec!["photos.lab.internal".into()],
            not_before_ms: 0,
            not_after_ms: 1200,
            is_revoked: false,
            is_superseded: false,
            is_own: true,
        })
    }
    async fn revoke(&self, _: Serial) -> Result<(), IssueError> {
        Ok(())
    }
}

/// Keys of all kinds that clients have.
enum Key {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    P521(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Key {
    fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn all() -> [Self; 5] {
        [
            Self::p256(),
            Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap()),
            Self::P521(EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap()),
            Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
            Self::Ed(Ed25519KeyPair::generate().unwrap()),
        ]
    }

    fn alg(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::P521(_) => "ES512",
            Self::Rsa(_) => "RS256",
            Self::Ed(_) => "EdDSA",
        }
    }

    fn jwk(&self) -> Value {
        let b64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let ec = |curve: &str, point: &[u8]| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            json!({ "kty": "EC", "crv": curve, "x": b64(x), "y": b64(y) })
        };
        match self {
            Self::P256(key) => ec("P-256", key.public_key().as_ref()),
            Self::P384(key) => ec("P-384", key.public_key().as_ref()),
            Self::P521(key) => ec("P-521", key.public_key().as_ref()),
            Self::Ed(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().as_ref()) })
            }
            Self::Rsa(key) => {
                let public = key.public_key();
                let n = public.modulus().big_endian_without_leading_zero().to_vec();
                let e = public.exponent().big_endian_without_leading_zero().to_vec();
                json!({ "kty": "RSA", "n": b64(&n), "e": b64(&e) })
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::P256(key) | Self::P384(key) | Self::P521(key) => {
                key.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .unwrap();
                signature
            }
        }
    }

    fn jws(&self, header: &Value, payload: &str) -> Value {
        let protected = BASE64URL_NOPAD.encode(header.to_string().as_bytes());
        let payload = BASE64URL_NOPAD.encode(payload.as_bytes());
        let signature = self.sign(format!("{protected}.{payload}").as_bytes());
        json!({
            "protected": protected,
            "payload": payload,
            "signature": BASE64URL_NOPAD.encode(&signature),
        })
    }
}

use self::validation::FakeNet;

struct Server {
    acme: Arc<Acme>,
    mesh: Arc<FakeMesh>,
    net: Arc<FakeNet>,
    _folder: tempfile::TempDir,
}

struct Client<'a> {
    server: &'a Server,
    key: Key,
    account: Option<String>,
    is_local: bool,
}

async fn server() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let mut host = innermesh_host::system::host(folder.path().to_owned());
    let net = Arc::new(FakeNet::new(host.net.clone()));
    host.net = net.clone();
    let mesh = Arc::new(FakeMesh::default());
    Server {
        acme: Acme::open(&host, mesh.clone(), PORT).await.unwrap(),
        mesh,
        net,
        _folder: folder,
    }
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// Asserts that an answer is a problem of that kind.
#[track_caller]
fn assert_problem(answer: &Answer, status: u16, kind: &str) {
    let told = body(answer);
    let wanted = format!("urn:ietf:params:acme:error:{kind}");
    assert_eq!(
        (answer.status, &told["type"]),
        (status, &json!(wanted)),
        "{told}"
    );
    assert_eq!(answer.content_type, "application/problem+json");
    assert!(
        told["detail"]
            .as_str()
            .is_some_and(|detail| detail.len() > 10),
        "{told}"
    );
}

impl Server {
    fn client(&self, key: Key) -> Client<'_> {
        Client {
            server: self,
            key,
            account: None,
            is_local: true,
        }
    }

    async fn with_account(&self) -> Client<'_> {
        let mut client = self.client(Key::p256());
        let made = client.register(&json!({})).await;
        assert_eq!(made.status, 201, "{}", body(&made));
        client
    }

    fn url(&self, path: &str) -> String {
        format!("https://acme.{DOMAIN}:{PORT}{path}")
    }

    async fn raw(&self, path: &str, bytes: &[u8], is_local: bool) -> Answer {
        self.acme
            .handle(&Request {
                method: "POST".into(),
                path: path.into(),
                content_type: Some("application/jose+json".into()),
                body: bytes.to_vec(),
                is_local,
                ..Request::default()
            })
            .await
    }

    async fn nonce(&self) -> String {
        let asked = Request {
            method: "HEAD".into(),
            path: "/new-nonce".into(),
            ..Request::default()
        };
        let answer = self.acme.handle(&asked).await;
        assert_eq!(answer.status, 200);
        answer.header("replay-nonce").unwrap().to_owned()
    }
}

impl Client<'_> {
    async fn header(&self, path: &str) -> Value {
        let mut header = json!({
            "alg": self.key.alg(),
            "nonce": self.server.nonce().await,
            "url": self.server.url(path),
        });
        match &self.account {
            Some(account) => header["kid"] = json!(account),
            None => header["jwk"] = self.key.jwk(),
        }
        header
    }

    async fn send(&self, path: &str, header: &Value, payload: &str) -> Answer {
        let jws = self.key.jws(header, payload).to_string();
        self.server.raw(path, jws.as_bytes(), self.is_local).await
    }

    async fn post(&self, path: &str, payload: &Value) -> Answer {
        let header = self.header(path).await;
        let answer = self.send(path, &header, &payload.to_string()).await;
        assert!(
            answer.header("replay-nonce").is_some(),
            "every answer has a nonce"
        );
        answer
    }

    async fn get(&self, path: &str) -> Answer {
        let header = self.header(path).await;
        self.send(path, &header, "").await
    }

    async fn register(&mut self, payload: &Value) -> Answer {
        let made = self.post("/new-account", payload).await;
        if made.status < 300 {
            self.account = made.header("location").map(str::to_owned);
        }
        made
    }

    /// The path of a new order.
    async fn order(&self, name: &str) -> String {
        let wanted = json!({ "identifiers": [{ "type": "dns", "value": name }] });
        let made = self.post("/new-order", &wanted).await;
        assert_eq!(made.status, 201, "{}", body(&made));
        path_of(made.header("location").unwrap())
    }

    /// The path of an order's first authorization.
    async fn authorization(&self, order: &str) -> String {
        let order = body(&self.get(order).await);
        path_of(order["authorizations"][0].as_str().unwrap())
    }

    /// One whose dns-01 challenge is met.
    async fn ready_order(&self, name: &str) -> String {
        let order = self.order(name).await;
        self.meet(&order).await;
        order
    }

    /// Meets the dns-01 challenge of an order with one name.
    async fn meet(&self, order: &str) {
        let path = self.authorization(order).await;
        let authorization = body(&self.get(&path).await);
        let challenges = authorization["challenges"].as_array().unwrap();
        let dns = challenges.iter().find(|c| c["type"] == "dns-01").unwrap();
        let thumbprint = jwk::Jwk::parse(&self.key.jwk()).unwrap().thumbprint();
        let token = dns["token"].as_str().unwrap();
        let key_authorization = format!("{token}.{}", BASE64URL_NOPAD.encode(&thumbprint));
        let digest = innermesh_proto::crypto::Hash::of(key_authorization.as_bytes()).0;
        let text = BASE64URL_NOPAD.encode(&digest).into_bytes();
        self.server.mesh.texts.lock().unwrap().push(text);
        let met = self
            .post(&path_of(dns["url"].as_str().unwrap()), &json!({}))
            .await;
        assert_eq!(body(&met)["status"], "valid", "{}", body(&met));
        assert_eq!(body(&self.get(order).await)["status"], "ready");
    }
}

/// The name by which renewals are asked about (RFC 9773 §4.1) of the
/// certificate that the fake mesh issues.
fn certificate_id() -> String {
    format!("AAAA.{}", BASE64URL_NOPAD.encode(&[7; 16]))
}

fn path_of(url: &str) -> String {
    let path = url.strip_prefix(&format!("https://acme.{DOMAIN}:{PORT}"));
    path.unwrap_or_else(|| panic!("{url}")).to_owned()
}

fn csr_for(names: &[&str]) -> Value {
    let names: BTreeSet<String> = names.iter().map(|name| (*name).into()).collect();
    let key = SystemKeys.generate_p256();
    let der = csr::make(&key, &names, &BTreeSet::new()).unwrap();
    json!({ "csr": BASE64URL_NOPAD.encode(&der) })
}
