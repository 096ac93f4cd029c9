//! OpenSSL, GnuTLS, NSS and webpki: each says whether a chain leads to the
//! root for a TLS server, and whether it is for the host that was asked for.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use innermesh_agent::ca::pem;
use rustls::{
    RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use crate::{authority::now_ms, serve::serve};

/// What a verifier says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepts,
    /// The chain.
    Refuses,
    /// The chain is good, for another host.
    OtherHost,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepts => "accepts",
            Self::Refuses => "refuses",
            Self::OtherHost => "other host",
        })
    }
}

/// A chain, each certificate in DER.
pub struct Chain<'a> {
    pub leaf: &'a [u8],
    /// From the leaf's issuer up, without the root.
    pub between: Vec<&'a [u8]>,
    pub root: &'a [u8],
}

/// A program that verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verifier {
    OpenSsl,
    GnuTls,
    Nss,
    Webpki,
}

pub const VERIFIERS: [Verifier; 4] = [
    Verifier::OpenSsl,
    Verifier::GnuTls,
    Verifier::Nss,
    Verifier::Webpki,
];

/// id-kp-serverAuth.
const SERVER: &str = "1.3.6.1.5.5.7.3.1";

impl Verifier {
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenSsl => "OpenSSL",
            Self::GnuTls => "GnuTLS",
            Self::Nss => "NSS",
            Self::Webpki => "webpki",
        }
    }

    /// Its version, as far as its verdicts may depend on it; `None` when it
    /// isn't there.
    pub fn version(self) -> Option<String> {
        let minor = |text: &str| {
            let mut parts = text.split('.');
            Some(format!("{}.{}", parts.next()?, parts.next()?))
        };
        match self {
            Self::OpenSsl => minor(run("openssl", &["version"], None)?.text.split(' ').nth(1)?),
            Self::GnuTls => {
                let told = run("certtool", &["--version"], None)?;
                minor(told.text.lines().next()?.split(' ').nth(1)?)
            }
            Self::Nss => {
                run("vfychain", &[], None)?;
                // Its programs don't tell.
                let show = ["-W", "-f", "${Version}", "libnss3"];
                let package = run("dpkg-query", &show, None)?.text;
                minor(
                    package
                        .split_once(':')
                        .map_or(&package[..], |(_, rest)| rest),
                )
            }
            // The lock file says which.
            Self::Webpki => Some("0.103".into()),
        }
    }

    /// Judges a chain for a host name or an address. `key` is the leaf's
    /// private key, PKCS #8 in DER.
    pub fn verdict(self, chain: &Chain, key: &[u8], host: &str) -> Verdict {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        if self == Self::Webpki {
            return webpki(chain, host);
        }
        if self == Self::Nss {
            return nss(folder, chain, key, host);
        }
        write(folder, chain);
        let judge = |host: Option<&str>| match self {
            Self::OpenSsl => openssl(folder, host),
            _ => gnutls(folder, host),
        };
        match (judge(None), judge(Some(host))) {
            (false, _) => Verdict::Refuses,
            (true, false) => Verdict::OtherHost,
            (true, true) => Verdict::Accepts,
        }
    }
}

fn openssl(folder: &Path, host: Option<&str>) -> bool {
    let mut words = vec!["verify", "-x509_strict", "-purpose", "sslserver"];
    if let Some(host) = host {
        let address = host.parse::<std::net::IpAddr>().is_ok();
        words.extend([
            if address {
                "-verify_ip"
            } else {
                "-verify_hostname"
            },
            host,
        ]);
    }
    words.extend([
        "-CAfile",
        "root.pem",
        "-untrusted",
        "between.pem",
        "leaf.pem",
    ]);
    run("openssl", &words, Some(folder)).expect("openssl").good
}

fn gnutls(folder: &Path, host: Option<&str>) -> bool {
    let host = host.map(|host| format!("--verify-hostname={host}"));
    let purpose = format!("--verify-purpose={SERVER}");
    let mut words = vec![
        "--verify",
        "--load-ca-certificate=root.pem",
        "--infile=chain.pem",
    ];
    words.push(&purpose);
    words.extend(host.as_deref());
    run("certtool", &words, Some(folder))
        .expect("certtool")
        .good
}

/// The program that judges chains knows no host; that is asked of a client,
/// which also judges the chain by NSS's older code.
fn nss(folder: &Path, chain: &Chain, key: &[u8], host: &str) -> Verdict {
    let database = format!("sql:{}", folder.display());
    let file = |name: &str, der: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, der).expect("a file");
        path.to_string_lossy().into_owned()
    };
    let leaf = file("leaf.der", chain.leaf);
    let root = file("root.der", chain.root);
    let certutil = |words: &[&str]| {
        let words = [&["-d", &database], words].concat();
        let done = run("certutil", &words, Some(folder)).expect("certutil");
        assert!(done.good, "{}", done.text);
    };
    certutil(&["-N", "--empty-password"]);
    certutil(&["-A", "-n", "root", "-t", "C,,", "-i", &root]);
    let mut words = vec!["-d", &database, "-u", "1", "-pp", &leaf];
    let between: Vec<String> = chain
        .between
        .iter()
        .enumerate()
        .map(|(n, der)| file(&format!("{n}.der"), der))
        .collect();
    words.extend(between.iter().map(String::as_str));
    let done = run("vfychain", &words, Some(folder)).expect("vfychain");
    if !done.good {
        return Verdict::Refuses;
    }
    let done = serve(chain, key, |server| {
        let (address, port) = (server.ip().to_string(), server.port().to_string());
        let words = [
            "-h", &address, "-p", &port, "-a", host, "-d", &database, "-Q",
        ];
        run("tstclnt", &words, Some(folder)).expect("tstclnt")
    });
    if done.good {
        Verdict::Accepts
    } else if done.text.contains("SSL_ERROR_BAD_CERT_DOMAIN") {
        Verdict::OtherHost
    } else if done.text.contains("SEC_ERROR_") {
        Verdict::Refuses
    } else {
        panic!("tstclnt for {host}: {}", done.text)
    }
}

fn webpki(chain: &Chain, host: &str) -> Verdict {
    let leaf = CertificateDer::from(chain.leaf);
    let Ok(parsed) = ParsedCertificate::try_from(&leaf) else {
        return Verdict::Refuses;
    };
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from(chain.root.to_vec()))
        .expect("a root");
    let between: Vec<CertificateDer> = chain
        .between
        .iter()
        .map(|der| CertificateDer::from(*der))
        .collect();
    let provider = aws_lc_rs::default_provider();
    let led = verify_server_cert_signed_by_trust_anchor(
        &parsed,
        &roots,
        &between,
        UnixTime::since_unix_epoch(Duration::from_millis(now_ms())),
        provider.signature_verification_algorithms.all,
    );
    let named = ServerName::try_from(host)
        .ok()
        .is_some_and(|name| verify_server_name(&parsed, &name).is_ok());
    match (led, named) {
        (Err(_), _) => Verdict::Refuses,
        (Ok(()), false) => Verdict::OtherHost,
        (Ok(()), true) => Verdict::Accepts,
    }
}

fn write(folder: &Path, chain: &Chain) {
    let file = |name: &str, ders: &[&[u8]]| {
        let text: String = ders
            .iter()
            .map(|der| pem::encode(pem::CERTIFICATE, der))
            .collect();
        fs::write(folder.join(name), text).expect("a file");
    };
    file("root.pem", &[chain.root]);
    file("leaf.pem", &[chain.leaf]);
    file("between.pem", &chain.between);
    file("chain.pem", &[&[chain.leaf][..], &chain.between].concat());
}

/// What a program came to.
pub struct Done {
    pub good: bool,
    /// All that it wrote.
    pub text: String,
}

/// Runs a program; `None` when there is none of this name.
pub fn run(program: impl Into<PathBuf>, words: &[&str], folder: Option<&Path>) -> Option<Done> {
    let done = Command::new(program.into())
        .args(words)
        .current_dir(folder.unwrap_or(Path::new("/")))
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = [done.stdout, done.stderr].concat();
    Some(Done {
        good: done.status.success(),
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}
