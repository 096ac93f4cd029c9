//! PEM (RFC 7468): labelled base64 between lines of dashes. Text around the
//! blocks is explanatory and is skipped, as openssl does.

#![allow(missing_docs, reason = "the names say it")]

use std::iter;

use data_encoding::BASE64;

/// Largest file that is read, in bytes.
pub const FILE_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Such as `CERTIFICATE`.
    pub label: String,
    /// The content, mostly DER.
    pub content: Vec<u8>,
}

/// Why a text was not read. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Longer than [`FILE_BYTES`].
    #[error("the file is longer than {max} bytes", max = FILE_BYTES)]
    TooLong,
    /// A block that has no end, or another block's.
    #[error("the {0} block has no end; is the file cut off?")]
    Unfinished(String),
    /// A block that isn't base64.
    #[error("the {0} block is damaged")]
    Damaged(String),
}

/// Label of a certificate.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// Label of a PKCS #8 private key.
pub const PRIVATE_KEY: &str = "PRIVATE KEY";
/// Label of an encrypted PKCS #8 private key.
pub const ENCRYPTED_PRIVATE_KEY: &str = "ENCRYPTED PRIVATE KEY";
/// Label of a certificate signing request (RFC 7468 §7).
pub const CERTIFICATE_REQUEST: &str = "CERTIFICATE REQUEST";

/// One block as text, 64 characters a line.
pub fn encode(label: &str, content: &[u8]) -> String {
    let base64 = BASE64.encode(content);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// All blocks of a text, in order.
///
/// # Errors
/// [`PemError`]; a text without any block is an empty list.
pub fn decode(text: &str) -> Result<Vec<Block>, PemError> {
    if text.len() > FILE_BYTES {
        return Err(PemError::TooLong);
    }
    blocks(text).collect()
}

/// The certificates of a bundle that others made, in DER: however long it is,
/// and without what in it can't be read.
pub fn bundle(text: &str) -> Vec<Vec<u8>> {
    let certificates = blocks(text)
        .flatten()
        .filter(|block| block.label == CERTIFICATE);
    certificates.map(|block| block.content).collect()
}

/// The blocks of a text; after one that can't be read come those behind it.
fn blocks(text: &str) -> impl Iterator<Item = Result<Block, PemError>> {
    let mut lines = text.lines().map(str::trim).peekable();
    iter::from_fn(move || {
        let label = lines.find_map(|line| boundary(line, "BEGIN"))?;
        let mut base64 = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("-----")) {
            base64.extend(line.bytes().filter(|b| !b.is_ascii_whitespace()));
        }
        let end = lines.next_if(|line| boundary(line, "END").as_ref() == Some(&label));
        if end.is_none() {
            return Some(Err(PemError::Unfinished(label)));
        }
        Some(match BASE64.decode(&base64) {
            Ok(content) => Ok(Block { label, content }),
            Err(_) => Err(PemError::Damaged(label)),
        })
    })
}

/// The label of a boundary line.
fn boundary(line: &str, word: &str) -> Option<String> {
    let label = line
        .strip_prefix("-----")?
        .strip_prefix(word)?
        .strip_prefix(' ')?
        .strip_suffix("-----")?;
    Some(label.chars().take(64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_survive_with_text_around_them() {
        let first: Vec<u8> = (0..=255).collect();
        let text = format!(
            "keep this safe\n{}\nand this:\r\n{}",
            encode("A B", &first),
            encode(CERTIFICATE, b"x").replace('\n', "\r\n")
        );
        let blocks = decode(&text).unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!(
            (blocks[0].label.as_str(), &blocks[0].content),
            ("A B", &first)
        );
        assert_eq!(
            (blocks[1].label.as_str(), blocks[1].content.as_slice()),
            (CERTIFICATE, &b"x"[..])
        );
    }

    #[test]
    fn a_bundle_gives_what_can_be_read_of_it() {
        let good = encode(CERTIFICATE, &[7; 100]);
        let text = format!(
            "# one\n{good}# damaged\n{}# cut off\n{}\n{good}{}",
            good.replace("Bw", "B*"),
            &good[..40],
            "#\n".repeat(FILE_BYTES)
        );
        assert_eq!(bundle(&text), [vec![7; 100], vec![7; 100]]);
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_refused() {
        let text = encode("A", &[1; 100]);
        let damaged = text.replace("AQEB", "AQ*B");
        assert_eq!(
            decode(&text[..text.len() / 2]),
            Err(PemError::Unfinished("A".into()))
        );
        assert_eq!(decode(&damaged), Err(PemError::Damaged("A".into())));
        assert_eq!(
            decode(&text.replace("END A", "END B")),
            Err(PemError::Unfinished("A".into()))
        );
        assert_eq!(decode("no block"), Ok(vec![]));
        assert_eq!(decode(&"x".repeat(FILE_BYTES + 1)), Err(PemError::TooLong));
    }
}
