//! When a certificate should be renewed (RFC 9773).

#![allow(missing_docs, reason = "the names say it")]

use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use innermesh_proto::certificate::Serial;
use serde_json::json;

use super::{Acme, Answer, mesh::Known, problem::Problem};
use innermesh_host::UnixTime;

/// When to ask again, in seconds.
const AGAIN_S: u64 = 6 * 3600;

/// A certificate's name in these requests (RFC 9773 §4.1): the identifier of
/// its issuer's key, and its serial number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateId {
    /// The authority key identifier.
    pub authority: Vec<u8>,
    pub serial: Serial,
}

impl FromStr for CertificateId {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let bad = || Problem::malformed("not the name of a certificate (RFC 9773 section 4.1)");
        let (authority, serial) = text.split_once('.').ok_or_else(bad)?;
        let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| bad());
        let number = decode(serial)?;
        // DER puts a zero in front of what would be negative.
        let digits = match number[..] {
            [0, ref rest @ ..] => rest,
            ref all => all,
        };
        let mut bytes = [0; 16];
        let from = bytes.len().checked_sub(digits.len()).ok_or_else(bad)?;
        bytes[from..].copy_from_slice(digits);
        Ok(Self {
            authority: decode(authority)?,
            serial: Serial(bytes),
        })
    }
}

impl Acme {
    pub(super) fn renewal_info(&self, id: &str) -> Result<Answer, Problem> {
        let id: CertificateId = id.parse()?;
        let known = self.mesh.certificate(&id.serial);
        let known =
            known.ok_or_else(|| Problem::not_found("this mesh has issued no such certificate"))?;
        let (start_ms, end_ms) = window(&known, self.now_ms());
        let answer = json!({
            "suggestedWindow": {
                "start": UnixTime::from_ms(start_ms).to_string(),
                "end": UnixTime::from_ms(end_ms).to_string(),
            },
        });
        Ok(Answer::json(200, &answer).with("retry-after", AGAIN_S))
    }
}

/// From two thirds of its life on, a twelfth of it long; at once where it or
/// its issuer counts no more.
fn window(known: &Known, now_ms: u64) -> (u64, u64) {
    let life_ms = known.not_after_ms.saturating_sub(known.not_before_ms);
    if known.is_revoked {
        let hour_ms = 3_600_000;
        return (
            now_ms.saturating_sub(2 * hour_ms),
            now_ms.saturating_sub(hour_ms),
        );
    }
    let spread_ms = life_ms / 12;
    if known.is_superseded {
        return (now_ms, now_ms.saturating_add(spread_ms.min(24 * 3_600_000)));
    }
    let start_ms = known.not_before_ms + life_ms / 3 * 2;
    (start_ms, start_ms + spread_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_rfc_9773() {
        let id: CertificateId = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE".parse().unwrap();
        let mut serial = [0; 16];
        serial[12..].copy_from_slice(&[0x87, 0x65, 0x43, 0x21]);
        assert_eq!(id.serial, Serial(serial));
        assert_eq!(id.authority.len(), 20);
        for bad in [
            "",
            ".",
            "aa",
            "a.b.c",
            "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AAECAwQFBgcICQoLDA0ODxAREg",
        ] {
            assert!(bad.parse::<CertificateId>().is_err() || bad == ".", "{bad}");
        }
    }

    #[test]
    fn the_window_is_ahead_now_or_past() {
        let mut known = Known {
            names: Vec::new(),
            not_before_ms: 0,
            not_after_ms: 1200,
            is_revoked: false,
            is_superseded: false,
            is_own: true,
        };
        assert_eq!(window(&known, 10), (800, 900));
        known.is_superseded = true;
        assert_eq!(window(&known, 10), (10, 110));
        known.is_revoked = true;
        assert!(window(&known, 100_000_000).1 < 100_000_000);
    }
}
