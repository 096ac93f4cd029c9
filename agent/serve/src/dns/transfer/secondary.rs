//! Who may copy the zones: a server with a name of its own, the key that it shares
//! with this node, and where it is.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use data_encoding::BASE64;
use innermesh_control::secondaries::check_addresses;
use innermesh_host::Mono;
use innermesh_proto::{limits, name::Label, zone::DomainName};
use serde::{Deserialize, Serialize};

use super::{
    message::Tsig,
    tsig::{Algorithm, Key, UnknownAlgorithm},
};

/// Fewest bytes of a secret: what is shorter can be found by trying.
const SECRET_BYTES: usize = 16;
/// Most bytes of a secret; a longer one is hashed anyway (RFC 2104 §2).
const SECRET_MAX: usize = 256;

/// A secondary server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secondary {
    pub name: Label,
    pub key: SharedKey,
    /// Where it is told of changes; what it asks comes from these addresses.
    pub addresses: Vec<SocketAddr>,
    /// What it may have; empty for all.
    pub zones: Vec<DomainName>,
    /// Where it asks.
    pub listen: SocketAddr,
}

/// A key for TSIG (RFC 8945). It isn't shown by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKey {
    pub name: DomainName,
    pub algorithm: Algorithm,
    pub secret: Vec<u8>,
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedKey({}, {})", self.name, self.algorithm)
    }
}

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the secret is not base64")]
    NotBase64,
    #[error("the secret has {0} bytes; it needs {SECRET_BYTES} to {SECRET_MAX}")]
    Length(usize),
    #[error(
        "it is neither a secret in base64 nor `key \"NAME\" {{ algorithm …; secret \"…\"; }};` as \
         tsig-keygen prints it"
    )]
    Form,
    #[error(transparent)]
    Algorithm(#[from] UnknownAlgorithm),
    #[error("the key's name is no domain name")]
    Name,
}

impl SharedKey {
    /// From a secret in base64, or from a key as `tsig-keygen` prints it, which brings
    /// its own name and algorithm.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(text: &str, name: DomainName, algorithm: Algorithm) -> Result<Self, KeyError> {
        let text = text.trim();
        let Some(statement) = text.strip_prefix("key") else {
            let secret = secret(text)?;
            return Ok(Self {
                name,
                algorithm,
                secret,
            });
        };
        let cleaned = statement.replace(['"', '{', '}', ';'], " ");
        let words: Vec<&str> = cleaned.split_whitespace().collect();
        let (name, algorithm, encoded) = match words[..] {
            [name, "algorithm", algorithm, "secret", encoded]
            | [name, "secret", encoded, "algorithm", algorithm] => (name, algorithm, encoded),
            _ => return Err(KeyError::Form),
        };
        Ok(Self {
            name: name.parse().map_err(|_| KeyError::Name)?,
            algorithm: algorithm.parse()?,
            secret: secret(encoded)?,
        })
    }

    /// The secret as name servers' configurations have it.
    pub fn secret_text(&self) -> String {
        BASE64.encode(&self.secret)
    }
}

fn secret(text: &str) -> Result<Vec<u8>, KeyError> {
    if text.split_whitespace().nth(1).is_some() {
        return Err(KeyError::Form);
    }
    let secret = BASE64.decode(text.as_bytes());
    let secret = secret.map_err(|_| KeyError::NotBase64)?;
    if (SECRET_BYTES..=SECRET_MAX).contains(&secret.len()) {
        Ok(secret)
    } else {
        Err(KeyError::Length(secret.len()))
    }
}

/// Why a file doesn't describe a secondary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    #[error("{0}")]
    Toml(String),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{0} is no domain name")]
    Name(String),
    #[error("{0}")]
    Addresses(String),
}

/// As it stands in the state folder.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    key: String,
    algorithm: String,
    secret: String,
    addresses: Vec<SocketAddr>,
    zones: Vec<String>,
    listen: SocketAddr,
}

impl Secondary {
    /// From its file's content.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn from_toml(name: Label, text: &str) -> Result<Self, FileError> {
        let stored: Stored =
            toml::from_str(text).map_err(|error| FileError::Toml(error.message().to_owned()))?;
        let domain = |text: &String| text.parse().map_err(|_| FileError::Name(text.clone()));
        check_addresses(&stored.addresses).map_err(|error| FileError::Addresses(error.message))?;
        let zones = stored.zones.iter().take(limits::SECONDARY_ZONES);
        Ok(Self {
            name,
            key: SharedKey {
                name: domain(&stored.key)?,
                algorithm: stored.algorithm.parse().map_err(KeyError::from)?,
                secret: secret(&stored.secret)?,
            },
            addresses: stored.addresses,
            zones: zones.map(domain).collect::<Result<_, _>>()?,
            listen: stored.listen,
        })
    }

    /// Its file's content, with the key.
    pub fn to_toml(&self) -> String {
        let stored = Stored {
            key: self.key.name.to_string(),
            algorithm: self.key.algorithm.to_string(),
            secret: self.key.secret_text(),
            addresses: self.addresses.clone(),
            zones: self.zones.iter().map(ToString::to_string).collect(),
            listen: self.listen,
        };
        // Such a value always has a form in TOML.
        toml::to_string(&stored).unwrap_or_default()
    }

    /// Whether it may have a zone.
    pub fn may_have(&self, zone: &DomainName) -> bool {
        self.zones.is_empty() || self.zones.contains(zone)
    }

    /// Whether what comes from there may be its question. One on this very host asks
    /// from the address that it asks at.
    pub fn is_at(&self, source: IpAddr) -> bool {
        self.addresses.iter().any(|address| {
            let ip = address.ip().to_canonical();
            ip == source || ip.is_loopback() && (source.is_loopback() || source == self.listen.ip())
        })
    }
}

/// A secondary whose key is ready for use.
#[derive(Debug)]
pub(super) struct Grant {
    pub secondary: Secondary,
    pub key: Key,
    /// Since when it may, in monotonic time.
    pub since: Mono,
}

impl Grant {
    pub fn new(secondary: Secondary, since: Mono) -> Self {
        let SharedKey {
            name,
            algorithm,
            secret,
        } = &secondary.key;
        Self {
            key: Key::new(name.clone(), *algorithm, secret),
            secondary,
            since,
        }
    }

    pub fn signed(&self, tsig: &Tsig<'_>, source: IpAddr) -> bool {
        self.key.is_of(tsig) && self.secondary.is_at(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SharedKey, KeyError> {
        SharedKey::parse(text, "ns2.lab.internal".parse().unwrap(), Algorithm::Sha256)
    }

    #[test]
    fn a_key_is_taken_as_base64_and_as_tsig_keygen_prints_it() {
        let secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let key = parse(&format!(" {secret}\n")).unwrap();
        assert_eq!(key.name.to_string(), "ns2.lab.internal.");
        assert_eq!((key.algorithm, key.secret.len()), (Algorithm::Sha256, 32));
        assert_eq!(key.secret_text(), secret);
        let printed = format!(
            "key \"tsig.Example\" {{\n\talgorithm hmac-sha512;\n\tsecret \"{secret}\";\n}};\n"
        );
        let key = parse(&printed).unwrap();
        assert_eq!(key.name.to_string(), "tsig.example.");
        assert_eq!(key.algorithm, Algorithm::Sha512);
        assert!(!format!("{key:?}").contains("AAEC"));
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_reason() {
        for (text, error) in [
            ("", KeyError::Length(0)),
            ("AAECAw==", KeyError::Length(4)),
            ("not base64!", KeyError::Form),
            ("notbase64!", KeyError::NotBase64),
            (
                "key \"a\" { secret \"AAECAwQFBgcICQoLDA0ODxAR\"; };",
                KeyError::Form,
            ),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        let md5 = "key a { algorithm hmac-md5; secret AAECAwQFBgcICQoLDA0ODxAR; };";
        assert!(matches!(parse(md5), Err(KeyError::Algorithm(_))));
    }

    #[test]
    fn a_secondary_is_the_same_again_from_its_file() {
        let secondary = Secondary {
            name: "ns2".parse().unwrap(),
            key: parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap(),
            addresses: vec![([192, 0, 2, 53], 53).into(), ([127, 0, 0, 1], 5300).into()],
            zones: vec!["lab.internal".parse().unwrap()],
            listen: ([192, 0, 2, 1], 53).into(),
        };
        let name = secondary.name.clone();
        let again = Secondary::from_toml(name.clone(), &secondary.to_toml());
        assert_eq!(again, Ok(secondary.clone()));
        let is_at = |ip: [u8; 4]| secondary.is_at(ip.into());
        assert!(is_at([192, 0, 2, 53]) && is_at([127, 9, 9, 9]) && is_at([192, 0, 2, 1]));
        assert!(!is_at([192, 0, 2, 54]));
        assert!(secondary.may_have(&"lab.internal".parse().unwrap()));
        assert!(!secondary.may_have(&"77.10.in-addr.arpa".parse().unwrap()));
        for text in [
            "",
            "key = 1",
            &secondary.to_toml().replace("hmac-sha256", "md5"),
        ] {
            assert!(Secondary::from_toml(name.clone(), text).is_err(), "{text}");
        }
    }
}
