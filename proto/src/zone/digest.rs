//! By what a server's key or certificate is known: SSHFP (RFC 4255) and TLSA
//! (RFC 6698) records.

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};

use crate::limits;

/// The digest of an SSH host key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sshfp {
    /// The key's, by IANA's number: 1 RSA, 2 DSA, 3 ECDSA, 4 Ed25519, 6 Ed448.
    pub algorithm: u8,
    /// 1 SHA-1, 2 SHA-256.
    pub digest_type: u8,
    pub digest: Vec<u8>,
}

/// The certificate or key that a TLS server must show.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tlsa {
    /// 0 PKIX-TA, 1 PKIX-EE, 2 DANE-TA, 3 DANE-EE (RFC 7218).
    pub usage: u8,
    /// 0 the whole certificate, 1 its SubjectPublicKeyInfo.
    pub selector: u8,
    /// 0 itself in DER, 1 its SHA-256, 2 its SHA-512.
    pub matching: u8,
    pub data: Vec<u8>,
}

/// Not what such a record may say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("it needs {0}")]
    Form(&'static str),
    #[error("{text} is no {field}: {known}")]
    Number {
        field: &'static str,
        text: String,
        known: &'static str,
    },
    #[error("\"{0}\" is not hexadecimal, with two digits for each octet")]
    Hex(String),
    #[error("{digest} has {needed} octets, and this has {got}")]
    Length {
        digest: &'static str,
        needed: usize,
        got: usize,
    },
    #[error("with matching type 0 it has a certificate or key in DER, and this is none")]
    Der,
    #[error("it has more than {} octets", limits::RECORD_TEXT_BYTES)]
    TooLong,
}

const ALGORITHM: Field = Field {
    name: "key algorithm",
    known: "1 is RSA, 2 DSA, 3 ECDSA, 4 Ed25519, 6 Ed448",
};
const DIGEST_TYPE: Field = Field {
    name: "digest type",
    known: "1 is SHA-1, 2 SHA-256",
};
const USAGE: Field = Field {
    name: "certificate usage",
    known: "0 is PKIX-TA, 1 PKIX-EE, 2 DANE-TA, 3 DANE-EE",
};
const SELECTOR: Field = Field {
    name: "selector",
    known: "0 is the whole certificate, 1 its public key",
};
const MATCHING: Field = Field {
    name: "matching type",
    known: "0 is the data itself, 1 its SHA-256, 2 its SHA-512",
};

const SHA1: (&str, usize) = ("SHA-1", 20);
const SHA256: (&str, usize) = ("SHA-256", 32);
const SHA512: (&str, usize) = ("SHA-512", 64);

impl Sshfp {
    /// Reads what stands behind the type in a master file (RFC 4255 §3.2).
    ///
    /// # Errors
    /// [`DigestError`].
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [algorithm, digest_type, digest @ ..] = &words[..] else {
            return Err(DigestError::Form(
                "a key algorithm, a digest type and the digest",
            ));
        };
        let record = Self {
            algorithm: ALGORITHM.read(algorithm)?,
            digest_type: DIGEST_TYPE.read(digest_type)?,
            digest: hex(digest)?,
        };
        record.check()?;
        Ok(record)
    }

    /// Whether a client can make something of it.
    ///
    /// # Errors
    /// [`DigestError`].
    pub fn check(&self) -> Result<(), DigestError> {
        if !matches!(self.algorithm, 1..=4 | 6) {
            return Err(ALGORITHM.unknown(self.algorithm));
        }
        match self.digest_type {
            1 => check_length(SHA1, &self.digest),
            2 => check_length(SHA256, &self.digest),
            other => Err(DIGEST_TYPE.unknown(other)),
        }
    }

    /// As the data of a record in a message (RFC 4255 §3.1).
    pub fn to_wire(&self) -> Vec<u8> {
        [&[self.algorithm, self.digest_type][..], &self.digest].concat()
    }
}

impl fmt::Display for Sshfp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = HEXLOWER.encode(&self.digest);
        write!(f, "{} {} {digest}", self.algorithm, self.digest_type)
    }
}

impl Tlsa {
    /// Reads what stands behind the type in a master file (RFC 6698 §2.2).
    ///
    /// # Errors
    /// [`DigestError`].
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [usage, selector, matching, data @ ..] = &words[..] else {
            return Err(DigestError::Form(
                "a certificate usage, a selector, a matching type and the data",
            ));
        };
        let record = Self {
            usage: USAGE.read(usage)?,
            selector: SELECTOR.read(selector)?,
            matching: MATCHING.read(matching)?,
            data: hex(data)?,
        };
        record.check()?;
        Ok(record)
    }

    /// Whether a client can make something of it.
    ///
    /// # Errors
    /// [`DigestError`].
    pub fn check(&self) -> Result<(), DigestError> {
        if self.usage > 3 {
            return Err(USAGE.unknown(self.usage));
        }
        if self.selector > 1 {
            return Err(SELECTOR.unknown(self.selector));
        }
        match self.matching {
            0 if self.data.len() > limits::RECORD_TEXT_BYTES => Err(DigestError::TooLong),
            0 if is_der_sequence(&self.data) => Ok(()),
            0 => Err(DigestError::Der),
            1 => check_length(SHA256, &self.data),
            2 => check_length(SHA512, &self.data),
            other => Err(MATCHING.unknown(other)),
        }
    }

    /// As the data of a record in a message (RFC 6698 §2.1).
    pub fn to_wire(&self) -> Vec<u8> {
        let numbers = [self.usage, self.selector, self.matching];
        [&numbers[..], &self.data].concat()
    }
}

impl fmt::Display for Tlsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            usage,
            selector,
            matching,
            data,
        } = self;
        let data = HEXLOWER.encode(data);
        write!(f, "{usage} {selector} {matching} {data}")
    }
}

/// A number of IANA's.
struct Field {
    name: &'static str,
    known: &'static str,
}

impl Field {
    fn read(&self, text: &str) -> Result<u8, DigestError> {
        let number = text.parse().ok();
        number.ok_or_else(|| self.error(format!("\"{}\"", shown(text))))
    }

    fn unknown(&self, number: u8) -> DigestError {
        self.error(number.to_string())
    }

    fn error(&self, text: String) -> DigestError {
        DigestError::Number {
            field: self.name,
            text,
            known: self.known,
        }
    }
}

/// Octets in hexadecimal, with spaces between them where one likes.
fn hex(words: &[&str]) -> Result<Vec<u8>, DigestError> {
    let text = words.concat();
    HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .map_err(|_| DigestError::Hex(shown(&text)))
}

fn check_length((digest, needed): (&'static str, usize), data: &[u8]) -> Result<(), DigestError> {
    let got = data.len();
    if got == needed {
        Ok(())
    } else {
        Err(DigestError::Length {
            digest,
            needed,
            got,
        })
    }
}

/// Whether it is one SEQUENCE in DER, as certificates and public keys are.
fn is_der_sequence(data: &[u8]) -> bool {
    let (length, content) = match data {
        [0x30, 0x82, high, low, content @ ..] => {
            (usize::from(u16::from_be_bytes([*high, *low])), content)
        }
        [0x30, 0x81, length, content @ ..] => (usize::from(*length), content),
        [0x30, length @ 0..=0x7f, content @ ..] => (usize::from(*length), content),
        _ => return false,
    };
    length == content.len()
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        let digest = "ab".repeat(32);
        for text in [format!("4 2 {digest}"), format!("1 1 {}", "0f".repeat(20))] {
            assert_eq!(Sshfp::parse(&text).unwrap().to_string(), text);
        }
        for text in [
            format!("3 1 1 {digest}"),
            format!("2 0 2 {digest}{digest}"),
            "3 1 0 300201ff".to_owned(),
        ] {
            assert_eq!(Tlsa::parse(&text).unwrap().to_string(), text);
        }
        // As ssh-keygen and openssl write digits, and as dig does with spaces.
        let spaced = format!("4 2 {} {}", "AB".repeat(28), "AB".repeat(4));
        let read = Sshfp::parse(&spaced).unwrap();
        assert_eq!(read.to_string(), format!("4 2 {digest}"));
        assert_eq!(read.to_wire()[..3], [4, 2, 0xab]);
        let tlsa = Tlsa::parse(&format!("3 1 1 {digest}")).unwrap();
        assert_eq!(tlsa.to_wire()[..4], [3, 1, 1, 0xab]);
    }

    #[test]
    fn what_no_client_can_use_is_refused_with_the_reason() {
        let digest = "ab".repeat(32);
        for (text, part) in [
            ("", "a key algorithm, a digest type and the digest"),
            ("4", "a key algorithm, a digest type and the digest"),
            ("4 2", "SHA-256 has 32 octets, and this has 0"),
            ("4 2 abc", "\"abc\" is not hexadecimal"),
            ("4 2 zz", "\"zz\" is not hexadecimal"),
            ("4 2 abcd", "SHA-256 has 32 octets, and this has 2"),
            (&format!("4 1 {digest}"), "SHA-1 has 20 octets"),
            (&format!("5 2 {digest}"), "5 is no key algorithm"),
            (&format!("256 2 {digest}"), "\"256\" is no key algorithm"),
            (&format!("4 3 {digest}"), "3 is no digest type"),
            (&format!("ed25519 2 {digest}"), "4 Ed25519"),
        ] {
            let error = Sshfp::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let long = format!("3 0 0 3082040c{}", "00".repeat(0x040c));
        for (text, part) in [
            ("3 1", "a certificate usage, a selector"),
            (&format!("4 1 1 {digest}"), "4 is no certificate usage"),
            (&format!("3 2 1 {digest}"), "2 is no selector"),
            (&format!("3 1 3 {digest}"), "3 is no matching type"),
            (&format!("3 1 2 {digest}"), "SHA-512 has 64 octets"),
            ("3 1 1 30", "SHA-256 has 32 octets, and this has 1"),
            ("3 0 0", "in DER, and this is none"),
            ("3 0 0 300201", "in DER, and this is none"),
            ("3 0 0 30820001ff00", "in DER, and this is none"),
            (&long, "more than 1024 octets"),
        ] {
            let error = Tlsa::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
