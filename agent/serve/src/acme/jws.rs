//! Signed requests: JWS in the flattened JSON serialization (RFC 7515 §7.2.2),
//! as RFC 8555 §6.2 narrows them. Also for the two signatures that travel
//! inside others: of an external account's key and of a new key.

#![allow(missing_docs, reason = "the names say it")]

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    jwk::Jwk,
    problem::{Kind, Problem},
};

/// Algorithms that accounts and certificates sign with.
pub const ALGORITHMS: [&str; 11] = [
    "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "RS256", "RS384", "RS512", "PS256", "PS384",
    "PS512",
];

#[derive(Deserialize)]
struct Flattened {
    protected: String,
    payload: String,
    signature: String,
    /// Unprotected headers, or several signatures, are not accepted.
    header: Option<Value>,
    signatures: Option<Value>,
}

#[derive(Deserialize)]
struct Protected {
    alg: String,
    nonce: Option<String>,
    url: Option<String>,
    jwk: Option<Value>,
    kid: Option<String>,
    crit: Option<Value>,
    b64: Option<Value>,
}

/// A signed request, its signature not looked at yet.
#[derive(Debug)]
pub struct Jws {
    pub alg: String,
    pub nonce: Option<String>,
    /// The URL that it is for.
    pub url: Option<String>,
    /// Whose signature it is.
    pub signer: Signer,
    /// What is signed, decoded.
    pub payload: Vec<u8>,
    input: Vec<u8>,
    signature: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    Key(Box<Jwk>),
    /// The key of this account, or of this id.
    Id(String),
}

impl Jws {
    /// Reads one.
    ///
    /// # Errors
    /// [`Kind::Malformed`] and [`Kind::BadPublicKey`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let flat: Flattened = serde_json::from_slice(bytes)
            .map_err(|error| Problem::malformed(format!("not a flattened JWS: {error}")))?;
        Self::read(flat)
    }

    /// Reads one that is a value in another one's payload.
    ///
    /// # Errors
    /// As [`Jws::parse`].
    pub fn inner(value: &Value) -> Result<Self, Problem> {
        let flat = Flattened::deserialize(value)
            .map_err(|error| Problem::malformed(format!("not a flattened JWS: {error}")))?;
        Self::read(flat)
    }

    fn read(flat: Flattened) -> Result<Self, Problem> {
        if flat.header.is_some() || flat.signatures.is_some() {
            return Err(Problem::malformed(
                "a JWS with unprotected headers or several signatures",
            ));
        }
        let decode = |what: &str, text: &str| {
            BASE64URL_NOPAD
                .decode(text.as_bytes())
                .map_err(|_| Problem::malformed(format!("the {what} is not base64url")))
        };
        let protected: Protected = serde_json::from_slice(&decode("header", &flat.protected)?)
            .map_err(|error| Problem::malformed(format!("the protected header: {error}")))?;
        if protected.crit.is_some() || protected.b64.is_some() {
            return Err(Problem::malformed("a header with \"crit\" or \"b64\""));
        }
        let signer = match (protected.jwk, protected.kid) {
            (Some(key), None) => Signer::Key(Box::new(Jwk::parse(&key)?)),
            (None, Some(id)) => Signer::Id(id),
            _ => {
                return Err(Problem::malformed("a header has either \"jwk\" or \"kid\""));
            }
        };
        Ok(Self {
            alg: protected.alg,
            nonce: protected.nonce,
            url: protected.url,
            signer,
            payload: decode("payload", &flat.payload)?,
            input: format!("{}.{}", flat.protected, flat.payload).into_bytes(),
            signature: decode("signature", &flat.signature)?,
        })
    }

    /// Whether the algorithm is one that accounts sign with.
    ///
    /// # Errors
    /// [`Kind::BadSignatureAlgorithm`], with those that are.
    pub fn check_algorithm(&self) -> Result<(), Problem> {
        if ALGORITHMS.contains(&self.alg.as_str()) {
            return Ok(());
        }
        let shown: String = self.alg.chars().take(20).collect();
        Err(bad_algorithm(
            &format!("\"{shown}\" is not accepted"),
            &ALGORITHMS,
        ))
    }

    /// Checks that `key` signed it, with the algorithm that goes with it.
    ///
    /// # Errors
    /// [`Kind::BadSignatureAlgorithm`], and [`Kind::Malformed`] for a signature
    /// that isn't the key's.
    pub fn check(&self, key: &Jwk) -> Result<(), Problem> {
        self.check_algorithm()?;
        let accepted = key.algorithms();
        if !accepted.contains(&self.alg.as_str()) {
            let what = format!("this key doesn't sign with {}", self.alg);
            return Err(bad_algorithm(&what, accepted));
        }
        if key.verifies(&self.alg, &self.input, &self.signature) {
            Ok(())
        } else {
            Err(Problem::malformed("the signature is not that of the key"))
        }
    }

    /// Checks a message authentication code (RFC 8555 §7.3.4: `HS256` and the
    /// like).
    ///
    /// # Errors
    /// [`Kind::Malformed`] and [`Kind::Unauthorized`].
    pub fn check_mac(&self, key: &[u8]) -> Result<(), Problem> {
        let algorithm = match self.alg.as_str() {
            "HS256" => hmac::HMAC_SHA256,
            "HS384" => hmac::HMAC_SHA384,
            "HS512" => hmac::HMAC_SHA512,
            _ => return Err(Problem::malformed("a binding is authenticated with HS256")),
        };
        let key = hmac::Key::new(algorithm, key);
        hmac::verify(&key, &self.input, &self.signature)
            .map_err(|_| Problem::unauthorized("the binding is not authenticated with its key"))
    }

    /// What is signed, as JSON. Fields that aren't known are passed over.
    ///
    /// # Errors
    /// [`Kind::Malformed`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.payload)
            .map_err(|error| Problem::malformed(format!("the payload: {error}")))
    }

    /// Whether it only reads (POST-as-GET, RFC 8555 §6.3).
    pub fn reads(&self) -> bool {
        self.payload.is_empty()
    }
}

/// RFC 8555 §6.2: with those that would be accepted.
fn bad_algorithm(what: &str, accepted: &[&str]) -> Problem {
    let detail = format!("{what}; use one of {}", accepted.join(", "));
    let mut problem = Problem::new(Kind::BadSignatureAlgorithm, detail);
    problem.algorithms = accepted.iter().map(|name| (*name).to_owned()).collect();
    problem
}
