//! Public keys of ACME clients (RFC 7517, RFC 7518 §6, RFC 8037 §2), and what
//! they sign.

#![allow(missing_docs, reason = "the names say it")]

use aws_lc_rs::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use data_encoding::BASE64URL_NOPAD;
use innermesh_proto::crypto::Hash;
use pkcs8::{
    AlgorithmIdentifierRef, ObjectIdentifier, SubjectPublicKeyInfoRef,
    der::{
        self, Encode,
        asn1::{AnyRef, BitStringRef, UintRef},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::problem::{Kind, Problem};

/// Bits of an RSA modulus that are accepted.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum Jwk {
    /// NIST P-256: the coordinates.
    P256([u8; 32], [u8; 32]),
    /// NIST P-384: the coordinates.
    P384([u8; 48], [u8; 48]),
    /// NIST P-521: the coordinates.
    P521([u8; 66], [u8; 66]),
    /// RSA: modulus and exponent, big-endian, without leading zeros.
    Rsa(Vec<u8>, Vec<u8>),
    Ed25519([u8; 32]),
}

impl Jwk {
    /// Reads a key.
    ///
    /// # Errors
    /// [`Kind::BadPublicKey`] for a kind of key that isn't accepted, one that
    /// is too weak, or a private one.
    pub fn parse(value: &Value) -> Result<Self, Problem> {
        let bad = |detail: &str| Problem::new(Kind::BadPublicKey, detail);
        let text = |name: &str| value[name].as_str().unwrap_or_default();
        let bytes = |name: &str| {
            BASE64URL_NOPAD
                .decode(text(name).as_bytes())
                .map_err(|_| bad(&format!("\"{name}\" of the key is not base64url")))
        };
        if !value["d"].is_null() {
            return Err(bad(
                "this is a private key; it has been shown, so make another",
            ));
        }
        let kinds = "use P-256, P-384, P-521, Ed25519, or RSA with 2048 to 8192 bits";
        match (text("kty"), text("crv")) {
            ("EC", "P-256") => {
                let sized = |b: Vec<u8>| b.try_into().map_err(|_| bad("a coordinate has 32 bytes"));
                Ok(Self::P256(sized(bytes("x")?)?, sized(bytes("y")?)?))
            }
            ("EC", "P-384") => {
                let sized = |b: Vec<u8>| b.try_into().map_err(|_| bad("a coordinate has 48 bytes"));
                Ok(Self::P384(sized(bytes("x")?)?, sized(bytes("y")?)?))
            }
            ("EC", "P-521") => {
                let sized = |b: Vec<u8>| b.try_into().map_err(|_| bad("a coordinate has 66 bytes"));
                Ok(Self::P521(sized(bytes("x")?)?, sized(bytes("y")?)?))
            }
            ("OKP", "Ed25519") => {
                let x = bytes("x")?.try_into();
                x.map(Self::Ed25519)
                    .map_err(|_| bad("the key has 32 bytes"))
            }
            ("RSA", _) => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                let bits = n.len() * 8 - n.first().map_or(0, |b| b.leading_zeros() as usize);
                // Base64urlUInt has no leading zeros (RFC 7518 §2).
                let is_padded = [&n, &e]
                    .iter()
                    .any(|part| part.first().is_none_or(|b| *b == 0));
                let is_small = e.len() > 8 || e.last().is_none_or(|b| b & 1 == 0) || e[..] == [1];
                if is_padded || is_small || !RSA_BITS.contains(&bits) {
                    return Err(bad(&format!("an RSA key that is not good enough; {kinds}")));
                }
                Ok(Self::Rsa(n, e))
            }
            _ => Err(bad(&format!("a kind of key that is not accepted; {kinds}"))),
        }
    }

    /// As JSON, members in the order of RFC 7638 §3.
    pub fn canonical(&self) -> String {
        let b64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        match self {
            Self::P256(x, y) => ec("P-256", &b64(x), &b64(y)),
            Self::P384(x, y) => ec("P-384", &b64(x), &b64(y)),
            Self::P521(x, y) => ec("P-521", &b64(x), &b64(y)),
            Self::Rsa(n, e) => {
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, b64(e), b64(n))
            }
            Self::Ed25519(x) => {
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, b64(x))
            }
        }
    }

    /// SHA-256 of [`Jwk::canonical`] (RFC 7638).
    pub fn thumbprint(&self) -> [u8; 32] {
        Hash::of(self.canonical().as_bytes()).0
    }

    /// The algorithms that this key signs with (RFC 7518 §3.1, RFC 8037 §3.1,
    /// RFC 9864 §2.2).
    pub fn algorithms(&self) -> &'static [&'static str] {
        match self {
            Self::P256(..) => &["ES256"],
            Self::P384(..) => &["ES384"],
            Self::P521(..) => &["ES512"],
            Self::Rsa(..) => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
            Self::Ed25519(_) => &["EdDSA", "Ed25519"],
        }
    }

    /// Whether `signature`, as a JWS has it (RFC 7518 §3), is this key's over
    /// `message`, by one of its [`Jwk::algorithms`].
    pub fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let by = |verifier: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(verifier, key).verify(message, signature)
        };
        let checked = match self {
            Self::P256(x, y) => by(&signature::ECDSA_P256_SHA256_FIXED, &point(x, y)),
            Self::P384(x, y) => by(&signature::ECDSA_P384_SHA384_FIXED, &point(x, y)),
            Self::P521(x, y) => by(&signature::ECDSA_P521_SHA512_FIXED, &point(x, y)),
            Self::Rsa(n, e) => match rsa(algorithm) {
                Some(verifier) => {
                    RsaPublicKeyComponents { n, e }.verify(verifier, message, signature)
                }
                None => return false,
            },
            Self::Ed25519(x) => by(&signature::ED25519, x),
        };
        checked.is_ok() && self.algorithms().contains(&algorithm)
    }

    /// As SubjectPublicKeyInfo in DER (RFC 5480 §2, RFC 3279 §2.3.1,
    /// RFC 8410 §4).
    pub fn spki(&self) -> Vec<u8> {
        let der = match self {
            Self::P256(x, y) => spki(EC, Some((&P256).into()), &point(x, y)),
            Self::P384(x, y) => spki(EC, Some((&P384).into()), &point(x, y)),
            Self::P521(x, y) => spki(EC, Some((&P521).into()), &point(x, y)),
            Self::Rsa(n, e) => UintRef::new(n)
                .and_then(|n| [n, UintRef::new(e)?].to_der())
                .and_then(|key| spki(RSA, Some(AnyRef::NULL), &key)),
            Self::Ed25519(x) => spki(ED25519, None, x),
        };
        der.expect("a key has some hundred bytes")
    }
}

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

fn spki(oid: ObjectIdentifier, parameters: Option<AnyRef<'_>>, key: &[u8]) -> der::Result<Vec<u8>> {
    let algorithm = AlgorithmIdentifierRef { oid, parameters };
    let subject_public_key = BitStringRef::from_bytes(key)?;
    let info = SubjectPublicKeyInfoRef {
        algorithm,
        subject_public_key,
    };
    info.to_der()
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    match algorithm {
        "RS256" => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        "RS384" => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        "RS512" => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        "PS256" => Some(&signature::RSA_PSS_2048_8192_SHA256),
        "PS384" => Some(&signature::RSA_PSS_2048_8192_SHA384),
        "PS512" => Some(&signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

/// Not a key that is accepted, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JwkError(String);

impl TryFrom<Value> for Jwk {
    type Error = JwkError;

    fn try_from(value: Value) -> Result<Self, JwkError> {
        Self::parse(&value).map_err(|problem| JwkError(problem.detail))
    }
}

impl From<Jwk> for Value {
    fn from(key: Jwk) -> Self {
        serde_json::from_str(&key.canonical()).unwrap_or_default()
    }
}

fn ec(curve: &str, x: &str, y: &str) -> String {
    format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#)
}

/// An uncompressed point (SEC 1 §2.3.3).
fn point(x: &[u8], y: &[u8]) -> Vec<u8> {
    [&[4], x, y].concat()
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer;

    use super::*;

    #[test]
    fn the_thumbprint_of_rfc_7638_and_of_rfc_8037() {
        let rsa = serde_json::json!({
            "kty": "RSA",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
            "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"
        });
        let thumbprint = Jwk::parse(&rsa).unwrap().thumbprint();
        assert_eq!(
            BASE64URL_NOPAD.encode(&thumbprint),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
        let ed = serde_json::json!({
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
        });
        let key = Jwk::parse(&ed).unwrap();
        assert_eq!(
            BASE64URL_NOPAD.encode(&key.thumbprint()),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
        let again: Jwk = serde_json::from_str(&serde_json::to_string(&key).unwrap()).unwrap();
        assert_eq!(again, key);
    }

    #[test]
    fn weak_private_and_unknown_keys_are_refused() {
        for key in [
            serde_json::json!({"kty": "oct", "k": "AAAA"}),
            serde_json::json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}),
            serde_json::json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}),
            serde_json::json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
            serde_json::json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
            serde_json::json!({"kty": "OKP", "crv": "Ed25519", "d": "AA",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            serde_json::json!("text"),
            serde_json::json!(null),
        ] {
            let refused = Jwk::parse(&key).unwrap_err();
            assert_eq!(refused.r#type, Kind::BadPublicKey, "{key}");
        }
    }

    #[test]
    fn keys_are_encoded_as_certificates_have_them() {
        let key = x509_parser::x509::SubjectPublicKeyInfo::from_der;
        let (x, y) = ([1; 32], [2; 32]);
        let mut uncompressed = [4; 65];
        uncompressed[1..33].copy_from_slice(&x);
        uncompressed[33..].copy_from_slice(&y);
        let p256 = Jwk::P256(x, y).spki();
        assert_eq!(p256, innermesh_proto::certificate::p256_spki(&uncompressed));
        let ed25519 = [
            &[0x30, 42, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 33, 0][..],
            &[7; 32],
        ];
        assert_eq!(Jwk::Ed25519([7; 32]).spki(), ed25519.concat());
        let rsa = Jwk::Rsa(vec![0xff; 256], vec![1, 0, 1]).spki();
        let (rest, read) = key(&rsa).unwrap();
        let x509_parser::public_key::PublicKey::RSA(read) = read.parsed().unwrap() else {
            panic!("{rsa:?}")
        };
        assert!(rest.is_empty());
        assert_eq!(
            (read.modulus, read.exponent),
            (&[&[0][..], &[0xff; 256]].concat()[..], &[1, 0, 1][..])
        );
        let p384 = Jwk::P384([1; 48], [2; 48]).spki();
        assert_eq!(key(&p384).unwrap().1.parsed().unwrap().key_size(), 384);
        let p521 = Jwk::P521([1; 66], [2; 66]).spki();
        let p521 = key(&p521).unwrap().1;
        assert_eq!(p521.subject_public_key.data.len(), 133);
    }

    #[test]
    fn a_point_that_is_none_verifies_nothing() {
        assert!(!Jwk::P256([1; 32], [2; 32]).verifies("ES256", b"m", &[0; 64]));
        assert!(!Jwk::P521([1; 66], [2; 66]).verifies("ES512", b"m", &[0; 132]));
        assert!(!Jwk::Ed25519([0xff; 32]).verifies("EdDSA", b"m", &[0; 64]));
    }
}
